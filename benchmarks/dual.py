"""Pairs per second: image and mask in one run of the sampler, against an image first and its mask after it.

    python benchmarks/dual.py [--foundation tiny] [--pairs 8] [--steps 30] [--rounds 7] [--threads 2]

All sides have U-Nets of the foundation's size, its autoencoder, the same words, noise, solver, steps and guidance, and
batch all pairs in one call. The peer paints the image by the foundation itself, then samples the mask by a latent
diffusion model that is told the image: its U-Net reads 8 channels, noisy mask latent and image latent, and needs no
guidance, which halves its work (with guidance it is printed beside, as the first row shows). Beside them: the mask of
an image in one step of that same model, and the canvas. No weights are trained; speed does not follow from them. Time
is all that lies between words and a pair of pictures, the cleaning of the mask left out.

`equal`: the image half of the joint model before its training is the peer's image, to a grey level. `ratio` is the
median over rounds of the peer's time over ours, and its bar is 1.2; the exit status says whether both hold.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.halves import predict
from morphogen.foundation.images import to_bytes
from morphogen.foundation.model import Foundation
from morphogen.foundation.solvers import guided, solve
from morphogen.generators.dual.config import DualConfig
from morphogen.generators.dual.layout import widened
from morphogen.generators.dual.sampling import make_pairs
from morphogen.segmenters.latent.mask_latents import MaskLatents
from morphogen.training.rng import normal

PEER = "image, then its mask by an image-conditioned latent diffusion model of the same size and steps"
BAR = 1.2
PROMPT = "dermoscopic image of melanoma, small round lesion with regular border, in the center of the image"
Pictures = tuple[np.ndarray, np.ndarray]
Way = Callable[[], Pictures]
"""Images (B, R, R, 3) uint8 and probabilities of a lesion (B, R, R)."""


class Both:
    """An image by the foundation, and its mask by a model of the same size that reads the image's latent."""

    def __init__(self, foundation: Foundation, masks: MaskLatents, config: DualConfig) -> None:
        self.foundation, self.masks, self.config = foundation, masks, config
        shape = {k: v for k, v in foundation.unet.config.items() if k != "_use_default_values"}
        unet = UNet2DConditionModel.from_config({**shape, "in_channels": 2 * int(shape["in_channels"])})
        self.unet = unet.to(foundation.device).eval().requires_grad_(False)

    def solved(self, unet: UNet2DConditionModel, z: Tensor, cond: Conditioning, given: Tensor | None) -> Tensor:
        """From noise to a latent; `cond` holds the empty words behind the others where it is guided."""
        twice = len(cond) > len(z)

        def denoise(z_t: Tensor, t: Tensor) -> Tensor:
            x = z_t if given is None else torch.cat([z_t, given], dim=1)
            if not twice:
                return predict(unet, x, t, cond)
            conditional, empty = predict(unet, torch.cat([x, x]), torch.cat([t, t]), cond).chunk(2)
            return guided(conditional, empty, self.config.guidance)

        return solve(denoise, z, self.foundation.scheduler.config, self.config.sampling_steps, self.config.solver)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], mask_guided: bool = False, one_step: bool = False) -> Pictures:
        f, seeds = self.foundation, range(len(prompts))
        words, none = f.told(prompts), f.told([""] * len(prompts))
        both = Conditioning.cat([words, none])
        image = self.solved(f.unet, normal(seeds, f.latent_shape, "z_T").to(f.device), both, None)
        z = normal(seeds, f.latent_shape, "z_T_m").to(f.device)
        if one_step:
            t = torch.full((len(z),), f.scheduler.config.num_train_timesteps - 1, device=z.device)
            mask = f.to_x0(predict(self.unet, torch.cat([z, image], dim=1), t, words), z, t)
        else:
            mask = self.solved(self.unet, z, both if mask_guided else words, image)
        painted = self.masks.decoded(mask).mean(dim=1)
        return to_bytes(f.decode(image)).transpose(0, 2, 3, 1), ((painted + 1) / 2).clamp(0, 1).cpu().numpy()


def ways_of(foundation: Foundation, config: DualConfig, prompts: Sequence[str]) -> dict[str, Way]:
    """Ours first, then the peer, then what is printed beside them."""
    masks = MaskLatents(2, copy.deepcopy(foundation.vae)).to(foundation.device).eval()
    peer, seeds = Both(foundation, masks, config), range(len(prompts))
    joint = widened(foundation)

    def dual(layout: str) -> Pictures:
        own = joint if layout == "joint" else foundation
        return make_pairs(own, masks, prompts, seeds, replace(config, layout=layout))

    return {
        "joint": lambda: dual("joint"),
        "image, then mask": lambda: peer(prompts),
        "image, then mask, both guided": lambda: peer(prompts, mask_guided=True),
        "image, then mask in one step": lambda: peer(prompts, one_step=True),
        "canvas": lambda: dual("canvas"),
    }


def clock() -> float:
    """Seconds, when all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way, round by round; the first, which warms up, is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = clock()
            way()
            taken[name].append(clock() - began)
    return {name: times[1:] for name, times in taken.items()}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foundation", default="tiny")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    foundation = Foundation.load(options.foundation, device)
    config = DualConfig(foundation=options.foundation, sampling_steps=options.steps, guidance=5.0)
    ways = ways_of(foundation, config, [PROMPT] * options.pairs)
    (ours, _), (theirs, _) = ways["joint"](), ways["image, then mask"]()
    off = int(np.abs(ours.astype(int) - theirs).max())
    taken = measure(ways, options.rounds)
    mine = taken["joint"]
    ratios = {name: statistics.median(t / m for t, m in zip(times, mine, strict=True)) for name, times in taken.items()}
    print("| way | pairs a second | time, of ours |\n|---|---|---|")
    for name, times in taken.items():
        print(f"| {name} | {options.pairs / statistics.median(times):.2f} | {ratios[name]:.2f} |")
    ratio = ratios["image, then mask"]
    result = {
        "name": "dual", "peer": PEER, "ours_s": statistics.median(mine) / options.pairs,
        "peer_s": statistics.median(taken["image, then mask"]) / options.pairs, "ratio": ratio, "bar": BAR,
        "equal": off <= 1, "difference": off, "ratios": ratios, "resolution": foundation.resolution,
        "pairs": options.pairs, "steps": options.steps, "rounds": options.rounds, "threads": options.threads,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores",
    }  # fmt: skip
    print(json.dumps(result))
    return 0 if result["equal"] and ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
