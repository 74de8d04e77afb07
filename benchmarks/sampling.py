"""Images painted for masks per second: this package against diffusers' own ControlNet pipeline.

    python benchmarks/sampling.py [--images 96] [--rounds 5] [--threads 2] [--table]

Both sides hold the same networks: the shipped `tiny` with its hint path, made on phantoms. The peer is
`StableDiffusionControlNetPipeline` as it is: DDIM with 50 steps, its own batched guidance, one image a call. Ours is
what `morphogen sample` does by default: DPM-Solver++ with 20 steps, batches of 8, hint and text computed once. Times
are medians of ratios taken round by round. KID is against as many phantoms (weights.txt), on `--images` samples a side
for the same masks; `equal` says that ours is no further from them than the peer's by more than the spread of both.
`--table` measures other solvers and numbers of steps too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionControlNetPipeline

from morphogen.data.phantoms import phantom
from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.hint_images import mask_hint
from morphogen.generators.siamese.sampling import sample_images
from morphogen.generators.siamese.step import Networks
from morphogen.metrics.features import extract
from morphogen.metrics.kid import Kid, kid

PROMPT, FIRST, BATCH = "a photo of a polyp", 20_000_000, 8
"""`FIRST`: seed of the first phantom; `tiny` and its hint path were made on others."""
Images = np.ndarray
Paint = Callable[[np.ndarray, list[int]], Images]
"""Masks (B, R, R) label ids and B seeds to images (B, R, R, 3) uint8."""


def build() -> Networks:
    foundation = Foundation.load("tiny")
    assert foundation.hint_folder is not None
    controlnet = HintedControlNet.from_pretrained(foundation.hint_folder, torch_dtype=torch.float32).eval()
    controlnet.requires_grad_(False)
    return Networks(foundation, controlnet, DecoderHalf(foundation.unet))


def stock(nets: Networks, steps: int, guidance: float) -> Paint:
    """diffusers' pipeline class around the same networks, one image a call."""
    f = nets.foundation
    pipeline = StableDiffusionControlNetPipeline(
        f.vae, f.text_encoders[0], f.tokenizers[0], f.unet, nets.controlnet,
        DDIMScheduler.from_config(f.scheduler.config), None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    side = f.resolution

    def paint(masks: np.ndarray, seeds: list[int]) -> Images:
        made = [
            pipeline(
                PROMPT, image=mask_hint(mask[None], 2), height=side, width=side, num_inference_steps=steps,
                guidance_scale=guidance, eta=0.0, generator=torch.Generator().manual_seed(seed), output_type="np",
            ).images[0]
            for mask, seed in zip(masks, seeds, strict=True)
        ]  # fmt: skip
        return np.rint(255 * np.stack(made)).astype(np.uint8)

    return paint


def ours(nets: Networks, config: SiameseConfig) -> Paint:
    def paint(masks: np.ndarray, seeds: list[int]) -> Images:
        parts = [slice(k, k + BATCH) for k in range(0, len(masks), BATCH)]
        return np.concatenate(
            [sample_images(nets, masks[p], 2, [PROMPT] * len(seeds[p]), seeds[p], config) for p in parts]
        )

    return paint


def seconds(paint: Paint, masks: np.ndarray) -> float:
    """Per image."""
    start = time.perf_counter()
    paint(masks, list(range(len(masks))))
    return (time.perf_counter() - start) / len(masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    nets, config = build(), SiameseConfig()
    pairs = [phantom("mucosa", FIRST + k, nets.foundation.resolution) for k in range(options.images)]
    masks = np.stack([mask for _, mask in pairs])
    real = extract([image for image, _ in pairs])

    def distance(paint: Paint) -> Kid:
        return kid(extract(list(paint(masks, list(range(len(masks)))))), real, seed=0)

    peer, mine = stock(nets, 50, config.guidance), ours(nets, config)
    peer(masks[:1], [0]), mine(masks[:BATCH], list(range(BATCH)))
    times = [(seconds(peer, masks[:4]), seconds(mine, masks[: 2 * BATCH])) for _ in range(options.rounds)]
    theirs_kid, our_kid = distance(peer), distance(mine)
    spread = 2 * (theirs_kid.std**2 + our_kid.std**2) ** 0.5
    table = {}
    for solver, steps in [("ddim", 50), ("ddim", 20), ("dpm", 50), ("dpm", 20), ("dpm", 12), ("dpm", 8), ("dpm", 5)]:
        if options.table:
            paint = ours(nets, replace(config, solver=solver, sampling_steps=steps))
            found = distance(paint)
            faster = statistics.median(t[0] for t in times) / seconds(paint, masks[: 2 * BATCH])
            table[f"{solver}-{steps}"] = {"kid": found.full, "kid_std": found.std, "ratio": faster}
            print(f"{solver} {steps}: KID {1000 * found.full:.1f}e-3 (spread {1000 * found.std:.1f}), {faster:.1f} x")
    result = {
        "name": "sampling", "peer": "diffusers StableDiffusionControlNetPipeline, DDIM 50, one image a call",
        "peer_s": statistics.median(t[0] for t in times), "ours_s": statistics.median(t[1] for t in times),
        "ratio": statistics.median(t[0] / t[1] for t in times),
        "kid_peer": theirs_kid.full, "kid_ours": our_kid.full, "kid_spread": spread,
        "equal": our_kid.full <= theirs_kid.full + spread,
        "resolution": nets.foundation.resolution, "images": options.images, "table": table,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
