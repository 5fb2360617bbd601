"""The ground floor: errors, shapes, files, configuration, devices, progress and run folders."""
