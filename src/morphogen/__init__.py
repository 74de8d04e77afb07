"""Morphogen: synthesise image-mask pairs, train segmenters on them, and prove whether that helped."""

__version__ = "0.1.0"
