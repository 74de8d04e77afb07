"""The multi-objective loss: both halves foretold from noise, the mask estimate in pixels, and image against mask.

    L = L_img + L_msk + 1[t < 400] abar_t (0.5 L_dice + 0.5 L_bce) + 0.1 1[t < 300] L_align

with the weights of the config; every term is a mean over the rows of the batch, in which rows that it leaves out count
as 0, so that any split of a batch adds up. Rows that are decoded are drawn (`draw_decoded`) and count for those that
are not: the expectation is that of the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import predict
from morphogen.foundation.model import Foundation
from morphogen.foundation.noise_weights import noise_weights
from morphogen.generators.dual.config import DualConfig
from morphogen.generators.dual.layout import join, split
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.training.rng import uniform

SHARPNESS = 4.0
"""p = sigmoid(4 mean_ch D): a mask of full contrast is 0.98, and no pixel is without a gradient."""
_SMOOTH = 1.0
_DECODED = 2**18
"""Pixels that are decoded in one call, at least one row: the memory of it is bounded."""


@dataclass(frozen=True)
class Networks:
    """What the loss is made with.

    Attributes:
        foundation: Its U-Net trains; its autoencoder is frozen.
        masks: Holds the masks; frozen.
        segmenter: S, (B, 3, R, R) in [-1, 1] -> (B, 2, R, R) logits; frozen. None where nothing is aligned.
    """

    foundation: Foundation
    masks: MaskLatents
    segmenter: nn.Module | None = None


@dataclass(frozen=True)
class Rows:
    """A batch.

    Attributes:
        z0: Both latents, joined as the layout says.
        eps: Noise of that shape; that of the halves is independent.
        t: (B,) int64, one timestep for both halves.
        cond: Words.
        known: (B,) bool, whether there is a mask. Where there is none, the mask half that the U-Net sees is noise alone
            at every t, which says nothing of any mask and has the scale that it always has; and it is not judged.
        mask: (B, R, R) in {0, 1}.
        decoded: Rows whose mask estimate is decoded.
    """

    z0: Tensor
    eps: Tensor
    t: Tensor
    cond: Conditioning
    known: Tensor
    mask: Tensor
    decoded: list[int]


def decode_chance(config: DualConfig, timesteps: int) -> float:
    """Chance of a row below `pixel_below` to be decoded, such that `pixel_share` of all rows are."""
    return min(1.0, config.pixel_share * timesteps / config.pixel_below)


def draw_decoded(config: DualConfig, seeds: Tensor, t: Tensor, known: Tensor, timesteps: int) -> Tensor:
    """(B,) bool: which rows are decoded, each by its own seed, timestep and mask alone."""
    if not config.decodes:
        return torch.zeros_like(known)
    return known & (t < config.pixel_below) & (uniform(seeds, "decoded") < decode_chance(config, timesteps))


def snr_weights(abar: Tensor, gamma: float, v_prediction: bool, deviation: float = 1.0) -> Tensor:
    """min-SNR weights (Hang et al. 2023, section 3.4): min(snr, gamma) / snr for eps, over snr + 1 for v.

    Latents of deviation d have d^2 times that ratio of signal to noise: with it the weight of an error of the clean
    latent, in units of d, is min(d^2 snr, gamma).

    Args:
        abar: abar_t; snr = abar_t / (1 - abar_t).
        gamma: The most that an error of the clean latent counts; 0 weighs all rows alike.
        v_prediction: What the network foretells.
        deviation: d.
    """
    if not gamma:
        return torch.ones_like(abar)
    snr, power = abar / (1 - abar), deviation**2
    return (power * snr).clamp(max=gamma) / power / (snr + 1 if v_prediction else snr)


def soft_dice(p: Tensor, truth: Tensor) -> Tensor:
    """(B,): (2 sum(p M) + 1) / (sum p + sum M + 1) of (B, R, R) probabilities."""
    both = (p * truth).sum(dim=(1, 2))
    return (2 * both + _SMOOTH) / (p.sum(dim=(1, 2)) + truth.sum(dim=(1, 2)) + _SMOOTH)


def pair_losses(nets: Networks, rows: Rows, config: DualConfig, align: bool) -> Mapping[str, Tensor]:
    """The weighted terms by name; a term of weight 0 is left out.

    Args:
        nets: Networks.
        rows: The batch.
        config: Weights and gates.
        align: Whether the alignment has begun.
    """
    f, layout = nets.foundation, config.layout
    noisy, noise = f.add_noise(rows.z0, rows.eps, rows.t), split(rows.eps, layout)[1]
    image, mask = split(noisy, layout)
    z_t = join(image, torch.where(rows.known.view(-1, 1, 1, 1), mask, noise), layout)
    output = predict(f.unet, z_t, rows.t, rows.cond).float()
    error = (output - f.target(rows.z0, rows.eps, rows.t)).square()
    of_image, of_mask = (half.mean(dim=(1, 2, 3)) for half in split(error, layout))
    abar, noisy_end = f.alphas_cumprod(rows.t).flatten(), noise_weights(f, rows.t, config.noise_weight).flatten()
    found = {}
    if config.image_weight:
        weights = noisy_end * snr_weights(abar, config.min_snr, f.v_prediction)
        found["L_img"] = config.image_weight * (weights * of_image).mean()
    if config.mask_weight:
        weights = noisy_end * snr_weights(abar, config.min_snr, f.v_prediction, config.mask_deviation)
        found["L_msk"] = config.mask_weight * (weights * of_mask * rows.known).mean()
    if config.decodes:
        found |= _in_pixels(nets, rows, f.to_x0(output, z_t, rows.t), config, align)
    return found


def _in_pixels(nets: Networks, rows: Rows, estimate: Tensor, config: DualConfig, align: bool) -> Mapping[str, Tensor]:
    """L_dice, L_bce and L_align of the rows that are decoded.

    Args:
        nets: Networks.
        rows: The batch.
        estimate: The clean latents that the U-Net's output stands for.
        config: Weights and gates.
        align: Whether the alignment has begun.
    """
    f, (image, mask) = nets.foundation, split(estimate, config.layout)
    names = {"L_dice": config.dice_weight, "L_bce": config.bce_weight, "L_align": config.align_weight * align}
    sums = {name: estimate.new_zeros(()) for name, weight in names.items() if weight}
    chance = decode_chance(config, f.scheduler.config.num_train_timesteps)
    for k in _chunks(rows.decoded if sums else [], rows.mask[0].numel()):
        truth, t = rows.mask[k].float(), rows.t[k]
        logit = mask_logits(nets.masks, mask[k], config.gradient_checkpointing)
        p, abar = logit.sigmoid(), f.alphas_cumprod(t).flatten()
        if "L_dice" in sums:
            sums["L_dice"] = sums["L_dice"] + (abar * (1 - soft_dice(p, truth))).sum()
        if "L_bce" in sums:
            entropy = F.binary_cross_entropy_with_logits(logit, truth, reduction="none").mean(dim=(1, 2))
            sums["L_bce"] = sums["L_bce"] + (abar * entropy).sum()
        if "L_align" in sums:
            seen = segmented(nets, image[k])
            sums["L_align"] = sums["L_align"] + ((t < config.align_below) * (1 - soft_dice(p, seen))).sum()
    return {name: names[name] * total / (chance * len(rows.t)) for name, total in sums.items()}


def mask_logits(masks: MaskLatents, z: Tensor, checkpointing: bool = False) -> Tensor:
    """(B, R, R): 4 mean_ch D(z / s), of which p is the sigmoid; a gradient passes, and no clip stops it."""
    if checkpointing and torch.is_grad_enabled():
        decoded: Tensor = checkpoint(masks.decoded, z, use_reentrant=False)
    else:
        decoded = masks.decoded(z)
    return SHARPNESS * decoded.float().mean(dim=1)


@torch.no_grad()
def segmented(nets: Networks, z: Tensor) -> Tensor:
    """(B, R, R): S(D(z)), the probability of a lesion in decoded image latents; without gradient."""
    assert nets.segmenter is not None
    logits: Tensor = nets.segmenter(nets.foundation.decode(z))
    return logits.float().softmax(dim=1)[:, 1]


def _chunks(rows: list[int], pixels: int) -> list[list[int]]:
    n = max(1, _DECODED // pixels)
    return [rows[k : k + n] for k in range(0, len(rows), n)]
