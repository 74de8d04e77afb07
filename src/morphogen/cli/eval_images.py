"""``morphogen eval images``: synthetic images against real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError

if TYPE_CHECKING:
    from morphogen.data.records import Dataset, Record
    from morphogen.metrics.image_metrics import Options
    from morphogen.metrics.image_passes import Collected, Sets


@dataclass(frozen=True, kw_only=True)
class Images(Verb):
    """Compare synthetic images with real ones: FID, KID, FD-DINOv2, CMMD, CLIP-I, LPIPS.

    Where both folders have masks, the distributions of their area, shape and position are compared too. Several
    processes that are launched together (torchrun) divide the images.
    """

    syn: tyro.conf.Positional[Path]
    """Folder with the synthetic images. Where it has a manifest.jsonl, that says which real image each is paired with;
    else equal names are pairs."""
    real: tyro.conf.Positional[Path]
    """Folder with the real images; they are resized to the size of the synthetic ones."""
    metrics: tuple[str, ...] = ()
    """fid, kid, fd_dinov2, cmmd, clip_i, lpips (VGG16), lpips_alex; by default all whose weights are here. Those that
    are named may be downloaded, and are an error where they cannot be had."""
    features: str = "inception"
    """Extractor of FID, KID and the map: inception, lite0, clip-l14-336, clip-b32 or dinov2-l14."""
    features_folder: tuple[str, ...] = ()
    """NAME=FOLDER: where the weights of an extractor lie (config.json, model.safetensors), for use without a network
    connection; e.g. dinov2-l14=/models/dinov2-large."""
    adherence: Path | None = None
    """Run folder of a segmenter that saw neither set: its Dice on SYN against SYN's masks, beside that on REAL."""
    tsne: Path | None = None
    """Draw a t-SNE map of the features of both sets into this file (PNG; needs scikit-learn)."""
    mask_values: str | None = None
    """Label of every raw value in the masks, e.g. 0=0,255=1; found by itself where it is clear."""
    batch_size: int = 16
    """Images per forward pass."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda, mps."""
    seed: int = 0
    """Of KID's subsets, of the pairs within a set, and of the map."""

    def run(self) -> dict[str, Any]:
        """Compare the folders.

        Raises:
            InputError: A folder, a file, a name or a number of images is wrong, or weights are missing.
        """
        from morphogen.data.tables import without_dropped
        from morphogen.launched import place
        from morphogen.metrics import image_metrics, image_passes
        from morphogen.metrics.pictures import find_pictures, picture

        options = self._options()
        plan = image_metrics.choose(options)
        unfiltered, real = find_pictures(self.syn), find_pictures(self.real)
        synthetic = without_dropped(self.syn, unfiltered)
        size = picture(synthetic[0]).shape[:2]
        sets = image_passes.Sets(synthetic, real, size, image_passes.sources_of(synthetic, real))
        judged = None if self.adherence is None else self._judged(self.adherence, unfiltered, real)
        masks, said = self._masks(synthetic, real)
        collected = image_passes.collect(sets, plan, options)
        if place().rank:
            return {}
        result: dict[str, Any] = {
            "n_synthetic": len(synthetic),
            "n_real": len(real),
            "features": self.features,
            "size": list(size),
            "metrics": image_metrics.measure(collected, sets, plan, options),
            "skipped": dict(plan.skipped),
            "extractors": collected.extractors,
            "n_pairs": len(sets.sources),
            "masks": masks,
            "adherence": judged,
            "tsne": self._map(collected),
        }
        result["warnings"] = [
            *image_metrics.warnings_of(collected, sets, plan, options),
            *_dropped(len(unfiltered) - len(synthetic), len(unfiltered)),
            *_other_sizes(sets),
            *said,
            *(judged or {}).pop("warnings", []),
        ]
        result["protocol"] = _protocol(result)
        _print(result)
        return result

    def _options(self) -> Options:
        import torch

        from morphogen.metrics.image_metrics import Options
        from morphogen.metrics.tsne import check_installed

        folders = {}
        for word in self.features_folder:
            name, sign, folder = word.partition("=")
            if not (sign and name and folder):
                raise InputError(f"--features-folder {word}: is not NAME=FOLDER; write dinov2-l14=/models/dinov2-large")
            folders[name] = Path(folder)
        try:
            torch.empty(0, device=self.device)
        except Exception as error:  # torch has one type for an unknown word, and another for what is not built in
            raise InputError(
                f"--device {self.device}: is not to be had here; give cpu, or look at the driver"
            ) from error
        if self.tsne is not None:
            check_installed()
            if not self.tsne.absolute().parent.is_dir():
                raise InputError(f"{self.tsne}: its folder does not exist; make it first or name another file")
            if self.tsne.suffix.lower() != ".png":
                raise InputError(f"--tsne {self.tsne}: is no PNG; name a file that ends in .png")
        return Options(self.metrics, self.features, folders, self.batch_size, self.device, self.seed, self.tsne)

    def _dataset(self, root: Path, records: Sequence[Record]) -> Dataset:
        """The records with their masks' rule; all of them must have a mask."""
        from morphogen.data.mask_values import parse_mask_values
        from morphogen.data.readers import mask_rule
        from morphogen.data.records import Dataset

        without = sum(record.mask is None for record in records)
        if without:
            raise InputError(f"{root}: {without} of {len(records)} images have no mask; add them to masks/")
        rule = mask_rule(root, records, None if self.mask_values is None else parse_mask_values(self.mask_values))
        return Dataset(root.resolve().name, root, tuple(records), rule.classes, rule.values)

    def _judged(self, run: Path, synthetic: Sequence[Record], real: Sequence[Record]) -> dict[str, Any]:
        from morphogen.segmenters.adherence import adherence
        from morphogen.segmenters.predictor import load_segmenter

        judge = load_segmenter(run, self.device)
        return adherence(judge, self._dataset(self.syn, synthetic), self._dataset(self.real, real), self.batch_size)

    def _masks(self, synthetic: Sequence[Record], real: Sequence[Record]) -> tuple[dict[str, Any] | None, list[str]]:
        """Mask realism by class, or None with the reason; no mask at all needs none."""
        from morphogen.metrics.mask_realism import check_classes, compare_masks

        if not all(any(record.mask is not None for record in records) for records in (synthetic, real)):
            return None, []
        try:
            data = self._dataset(self.syn, synthetic), self._dataset(self.real, real)
            check_classes(*data)
        except InputError as error:
            if self.mask_values is not None:
                raise
            # nobody asked for the masks, so that they do not stop the rest
            return None, [f"masks were not compared: {error}"]
        return compare_masks(*data), []

    def _map(self, collected: Collected) -> dict[str, Any] | None:
        from morphogen.metrics.tsne import draw_tsne

        if self.tsne is None:
            return None
        synthetic, real = collected.features[self.features]
        return draw_tsne(synthetic.all, real.all, self.tsne, self.seed)


def _dropped(n: int, of: int) -> list[str]:
    line = f"{n} of {of} synthetic images are left out, which quality gates dropped; only adherence counts them"
    return [line] if n else []


def _other_sizes(sets: Sets) -> list[str]:
    from morphogen.data.images import image_size

    lines = []
    for name, records in (("synthetic", sets.synthetic), ("real", sets.real)):
        other = sum(image_size(record.image, record.plane) != tuple(sets.size) for record in records)
        if other:
            height, width = sets.size
            lines.append(f"{other} of {len(records)} {name} images are not {width} x {height} px and were resized")
    return lines


_SAYS = {
    "fid": "fid: {features}, all images, biased upwards at small n",
    "kid": "kid: {features}, unbiased, cubic kernel, {kid[subsets]} subsets of {kid[subset_size]}, `full` on all",
    "fd_dinov2": "fd_dinov2: Frechet distance of DINOv2 ViT-L/14 class tokens at 224 px",
    "cmmd": "cmmd: CLIP ViT-L/14 at 336 px, unit length, Gaussian kernel, sigma 10, times 1000, `biased` as published",
    "clip_i": "clip_i: cosine of CLIP ViT-B/32 embeddings, `paired` with the source image, `all_pairs` of both sets",
    "lpips": "lpips: VGG16, `paired` with the source image, `diversity` between random pairs of one set",
    "lpips_alex": "lpips_alex: as lpips, AlexNet",
}


def _protocol(result: dict[str, Any]) -> str:
    height, width = result["size"]
    parts = [f"images at {width} x {height} px (others resized to it, antialiased); float64"]
    parts += [_SAYS[name].format(features=result["features"], **result["metrics"]) for name in result["metrics"]]
    if result["n_pairs"]:
        parts.append("pairs: by the source mask that manifest.jsonl names, equal names where it has none")
    if result["masks"]:
        parts.append("masks: Kolmogorov-Smirnov distance of the distributions, masks taken as independent")
    if result["adherence"]:
        parts.append("adherence: Dice at native size, mean over images and classes, all synthetic images")
    return "; ".join(parts)


def _print(result: dict[str, Any]) -> None:
    print(f"{result['n_synthetic']} synthetic images, {result['n_real']} real ones, {result['n_pairs']} pairs")
    for name, value in result["metrics"].items():
        found = {"": value} if isinstance(value, float) else value
        print(f"  {name:<12}" + "  ".join(f"{key} {_number(v)}".strip() for key, v in found.items()))
    for name, found in (result["masks"] or {}).items():
        print(f"  masks, {name}: KS distance (p)")
        print("    " + "  ".join(f"{key} {v['ks']:.3f} ({v['p']:.2g})" for key, v in found["measures"].items() if v))
    if judged := result["adherence"]:
        print(f"  adherence   Dice {judged['dice']:.4f} on synthetic, {judged['dice_on_real']:.4f} on real images")
    if result["tsne"]:
        print(f"  map         {result['tsne']['file']}")
    for name, reason in result["skipped"].items():
        print(f"  {name} not computed: {reason}")
    for line in result["warnings"]:
        print(f"warning: {line}")
    print(result["protocol"])


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
