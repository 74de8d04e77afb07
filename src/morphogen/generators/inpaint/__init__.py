"""Inpainting of lesions into normal images by words and a mask (the generator of SynDiff, arXiv 2507.15361)."""
