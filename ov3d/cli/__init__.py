"""The command line: one file per command; nothing here imports torch at start-up."""
