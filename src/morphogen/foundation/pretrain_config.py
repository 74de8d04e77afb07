"""`PretrainConfig`: options of making a foundation, apart from its work so that ``--help`` need not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How to make a foundation."""

    data: tuple[Path, ...]
    """Folders of images (masks and classes, where there, go into the captions)."""
    out: Path
    """The run folder; the foundation is its `final` folder."""
    grammars: tuple[str, ...] = ("generic",)
    """Caption grammar of each folder, or one for all: polyp, skin, generic or a YAML file."""
    ids: Path | None = None
    """JSON file {"sets": {folder name: {"train": [ids], "held_out": [ids]}}}; without it a tenth is held out."""
    resolution: int = 64
    """Pixels per side."""
    phantoms: int = 0
    """Procedural images per pass, beside the real ones."""
    autoencoder_steps: int = 2500
    """Steps of 16 images."""
    perceptual_steps: int = 0
    """Further steps of the autoencoder's decoder with a perceptual loss, which need VGG16's weights (weights.txt)."""
    denoiser_steps: int = 8000
    """Steps of 32 latents."""
    hint_steps: int = 0
    """Steps of 16 phantoms that pre-train the hint path of mask-to-image generators; 0 makes none."""
    autoencoder_lr: float = 1e-3
    """Peak learning rate of the autoencoder (cosine)."""
    denoiser_lr: float = 5e-4
    """Peak learning rate of the denoiser (cosine)."""
    mixed_precision: str = "no"
    """no or bf16."""
    seed: int = 0
    """Of the weights and of everything drawn."""
