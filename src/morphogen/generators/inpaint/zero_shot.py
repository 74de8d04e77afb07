"""An inpainting foundation as a sampler, without any training: what SynDiff's paper does with SDXL."""

from __future__ import annotations

import hashlib

import torch

from morphogen.data.grammar_files import as_yaml
from morphogen.data.prompts import Grammar
from morphogen.errors import InputError
from morphogen.foundation.identity import weights_hash
from morphogen.foundation.known_words import check_grammar
from morphogen.foundation.model import Foundation, find_folder
from morphogen.generators.inpaint.artefact import Trained
from morphogen.generators.inpaint.checks import refuse_other_layout
from morphogen.generators.inpaint.config import SAMPLING, inpaint_config
from morphogen.generators.inpaint.sampler import InpaintSampler

OPTIONS = (*SAMPLING, "grammar", "feather", "resolution", "mixed_precision")
"""What can be said to a foundation that is not trained."""


def zero_shot(name: str, device: str | torch.device = "cpu", preset: str | None = None) -> InpaintSampler:
    """The sampler of a foundation that inpaints, with the preset of its kind, at its own resolution.

    Args:
        name: A short name, a diffusers folder, or a hub id.
        device: Where it runs.
        preset: What to change, as ``grammar=polyp+guidance=5``.

    Raises:
        InputError: There is no such foundation, it is of another family than a preset that is named, it paints no
            holes, or an option has no such value.
    """
    stated = inpaint_config(preset or "tiny")  # wrong words are refused before anything is loaded
    for word in (preset or "").split("+"):
        option, sign, _ = word.partition("=")
        if sign and option.replace("-", "_") not in OPTIONS:
            raise InputError(f"--preset {word}: is for training; a foundation as it is takes {', '.join(OPTIONS)}")
    foundation = Foundation.load(name, device)
    refuse_other_layout(foundation, stated)
    if not foundation.inpaints:
        raise InputError(
            f"{name}: its U-Net reads {foundation.unet.config.in_channels} channels, not those of one for inpainting, "
            "so it paints into no images; give an inpainting foundation, or train one (morphogen train inpaint)"
        )
    kind = "tiny" if foundation.card else "sdxl" if len(foundation.text_encoders) == 2 else "sd15"
    words = "+".join(word for word in (kind, "resolution=0", preset) if word)
    config = inpaint_config(words, foundation=name)
    foundation.side(config.resolution)
    grammar = Grammar.load("generic" if config.grammar == "auto" else config.grammar)
    check_grammar(foundation, grammar)
    # a grammar of the same name may say other words
    known = [weights_hash(find_folder(name)), as_yaml(grammar), config.mixed_precision]
    return InpaintSampler(Trained(foundation, config, grammar, hashlib.sha256(" ".join(known).encode()).hexdigest()))
