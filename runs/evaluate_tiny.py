"""How good a foundation is on images that it never saw: PSNR of the autoencoder, FID and KID of its samples.

    python runs/evaluate_tiny.py tiny --out OUT kvasir_seg=$MORPHOGEN_DATA/polyps/kvasir_seg:polyp isic2017=...:skin

Prompts are captions of the held-out images. Rows: samples, the same number of training images (real against real, the
floor), and held-out images passed through the autoencoder, each against the held-out images. About 5 minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from morphogen.data.pairs import Pairs
from morphogen.data.prompts import Grammar, caption
from morphogen.data.readers import read_dataset
from morphogen.foundation.autoencoder_task import psnr
from morphogen.foundation.images import save_grid, to_bytes, to_signed
from morphogen.foundation.model import Foundation
from morphogen.foundation.text_to_image import text_to_image
from morphogen.metrics.features import extract
from morphogen.metrics.fid import fid
from morphogen.metrics.kid import kid
from morphogen.progress import track
from morphogen.sampling.foundation_sampler import GUIDANCE


def pictures(images: np.ndarray) -> list[np.ndarray]:
    """(N, 3, R, R) to a list of (R, R, 3)."""
    return list(images.transpose(0, 2, 3, 1))


def sample(foundation: Foundation, prompts: list[str], guidance: float) -> np.ndarray:
    """One sample per prompt, (N, 3, R, R) uint8."""
    parts = [
        to_bytes(
            text_to_image(foundation, prompts[i : i + 16], range(i, i + len(prompts[i : i + 16])), guidance=guidance)
        )
        for i in track(range(0, len(prompts), 16), "sampling")
    ]
    return np.concatenate(parts)


def evaluate(
    foundation: Foundation, path: Path, grammar: Grammar, ids: dict[str, list[str]], out: Path
) -> dict[str, object]:
    """Figures of one set; writes a grid of samples above held-out images."""
    dataset = read_dataset(path)
    held_out = Pairs(dataset.select(ids["held_out"]), foundation.resolution)
    train = Pairs(dataset.select(ids["train"][: len(held_out)]), foundation.resolution)
    real = held_out.images()
    labels = [record.label.replace("_", " ") if record.label else None for record in held_out.dataset]
    prompts = [caption(grammar, real[i].transpose(1, 2, 0), held_out.mask(i), labels[i]) for i in range(len(held_out))]
    rows = {f"samples, guidance {GUIDANCE:g}": sample(foundation, prompts, GUIDANCE)}
    autoencoded = [to_bytes(foundation.autoencode(to_signed(real[i : i + 32]))) for i in range(0, len(real), 32)]
    shown = np.concatenate([next(iter(rows.values()))[:16], real[:16]])
    save_grid(to_signed(shown), out / f"{dataset.name}.png", columns=16)
    rows |= {"training images": train.images(), "autoencoded": np.concatenate(autoencoded)}
    reference = extract(pictures(real))
    found: dict[str, object] = {"n": len(held_out), "psnr_db": psnr(foundation, real)}
    for name, images in rows.items():
        features = extract(pictures(images))
        k = kid(features, reference)
        found[name] = {"fid": fid(features, reference), "kid": k.full}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("foundation")
    parser.add_argument("sets", nargs="+", help="NAME=FOLDER:GRAMMAR")
    parser.add_argument("--ids", type=Path, default=Path("splits/foundation.json"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    options.out.mkdir(parents=True, exist_ok=True)
    foundation = Foundation.load(options.foundation)
    frozen, found = json.loads(options.ids.read_text())["sets"], {}
    for word in options.sets:
        name, _, rest = word.partition("=")
        folder, _, grammar = rest.rpartition(":")
        found[name] = evaluate(foundation, Path(folder), Grammar.load(grammar), frozen[name], options.out)
    (options.out / "foundation.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
