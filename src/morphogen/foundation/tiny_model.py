"""The shape of `tiny`: a latent diffusion model for a laptop CPU, built of the same classes as the large ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from morphogen.foundation.model import Foundation
from morphogen.foundation.tokenizer import MAX_TOKENS, write_tokenizer
from morphogen.training.rng import seed_of


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of a small foundation. The defaults are those of the shipped `tiny`."""

    resolution: int = 64
    vae_channels: tuple[int, ...] = (24, 48, 64)
    """One per resolution; the factor is 2^(n-1)."""
    latent_channels: int = 4
    unet_channels: tuple[int, ...] = (64, 96, 128)
    """One per resolution; cross-attention in all but the first."""
    text_width: int = 96
    text_layers: int = 2


def build_tiny(config: TinyConfig, words: Sequence[str], seed: int = 0) -> Foundation:
    """A randomly initialised small foundation with a closed vocabulary.

    Args:
        config: Sizes.
        words: The closed vocabulary.
        seed: Of the initial weights.
    """
    torch.manual_seed(seed_of(seed, "tiny"))
    with TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(words, Path(folder))
    levels = len(config.unet_channels)
    factor = 2 ** (len(config.vae_channels) - 1)
    return Foundation(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(config.vae_channels),
            up_block_types=("UpDecoderBlock2D",) * len(config.vae_channels),
            block_out_channels=config.vae_channels, latent_channels=config.latent_channels, layers_per_block=1,
            norm_num_groups=8, sample_size=config.resolution, scaling_factor=1.0, mid_block_add_attention=False,
        ),
        unet=UNet2DConditionModel(
            sample_size=config.resolution // factor,
            in_channels=config.latent_channels, out_channels=config.latent_channels,
            block_out_channels=config.unet_channels, layers_per_block=1, norm_num_groups=16,
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (levels - 1)),
            up_block_types=(*("CrossAttnUpBlock2D",) * (levels - 1), "UpBlock2D"),
            cross_attention_dim=config.text_width, attention_head_dim=4,
        ),
        text_encoders=[CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=config.text_width, intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers, num_attention_heads=4, max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ))],
        tokenizers=[tokenizer],
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
        card={"resolution": config.resolution, "vocabulary": sorted(set(words))},
        source="new",
    )  # fmt: skip
