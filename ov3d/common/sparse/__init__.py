"""Sparse convolution on voxels, in pure torch: exact on any number of threads, fast on a CPU, spconv's kernels on CUDA."""
