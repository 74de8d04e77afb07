"""CLIP and DINOv2 small enough for tests, in the files of the published ones, and their rows in the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model
from transformers.utils import logging

from morphogen.metrics.features import EXTRACTORS, Extractor

ROWS: dict[str, Extractor] = {
    "clip-l14-336": replace(EXTRACTORS["clip-l14-336"], size=24, dim=6),
    "clip-b32": replace(EXTRACTORS["clip-b32"], size=24, dim=6),
    "dinov2-l14": replace(EXTRACTORS["dinov2-l14"], size=56, dim=16),
}


def small_clip(seed: int = 0) -> CLIPModel:
    """Both towers: the published file holds them too."""
    torch.manual_seed(seed)
    common = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**common, "vocab_size": 99}
    vision = {**common, "image_size": 24, "patch_size": 8, "projection_dim": 6}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).eval()


def small_dino(image_size: int = 70) -> Dinov2Model:
    """As many positions as an image of `image_size` has patches of 14 px."""
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=image_size)
    model = Dinov2Model(config).eval()
    model.embeddings.position_embeddings.data *= 30  # as large as the patches' embeddings, so that an error shows
    return model


def save_all(folder: Path) -> list[str]:
    """Save one model for each of `ROWS`; the words after --features-folder."""
    logging.disable_progress_bar()
    models = {"clip-l14-336": small_clip(1), "clip-b32": small_clip(), "dinov2-l14": small_dino()}
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return [f"{name}={folder / name}" for name in models]
