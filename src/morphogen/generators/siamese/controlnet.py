"""ControlNet: Siamese-Diffusion's mask branch alone, with the plain hint; or mask and image, in sampling too."""

from morphogen.generators.siamese.config import ControlNetConfig, controlnet_config
from morphogen.generators.siamese.model import SAMPLING, check, load, refuse_mask_transform, train

CONFIG = ControlNetConfig
preset_config = controlnet_config

__all__ = ["CONFIG", "SAMPLING", "check", "load", "preset_config", "refuse_mask_transform", "train"]
