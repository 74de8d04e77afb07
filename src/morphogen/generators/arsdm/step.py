"""One training step of ArSDM: the adaptive loss of the noise, and late in the run the refinement.

L = mean(W |eps - eps_theta(z_t, t, m)|) + w_r L_seg(S(D(z_0')), m), with W of the mask m (`adaptive`), S the frozen
segmenter, D the autoencoder's decoder and z_0' = (z_t - sqrt(1 - abar_t) eps_theta) / sqrt(abar_t) the clean latent
that the prediction stands for.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import DecoderHalf, encode
from morphogen.foundation.model import Foundation
from morphogen.generators.arsdm.adaptive import noise_loss
from morphogen.generators.arsdm.refiner import refinement_loss
from morphogen.generators.arsdm.spade import SpadeLayers, class_maps, shares, without_masks


@dataclass(frozen=True)
class Inputs:
    """What one step starts from.

    Attributes:
        z0, eps: (B, C, h, w) clean latents and noise.
        t: (B,) int64 timesteps.
        cond: Text conditioning of B rows, of the empty prompt in the dropped ones.
        mask: (B, H, W) int64 label ids.
        dropped: (B,) bool, rows that are painted without mask and prompt.
        seed: (B,) int64, of the rows.
    """

    z0: Tensor
    eps: Tensor
    t: Tensor
    cond: Conditioning
    mask: Tensor
    dropped: Tensor
    seed: Tensor


@dataclass(frozen=True)
class Weights:
    """Whether the loss is adaptive, and the weight of the refinement, which acts below timestep T_r; 0: not now."""

    adaptive: bool = True
    w_r: float = 0.0
    T_r: int = 300


@dataclass(frozen=True)
class Networks:
    """A foundation whose U-Net is hung with `spade`; `decoder` shares the weights of `foundation.unet`."""

    foundation: Foundation
    spade: SpadeLayers
    decoder: DecoderHalf
    classes: int

    def predict(self, z_t: Tensor, t: Tensor, cond: Conditioning, maps: Tensor) -> Tensor:
        """The U-Net's output, in the scheduler's parametrisation.

        Args:
            z_t: (B, C, h, w) noisy latents.
            t: (B,) int64 timesteps.
            cond: Conditioning of B rows, or of n B, as `encode` takes them.
            maps: (B or n B, K, H, W) masks, a row for each of `cond`.

        Returns:
            (B or n B, C, h, w).
        """
        self.spade.given(maps)
        return self.decoder(encode(self.foundation.unet, z_t, t, cond), cond)


def step_losses(nets: Networks, x: Inputs, w: Weights, segmenter: nn.Module | None = None) -> dict[str, Tensor]:
    """``L_noise`` and, where `w.w_r` asks for it, ``L_refine``, as scalars: means over the rows."""
    foundation = nets.foundation
    z_t, maps = foundation.add_noise(x.z0, x.eps, x.t), class_maps(x.mask, nets.classes)
    output = nets.predict(z_t, x.t, x.cond, without_masks(maps, x.dropped)).to(z_t.dtype)
    lesion = 1 - shares(maps[:, :1], z_t.shape[-2:]) if w.adaptive else None
    losses = {"L_noise": noise_loss(x.eps, foundation.to_eps(output, z_t, x.t), lesion)}
    if w.w_r and segmenter is not None:
        losses["L_refine"] = w.w_r * _refinement(foundation, segmenter, x, foundation.to_x0(output, z_t, x.t), w.T_r)
    return losses


def _refinement(foundation: Foundation, segmenter: nn.Module, x: Inputs, z0: Tensor, T_r: int) -> Tensor:
    """The segmenter's loss on the rows with a mask below T_r, averaged over the whole batch; zero where there is none.

    Args:
        foundation: Decodes.
        segmenter: Frozen.
        x: The step's inputs.
        z0: (B, C, h, w) estimates of the clean latents.
        T_r: Above it an estimate is a blur that no segmenter has seen.
    """
    rows = (x.t < T_r) & ~x.dropped
    if not rows.any():
        return z0.new_zeros(())
    image = foundation.decode(z0[rows])
    return refinement_loss(segmenter, image, x.mask[rows], x.seed[rows]) * rows.sum() / len(rows)
