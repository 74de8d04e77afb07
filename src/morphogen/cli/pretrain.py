"""``morphogen pretrain``: make a small foundation from images."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.foundation.pretrain_config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class Pretrain(PretrainConfig, Verb):
    """Train a small latent diffusion model: autoencoder, text-conditional denoiser and, on phantoms, a hint path.

    The same command again continues a stopped run.
    """

    data: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of images; masks and classes, where there, go into the captions."""

    def run(self) -> dict[str, Any]:
        from morphogen.foundation.pretrain import pretrain
        from morphogen.progress import say

        values = {f.name: getattr(self, f.name) for f in fields(PretrainConfig)}
        folder = pretrain(PretrainConfig(**values))
        if self.hint_steps:
            from morphogen.generators.siamese.pretrain_hint import pretrain_hint

            pretrain_hint(folder, self.out / "hint", self.hint_steps, seed=self.seed)
        say(f"foundation: {folder}")
        return {"foundation": str(folder)}
