"""What the dual generator takes to train at the size of Stable Diffusion 2 base: 512 px, LoRA of rank 32, bf16.

    python runs/dual_memory.py [--resolution 512]

Neither weights nor a GPU are needed: networks of the published configuration without content take one step, and every
allocation is counted (`morphogen.training.memory`). Prints, as Markdown, what one row and each further one take at
most, and how many rows a card takes at a time; the rest of a step's 16 rows follow in parts. Then the parameters.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.model import Foundation
from morphogen.generators.dual.config import dual_config
from morphogen.generators.dual.layout import widened
from morphogen.generators.dual.memory import need
from morphogen.generators.dual.task import trained_modules
from morphogen.training.memory import CONTEXT, GB, USABLE

CARDS = (12, 16, 24, 48, 80)
"""GB of common graphics cards."""
TOKENS, WIDTH = 77, 1024


def stable_diffusion_2() -> Foundation:
    """Stable Diffusion 2 base by its published configuration, on the meta device."""
    small = Foundation.load("tiny")
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            cross_attention_dim=WIDTH, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True, sample_size=64
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(CLIPTextConfig(
            hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=23, num_attention_heads=16,
            hidden_act="gelu", eos_token_id=2,
        ))  # fmt: skip
    parts = [part.requires_grad_(False) for part in (unet, vae, text)]
    return Foundation(parts[1], parts[0], [parts[2]], small.tokenizers, small.scheduler, source="Stable Diffusion 2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=512)
    options = parser.parse_args()
    foundation, cond = stable_diffusion_2(), Conditioning(torch.zeros(1, TOKENS, WIDTH))
    cards = " / ".join(map(str, CARDS))
    print(f"| preset | one row, GB | each further, GB | rows at a time on a card of {cards} GB |\n|---|---|---|---|")
    for words in ("sd2", "sd2+canvas", "sd2+mixed_precision=no", "sd2+tuning=full"):
        took = need(foundation, cond, dual_config(words), options.resolution)
        fits = " / ".join(str(min(16, took.rows(USABLE * card * GB - CONTEXT)) or "-") for card in CARDS)
        print(f"| {words} | {took.first / GB:.1f} | {took.further / GB:.2f} | {fits} |", flush=True)
    with torch.device("meta"):
        shell = widened(replace(foundation, unet=UNet2DConditionModel.from_config(foundation.unet.config)))
        before = sum(p.numel() for p in shell.unet.parameters())
        modules = trained_modules(shell.unet.requires_grad_(False), dual_config("sd2"))
    trained = sum(p.numel() for p in modules.parameters() if p.requires_grad)
    print(f"\nU-Net, widened: {before:,} parameters; trained: {trained:,}")


if __name__ == "__main__":
    main()
