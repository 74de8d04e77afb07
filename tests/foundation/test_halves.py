"""The halves of a U-Net against diffusers' own forward, and gradients through a fixed decoder."""

from __future__ import annotations

import copy

import pytest
import torch

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import DecoderHalf, encode, predict
from small_foundations import small_tiny, small_unet

SIZES = [(8, 8), (16, 8), (12, 12)]


def inputs(kind: str, channels: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    torch.manual_seed(1)
    cond = Conditioning(torch.randn(3, 5, 16))
    if kind == "sdxl":
        cond = Conditioning(cond.states, torch.randn(3, 8), torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 3))
    return torch.randn(3, channels, *size), torch.tensor([1, 500, 999]), cond


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_the_halves_make_the_whole(kind: str, channels: int, size: tuple[int, int]) -> None:
    unet = small_unet(kind, channels).eval()
    z, t, cond = inputs(kind, channels, size)
    with torch.no_grad():
        ours = DecoderHalf(unet)(encode(unet, z, t, cond), cond)
        theirs = predict(unet, z, t, cond)
    assert (ours - theirs).abs().max() < 1e-5
    assert theirs.abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["sd", "sdxl", "tiny"])
def test_several_texts_for_one_latent(kind: str) -> None:
    """SD reads text in its first block, `tiny` in its second, SDXL in the time embedding already."""
    unet = (small_tiny().unet if kind == "tiny" else small_unet(kind)).eval()
    z, t, cond = inputs(kind, 4, (8, 8))
    other = Conditioning(cond.states.flip(0) - 1, cond.pooled, cond.time_ids)
    both, hint = Conditioning.cat([cond, other]), torch.randn(3, unet.config.block_out_channels[0], 8, 8)
    with torch.no_grad():
        once = encode(unet, z, t, both, hint)
        twice = encode(unet, torch.cat([z, z]), torch.cat([t, t]), both, torch.cat([hint, hint]))
    assert not torch.allclose(once.mid[:3], once.mid[3:])
    for a, b in zip((*once.skips, once.mid, once.emb), (*twice.skips, twice.mid, twice.emb), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() < 1e-5


def test_residuals_are_added_as_diffusers_adds_them() -> None:
    unet = small_unet("sd").eval()
    z, t, cond = inputs("sd", 4, (8, 8))
    features = encode(unet, z, t, cond)
    skips, mid = [torch.randn_like(s) for s in features.skips], torch.randn_like(features.mid)
    ours = DecoderHalf(unet)(features, cond, (skips, mid))
    theirs = unet(
        z,
        t,
        encoder_hidden_states=cond.states,
        down_block_additional_residuals=skips,
        mid_block_additional_residual=mid,
    ).sample
    assert (ours - theirs).abs().max() < 1e-5


def test_a_fixed_decoder_passes_gradients_and_keeps_none() -> None:
    unet = small_unet("sd").eval()
    decoder, copied = DecoderHalf(unet), DecoderHalf(copy.deepcopy(unet))
    z, t, cond = inputs("sd", 4, (8, 8))
    with torch.no_grad():
        features = encode(unet, z, t, cond)
    grads = []
    for call in (lambda r: decoder(features, cond, r, frozen=True), lambda r: copied(features, cond, r)):
        mid = torch.zeros_like(features.mid, requires_grad=True)
        call((list(features.skips), mid)).square().sum().backward()
        grads.append(mid.grad)
    assert grads[0] is not None
    assert grads[0].abs().max() > 0
    assert torch.equal(*grads)
    assert all(p.grad is None for p in decoder.parameters())


def test_rows_of_conditioning() -> None:
    _, _, cond = inputs("sdxl", 4, (8, 8))
    keep = torch.tensor([True, False, True])
    twice = Conditioning.cat([cond, cond.rows(keep)])
    assert len(twice) == 5
    assert twice.pooled is not None
    assert cond.pooled is not None
    assert torch.equal(twice.pooled[4], cond.pooled[2])
    assert Conditioning(cond.states).added is None
