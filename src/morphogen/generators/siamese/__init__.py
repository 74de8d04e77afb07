"""Siamese-Diffusion (Qiu et al., CVPR 2025), ControlNet being one of its presets."""
