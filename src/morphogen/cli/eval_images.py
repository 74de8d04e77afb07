"""``morphogen eval images``: synthetic images against real ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Images(Verb):
    """Compare synthetic images with real ones: FID and KID. Masks are not looked at."""

    syn: tyro.conf.Positional[Path]
    """Folder with the synthetic images."""
    real: tyro.conf.Positional[Path]
    """Folder with the real images; they are resized to the size of the synthetic ones."""
    features: str = "inception"
    """Feature extractor."""
    batch_size: int = 16
    """Images per forward pass."""
    device: str = "cpu"
    """Where the extractor runs: cpu, cuda, mps."""
    seed: int = 0
    """Of KID's subsets."""

    def run(self) -> dict[str, Any]:
        from morphogen.errors import InputError
        from morphogen.metrics.features import extract, find
        from morphogen.metrics.fid import fid
        from morphogen.metrics.kid import kid
        from morphogen.metrics.pictures import find_pictures, picture, pictures
        from morphogen.metrics.weights import load_member
        from morphogen.progress import track

        load_member(find(self.features).member)  # a missing package is found before the images are read
        synthetic, real = find_pictures(self.syn), find_pictures(self.real)
        for folder, records in ((self.syn, synthetic), (self.real, real)):
            if len(records) < 4:
                raise InputError(f"{folder}: holds {len(records)} images; FID and KID need at least 4")
        size = picture(synthetic[0]).shape[:2]
        ours, theirs = (
            extract(track(pictures(records, size), name, len(records)), self.features, self.batch_size, self.device)
            for name, records in (("synthetic", synthetic), ("real", real))
        )
        result = {
            "n_synthetic": len(synthetic),
            "n_real": len(real),
            "features": self.features,
            "size": list(size),
            "metrics": {"fid": fid(ours, theirs), "kid": asdict(kid(ours, theirs, seed=self.seed))},
        }
        result["protocol"] = _images_protocol(result)
        _print_images(result)
        return result


def _images_protocol(result: dict[str, Any]) -> str:
    height, width = result["size"]
    kid = result["metrics"]["kid"]
    return (
        f"{result['features']} features of images at {width} x {height} px (others resized to it, antialiased), "
        "resized to the input of the extractor by TensorFlow 1's bilinear rule; float64; "
        "fid: all images, biased upwards at small n; "
        f"kid: unbiased, cubic kernel, {kid['subsets']} subsets of {kid['subset_size']}, `full` on all images"
    )


def _print_images(result: dict[str, Any]) -> None:
    kid = result["metrics"]["kid"]
    print(f"{result['n_synthetic']} synthetic images, {result['n_real']} real ones")
    print(f"  fid   {result['metrics']['fid']:.3f}")
    print(f"  kid   {kid['mean']:.5f}  (std over subsets {kid['std']:.5f}; on all images {kid['full']:.5f})")
    print(result["protocol"])
