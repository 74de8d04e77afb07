"""Diff-CL: a diffusion and a convolutional segmenter that teach each other (Guo et al. 2025, arXiv:2503.09408)."""
