"""One training step of Siamese-Diffusion, each network run as few times as the equations allow.

Notation of the paper: mask branch m, image branch i, their mixture; phi the ControlNet with its hint encoder, theta the
U-Net's decoder; sg[] stops gradients. The frozen encoder runs once, the ControlNet once on both hints, the decoder
once for each prediction; the Online-Augmentation runs only on the rows that it concerns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import DecoderHalf, encode
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.control import HintedControlNet, Residuals, mix, summed


@dataclass(frozen=True)
class Inputs:
    """What one step starts from.

    Attributes:
        z0, eps: (B, C, h, w) clean latents and noise.
        t: (B,) int64 timesteps.
        cond: Text conditioning of B rows.
        mask_hint, image_hint: (B, 3, H, W) in [0, 1]; the image hint is the real image itself.
    """

    z0: Tensor
    eps: Tensor
    t: Tensor
    cond: Conditioning
    mask_hint: Tensor
    image_hint: Tensor


@dataclass(frozen=True)
class Weights:
    """w_i = k / N (Eq. 5), w_c (Eq. 9), whether the Online-Augmentation is on (below T_tau), and the image branch.

    `adaptive`: L_c is weighed by area (`area_weights`). `both_hints`: no branches, but a ControlNet that reads mask and
    image, in sampling too.
    """

    w_i: float
    w_c: float = 1.0
    augment: bool = False
    T_tau: int = 200
    image_branch: bool = True
    adaptive: bool = False
    both_hints: bool = False


@dataclass(frozen=True)
class Networks:
    """theta and phi: `decoder` shares the weights of `foundation.unet`."""

    foundation: Foundation
    controlnet: HintedControlNet
    decoder: DecoderHalf


def step_losses(nets: Networks, x: Inputs, w: Weights) -> dict[str, Tensor]:
    """L = L_m + L_i + L_c + L_m' (Eq. 6), as named scalars.

    L_m = ||eps_m - eps||^2 (Eq. 7), L_i = ||eps_mix - eps||^2 (Eq. 8), L_c = w_c ||eps_m - sg[eps_mix]||^2 (Eq. 9),
    L_m' = ||eps_theta(z_t', t, c_t, c_m') - eps||^2 on rows with t < T_tau, over the whole batch (Eq. 12, 13).
    With both hints there is one loss, L_mix = ||eps_theta(z_t, t, c_t, c_i + c_m) - eps||^2 (row M+I of Table 2).
    """
    z_t = nets.foundation.add_noise(x.z0, x.eps, x.t)
    with torch.no_grad():
        features = encode(nets.foundation.unet, z_t, x.t, x.cond)
    c_m, c_i = _branches(nets, x, z_t, w.image_branch or w.both_hints)

    def noise(output: Tensor, z: Tensor = z_t, t: Tensor = x.t) -> Tensor:
        return nets.foundation.to_eps(output.to(z.dtype), z, t)

    if w.both_hints and c_i is not None:
        return {"L_mix": per_sample(noise(nets.decoder(features, x.cond, summed([c_m, c_i]))), x.eps).mean()}
    eps_m = noise(nets.decoder(features, x.cond, c_m))
    losses = {"L_m": per_sample(eps_m, x.eps).mean()}
    if c_i is None:
        return losses
    # theta' is a fixed copy of theta: gradients reach c_i through it, and none stay in it.
    eps_mix = noise(nets.decoder(features, x.cond, mix(c_i, c_m, w.w_i), frozen=True))
    losses["L_i"] = per_sample(eps_mix, x.eps).mean()
    if w.w_c:
        area = area_weights(x.mask_hint, x.eps) if w.adaptive else None
        losses["L_c"] = w.w_c * per_sample(eps_m, eps_mix.detach(), area).mean()
    if w.augment:
        losses["L_m'"] = _augmentation(nets, x, renoised(nets.foundation, z_t, x.eps, eps_mix, x.t), x.t < w.T_tau)
    return losses


def _branches(nets: Networks, x: Inputs, z_t: Tensor, both: bool) -> tuple[Residuals, Residuals | None]:
    """c_m and c_i from one pass of the ControlNet over [mask; image] (section 3.2)."""
    net = nets.controlnet
    if not both:
        return net.residuals(z_t, x.t, x.cond, net.embed(x.mask_hint)), None
    embedded = net.embed(torch.cat([x.mask_hint, x.image_hint]))
    twice = Conditioning.cat([x.cond, x.cond])
    c = net.residuals(torch.cat([z_t, z_t]), torch.cat([x.t, x.t]), twice, embedded)
    n = len(z_t)
    return c.rows(slice(None, n)), c.rows(slice(n, None))


def renoised(foundation: Foundation, z_t: Tensor, eps: Tensor, eps_mix: Tensor, t: Tensor) -> Tensor:
    """z_t' = z_t + sqrt(1 - abar_t) (eps - sg[eps_mix]).

    The closed form of Eq. 11 (z_0' from eps_mix) followed by noising with the same eps and t.
    """
    return z_t + (1 - foundation.alphas_cumprod(t)).sqrt() * (eps - eps_mix.detach())


def _augmentation(nets: Networks, x: Inputs, z_t: Tensor, rows: Tensor) -> Tensor:
    """L_m' on the rows below T_tau, averaged over the whole batch; zero where there is none."""
    if not rows.any():
        return z_t.new_zeros(())
    z, t, cond = z_t[rows], x.t[rows], x.cond.rows(rows)
    with torch.no_grad():
        features = encode(nets.foundation.unet, z, t, cond)
    c_m = nets.controlnet.residuals(z, t, cond, nets.controlnet.embed(x.mask_hint[rows]))
    eps_m = nets.foundation.to_eps(nets.decoder(features, cond, c_m).to(z.dtype), z, t)
    return per_sample(eps_m, x.eps[rows]).sum() / len(rows)


def area_weights(mask_hint: Tensor, latent: Tensor) -> Tensor:
    """Of each cell the share of the other class: N_background / N on the lesion, N_lesion / N beside it.

    It is the adaptive regularisation of Adaptively Distilled ControlNet (Qiu et al., MICCAI 2025, arXiv 2507.23652), by
    the ratio of lesion and background.

    The mask comes to the latent grid by nearest neighbour, as in the authors' code, and is counted there. Lesions are
    all classes but the background, whose hint is black. The weights are not normalised: their mean is 2 a (1 - a) where
    lesions take the share a, and 0 where there is none.

    Args:
        mask_hint: (B, 3, H, W) in [0, 1].
        latent: (B, C, h, w).

    Returns:
        (B, 1, h, w) in [0, 1].
    """
    lesion = (F.interpolate(mask_hint, latent.shape[-2:], mode="nearest").amax(1, keepdim=True) > 0).to(latent.dtype)
    share = lesion.mean(dim=(2, 3), keepdim=True)
    return lesion * (1 - share) + (1 - lesion) * share


def per_sample(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """(B,) mean squared error over channels and pixels, each pixel's times its weight (B, 1, h, w) where given."""
    error = (a - b).square()
    return (error if weights is None else weights * error).mean(dim=(1, 2, 3))
