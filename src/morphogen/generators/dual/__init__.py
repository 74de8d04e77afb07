"""Image and mask together, from words: the pair as one latent (after SkinDualGen, arXiv 2507.19970)."""
