"""ControlNet: Siamese-Diffusion's mask branch alone, with the plain hint."""

from morphogen.generators.siamese.config import ControlNetConfig, controlnet_config
from morphogen.generators.siamese.model import SAMPLING, check, load, train

CONFIG = ControlNetConfig
preset_config = controlnet_config

__all__ = ["CONFIG", "SAMPLING", "check", "load", "preset_config", "train"]
