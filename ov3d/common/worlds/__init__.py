"""Generated scenes with exact truth, for the demo, tests and benchmarks."""
