"""``morphogen predict``: label masks, or probability maps, from a trained segmenter; classes from a classifier."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from morphogen.cli.prediction_files import claim, eight_bits, finished, nifti, refuse_maps
from morphogen.cli.verb import Verb
from morphogen.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from morphogen.data.records import Record
    from morphogen.segmenters.predictor import Predictor

_UNCERTAINTY = "uncertainty"
_SCALES = {"std": 0.5, "entropy": 1.0}
"""Maps of uncertainty, and the value that is written as 255."""
_IMAGES_AT_ONCE = 32
_OF_PICTURES = ("ensemble", "uncertainty")
_OF_VOLUMES = ("network", "overlap", "stride", "largest_component", "preset", "part")


@dataclass(frozen=True, kw_only=True)
class Predict(Verb):
    """Segment images: one PNG per image, at its native size (0/255 for two classes, label ids for more). Or classify
    them: one file predictions.csv with the probability of every class.

    A segmenter of volumes makes one NIfTI file of label ids per volume, on the grid of its file. A volume that a
    segmenter of images is given is segmented slice by slice and becomes one NIfTI file of label ids, with its affine.
    The same command again leaves finished masks as they are and makes the missing ones.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder of a segmenter or a classifier (of `train`, or one in a study's runs/)."""
    images: tyro.conf.Positional[Path]
    """Folder of images or volumes in any layout (masks in it are ignored), or one image or volume file."""
    out: Path
    """Folder to write; new, or of an earlier call with the same run."""
    batch_size: int | None = None
    """Images that pass the network together, or windows of a volume; 32 images or 4 windows where left out."""
    steps: int | None = None
    """Segmenter latent, and the diffusion network of volumes: steps of the denoiser (1: the direct estimate; more:
    DDIM); as trained where left out."""
    ensemble: int | None = None
    """Segmenter latent: start noises whose probabilities are averaged."""
    seed: int | None = None
    """Segmenter latent, and the diffusion network of volumes: seed of the start noise, which is the same for every
    image."""
    uncertainty: bool = False
    """Segmenter latent, with --ensemble: write 8-bit maps too, in uncertainty/std (255 = a standard deviation of 0.5
    between the members) and uncertainty/entropy (255 = all classes alike)."""
    probabilities: bool = False
    """Write 8-bit grey maps of the foreground's probability (255 = 1) instead of labels, for `eval masks
    --probabilities`; two classes only."""
    network: Literal["cs", "ds", "mean"] | None = None
    """Volumes: the convolutional network (cs), the diffusion network (ds), or the mean of their probabilities; the one
    that chose the weights where left out."""
    overlap: float | None = None
    """Volumes: part of a window's side that its neighbour shares, 0 to below 1; 0.5 where left out."""
    stride: tuple[int, int, int] | None = None
    """Volumes: voxels from a window to the next along each axis, in place of --overlap (18 18 4, say)."""
    largest_component: bool = False
    """Volumes: keep the largest connected part of every class."""
    preset: str | None = None
    """Volumes: the benchmark whose files they are (la2018, say), which says where they lie and how their axes run."""
    part: Literal["train", "val", "test"] | None = None
    """Volumes: the part to segment, where lists name parts; all where left out."""
    device: str | None = None
    """Where the network works: cpu, cuda, mps; a GPU where there is one."""

    def run(self) -> dict[str, Any]:
        """Write the masks.

        Raises:
            InputError: No segmenter or classifier, no images, a folder that holds something else, probabilities of more
                than two classes, or settings that the run's method does not have.
        """
        from morphogen.devices import usable_device
        from morphogen.training.net_files import kind_of

        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size}: is not positive; give at least 1")
        device, kind = usable_device(self.device), kind_of(self.run_folder)
        if kind == "volume_segmenter":
            self._refuse(_OF_PICTURES, "segmenters of images", "segments volumes")
            return self._volumes(device)
        self._refuse(_OF_VOLUMES, "segmenters of volumes", "is none")
        return self._classify(device) if kind == "classifier" else self._segment(device)

    def _refuse(self, options: Sequence[str], of: str, what: str) -> None:
        """Refuse options that are stated and have no meaning."""
        for name in options:
            value = getattr(self, name)
            if value is not None and value is not False:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag}: is of {of}, and {self.run_folder} {what}; leave it out")

    def _volumes(self, device: str) -> dict[str, Any]:
        from morphogen.cli.predict_volumes import predict_volumes, volume_records
        from morphogen.segmenters.diffcl.volume_predictor import VolumeSettings

        stated: dict[str, Any] = {
            **{
                name: getattr(self, name)
                for name in ("network", "steps", "seed", "overlap", "stride", "largest_component")
            },
            "windows": self.batch_size,
        }
        if self.stride is not None and self.overlap is not None:
            raise InputError(f"--overlap {self.overlap}: --stride says where windows lie; leave one of them out")
        settings = VolumeSettings(**{name: value for name, value in stated.items() if value is not None})
        records = volume_records(self.images, self.preset, self.part)
        return predict_volumes(self.run_folder, records, self.out, settings, self.probabilities, device)

    @property
    def _at_once(self) -> int:
        return self.batch_size or _IMAGES_AT_ONCE

    def _classify(self, device: str) -> dict[str, Any]:
        from morphogen.cli.predict_classes import predict_classes

        self._refuse(("steps", "seed", "probabilities", *_OF_PICTURES), "segmenters", "is a classifier")
        return predict_classes(self.run_folder, _records(self.images), self.out, self._at_once, device)

    def _segment(self, device: str) -> dict[str, Any]:
        from morphogen.data.pairs import say_holes
        from morphogen.progress import Stage, say
        from morphogen.segmenters.predictor import Sampling, load_segmenter

        predictor = load_segmenter(self.run_folder, device)
        if self.probabilities:
            refuse_maps(self.run_folder, predictor.classes)
        predictor.with_sampling(Sampling(self.steps, self.ensemble, self.seed))
        if self.uncertainty:
            self._check_ensemble(predictor)
        records = _records(self.images)
        self._claim(predictor)
        say_holes(records)
        targets = _targets(records)
        missing = {name: some for name, some in targets.items() if not all(map(finished, self._files(name)))}
        with Stage("predicting", len(targets), start=len(targets) - len(missing)) as stage:
            for part in _chunks(missing, self._at_once):
                self._predict(predictor, part)
                stage.advance(len(part))
        kind = "probability maps" if self.probabilities else "masks"
        say(f"{len(targets)} {kind}, {len(missing)} of them new, in {self.out}")
        return {
            "out": str(self.out),
            "n": len(targets),
            "made": len(missing),
            "segmenter": predictor.config["segmenter"],
            "classes": list(predictor.classes),
            "hash": predictor.hash,
        }

    def _check_ensemble(self, predictor: Predictor) -> None:
        members = self.ensemble or predictor.config["architecture"].get("ensemble")
        if members is None:
            raise InputError(
                f"--uncertainty: the segmenter {predictor.config['segmenter']} draws no noise; leave it out"
            )
        if members < 2:
            raise InputError("--uncertainty: needs several members; give --ensemble 8, say")

    def _files(self, name: str) -> list[Path]:
        """What is written for one target."""
        maps = [self.out / _UNCERTAINTY / kind / name for kind in _SCALES] if self.uncertainty else []
        return [self.out / name, *maps]

    def _claim(self, predictor: Predictor) -> None:
        """Make `out` the folder of this segmenter's predictions of this kind, or refuse to mix two."""
        rule = dict(zip(predictor.classes, _grey_levels(len(predictor.classes)), strict=True))
        meaning = {"probabilities": True} if self.probabilities else {"grey_level_of_class": rule}
        claim(self.out, predictor.hash, predictor.sampling.given, meaning)

    def _predict(self, predictor: Predictor, targets: Mapping[str, Sequence[Record]]) -> None:
        import numpy as np

        from morphogen.data.images import load_rgb
        from morphogen.files import write_bytes

        pictures = [load_rgb(record) for records in targets.values() for record in records]
        made = zip(*self._maps(predictor, pictures), strict=True)
        for name, records in targets.items():
            plane = records[0].plane
            files = self._files(name)
            for path, found in zip(files, zip(*(next(made) for _ in records), strict=True), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                if plane is not None:
                    data = nifti(np.stack(found, axis=plane[0]).astype(np.uint8), records[0].image)
                else:
                    grey = self.probabilities or path is not files[0]
                    data = _png(found[0] if grey else _levels(found[0], len(predictor.classes)))
                write_bytes(path, data)

    def _maps(self, predictor: Predictor, pictures: list[NDArray[np.uint8]]) -> list[list[NDArray[Any]]]:
        """For each file of `_files`: what it shows of every picture."""
        if self.uncertainty:
            found = predictor.uncertainty(pictures, self._at_once)
            probabilities = [p for p, _, _ in found]
            maps = [[eight_bits(m[i], scale) for m in found] for i, scale in enumerate(_SCALES.values(), start=1)]
        elif self.probabilities:
            probabilities, maps = predictor.probabilities(pictures, self._at_once), []
        else:
            return [list(predictor(pictures, self._at_once))]
        first = [eight_bits(p[1]) if self.probabilities else p.argmax(axis=0) for p in probabilities]
        return [first, *maps]


def _targets(records: Sequence[Record]) -> dict[str, list[Record]]:
    """File to write -> what it shows: one picture, or the slices of one volume in their order."""
    from morphogen.data.writers import case_of

    targets: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.plane or (0, 0)):
        name = f"{record.id}.png" if record.plane is None else f"{case_of(record)}.nii.gz"
        targets.setdefault(name, []).append(record)
    return targets


def _records(images: Path) -> list[Record]:
    from morphogen.data.images import is_image, is_volume, stem
    from morphogen.data.readers import scan, without_gaps
    from morphogen.data.records import Record

    if not images.is_file():
        return scan(images, sink=without_gaps)
    if not is_image(images) or is_volume(images):
        raise InputError(f"{images}: is not a PNG, JPEG, TIFF or BMP file; name one, or a folder of images")
    return [Record(stem(images), images)]


def _grey_levels(n_classes: int) -> Sequence[int]:
    return (0, 255) if n_classes == 2 else range(n_classes)


def _levels(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.array(_grey_levels(n_classes), dtype=np.uint8)[labels]


def _png(levels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def _chunks(targets: Mapping[str, list[Record]], size: int) -> Iterator[dict[str, list[Record]]]:
    """Parts of some `size` images; a volume is never divided."""
    part: dict[str, list[Record]] = {}
    for name, records in targets.items():
        part[name] = records
        if sum(map(len, part.values())) >= size:
            yield part
            part = {}
    if part:
        yield part
