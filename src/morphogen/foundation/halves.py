"""The two halves of a diffusers U-Net, so that its encoder runs once where several decoders need it.

`encode` then `decode` equals the stock ``UNet2DConditionModel.forward`` for text-conditional models with or without
added text-and-size embeddings (Stable Diffusion 1.x, 2.x, SDXL, and their 9-channel inpainting versions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from morphogen.foundation.conditioning import Conditioning


@dataclass(frozen=True)
class Features:
    """What the decoder needs from the encoder.

    Attributes:
        skips: The encoder's outputs, first to last, each (B, C_l, h_l, w_l).
        mid: (B, C, h, w) output of the middle block.
        emb: (B, E) time (and added text) embedding.
    """

    skips: tuple[Tensor, ...]
    mid: Tensor
    emb: Tensor

    def rows(self, index: Any) -> Features:
        """The rows that a slice, a mask or an index tensor selects."""
        return Features(tuple(skip[index] for skip in self.skips), self.mid[index], self.emb[index])


class DecoderHalf(nn.Module):
    """Up blocks and output convolution of a U-Net: what Siamese-Diffusion trains of it.

    Shares the U-Net's modules (no copy): training one trains the other. Where `checkpointing` is set, the activations
    inside a block are not kept but computed again for the gradient.
    """

    checkpointing = False

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.up_blocks = unet.up_blocks
        self.conv_norm_out = unet.conv_norm_out
        self.conv_act = unet.conv_act
        self.conv_out = unet.conv_out

    def forward(
        self,
        features: Features,
        cond: Conditioning,
        residuals: tuple[Sequence[Tensor], Tensor] | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Decode.

        Args:
            features: From `encode`.
            cond: The conditioning that `encode` got.
            residuals: A ControlNet's (skips, mid), added to the features (ControlNet, section 3.2), or None.
            frozen: Decode as a fixed function: the inputs get gradients, the weights get none, nothing is copied.

        Returns:
            (B, C_out, h, w) the model's prediction.
        """
        skips, sample = features.skips, features.mid
        if residuals is not None:
            skips = tuple(skip + extra for skip, extra in zip(skips, residuals[0], strict=True))
            sample = sample + residuals[1]
        for block in self.up_blocks:
            n = len(block.resnets)
            skips, taken = skips[:-n], skips[-n:]
            # A level of odd size cannot be found by doubling: the size of the next skip decides.
            size = skips[-1].shape[-2:] if skips else None
            kwargs: dict[str, Any] = {"upsample_size": size}
            if getattr(block, "has_cross_attention", False):
                kwargs["encoder_hidden_states"] = cond.states
            kwargs |= {"hidden_states": sample, "temb": features.emb, "res_hidden_states_tuple": taken}
            sample = _run(block, kwargs, frozen, self.checkpointing)
        if self.conv_norm_out is not None:
            sample = self.conv_act(_run(self.conv_norm_out, {"input": sample}, frozen))
        return _run(self.conv_out, {"input": sample}, frozen)


def _run(module: nn.Module, kwargs: dict[str, Any], frozen: bool = False, checkpointing: bool = False) -> Any:
    """``module(**kwargs)``, its weights taken as constants where `frozen`, inner activations dropped where asked.

    diffusers' own checkpointing would compute a frozen call again outside `functional_call`, with the live weights.
    """

    def call(**values: Any) -> Any:
        if not frozen:
            return module(**values)
        constants = {k: v.detach() for k, v in [*module.named_parameters(), *module.named_buffers()]}
        return torch.func.functional_call(module, constants, (), values)

    if checkpointing and torch.is_grad_enabled():
        return checkpoint(call, use_reentrant=False, **kwargs)
    return call(**kwargs)


def encode(
    net: UNet2DConditionModel | ControlNetModel, z_t: Tensor, t: Tensor, cond: Conditioning, hint: Tensor | None = None
) -> Features:
    """Time embedding, down blocks and middle block of a U-Net, or of a ControlNet's trunk.

    Args:
        net: The model.
        z_t: (B, C_in, h, w) noisy latent, with mask and masked-image latent behind it for a 9-channel model.
        t: (B,) int64 timesteps.
        cond: Conditioning of B rows, or of n B (row i speaks of latent i mod B): for several texts on one latent, as in
            guidance. What comes before the first text is then computed once, and the features have n B rows.
        hint: (B, C_0, h, w) embedded hint, added after the first convolution (ControlNet), or None.

    A net that has ``checkpointing`` set keeps no activations inside its blocks.
    """
    checkpointing = getattr(net, "checkpointing", False)
    emb = net.time_embedding(net.time_proj(t).to(z_t.dtype))
    if net.config.addition_embed_type == "text_time" and cond.pooled is not None and cond.time_ids is not None:
        time_ids = net.add_time_proj(cond.time_ids.flatten()).reshape(len(cond), -1)
        added = net.add_embedding(torch.cat([cond.pooled, time_ids.to(cond.pooled.dtype)], dim=-1).to(emb.dtype))
        emb = _spread(emb, len(cond)) + added
    sample = net.conv_in(z_t)
    if hint is not None:
        sample = sample + hint
    skips: tuple[Tensor, ...] = (sample,)
    for block in net.down_blocks:
        reads_text = getattr(block, "has_cross_attention", False)
        if reads_text or len(emb) > len(sample):
            sample, emb = _spread(sample, len(cond)), _spread(emb, len(cond))
        kwargs: dict[str, Any] = {"hidden_states": sample, "temb": emb}
        if reads_text:
            kwargs["encoder_hidden_states"] = cond.states
        sample, outputs = _run(block, kwargs, checkpointing=checkpointing)
        skips += outputs
    sample, emb = _spread(sample, len(cond)), _spread(emb, len(cond))
    kwargs = {"hidden_states": sample, "temb": emb, "encoder_hidden_states": cond.states}
    mid = _run(net.mid_block, kwargs, checkpointing=checkpointing)
    return Features(tuple(_spread(skip, len(cond)) for skip in skips), mid, emb)


def _spread(x: Tensor, rows: int) -> Tensor:
    """All rows of `x` again and again, up to `rows`; `x` itself where it has them."""
    return x if len(x) == rows else torch.cat([x] * (rows // len(x)))


def predict(unet: UNet2DConditionModel, z_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """The whole U-Net: (B, C_out, h, w), in the scheduler's parametrisation (eps or v)."""
    t = t.expand(z_t.shape[0]) if t.ndim == 0 else t
    return unet(z_t, t, encoder_hidden_states=cond.states, added_cond_kwargs=cond.added).sample
