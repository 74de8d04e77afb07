"""Small foundations of every shape that the package serves, randomly initialised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from morphogen.data.prompts import vocabulary
from morphogen.foundation.model import Foundation
from morphogen.foundation.tiny_model import TinyConfig, build_tiny
from morphogen.foundation.tokenizer import write_tokenizer

SMALL = TinyConfig(resolution=32, vae_channels=(8, 16, 16), unet_channels=(16, 32), text_width=16, text_layers=1)


def small_tiny(seed: int = 0) -> Foundation:
    """The architecture of `tiny`, smaller still: 32 px, factor 4."""
    return build_tiny(SMALL, vocabulary(), seed)


def small_unet(kind: str, in_channels: int = 4) -> UNet2DConditionModel:
    """``sd`` (cross-attention in all but the last level, 8 heads of SD 1.x style) or ``sdxl`` (added text and size)."""
    common: dict[str, Any] = {
        "sample_size": 8, "in_channels": in_channels, "out_channels": 4, "norm_num_groups": 8, "layers_per_block": 2,
        "cross_attention_dim": 16,
    }  # fmt: skip
    if kind == "sd":
        return UNet2DConditionModel(
            **common, block_out_channels=(16, 32, 32), attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
    return UNet2DConditionModel(
        **common, block_out_channels=(16, 32), attention_head_dim=(2, 4), use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 + 6 * 8,
    )  # fmt: skip


def small_foundation(kind: str, folder: Path, prediction: str = "epsilon") -> Foundation:
    """A foundation of the layout of Stable Diffusion 1.x or SDXL, factor 4, 32 px."""
    torch.manual_seed(0)
    words = [*vocabulary(), "abc"]
    tokenizers = [write_tokenizer(words, folder / "tokenizer")]

    def text(model: Any, width: int) -> Any:
        return model(CLIPTextConfig(
            vocab_size=len(tokenizers[0]), hidden_size=width, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=64, projection_dim=8,
            bos_token_id=tokenizers[0].bos_token_id, eos_token_id=tokenizers[0].eos_token_id,
            pad_token_id=tokenizers[0].pad_token_id,
        ))  # fmt: skip

    encoders = [text(CLIPTextModel, 16)]
    if kind == "sdxl":
        encoders = [text(CLIPTextModel, 8), text(CLIPTextModelWithProjection, 8)]
        tokenizers = tokenizers * 2
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16), latent_channels=4, layers_per_block=1, norm_num_groups=8, sample_size=32,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction,
    )  # fmt: skip
    return Foundation(vae, small_unet(kind), encoders, tokenizers, scheduler).to("cpu")


def perturb(module: torch.nn.Module, scale: float = 0.05, seed: int = 0) -> None:
    """Add noise to every parameter, so that zero-initialised layers take part in a comparison."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter))
