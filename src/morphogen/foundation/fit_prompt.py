"""Which prompt fits a set of images best: the one under which the foundation predicts their noise best."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar, grammars
from morphogen.foundation.halves import predict
from morphogen.foundation.images import to_signed
from morphogen.foundation.model import Foundation
from morphogen.training.rng import normal

DEFAULT_PROMPT = "a photo of a lesion"
_T = (200, 400, 600)


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
    candidates = foundation.card.get("prompts") or label_captions(map(Grammar.load, grammars()))
    z0 = foundation.encode(x.to(foundation.device))
    seeds = list(range(len(z0)))
    errors = dict.fromkeys(candidates, 0.0)
    for step in _T:
        t = torch.full((len(z0),), step, device=z0.device)
        eps = normal(seeds, z0.shape[1:], f"fit-{step}").to(z0)  # the same noise for every candidate
        z_t, target = foundation.add_noise(z0, eps, t), foundation.target(z0, eps, t)
        for text in candidates:
            cond = foundation.conditioning([text] * len(z0))
            errors[text] += float((predict(foundation.unet, z_t, t, cond) - target).square().mean())
    return min(errors, key=lambda text: errors[text])


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
    fallback = best_prompt(foundation, to_signed(pairs.images(range(min(len(pairs), 24)))))
    return [fallback if text is None else text for text in known]
