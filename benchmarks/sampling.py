"""Images painted for masks per second: this package against diffusers' own ControlNet pipeline.

    python benchmarks/sampling.py [--images 192] [--rounds 5] [--threads 2] [--data FOLDER] [--table]

Both sides hold the same networks, the shipped `tiny` with its hint path, and get the same masks, prompt, guidance and
starting noise; with the same solver they paint the same images (`same_settings_difference`, in grey levels). The peer
is `StableDiffusionControlNetPipeline` as it is: DDIM with 50 steps, its own batched guidance, one image a call. Ours is
what `morphogen sample` does by default: DPM-Solver++ with 15 steps, batches of 8. Ratios are medians of ratios taken
round by round.

KID is of `--images` samples a side against as many phantoms, from whose masks they are painted (`--data`: against
evenly spread images of that data set). It needs the weights of weights.txt. Standard errors are of the difference
between the two sides, by a jackknife over groups of masks, since both share masks, noise and reference images. `equal`
says that our KID is at most two standard errors higher, and that these could have shown a tenth of the peer's KID.
`--table` measures other solvers and numbers of steps too, and the peer's settings on other noise: what chance does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionControlNetPipeline

from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom
from morphogen.data.readers import read_dataset
from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.hint_images import mask_hint
from morphogen.generators.siamese.sampling import sample_images
from morphogen.generators.siamese.step import Networks
from morphogen.metrics.features import extract
from morphogen.metrics.kid import mmd2
from morphogen.training.rng import normal

PEER = "diffusers StableDiffusionControlNetPipeline, DDIM 50, one image a call"
PROMPT, FIRST, BATCH = "a photo of a polyp", 20_000_000, 8
"""`FIRST`: seed of the first phantom; `tiny` and its hint path were made on others."""
DEFAULT = f"{SiameseConfig.solver}-{SiameseConfig.sampling_steps}"
TABLE = ("ddim-50", "ddim-20", "ddim-10", *(f"dpm-{steps}" for steps in (50, 25, 20, 15, 12, 10, 8, 5)))
OTHER_NOISE = "ddim-50 on other noise"
MARGIN = 0.1
"""Share of the peer's KID that the comparison has to be able to see."""
GROUPS = 32
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
                guidance_scale=guidance, eta=0.0, latents=normal([seed], f.latent_shape, "z_T"), output_type="np",
            ).images[0]
            for mask, seed in zip(masks, seeds, strict=True)
        ]  # fmt: skip
        return np.rint(255 * np.stack(made)).astype(np.uint8)

    return paint


def ours(nets: Networks, config: SiameseConfig, batch: int = BATCH) -> Paint:
    def paint(masks: np.ndarray, seeds: list[int]) -> Images:
        parts = [slice(k, k + batch) for k in range(0, len(masks), batch)]
        return np.concatenate(
            [sample_images(nets, masks[p], 2, [PROMPT] * len(seeds[p]), seeds[p], config) for p in parts]
        )

    return paint


def with_solver(nets: Networks, name: str) -> Paint:
    """Ours with the solver and the number of steps of ``solver-steps``."""
    solver, steps = name.split("-")
    return ours(nets, replace(SiameseConfig(), solver=solver, sampling_steps=int(steps)))


def seconds(paint: Paint, masks: np.ndarray) -> float:
    """Per image."""
    start = time.perf_counter()
    paint(masks, list(range(len(masks))))
    return (time.perf_counter() - start) / len(masks)


def measure(peer: Paint, sides: Mapping[str, Paint], masks: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds per image of both, and how many times faster each side is, as medians over rounds."""
    for side in sides.values():
        side(masks[:BATCH], list(range(BATCH)))
    peer(masks[:1], [0])
    times = [(seconds(peer, masks[:4]), [seconds(side, masks[: 2 * BATCH]) for side in sides.values()])
             for _ in range(rounds)]  # fmt: skip
    return {
        name: {
            "peer_s": statistics.median(theirs for theirs, _ in times),
            "ours_s": statistics.median(mine[k] for _, mine in times),
            "ratio": statistics.median(theirs / mine[k] for theirs, mine in times),
        }
        for k, name in enumerate(sides)
    }


def pairs(data: Path | None, count: int, side: int) -> tuple[list[Images], np.ndarray]:
    """Reference images, and their masks (N, R, R): phantoms, or evenly spread pairs of a data set."""
    if data is None:
        made = [phantom("mucosa", FIRST + k, side) for k in range(count)]
        return [image for image, _ in made], np.stack([mask for _, mask in made])
    annotated = read_dataset(data).annotated
    chosen = np.unique(np.linspace(0, len(annotated) - 1, count).round().astype(int))
    found = Pairs(annotated.select([annotated.ids[k] for k in chosen]), side)
    return list(found.images().transpose(0, 2, 3, 1)), np.stack([found.mask(k) for k in range(len(found))])


def kid_difference(found: np.ndarray, peer: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """KID of `found` minus that of `peer`, and its standard error, of features (N, D) whose rows share a mask.

    The error is a jackknife that leaves out one group of masks at a time on all sides (Efron & Tibshirani, "An
    Introduction to the Bootstrap", Eq. 11.5).
    """

    def difference(keep: np.ndarray) -> float:
        return mmd2(found[keep], real[keep]) - mmd2(peer[keep], real[keep])

    groups = min(GROUPS, len(real) // 2)
    group = np.arange(len(real)) % groups
    left_out = np.array([difference(group != k) for k in range(groups)])
    return difference(group >= 0), float(np.sqrt((groups - 1) * left_out.var()))


def quality(images: Images, theirs: tuple[Images, np.ndarray], real: np.ndarray) -> dict[str, float]:
    """KID beside that of the peer's images and features, `theirs`; mean difference of a pixel in grey levels."""
    features = extract(list(images))
    difference, error = kid_difference(features, theirs[1], real)
    return {
        "kid": mmd2(features, real), "kid_difference": difference, "kid_difference_se": error,
        "pixel_difference": float(np.abs(images.astype(float) - theirs[0]).mean()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    nets = build()
    images, masks = pairs(options.data, options.images, nets.foundation.resolution)
    peer = stock(nets, 50, SiameseConfig.guidance)
    sides = {name: with_solver(nets, name) for name in dict.fromkeys([DEFAULT, *TABLE] if options.table else [DEFAULT])}
    speed = measure(peer, sides, masks, options.rounds)

    seeds, real = list(range(len(masks))), extract(images)
    painted = peer(masks, seeds)
    theirs = (painted, extract(list(painted)))
    rows: dict[str, dict[str, Any]] = {}
    for name, paint in sides.items():
        rows[name] = {**speed[name], **quality(paint(masks, seeds), theirs, real)}
        print(row(name, rows[name]), flush=True)
    if options.table:
        chance = with_solver(nets, "ddim-50")(masks, [len(masks) + seed for seed in seeds])
        rows[OTHER_NOISE] = quality(chance, theirs, real)
        print(row(OTHER_NOISE, rows[OTHER_NOISE]))
    same = with_solver(nets, "ddim-50")(masks[:BATCH], seeds[:BATCH]).astype(int) - painted[:BATCH]
    kid_peer, mine = mmd2(theirs[1], real), rows[DEFAULT]
    noise = 2 * mine["kid_difference_se"]
    result = {
        "name": "sampling", "peer": PEER, **mine, "kid_peer": kid_peer,
        "equal": bool(mine["kid_difference"] <= noise <= MARGIN * kid_peer and np.abs(same).max() <= 1),
        "same_settings_difference": int(np.abs(same).max()), "settings": DEFAULT,
        "resolution": nets.foundation.resolution, "images": len(masks), "threads": options.threads,
        "reference": "phantoms" if options.data is None else options.data.name, "table": rows if options.table else {},
    }  # fmt: skip
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


def row(name: str, found: Mapping[str, float]) -> str:
    """A row of the table in the docs; KIDs x 1000."""
    kid, difference, error = (1000 * found[key] for key in ("kid", "kid_difference", "kid_difference_se"))
    ratio = f"{found['ratio']:.1f}" if "ratio" in found else ""
    return f"| {name} | {kid:.1f} | {difference:+.1f} ({error:.1f}) | {found['pixel_difference']:.1f} | {ratio} |"


if __name__ == "__main__":
    main()
