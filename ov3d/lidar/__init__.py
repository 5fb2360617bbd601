"""Learning from LiDAR sweeps with cameras: open-vocabulary panoptic segmentation."""
