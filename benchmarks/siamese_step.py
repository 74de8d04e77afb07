"""One late-phase training step of Siamese-Diffusion: this package against the published step written out literally.

    python benchmarks/siamese_step.py [--rounds 7] [--rows 15] [--threads 2]

Both sides run the shipped `tiny` at its resolution in fp32 on the same batch: one fifth of the rows below t = 200, the
same posterior sample. The literal side starts from pixels and texts and caches nothing; ours is timed the same way
(`ratio_from_pixels`), with cached latents and text (`ratio`), and with these as `--mixed-precision bf16` trains: bf16
autocast, weights in fp32 and channels-last layout (`ratio_bf16`). `run` is a whole run, a third of it early. Losses and
gradients are compared first, in bf16 the losses alone. Times are medians of ratios taken round by round, since absolute
times mean little on a shared machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
from literal_siamese import Step, literal_losses
from torch import Tensor

from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.step import Inputs, Networks, Weights, step_losses
from morphogen.generators.siamese.trained import trained_networks

W_I = 0.6
"""Of the timed step: the share of training that is done."""


def build() -> Networks:
    """`tiny` with a dense hint whose zero-initialised layers have moved, as they have late in training."""
    foundation = Foundation.load("tiny")
    torch.manual_seed(0)
    controlnet = HintedControlNet.for_foundation(foundation, "dense", hint_width=8)
    with torch.no_grad():
        for parameter in controlnet.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    nets = Networks(foundation, controlnet, DecoderHalf(foundation.unet))
    controlnet.train().requires_grad_(True)
    nets.decoder.requires_grad_(True)
    return nets


def make_batch(nets: Networks, rows: int) -> Step:
    """Random pixels and blobs; every fifth row below t = 200."""
    torch.manual_seed(1)
    side = nets.foundation.resolution
    t = torch.randint(200, 1000, (rows,))
    t[::5] = torch.randint(0, 200, (len(t[::5]),))
    mask = (torch.rand(rows, 1, side, side) > 0.5).float().expand(-1, 3, -1, -1).contiguous()
    pixels = torch.rand(rows, 3, side, side) * 2 - 1
    eps = torch.randn(rows, *nets.foundation.latent_shape)
    return Step(pixels, mask, ["a photo of a polyp"] * rows, list(range(rows)), eps, t)


def clear(nets: Networks) -> None:
    nets.controlnet.zero_grad(set_to_none=True)
    nets.decoder.zero_grad(set_to_none=True)


def literal(nets: Networks, step: Step, late: bool) -> Mapping[str, Tensor]:
    clear(nets)
    losses = literal_losses(nets.foundation, nets.controlnet, step, W_I, late=late)
    torch.stack(list(losses.values())).sum().backward()
    return losses


def ours(nets: Networks, step: Step, late: bool, cached: Inputs | None, bf16: bool = False) -> Mapping[str, Tensor]:
    clear(nets)
    x = cached
    if x is None:
        x = prepare(nets, step)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = step_losses(nets, x, Weights(W_I, augment=late))
    torch.stack(list(losses.values())).sum().backward()
    return losses


@torch.no_grad()
def prepare(nets: Networks, step: Step) -> Inputs:
    """Both encoders: what the caches save."""
    z0 = nets.foundation.encode(step.pixels, step.seeds)
    cond = nets.foundation.conditioning(step.prompts)
    return Inputs(z0, step.eps, step.t, cond, step.mask_hint, (step.pixels + 1) / 2)


def gradients(nets: Networks) -> dict[str, Tensor]:
    named = [*nets.controlnet.named_parameters("phi"), *nets.decoder.named_parameters("theta")]
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def largest_difference(nets: Networks, step: Step, late: bool) -> float:
    """Largest relative difference of a loss, or of a gradient tensor in the 2-norm."""
    theirs, their_grads = literal(nets, step, late), gradients(nets)
    mine, my_grads = ours(nets, step, late, None), gradients(nets)
    found = [abs(float(mine[k].detach()) / float(theirs[k].detach()) - 1) for k in theirs]
    total = torch.stack([g.norm() for g in their_grads.values()]).norm()
    for name in their_grads.keys() | my_grads.keys():  # one that only one side has counts as wholly different
        g, h = (grads.get(name, torch.zeros(())) for grads in (their_grads, my_grads))
        found.append(float((g - h).norm() / max(g.norm(), 1e-3 * total)))
    return max(found)


def bf16_difference(nets: Networks, step: Step, late: bool) -> float:
    """Largest relative difference of a loss between bf16 autocast and the literal fp32 step."""
    theirs, mine = literal(nets, step, late), ours(nets, step, late, None, bf16=True)
    return max(abs(float(mine[k].detach()) / float(theirs[k].detach()) - 1) for k in theirs)


def for_bf16(nets: Networks) -> Networks:
    """A copy of the networks as training in bf16 lays them out."""
    foundation, controlnet = copy.deepcopy((nets.foundation, nets.controlnet))
    return trained_networks(foundation, controlnet, SiameseConfig(mixed_precision="bf16"))[0]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratios(nets: Networks, step: Step, late: bool, rounds: int) -> dict[str, float]:
    """Medians over rounds of literal time over ours: from pixels, with caches, and with caches in bf16."""
    cached, fast = prepare(nets, step), for_bf16(nets)
    sides = [
        lambda: literal(nets, step, late),
        lambda: ours(nets, step, late, None),
        lambda: ours(nets, step, late, cached),
        lambda: ours(fast, step, late, cached, bf16=True),
    ]
    for side in sides:
        side()
    times = [[seconds(side) for side in sides] for _ in range(rounds)]
    return {
        "peer_s": statistics.median(t[0] for t in times),
        "ours_s": statistics.median(t[2] for t in times),
        "ratio_from_pixels": statistics.median(t[0] / t[1] for t in times),
        "ratio": statistics.median(t[0] / t[2] for t in times),
        "ratio_bf16": statistics.median(t[0] / t[3] for t in times),
        "bf16_s": statistics.median(t[3] for t in times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    nets = build()
    step = make_batch(nets, options.rows)
    differences = {phase: largest_difference(nets, step, phase == "late") for phase in ("early", "late")}
    early, late = (ratios(nets, step, phase, options.rounds) for phase in (False, True))
    for name, found in (("early", early), ("late", late)):
        print(
            f"{name} phase: {found['ratio_from_pixels']:.2f} x from pixels, {found['ratio']:.2f} x with caches, "
            f"{found['ratio_bf16']:.2f} x with caches in bf16"
        )
    theirs, mine, bf16 = (early[key] / 3 + 2 * late[key] / 3 for key in ("peer_s", "ours_s", "bf16_s"))
    result = {
        "name": "siamese_step", "peer": "published step, literal (diffusers)", **late, "early": early,
        "run": {"ratio": theirs / mine, "ratio_bf16": theirs / bf16},
        "largest_relative_difference": differences, "equal": max(differences.values()) < 1e-4,
        "largest_loss_difference_bf16": max(bf16_difference(nets, step, phase) for phase in (False, True)),
        "rows": options.rows, "resolution": nets.foundation.resolution,
    }  # fmt: skip
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


if __name__ == "__main__":
    main()
