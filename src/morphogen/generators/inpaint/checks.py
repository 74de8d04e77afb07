"""What the generator refuses of a foundation, before any work."""

from __future__ import annotations

from morphogen.errors import InputError
from morphogen.foundation.model import Foundation
from morphogen.generators.inpaint.config import InpaintConfig


def refuse_other_layout(foundation: Foundation, config: InpaintConfig) -> None:
    """Refuse an SDXL where a preset of Stable Diffusion 1 or 2 is asked for, and the reverse.

    Raises:
        InputError: It is the other one.
    """
    layout = "sdxl" if len(foundation.text_encoders) == 2 else "sd"
    if config.layout not in ("any", layout):
        has, wants = {"sd": ("one text encoder", "sdxl"), "sdxl": ("two text encoders, as SDXL", "sd15 or sd2")}[layout]
        remedy = "sdxl" if layout == "sdxl" else "sd15 or sd2"
        raise InputError(f"{foundation.source}: has {has}, and the preset {wants} wants another; take preset {remedy}")


def refuse_other_channels(foundation: Foundation, config: InpaintConfig) -> None:
    """Refuse a U-Net that reads no hole, unless it is one that shall be widened.

    Raises:
        InputError: It reads neither a latent alone nor one with hole and image, or is not to be widened.
    """
    if foundation.inpaints:
        return
    channels, latent = int(foundation.unet.config.in_channels), int(foundation.vae.config.latent_channels)
    ours = bool(foundation.card)
    if channels != latent or not (ours if config.widen is None else config.widen):
        widening = ", or widen=true" if channels == latent else ""
        raise InputError(
            f"{foundation.source}: its U-Net reads {channels} channels, not the {2 * latent + 1} of one for "
            f"inpainting (noise, hole, image around it); give an inpainting folder{widening}"
        )
