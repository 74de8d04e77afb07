"""One denoising step against fifty: time from an image to its mask, of the latent segmenter.

    python benchmarks/single_step.py [--threads 2] [--resolution 64] [--options WORDS] [--width 192] [--train-steps 300]
    python benchmarks/single_step.py --run RUN --data DIR [--ids FILE]

Every way is timed end to end, as `morphogen predict` works but without the disk: native uint8 image, resize, network,
probabilities at native size, threshold, native mask. The peer is our own DDIM with 50 steps on the same weights. A
round goes through all ways in turn, in one process; ratios are medians of ratios taken round by round, and the first
call of each way stands apart. Beside them stand U-Nets at the same resolution: `unet-vgg16`, of whose time one step may
take three times at most, and the smaller `unet-lite0` and `unet-scratch`. The stages of one step (encoder, denoiser,
decoder, the rest) are taken in rounds of their own. On a GPU every clock waits for it.

Without `--run` a network with the `--options` (option=value, joined by +), or with a denoiser in the shape of LDM's on
LSUN churches whose first level is `--width` wide (192 as published), is trained on phantoms for `--train-steps` first.
0 is for networks too large to be trained here; then there is no Dice. With `--run` the Dice of one step and of fifty is
taken on those images of `--data` whose split is `val`, or that `--ids` lists, one id a line. Records whose split is
`test` are refused, so that no test part is read by accident.

`equal`: with 1 step and with 50, diffusers' DDIM around the same denoiser ends in our probabilities, and its one step
in our direct estimate, to 1e-4.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor, nn

from morphogen.data.images import load_rgb
from morphogen.data.pairs import Pairs, native_mask, resize_image
from morphogen.data.phantoms import phantom, phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.metrics.overlap import class_counts, dice_from_counts
from morphogen.segmenters import build, read_options, resolve
from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.latent.schedule import BETA_END, BETA_START, T
from morphogen.segmenters.predictor import Predictor, load_segmenter
from morphogen.segmenters.task import SegmenterConfig, train_segmenter
from morphogen.training.net_files import to_input

PEER, PEER_STEPS = "50-step DDIM, ours", 50
ONE, MANY = "one step", "50 steps"
UNETS = {f"unet-{encoder}": encoder for encoder in ("vgg16", "lite0", "scratch")}
NATIVE, FIRST = (384, 288), 30_000_000
"""Width and height in px of the phantoms that are timed, those of CVC-ClinicDB; seed of the first."""
STAGES = {"encoder": "encode_image", "denoiser": "denoise", "decoder": "decode"}
TOLERANCE = 1e-4
Images = Sequence[np.ndarray]
Way = Callable[[Images], list[np.ndarray]]


class ManySteps(nn.Module):
    """The latent segmenter with DDIM in the place of its direct estimate."""

    def __init__(self, net: Any, steps: int) -> None:
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, image: Tensor) -> Tensor:
        tau = self.net.encode_image(image)
        logits: Tensor = self.net.decode(self.net.denoise(tau, self.net.start(tau), self.steps))
        return logits


def ways_of(latent: Predictor) -> dict[str, Way]:
    """One step, fifty, and the U-Nets, all with the latent segmenter's resolution, classes and device."""
    net: Any = latent.net
    many = AnySize(ManySteps(net.net, PEER_STEPS), net.multiple)
    ways: dict[str, Way] = {ONE: latent, MANY: Predictor(many.eval(), latent.config, latent.folder)}
    for name, encoder in UNETS.items():
        unet = build("unet", len(latent.classes), {"encoder": encoder}, pretrained=False).to(device()).eval()
        ways[name] = Predictor(unet, latent.config, latent.folder)
    return ways


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def clock() -> float:
    """Seconds, when all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(way: Way, images: Images) -> float:
    began = clock()
    way(images)
    return clock() - began


def measure(ways: Mapping[str, Way], images: Images, warmups: int, rounds: int, limit: float) -> dict[str, Any]:
    """Seconds of every way: of its first call, and round by round until there are `rounds` or `limit` seconds are up.

    Three rounds are taken in any case.
    """
    first = {name: seconds(way, images) for name, way in ways.items()}
    for _ in range(warmups):
        for way in ways.values():
            way(images)
    times: dict[str, list[float]] = {name: [] for name in ways}
    began = clock()
    while len(times[ONE]) < 3 or (len(times[ONE]) < rounds and clock() - began < limit):
        for name, way in ways.items():
            times[name].append(seconds(way, images))
    return {"first_s": first, "times": times}


@contextmanager
def staged(net: Any) -> Iterator[dict[str, float]]:
    """Adds up the seconds that `net` spends in each of its `STAGES`, by wrapping these methods for a while."""
    spent = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any, **options: Any) -> Any:
            began = clock()
            found = work(*words, **options)
            spent[stage] += clock() - began
            return found

        return run

    for stage, method in STAGES.items():
        setattr(net, method, timed(stage, getattr(net, method)))
    try:
        yield spent
    finally:
        for method in STAGES.values():
            delattr(net, method)


def stages(latent: Predictor, images: Images, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of the stages of one step, and their share of the whole."""
    net: Any = latent.net
    rows = []
    for _ in range(rounds):
        with staged(net.net) as spent:
            whole = seconds(latent, images)
        rows.append({**spent, "rest": whole - sum(spent.values()), "whole": whole})
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return {
        name: {"ms": 1000 * middle[name], "share": middle[name] / middle["whole"]}
        for name in (*STAGES, "rest")
    }  # fmt: skip


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Medians, 95th percentiles and first calls in ms; ratios of rounds."""
    times = {name: np.array(values) for name, values in found["times"].items()}
    return {
        "ours_s": float(np.median(times[ONE])), "peer_s": float(np.median(times[MANY])),
        "ratio": float(np.median(times[MANY] / times[ONE])),
        **{f"of_{name}": float(np.median(times[ONE] / times[name])) for name in UNETS},
        "rounds": len(times[ONE]),
        "ways": {
            name: {
                "median_ms": 1000 * float(np.median(values)), "p95_ms": 1000 * float(np.percentile(values, 95)),
                "first_ms": 1000 * found["first_s"][name],
            } for name, values in times.items()
        },
    }  # fmt: skip


def setting(latent: Predictor, images: Images, bf16: bool, options: argparse.Namespace) -> dict[str, Any]:
    """One batch and precision: what is measured there."""
    with torch.autocast(device(), torch.bfloat16, enabled=bf16):
        found = measure(ways_of(latent), images, options.warmups, options.rounds, options.limit)
        parts = stages(latent, images, max(3, min(options.rounds, 20)))
    result = {"batch": len(images), "precision": "bf16" if bf16 else "fp32", **summary(found), "stages": parts}
    times = " / ".join(f"{way['median_ms']:.1f}" for way in result["ways"].values())
    shares = " / ".join(f"{part['ms']:.1f}" for part in parts.values())
    print(f"| {result['precision']} | {result['batch']} | {times} | {result['ratio']:.1f} | {shares} |", flush=True)
    return result


@torch.no_grad()
def differences(latent: Predictor, images: Images) -> dict[str, float]:
    """Largest difference to diffusers' DDIM: in a probability, and of the direct estimate to the latent of one step."""
    outer: Any = latent.net
    net = outer.net
    small = np.stack([resize_image(image, latent.resolution).transpose(2, 0, 1) for image in images])
    tau = net.encode_image(outer._padded(to_input(small).to(device())))
    found = {}
    for steps in (1, PEER_STEPS):
        z0 = by_diffusers(net, tau, steps)
        ours = net.denoise(tau, net.start(tau), steps)
        found[f"{steps}_steps"] = float((net.decode(ours).softmax(1) - net.decode(z0).softmax(1)).abs().max())
        if steps == 1:
            found["direct_estimate"] = float((ours - z0).abs().max())
    return found


def by_diffusers(net: Any, tau: Tensor, steps: int) -> Tensor:
    """z_0 by diffusers' DDIM from t = T - 1 on, eta 0, nothing clipped; its last step's estimate."""
    betas = np.linspace(BETA_START**0.5, BETA_END**0.5, T) ** 2
    kind = "epsilon" if net.config.objective == "paper" else "sample"
    solver = DDIMScheduler(
        T, trained_betas=betas, prediction_type=kind, clip_sample=False, timestep_spacing="trailing"
    )  # fmt: skip
    solver.set_timesteps(steps, device=tau.device)
    z = net.start(tau)
    for t in solver.timesteps:
        made = solver.step(net._denoiser(z, tau, t.expand(len(tau))), t, z)
        z = made.prev_sample
    estimate: Tensor = made.pred_original_sample
    return estimate


def dice_of(way: Way, records: Dataset) -> float:
    """Mean over images of the mean Dice of their foreground classes, at native size."""
    scores = []
    for record in records:
        (found,) = way([load_rgb(record)])
        counts = class_counts(found, native_mask(record, records), len(records.classes))
        scores.append(dice_from_counts(counts[1:]).mean())
    return float(np.mean(scores))


def dice_gap(latent: Predictor, records: Dataset) -> dict[str, Any]:
    """Dice of one step and of fifty, and how far they lie apart."""
    ways = ways_of(latent)
    one, many = dice_of(ways[ONE], records), dice_of(ways[MANY], records)
    return {"dice": one, "dice_peer": many, "dice_gap": abs(one - many), "dice_images": len(records)}


def chosen(data: Path, ids: Path | None) -> Dataset:
    """The annotated records that the Dice is taken on.

    Raises:
        InputError: None is marked ``val``, an id is unknown, or one belongs to a test part.
    """
    held = read_dataset(data, annotated_only=True)
    if ids is None:
        records = held.where(lambda record: record.split == "val")
        if not len(records):
            raise InputError(f"{data}: marks no record as val; name those of a validation part with --ids FILE")
        return records
    named = [line.strip() for line in ids.read_text().splitlines() if line.strip()]
    if unknown := sorted(set(named) - set(held.ids)):
        raise InputError(f"{ids}: {unknown[0]} is no annotated record of {data}; correct the id")
    records = held.select(named)
    if tested := [record.id for record in records if record.split == "test"]:
        raise InputError(f"{ids}: {tested[0]} belongs to the test part of {data}; name records of a validation part")
    return records


def architecture(options: argparse.Namespace) -> dict[str, Any]:
    """The latent segmenter's options; with ``--width`` the churches-like denoiser, made as wide as that."""
    words = [*options.options.split("+"), *(["denoiser=churches"] if options.width else [])]
    found = resolve("latent", read_options("latent", [word for word in words if word]))
    if options.width:
        shape = found["networks"]["denoiser"]["config"]
        first = shape["block_out_channels"][0]
        shape["block_out_channels"] = [options.width * c // first for c in shape["block_out_channels"]]
        shape["attention_head_dim"] = options.width * shape["attention_head_dim"] // first
    return found


def made(options: argparse.Namespace, folder: Path) -> tuple[Predictor, Dataset | None]:
    """A latent segmenter trained for a moment on phantoms, and phantoms that it never saw; or untrained, and none."""
    side, chosen_options = options.resolution, architecture(options)
    if not options.train_steps:
        net = build("latent", 2, chosen_options).to(device()).eval()
        return Predictor(net, {"resolution": side, "classes": ("background", "foreground")}, folder), None
    train = phantom_dataset(folder / "train", "mucosa", 4 * options.phantoms, 2 * side)
    val = phantom_dataset(folder / "val", "mucosa", options.phantoms, 2 * side, seed=1)
    config = SegmenterConfig(
        architecture=chosen_options, max_train_steps=options.train_steps, validation_steps=-(-options.train_steps // 4),
        train_batch_size=options.train_batch_size,
    )  # fmt: skip
    train_segmenter("latent", Pairs(train, side), Pairs(val, side), config, folder / "run")
    return load_segmenter(folder / "run", device()), val


def prepared(options: argparse.Namespace, folder: Path) -> tuple[Predictor, Dataset | None]:
    """The network, and what its Dice is taken on."""
    if options.run is None:
        return made(options, folder)
    latent = load_segmenter(options.run, device())
    if latent.config["segmenter"] != "latent":
        raise InputError(f"{options.run}: is a {latent.config['segmenter']}; name a run of `train latent`")
    latent.resolution = options.resolution or latent.resolution
    return latent, chosen(options.data, options.ids) if options.data else None


def network_of(latent: Predictor) -> dict[str, Any]:
    """What was timed: options, and millions of parameters by part."""
    net: Any = latent.net
    inner = net.net
    parts = {"vision": inner.vision, "denoiser": inner.denoiser, "autoencoder": inner.autoencoder}
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    shown = ("foundation", "denoiser", "objective")
    return {**{name: getattr(inner.config, name) for name in shown}, "million_parameters": sizes}


def native_images(records: Dataset | None, count: int) -> list[np.ndarray]:
    """(H, W, 3) uint8 each: the first images of the data, else phantoms; repeated up to `count`."""
    if records is None:
        squares = [Image.fromarray(phantom("mucosa", FIRST + k, NATIVE[1])[0]) for k in range(min(count, 4))]
        few = [np.array(square.resize(NATIVE, Image.Resampling.LANCZOS)) for square in squares]
    else:
        few = [load_rgb(record) for record in records.records[:count]]
    return [few[k % len(few)] for k in range(count)]


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="trained latent segmenter")
    parser.add_argument("--data", type=Path, help="with --run: data whose val records the Dice is taken on")
    parser.add_argument("--ids", type=Path, help="with --data: ids to take instead, one a line; none of a test part")
    parser.add_argument("--options", default="", help="without --run: options of the network, option=value+...")
    parser.add_argument("--width", type=int, help="without --run: width of a churches-like denoiser")
    parser.add_argument("--resolution", type=int, default=0, help="side in px; 64, or the run's; 256 in the paper")
    parser.add_argument("--train-steps", type=int, default=300)
    parser.add_argument("--train-batch-size", type=int, default=16)
    parser.add_argument("--phantoms", type=int, default=24, help="phantoms that the Dice is taken on")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--warmups", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--limit", type=float, default=60, help="seconds of rounds for each batch and precision")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(words)
    if options.run is None:
        options.resolution = options.resolution or 64
    return options


def main(words: Sequence[str] | None = None) -> int:
    options = parsed(words)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        latent, records = prepared(options, Path(name))
        images = native_images(records if options.run else None, max(options.batches))
        off = differences(latent, images[:2])
        print(f"| precision | batch | {' / '.join([ONE, MANY, *UNETS])}, ms | times as fast | "
              f"{' / '.join([*STAGES, 'rest'])}, ms |\n|---|---|---|---|---|")  # fmt: skip
        settings = [setting(latent, images[:n], bf16, options) for bf16 in (False, True) for n in options.batches]
        gap = dice_gap(latent, records) if records is not None else {}
    leading = {key: settings[0][key] for key in ("ours_s", "peer_s", "ratio", "of_unet-vgg16")}
    result = {
        "name": "single_step", "peer": PEER, **leading, **gap, "equal": max(off.values()) <= TOLERANCE,
        "differences": off, "settings": settings, "resolution": latent.resolution, "native": list(images[0].shape[:2]),
        "network": network_of(latent), "threads": options.threads,
        "device": torch.cuda.get_device_name() if device() == "cuda" else f"CPU, {os.cpu_count()} cores",
        "data": options.data.name if options.data else "phantoms",
    }  # fmt: skip
    print(json.dumps(result))
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
