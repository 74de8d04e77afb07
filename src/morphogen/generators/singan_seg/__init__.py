"""One image, one model: a pyramid of small GANs paints variations of a pair (SinGAN-Seg, arXiv 2107.00471)."""
