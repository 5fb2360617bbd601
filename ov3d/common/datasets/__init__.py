"""Class maps, things and stuff, splits and prompts: one versioned YAML file per data set, and the loader."""

from ov3d.common.datasets.loader import ClassSpec, DatasetSpec, SplitSpec, dataset_names, load_dataset

__all__ = ["ClassSpec", "DatasetSpec", "SplitSpec", "dataset_names", "load_dataset"]
