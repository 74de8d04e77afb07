"""Memory of a Siamese-Diffusion step at the width of Stable Diffusion 1.5: this package against the published step.

    python benchmarks/memory.py [--rows 6] [--resolution 384]

No weights and no GPU are needed: both sides run on tensors that have a shape and no content, and every allocation of
one late-phase forward and backward pass is counted (`morphogen.training.memory`; the tests hold it against torch's
profiler on a small model). Weights, gradients and AdamW's moments are added. Attention keeps no matrix of weights, as
the fused kernels do; what a GPU's own kernels, cuDNN's workspaces and fragments take is not in it. Both sides keep no
activations inside blocks (gradient checkpointing) and train ControlNet and decoder by AdamW in fp32.

Prints the recipe's need on cards of common sizes, by departure and precision, as Markdown; JSON in the last line, whose
`ratio` is the published step's bytes over ours, both in fp32.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import replace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from literal_siamese import Step, _control, _unet, literal_losses
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.config import siamese_config
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.memory import LADDER, need
from morphogen.training.memory import CONTEXT, GB, USABLE, peak_of_step, without_content

CARDS = (8, 12, 16, 24, 48, 80)
"""GB of common graphics cards."""
TOKENS, WIDTH = 77, 768


class Shell(Foundation):
    """A foundation without weights, whose texts cost nothing."""

    def conditioning(self, prompts: list[str], size: int | None = None) -> Conditioning:  # type: ignore[override]
        return Conditioning(torch.zeros(len(prompts), TOKENS, WIDTH))

    def tokens(self, prompts: list[str]) -> list[Tensor]:  # type: ignore[override]
        return [torch.ones(len(prompts), TOKENS, dtype=torch.long)]


def stable_diffusion() -> Shell:
    """Stable Diffusion 1.5 by its published configuration, on the meta device."""
    small = Foundation.load("tiny")
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=WIDTH, attention_head_dim=8, sample_size=64)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(CLIPTextConfig(
            hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=12, eos_token_id=2
        ))  # fmt: skip
    return Shell(
        vae.requires_grad_(False),
        unet.requires_grad_(False),
        [text.requires_grad_(False)],
        small.tokenizers,
        small.scheduler,
    )


def literal_need(foundation: Shell, rows: int, side: int) -> float:
    """Bytes of the published step, with everything that it holds on the device."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(foundation.unet.config).requires_grad_(False)
        shell = replace(
            foundation,
            unet=unet,
            vae=copy.deepcopy(foundation.vae),
            text_encoders=[copy.deepcopy(foundation.text_encoders[0])],
        )
        controlnet = HintedControlNet.for_foundation(shell, "dense", 16).train()
    for part in (unet.up_blocks, unet.conv_norm_out, unet.conv_out, controlnet):
        part.requires_grad_(True)
    unet.enable_gradient_checkpointing()
    controlnet.enable_gradient_checkpointing()
    unet.train()
    trained = sum(p.numel() for net in (unet, controlnet) for p in net.parameters() if p.requires_grad)
    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = [t for net in (*shell.modules, controlnet) for t in without_content(net)]
        h, t = side // 8, torch.zeros(rows, dtype=torch.long)
        step = Step(
            torch.empty(rows, 3, side, side),
            torch.empty(rows, 3, side, side),
            [""] * rows,
            list(range(rows)),
            torch.empty(rows, 4, h, h),
            t,
        )

        def losses() -> Tensor:
            found = list(literal_losses(shell, controlnet, step, 0.6, late=False).values())
            # the Online-Augmentation: on all rows, whatever their timesteps, once one of them is small
            text = torch.zeros(rows, TOKENS, WIDTH)
            made = _unet(unet, step.eps, t, text, *_control(controlnet, step.eps, t, text, step.mask_hint))
            return torch.stack([*found, made.square().mean()]).sum()

        peak = peak_of_step(losses, weights, "no")
    return peak + sum(w.numel() * w.element_size() for w in weights) + 8.0 * trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--resolution", type=int, default=384)
    options = parser.parse_args()
    foundation, side, rows = stable_diffusion(), options.resolution, options.rows
    print("| precision | what trains | one row, GB | each further row, GB | rows at a time on a card of "
          + " / ".join(map(str, CARDS)) + " GB |\n|---|---|---|---|---|")  # fmt: skip
    found = {}
    for precision in ("no", "bf16"):
        for rung in LADDER:
            config = replace(siamese_config("sd15"), mixed_precision=precision, **rung.changes)
            took = found[precision, rung.name] = need(foundation, config, side)
            fits = " / ".join(str(min(48, took.rows(USABLE * card * GB - CONTEXT)) or "-") for card in CARDS)
            name = "as published" if rung.name == "none" else rung.name
            print(f"| {'fp32' if precision == 'no' else precision} | {name} | {took.first / GB:.1f} | "
                  f"{took.further / GB:.2f} | {fits} |", flush=True)  # fmt: skip
    ours = {precision: found[precision, "none"] for precision in ("no", "bf16")}
    totals = {precision: took.first + (rows - 1) * took.further for precision, took in ours.items()}
    peer = literal_need(foundation, rows, side)
    result = {
        "name": "memory", "peer": "published step, literal (diffusers), fp32, gradient checkpointing",
        "peer_gb": peer / GB, "ours_gb": totals["no"] / GB, "ours_bf16_gb": totals["bf16"] / GB,
        "ratio": peer / totals["no"], "ratio_bf16": peer / totals["bf16"], "rows": rows, "resolution": side,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
