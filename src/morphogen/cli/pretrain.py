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
    """Train a small latent diffusion model: autoencoder, then text-conditional denoiser. Resumes when called again."""

    data: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of images; masks and classes, where there, go into the captions."""

    def run(self) -> dict[str, Any]:
        from morphogen.foundation.pretrain import pretrain
        from morphogen.progress import say

        values = {f.name: getattr(self, f.name) for f in fields(PretrainConfig)}
        folder = pretrain(PretrainConfig(**values))
        say(f"foundation: {folder}")
        return {"foundation": str(folder)}
