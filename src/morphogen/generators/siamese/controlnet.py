"""ControlNet: Siamese-Diffusion's mask branch alone, with the plain hint."""

from morphogen.generators.siamese.config import ControlNetConfig
from morphogen.generators.siamese.model import load, train

CONFIG = ControlNetConfig

__all__ = ["CONFIG", "load", "train"]
