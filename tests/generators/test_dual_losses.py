"""The terms of the dual generator's loss against literal ones, row by row; their gates, gradients and costs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generators.dual_parts import parts, quick
from morphogen.foundation.halves import predict
from morphogen.foundation.model import Foundation
from morphogen.generators.dual.config import DualConfig
from morphogen.generators.dual.losses import (
    Networks,
    Rows,
    decode_chance,
    draw_decoded,
    pair_losses,
    snr_weights,
)
from small_foundations import perturb, small_foundation

T = (10, 250, 299, 399, 400, 999)
KNOWN = (True, True, True, True, True, False)
DECODED = [0, 1, 2, 3]
PROMPTS = ["dermoscopic image of melanoma", "", "a photo of a skin lesion", "", "dermoscopic image of nevus", "skin"]
TERMS = ("L_img", "L_msk", "L_dice", "L_bce", "L_align")


def rows_of(nets: Networks, layout: str) -> Rows:
    generator = torch.Generator().manual_seed(3)
    shape = (6, 8, 8, 8) if layout == "joint" else (6, 4, 8, 16)
    z0, eps = (torch.randn(shape, generator=generator) for _ in range(2))
    mask = (torch.rand(6, 32, 32, generator=generator) < 0.3).to(torch.uint8)
    mask[1] = 0
    cond = nets.foundation.conditioning(PROMPTS)
    return Rows(z0, eps, torch.tensor(T), cond, torch.tensor(KNOWN), mask, DECODED)


def some(rows: Rows, chosen: list[int]) -> Rows:
    decoded = [chosen.index(k) for k in rows.decoded if k in chosen]
    index = torch.tensor(chosen)
    return Rows(
        rows.z0[index], rows.eps[index], rows.t[index], rows.cond.rows(index), rows.known[index], rows.mask[index],
        decoded,
    )  # fmt: skip


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float((2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1))


def literal(nets: Networks, rows: Rows, config: DualConfig) -> dict[str, float]:
    """Every row by itself, in the words of the formula."""
    f, found = nets.foundation, {name: [0.0] * len(rows.t) for name in TERMS}
    v_model = f.scheduler.config.prediction_type == "v_prediction"

    def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x[:, :4], x[:, 4:]) if config.layout == "joint" else (x[..., :8], x[..., 8:])

    for k in range(len(rows.t)):
        t, z0, eps = int(rows.t[k]), rows.z0[k : k + 1], rows.eps[k : k + 1]
        abar = float(f.scheduler.alphas_cumprod[t])
        z_t = math.sqrt(abar) * z0 + math.sqrt(1 - abar) * eps
        if not rows.known[k]:
            z_t = torch.cat([halves(z_t)[0], halves(eps)[1]], dim=1 if config.layout == "joint" else 3)
        output = predict(f.unet, z_t, rows.t[k : k + 1], f.conditioning([PROMPTS[k]]))
        target = math.sqrt(abar) * eps - math.sqrt(1 - abar) * z0 if v_model else eps
        snr = abar / (1 - abar)
        weight = min(snr, config.min_snr) / (snr + 1 if v_model else snr)
        weight *= 1 if v_model else min(max(math.sqrt((1 - abar) / abar), 1), config.noise_weight)
        errors = [float(((o - y) ** 2).mean()) for o, y in zip(halves(output), halves(target), strict=True)]
        found["L_img"][k] = weight * errors[0]
        power = config.mask_deviation**2  # of the masks' latents
        weight *= min(power * snr, config.min_snr) / power / min(snr, config.min_snr)
        found["L_msk"][k] = weight * errors[1] if rows.known[k] else 0.0
        if k not in rows.decoded:
            continue
        a, b = math.sqrt(abar), math.sqrt(1 - abar)
        clean = a * z_t - b * output if v_model else (z_t - b * output) / a
        image, mask = halves(clean)
        painted = nets.masks.autoencoder.decode(mask / 1.3).sample.mean(dim=1)[0].double().numpy()
        p, truth = 1 / (1 + np.exp(-4 * painted)), rows.mask[k].double().numpy()
        found["L_dice"][k] = abar * (1 - dice(p, truth))
        found["L_bce"][k] = abar * float(-(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean())
        if t < config.align_below:
            picture = f.vae.decode(image / f.vae.config.scaling_factor).sample.clamp(-1, 1)
            assert nets.segmenter is not None
            logits = nets.segmenter(picture)[0].double()
            seen = (logits[1].exp() / logits.exp().sum(dim=0)).numpy()
            found["L_align"][k] = 1 - dice(seen, p)
    chance = min(1.0, config.pixel_share / (config.pixel_below / 1000))
    scale = {"L_img": 0.9, "L_msk": 1.1, "L_dice": 0.5 / chance, "L_bce": 0.4 / chance, "L_align": 0.1 / chance}
    return {name: scale[name] * float(np.mean(values)) for name, values in found.items()}


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def foundation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Foundation:
    made = small_foundation("sd", tmp_path_factory.mktemp("f"), request.param)
    made.vae.register_to_config(scaling_factor=0.7)
    return made


def settings(**changes: object) -> DualConfig:
    return quick(
        "",
        **{
            "image_weight": 0.9,
            "mask_weight": 1.1,
            "bce_weight": 0.4,
            "noise_weight": 5.0,
            "mask_deviation": 0.4,
            **changes,
        },
    )


@pytest.mark.parametrize("layout", ["joint", "canvas"])
def test_every_term_against_its_literal_form(layout: str, foundation: Foundation) -> None:
    config = settings(layout=layout)
    nets = parts(foundation, config)
    perturb(nets.foundation.unet)
    rows = rows_of(nets, layout)
    with torch.no_grad():
        ours, theirs = pair_losses(nets, rows, config, align=True), literal(nets, rows, config)
    assert tuple(ours) == TERMS
    for name in TERMS:
        assert float(ours[name]) == pytest.approx(theirs[name], rel=2e-4), name
        assert theirs[name] > 0


def test_any_split_of_a_batch_adds_up(foundation: Foundation) -> None:
    config = settings()
    nets = parts(foundation, config)
    perturb(nets.foundation.unet)
    rows = rows_of(nets, "joint")
    with torch.no_grad():
        whole = pair_losses(nets, rows, config, align=True)
        one, two = (pair_losses(nets, some(rows, part), config, align=True) for part in ([0, 4], [1, 2, 3, 5]))
    for name in TERMS:
        assert float(whole[name]) == pytest.approx(float(one[name]) / 3 + 2 * float(two[name]) / 3, rel=1e-3), name


def test_gradients_reach_the_unet_through_the_decoder_and_nothing_else(foundation: Foundation) -> None:
    for name in ("dice_weight", "bce_weight", "align_weight"):
        off = dict.fromkeys(("dice_weight", "bce_weight", "align_weight"), 0.0)
        config = settings(**{**off, name: 1.0})
        nets = parts(foundation, config)
        perturb(nets.foundation.unet)
        nets.foundation.unet.requires_grad_(True)
        found = pair_losses(nets, rows_of(nets, "joint"), config, align=True)
        nets.foundation.unet.zero_grad()
        found["L_" + name.removesuffix("_weight")].backward()
        last = nets.foundation.unet.conv_out.weight.grad
        assert last is not None
        assert float(last[4:].abs().max()) > 0
        assert float(last[:4].abs().max()) == 0  # the image half is only looked at, by the alignment too
        assert nets.segmenter is not None
        for frozen in (nets.masks, nets.foundation.vae, nets.segmenter):
            assert all(p.grad is None for p in frozen.parameters())


def test_gradient_checkpointing_changes_nothing(foundation: Foundation) -> None:
    gradients = []
    for checkpointing in (False, True):
        config = settings(gradient_checkpointing=checkpointing)
        nets = parts(foundation, config)
        perturb(nets.foundation.unet)
        nets.foundation.unet.requires_grad_(True)
        torch.stack(list(pair_losses(nets, rows_of(nets, "joint"), config, align=True).values())).sum().backward()
        gradients.append([p.grad for p in nets.foundation.unet.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


class Counted:
    """A frozen network that counts how many rows it gets."""

    def __init__(self, call: Any) -> None:
        self.call, self.rows = call, 0

    def __call__(self, x: torch.Tensor) -> Any:
        self.rows += len(x)
        return self.call(x)


@pytest.mark.parametrize(
    ("changes", "align", "terms", "decoded", "looked_at"),
    [
        ({}, True, TERMS, 4, 4),
        ({}, False, TERMS[:4], 4, 0),
        ({"align_weight": 0.0}, True, TERMS[:4], 4, 0),
        ({"dice_weight": 0.0, "bce_weight": 0.0}, False, TERMS[:2], 0, 0),
        ({"dice_weight": 0.0, "bce_weight": 0.0, "align_weight": 0.0}, True, TERMS[:2], 0, 0),
        ({"pixel_share": 0.0}, True, TERMS[:2], 0, 0),
        ({"mask_weight": 0.0, "pixel_share": 0.0}, True, TERMS[:1], 0, 0),
    ],
)
def test_a_weight_of_0_costs_nothing(
    changes: dict[str, Any], align: bool, terms: tuple[str, ...], decoded: int, looked_at: int,
    foundation: Foundation, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = replace(settings(), **changes)
    nets = parts(foundation, config)
    decoder = Counted(nets.masks.decoded)
    monkeypatch.setattr(nets.masks, "decoded", decoder)
    segmenter = Counted(nets.segmenter)
    with torch.no_grad():
        found = pair_losses(replace(nets, segmenter=segmenter), rows_of(nets, "joint"), config, align)  # type: ignore[arg-type]
    assert tuple(found) == terms
    assert (decoder.rows, segmenter.rows) == (decoded, looked_at)


def test_rows_without_a_mask_say_nothing_of_masks(foundation: Foundation) -> None:
    """Whatever stands in for their mask, every term is the same."""
    config = settings()
    nets = parts(foundation, config)
    perturb(nets.foundation.unet)
    rows = rows_of(nets, "joint")
    other = replace(rows, z0=rows.z0.clone(), mask=rows.mask.clone())
    other.z0[5, 4:] += 5
    other.mask[5] = 1
    with torch.no_grad():
        one, two = (pair_losses(nets, x, config, align=True) for x in (rows, other))
    assert all(torch.equal(one[name], two[name]) for name in TERMS)


def test_min_snr_in_both_parametrisations() -> None:
    """A v-loss is that of the clean latent times snr + 1, an eps-loss times snr: both then weigh it by min(snr, 5)."""
    abar = torch.tensor([0.999, 0.9, 0.5, 0.01])
    snr = abar / (1 - abar)
    for v_prediction, of_clean in ((False, snr), (True, snr + 1)):
        torch.testing.assert_close(snr_weights(abar, 5.0, v_prediction) * of_clean, snr.clamp(max=5))
        assert snr_weights(abar, 0.0, v_prediction).tolist() == [1.0] * 4


def test_decoded_rows_are_drawn_among_those_that_may_be(tmp_path: Path) -> None:
    config, n = settings(pixel_share=0.2), 3000
    seeds, t = torch.arange(n), torch.arange(n) % 1000
    known = torch.arange(n) % 7 > 0
    found = draw_decoded(config, seeds, t, known, 1000)
    may = known & (t < 400)
    assert not (found & ~may).any()
    assert float(found.sum() / may.sum()) == pytest.approx(decode_chance(config, 1000), abs=0.03)
    assert decode_chance(config, 1000) == pytest.approx(0.5)
    assert decode_chance(settings(pixel_share=0.9), 1000) == 1
    assert torch.equal(draw_decoded(config, seeds[5:9], t[5:9], known[5:9], 1000), found[5:9])
