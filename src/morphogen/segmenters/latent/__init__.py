"""The latent segmenter: single-step latent diffusion of the mask, given the image (SynDiff, after SDSeg)."""
