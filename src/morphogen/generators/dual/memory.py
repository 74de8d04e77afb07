"""How much memory training takes, found on networks without content."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.model import Foundation
from morphogen.generators.dual.config import DualConfig
from morphogen.generators.dual.layout import join, widened
from morphogen.generators.dual.losses import Networks, Rows, pair_losses
from morphogen.generators.dual.model import bare_segmenter
from morphogen.generators.dual.task import trained_modules
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.training.memory import BYTES_A_MOMENT, Need, peak_of_step, without_content


def need(foundation: Foundation, cond: Conditioning, config: DualConfig, side: int) -> Need:
    """What a step takes at most, all terms on and every row decoded.

    Weights of all networks, gradients, AdamW's moments, the average, and activations at their peak.

    Args:
        foundation: Which; its U-Net and autoencoder are built again as empty shells.
        cond: Words for one row; their content does not matter.
        config: How it is trained.
        side: Pixels.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(foundation.unet.config).requires_grad_(False)
        vae, mask_vae = (AutoencoderKL.from_config(foundation.vae.config).requires_grad_(False) for _ in range(2))
        shell = replace(foundation, unet=unet, vae=vae)
        shell = widened(shell) if config.layout == "joint" else shell
        segmenter = bare_segmenter().requires_grad_(False).eval()
        modules = trained_modules(shell.unet, config)
    nets = Networks(shell, MaskLatents(2, mask_vae), segmenter)
    trained = sum(p.numel() for p in modules.parameters() if p.requires_grad)
    cells = side // foundation.factor

    def peak(rows: int) -> int:
        z = torch.empty(rows, foundation.latent_shape[0], cells, cells)
        both = join(z, z, config.layout)
        many = cond.map(lambda v: torch.empty(rows, *v.shape[1:]))
        known, mask = torch.ones(rows, dtype=torch.bool), torch.zeros(rows, side, side, dtype=torch.uint8)
        x = Rows(both, both, torch.zeros(rows, dtype=torch.long), many, known, mask, list(range(rows)))

        def losses() -> Tensor:
            return torch.stack(list(pair_losses(nets, x, config, align=True).values())).sum()

        return peak_of_step(losses, weights, config.mixed_precision)

    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = [t for module in (shell.unet, vae, mask_vae, segmenter) for t in without_content(module)]
        one, two = peak(1), peak(2)
    held = float(sum(t.numel() * t.element_size() for t in weights))
    held += sum(p.numel() * p.element_size() for encoder in foundation.text_encoders for p in encoder.parameters())
    held += trained * (BYTES_A_MOMENT[config.optimizer] + (4.0 if config.ema_decay else 0.0))
    return Need(held + one, max(two - one, 1))
