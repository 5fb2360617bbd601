"""What every training needs: the trainer, runs, checkpoints, curves, estimates and the backend protocol."""
