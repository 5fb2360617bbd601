"""What every method shares: scenes, encoders, features, lifting, indexes, metrics."""
