"""ArSDM (Du et al., MICCAI 2023): semantic diffusion with an adaptive loss and a segmenter that refines it."""
