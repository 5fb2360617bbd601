"""The foundation: errors, shapes, files, configuration, devices, progress and run folders."""
