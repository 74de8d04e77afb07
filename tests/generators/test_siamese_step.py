"""Siamese-Diffusion's equations against literal slow versions and closed forms (float64; float32 noise schedule)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from literal_siamese import Step, literal_losses
from torch import Tensor

from morphogen.foundation.halves import DecoderHalf
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.step import Inputs, Networks, Weights, renoised, step_losses
from small_foundations import perturb, small_tiny

B = 5


def build(hint: str = "dense", noise: float = 0.05) -> Networks:
    """Networks in float64, frozen as in training; with `noise`, zero-initialised layers are not zero."""
    foundation = small_tiny().to("cpu")
    for module in foundation.modules:
        module.double()
    torch.manual_seed(3)
    controlnet = HintedControlNet.for_foundation(foundation, hint, hint_width=4).double()
    if noise:
        perturb(controlnet, noise)
    decoder = DecoderHalf(foundation.unet)
    for module in (controlnet, decoder):
        module.requires_grad_(True)
    return Networks(foundation, controlnet, decoder)


def batch() -> Step:
    g = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    pixels, hint = rand(B, 3, 32, 32) * 2 - 1, (rand(B, 1, 32, 32) > 0.5).double().expand(-1, 3, -1, -1)
    eps = torch.randn(B, 4, 8, 8, generator=g, dtype=torch.float64)
    return Step(pixels, hint, ["a photo of a polyp"] * B, list(range(B)), eps, torch.tensor([30, 150, 250, 500, 999]))


def inputs(nets: Networks, step: Step) -> Inputs:
    z0 = nets.foundation.encode(step.pixels, step.seeds)
    cond = nets.foundation.conditioning(step.prompts)
    return Inputs(z0, step.eps, step.t, cond, step.mask_hint, (step.pixels + 1) / 2)


def grads(nets: Networks, loss: Tensor) -> dict[str, Tensor]:
    nets.controlnet.zero_grad()
    nets.decoder.zero_grad()
    loss.backward()
    named = [*nets.controlnet.named_parameters("phi"), *nets.decoder.named_parameters("theta")]
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert set(a) == set(b)
    scale = max(float(g.abs().max()) for g in b.values())
    for name in a:
        assert float((a[name] - b[name]).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize("hint", ["dense", "plain"])
@pytest.mark.parametrize("late", [False, True])
def test_the_whole_step_equals_the_literal_one(hint: str, late: bool) -> None:
    nets, step = build(hint), batch()
    ours = step_losses(nets, inputs(nets, step), Weights(w_i=0.4, w_c=0.7, augment=late))
    our_grads = grads(nets, torch.stack(list(ours.values())).sum())
    theirs = literal_losses(nets.foundation, nets.controlnet, step, w_i=0.4, w_c=0.7, late=late)
    their_grads = grads(nets, torch.stack(list(theirs.values())).sum())
    assert set(ours) == set(theirs)
    for name in ours:
        assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-6), name
    assert ours["L_i"] != ours["L_m"]
    # An unused hint layer has no gradient in one and a zero one in the other.
    close(our_grads, {k: v for k, v in their_grads.items() if k in our_grads}, 1e-6)
    assert all(float(v.abs().max()) == 0 for k, v in their_grads.items() if k not in our_grads)


@pytest.mark.parametrize("late", [False, True])
def test_checkpointing_changes_nothing_but_what_is_kept(late: bool) -> None:
    nets, kept = build(), [0, 0]
    x, found = inputs(nets, batch()), []
    for k in (0, 1):
        nets.controlnet.checkpointing = nets.decoder.checkpointing = bool(k)

        def count(tensor: Tensor, k: int = k) -> Tensor:
            kept[k] += tensor.numel() if tensor.grad_fn is not None else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses = step_losses(nets, x, Weights(w_i=0.4, w_c=0.7, augment=late))
        found.append(grads(nets, torch.stack(list(losses.values())).sum()))
        image = grads(nets, step_losses(nets, x, Weights(w_i=0.4, w_c=0.7, augment=late))["L_i"])
        assert not any(name.startswith("theta") for name in image)
    close(found[1], found[0], 1e-12)
    assert kept[1] < 0.5 * kept[0]


def test_the_consistency_loss_is_zero_at_the_start() -> None:
    nets = build(noise=0.0)
    losses = step_losses(nets, inputs(nets, batch()), Weights(w_i=0.0))
    assert float(losses["L_c"]) == 0
    assert float(losses["L_m"]) == float(losses["L_i"]) > 0
    # Zero-initialised outputs: even a full weight of the image branch changes nothing yet.
    assert float(step_losses(nets, inputs(nets, batch()), Weights(w_i=1.0))["L_c"]) == 0


def test_the_image_loss_trains_the_hint_path_and_never_the_decoder() -> None:
    nets = build()
    x = inputs(nets, batch())
    found = grads(nets, step_losses(nets, x, Weights(w_i=0.5))["L_i"])
    assert not any(name.startswith("theta") for name in found)
    assert any(name.startswith("phi.controlnet_cond_embedding") and v.abs().max() > 0 for name, v in found.items())
    at_start = grads(nets, step_losses(nets, x, Weights(w_i=0.0))["L_i"])
    assert all(float(v.abs().max()) == 0 for v in at_start.values())


def test_its_gradient_grows_linearly_with_w_i_where_the_loss_is_linear() -> None:
    """At zero-initialised outputs c_i = 0, so dL_i/dphi is w_i times one fixed gradient."""
    nets = build(noise=0.0)
    x = inputs(nets, batch())
    half, whole = (grads(nets, step_losses(nets, x, Weights(w_i=w))["L_i"]) for w in (0.5, 1.0))
    close({k: 2 * v for k, v in half.items()}, whole)


@pytest.mark.parametrize("w_c", [0.5, 1.0, 2.0])
def test_mask_and_consistency_loss_are_regression_to_a_blend(w_c: float) -> None:
    """L_m + L_c = (1+w_c) MSE(eps_m, (eps + w_c sg[eps_mix])/(1+w_c)) + w_c/(1+w_c) MSE(eps, eps_mix)."""
    nets, step = build(), batch()
    x = inputs(nets, step)
    ours = step_losses(nets, x, Weights(w_i=0.6, w_c=w_c))
    our_grads = grads(nets, ours["L_m"] + ours["L_c"])
    kept: dict[str, Tensor] = {}
    real = DecoderHalf.forward

    def spy(self: DecoderHalf, *args: object, **kwargs: object) -> Tensor:
        out = real(self, *args, **kwargs)  # type: ignore[arg-type]
        kept["m" if "m" not in kept else "mix"] = out
        return out

    DecoderHalf.forward = spy  # type: ignore[method-assign,assignment]
    try:
        step_losses(nets, x, Weights(w_i=0.6, w_c=w_c))
    finally:
        DecoderHalf.forward = real  # type: ignore[method-assign]
    eps_m, eps_mix = kept["m"], kept["mix"].detach()

    def mse(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean()

    blend = (step.eps + w_c * eps_mix) / (1 + w_c)
    right = (1 + w_c) * mse(eps_m, blend) + w_c / (1 + w_c) * mse(step.eps, eps_mix)
    assert float(ours["L_m"] + ours["L_c"]) == pytest.approx(float(right), rel=1e-12)
    close(our_grads, grads(nets, right))


def test_the_renoised_latent_is_the_estimate_noised_again() -> None:
    nets, step = build(), batch()
    f = nets.foundation
    z_t = f.add_noise(f.encode(step.pixels), step.eps, step.t)
    eps_mix = torch.randn_like(step.eps, requires_grad=True)
    abar = f.scheduler.alphas_cumprod.double()[step.t].view(-1, 1, 1, 1)
    z0_new = (z_t - (1 - abar).sqrt() * eps_mix) / abar.sqrt()
    literal = abar.sqrt() * z0_new + (1 - abar).sqrt() * step.eps
    ours = renoised(f, z_t, step.eps, eps_mix, step.t)
    assert torch.allclose(ours, literal, rtol=0, atol=1e-6)
    assert not ours.requires_grad
    assert torch.equal(renoised(f, z_t, step.eps, step.eps, step.t), z_t)


def test_the_augmentation_concerns_rows_below_the_threshold_alone() -> None:
    nets = build()
    x = inputs(nets, batch())

    def extra(t: list[int]) -> float:
        return float(step_losses(nets, replace(x, t=torch.tensor(t)), Weights(w_i=0.5, augment=True))["L_m'"])

    assert extra([200, 300, 500, 700, 999]) == 0
    assert extra([199, 300, 500, 700, 999]) > 0
    assert "L_m'" not in step_losses(nets, x, Weights(w_i=0.5, augment=False))


def test_the_augmentation_gives_the_image_branch_no_gradient() -> None:
    """sg[eps_mix] in Eq. 11: L_m' moves the mask branch alone, as if z_t' were data."""
    nets = build()
    x = inputs(nets, batch())
    w = Weights(w_i=0.5, augment=True)
    found = grads(nets, step_losses(nets, x, w)["L_m'"])
    blind = replace(x, image_hint=x.image_hint.clone().requires_grad_(True))
    step_losses(nets, blind, w)["L_m'"].backward()
    assert blind.image_hint.grad is None or float(blind.image_hint.grad.abs().max()) == 0
    assert any(name.startswith("theta") and v.abs().max() > 0 for name, v in found.items())


def test_the_mask_branch_never_sees_the_image() -> None:
    nets = build()
    x = inputs(nets, batch())
    other = replace(x, image_hint=1 - x.image_hint)
    a, b = (step_losses(nets, v, Weights(w_i=0.5)) for v in (x, other))
    assert float(a["L_m"]) == float(b["L_m"])
    assert float(a["L_i"]) != float(b["L_i"])


def test_without_image_branch_it_is_a_controlnet_step() -> None:
    nets, step = build("plain"), batch()
    ours = step_losses(nets, inputs(nets, step), Weights(w_i=0.5, image_branch=False))
    theirs = literal_losses(nets.foundation, copy.deepcopy(nets.controlnet), step, w_i=0.5, late=False)
    assert set(ours) == {"L_m"}
    assert float(ours["L_m"]) == pytest.approx(float(theirs["L_m"]), rel=1e-9)


def test_v_prediction_gives_the_same_losses_in_eps() -> None:
    """A v-model that predicts exactly has zero loss, as an eps-model has."""
    nets, step = build(), batch()
    f = nets.foundation
    f.scheduler.register_to_config(prediction_type="v_prediction")
    x = inputs(nets, step)
    v = f.target(x.z0, x.eps, x.t)

    class Exact(torch.nn.Module):
        def forward(self, *args: object) -> Tensor:
            return v

    perfect = Networks(f, nets.controlnet, Exact())  # type: ignore[arg-type]
    losses = step_losses(perfect, x, Weights(w_i=0.5, image_branch=False))
    assert float(losses["L_m"]) < 1e-12
