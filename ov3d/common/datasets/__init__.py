"""Class maps, things and stuff, splits and prompts: one YAML file a data set."""
