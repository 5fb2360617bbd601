"""The command line: one command a file; nothing here imports torch at start-up."""
