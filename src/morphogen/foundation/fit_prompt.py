"""How well a foundation knows a set of images: by how well it predicts their noise, and under which prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar, grammars
from morphogen.foundation.halves import predict
from morphogen.foundation.images import to_signed
from morphogen.foundation.inpainting import unseen
from morphogen.foundation.model import Foundation
from morphogen.training.rng import normal

DEFAULT_PROMPT = "a photo of a lesion"
FAR = 1.4
"""On `tiny`: colonoscopy, dermoscopy and phantoms that it never saw 0.9, slices of the heart 1.9 (docs/LOG.md)."""
LOOKED_AT = 24
_T = (200, 400, 600)
_T_WORDS = (700, 800, 900)
"""Where the image is nearly gone, and the words are what is left: there single images tell the kinds apart, while at
`_T` the mean of hundreds of frames of one video may not (docs/LOG.md)."""


def label_captions(known: Iterable[Grammar]) -> list[str]:
    """The short caption of each grammar, without a class: what an image of its kind is called."""
    return list(dict.fromkeys(grammar.label_caption(grammar.describe(None, None)) for grammar in known))


@torch.no_grad()
def best_prompt(foundation: Foundation, x: Tensor) -> str:
    """The caption of a kind of images with the smallest noise-prediction error (Li et al. 2023, diffusion classifier).

    Args:
        foundation: One with a closed vocabulary, whose card names the `prompts` of its kinds of images; any other gets
            `DEFAULT_PROMPT`.
        x: (B, 3, R, R) images in [-1, 1].
    """
    if not foundation.card.get("vocabulary"):
        return DEFAULT_PROMPT
    errors = noise_errors(foundation, x, _T_WORDS)
    return min(errors, key=lambda text: errors[text])


@torch.no_grad()
def noise_errors(foundation: Foundation, x: Tensor, steps: Sequence[int] = _T) -> dict[str, float]:
    """Mean squared error of the predicted noise of images, for each prompt of the card.

    Args:
        foundation: Predicts.
        x: (B, 3, R, R) in [-1, 1].
        steps: Timesteps to average over.
    """
    candidates = foundation.card.get("prompts") or label_captions(map(Grammar.load, grammars()))
    z0 = foundation.encode(x.to(foundation.device))
    seeds, blind = list(range(len(z0))), unseen(foundation, len(z0))
    errors = dict.fromkeys(candidates, 0.0)
    for step in steps:
        t = torch.full((len(z0),), step, device=z0.device)
        eps = normal(seeds, z0.shape[1:], f"fit-{step}").to(z0)  # the same noise for every candidate
        z_t, target = foundation.add_noise(z0, eps, t), foundation.target(z0, eps, t)
        for text in candidates:
            cond = foundation.conditioning([text] * len(z0))
            output = predict(foundation.unet, torch.cat([z_t, blind], dim=1), t, cond)
            errors[text] += float((output - target).square().mean()) / len(steps)
    return errors


def _sample(pairs: Pairs) -> Tensor:
    """Images spread over the whole set, whose neighbours are often frames of one video, in [-1, 1]."""
    return to_signed(
        pairs.images(np.linspace(0, len(pairs) - 1, min(len(pairs), LOOKED_AT)).round().astype(int).tolist())
    )


def pick_grammar(foundation: Foundation, pairs: Pairs) -> Grammar:
    """The grammar of the kind of images that the foundation takes these for; ``generic`` without a closed vocabulary.

    Args:
        foundation: Judges the fit, as in `best_prompt`.
        pairs: The images; a sample of 24 is looked at.
    """
    said = best_prompt(foundation, _sample(pairs))
    known = map(Grammar.load, grammars())
    return next((grammar for grammar in known if said in label_captions([grammar])), Grammar.load("generic"))


def is_far(foundation: Foundation, pairs: Pairs) -> bool:
    """Whether the images are far from those that the foundation was made of.

    They are where their noise is predicted with more than `FAR` times the error on held-out images of its own kinds,
    which the card notes as ``noise_error``; never for a foundation without such a note.
    """
    own = foundation.card.get("noise_error")
    if own is None:
        return False
    found = min(noise_errors(foundation, _sample(pairs)).values())
    return found > FAR * float(own)


def prompts_for(foundation: Foundation, pairs: Pairs, prompt: str | None) -> list[str]:
    """The text of every image: `prompt` where given, else its record's caption, else the one that fits best.

    Args:
        foundation: Judges the fit.
        pairs: The images; a sample of 24 is looked at where a caption is missing.
        prompt: One text for all, the empty one included, or None.
    """
    known = [record.caption if prompt is None else prompt for record in pairs.dataset]
    found = [text for text in known if text is not None]
    if len(found) == len(known):
        return found
    fallback = best_prompt(foundation, _sample(pairs))
    return [fallback if text is None else text for text in known]
