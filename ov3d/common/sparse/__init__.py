"""Sparse convolution on voxels, in pure torch."""
