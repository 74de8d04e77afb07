"""``morphogen train``: one generator, one segmenter or one classifier."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError

if TYPE_CHECKING:
    from morphogen.data.records import Dataset

_COMMON = tuple(field.name for field in dataclasses.fields(Verb))
_OWN = ("method", "data", "out", "mask_values", *_COMMON)
"""Fields of the verb that are not options of a method."""


@dataclass(frozen=True, kw_only=True)
class Train(Verb):
    """Train a generator, a segmenter or a classifier (`morphogen models` lists them). The same command again continues
    a stopped run.

    Options that are not given keep the method's own default. Records whose split is ``test`` are left aside before any
    of their pixels are read; those of ``val`` choose the checkpoint of a segmenter or classifier, and no generator sees
    them. A classifier learns the classes of the images (column class of records.csv) and needs no masks. diffcl learns
    from what has no mask, too, and takes volumes (NIfTI, nnU-Net raw, lists of h5 or NIfTI files) as well as pictures.
    """

    method: tyro.conf.Positional[str]
    """Name of a generator, segmenter or classifier."""
    data: tyro.conf.Positional[Path]
    """Folder of annotated images, in any layout that `morphogen data check` reads; for dual and diffcl some may
    have no mask."""
    out: Path
    """Run folder: config.yaml, metrics.jsonl, previews/, checkpoints/, final/."""
    mask_values: str | None = None
    """What the values in the masks mean, e.g. 0=0,7=1,255=2; found by itself where it is clear."""
    resolution: int | None = None
    """Side in px at which the method works (segmenters and classifiers: 64; not of volumes)."""
    train_batch_size: int | None = None
    """Rows of one optimiser step."""
    gradient_accumulation_steps: int | None = None
    """Parts that a batch is worked off in, to save memory; siamese, controlnet: 0 for as few as the device allows."""
    mixed_precision: str | None = None
    """no, bf16 or fp16 (autocast; the weights stay in fp32)."""
    gradient_checkpointing: bool | None = None
    """Generators: compute activations again for the gradient rather than keep them; on in the presets sd15,
    sd2 and sdxl."""
    tuning: str | None = None
    """Generators: what trains: full (as published), lora (low-rank updates); siamese and controlnet also locked (the
    ControlNet alone), or auto (the first that the device's memory allows; so in sd15); arsdm: full or decoder."""
    optimizer: str | None = None
    """adamw or adamw8bit (needs bitsandbytes); siamese and controlnet: or auto (so in sd15); segmenters: or sgd."""
    ema_decay: float | None = None
    """Moving average of the trained weights; 0 for none."""
    max_train_steps: int | None = None
    """Optimiser steps."""
    lr: float | None = None
    """Peak learning rate."""
    encoder_lr_scale: float | None = None
    """Segmenters, classifiers: factor on the learning rate of the encoder."""
    weight_decay: float | None = None
    """Segmenters, classifiers: weight decay."""
    lr_scheduler: str | None = None
    """constant or cosine; segmenters and classifiers: or linear, poly, halving."""
    lr_warmup_steps: int | None = None
    """Steps in which the learning rate grows from 0."""
    seed: int | None = None
    """Seed of everything random."""
    checkpointing_steps: int | None = None
    """Steps between checkpoints."""
    validation_steps: int | None = None
    """Segmenters, classifiers: steps between looks at the validation part; generators: between previews."""
    preset: str | None = None
    """Generators: tiny, sd15 or another preset, a foundation's folder or hub id, option=value, or some joined by +
    (sd15+FOLDER is the paper's recipe on that folder, sd15+w_c=0.5 another weight; for inpaint also sd2, sdxl and lora,
    and normals=FOLDER for the images to paint into; for dual also lora, canvas and sd2+FOLDER, and sd15 is its
    foundation alone, without a recipe; for siamese also adc, for controlnet mask-image; for singan-seg tiny or paper);
    segmenters: option=value, joined by + (size=b0+weights=none; for latent objective=paper); features: its foundation;
    classifiers: option=value, joined by + (weights=none). diffcl: a
    benchmark's layout (la2018, brats2019, pancreas-a, pancreas-b, acdc) and option=value
    (method=cps+labelled=8+spacing=2.5+patch=64x48x32; its README lists them; of pictures network=unet)."""
    init: str | None = None
    """Generators siamese and controlnet: zero (as published), pretrained (hint path made on phantoms) or auto."""
    adapt_steps: int | None = None
    """Generators: steps of fine-tuning the foundation on the training images first."""
    prompt: str | None = None
    """Generators that paint for masks: one prompt for all images; by default each record's caption, else the one that
    fits best."""
    encoder: str | None = None
    """Segmenter unet: auto, scratch, lite0 or vgg16."""
    recipe: str | None = None
    """Segmenters: published, for resolution, batch, length, optimiser, schedule and scales of the paper; options given
    beside it win. By default a short training that fits a CPU."""
    augmentation: str | None = None
    """Segmenters, classifiers: none or geometric; diffcl of volumes: or strong (intensities, too)."""
    scales: tuple[float, ...] | None = None
    """Segmenters: sizes at which the steps train in turn, as factors on --resolution (0.75 1 1.25)."""
    colour_exchange: bool | None = None
    """Segmenters: every image takes the colours of another one, as SANet trains."""
    class_balance: float | None = None
    """Classifiers and dual: 0 samples the images as they are, 1 every class equally often, 0.5 between."""
    weighting: float | None = None
    """Classifiers: 0 weighs all images alike in the loss, 1 all classes, 0.5 between."""
    select_by: str | None = None
    """Classifiers: macro_f1 or balanced_accuracy of the validation part chooses the checkpoint."""

    def run(self) -> dict[str, Any]:
        """Train the method.

        Raises:
            InputError: Unknown method, an option that it does not have, wrong data, or a folder with another run.
            WorkError: The loss is not finite, or the disk is full.
        """
        from morphogen.classifiers import CLASSIFIERS
        from morphogen.generators import GENERATORS
        from morphogen.progress import say
        from morphogen.segmenters import SEGMENTERS

        known = [*GENERATORS, *SEGMENTERS, *CLASSIFIERS]
        if self.method not in known:
            near = difflib.get_close_matches(self.method, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"{self.method}: no such method; {hint}")
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _OWN}
        options = {name: value for name, value in given.items() if value is not None}
        if self.method == "diffcl":
            from morphogen.cli.train_few import train_few

            made = train_few(self.data, self.mask_values, options, self.out)
            say(f"trained: {self.out}")
            return {"run": str(self.out), "method": self.method, **made}
        tables = ((SEGMENTERS, self._segmenter), (CLASSIFIERS, self._classifier), (GENERATORS, self._generator))
        train = next(way for table, way in tables if self.method in table)
        result = train(options)
        say(f"trained: {self.out}")
        return {"run": str(self.out), "method": self.method, **result}

    def _generator(self, options: Mapping[str, Any]) -> dict[str, Any]:
        from morphogen.data.pairs import refuse_unreadable
        from morphogen.generators import GENERATORS

        entry = GENERATORS[self.method]
        options = dict(options)
        config = entry.configure(options.pop("preset", None), **options)
        data = without_parts(("test", "val"), self.data, self.mask_values, entry.bare_images)
        entry.check(data, config)
        refuse_unreadable(data)
        entry.train(data, config, self.out)
        return {"kind": "generator", "n_train": len(data)}

    def _segmenter(self, options: Mapping[str, Any]) -> dict[str, Any]:
        from morphogen import segmenters
        from morphogen.data.pairs import Pairs, refuse_unreadable
        from morphogen.segmenters.task import SegmenterConfig, train_segmenter

        options = dict(options)
        architecture = segmenters.resolve(self.method, self._architecture(options, segmenters))
        recipe = options.pop("recipe", None)
        if recipe not in (None, "published"):
            raise InputError(f"--recipe {recipe}: there is no such recipe; give published, or leave it out")
        data = without_parts(("test",), self.data, self.mask_values).annotated
        if not len(data):
            raise InputError(f"{data.root}: holds no image with a mask; a segmenter needs some")
        train, val = divided(data, options.get("seed", SegmenterConfig().seed))
        if recipe:
            options = segmenters.published(self.method, len(train)) | options
        resolution = resolution_of(options)
        stated = {**options, "architecture": architecture, "keep_last": True}
        config = _configured(self.method, SegmenterConfig, stated)
        refuse_unreadable(data)
        train_segmenter(self.method, Pairs(train, resolution), Pairs(val, resolution), config, self.out)
        return {"kind": "segmenter", "n_train": len(train), "n_val": len(val), "architecture": architecture}

    def _classifier(self, options: Mapping[str, Any]) -> dict[str, Any]:
        from morphogen import classifiers
        from morphogen.classifiers.config import ClassifierConfig
        from morphogen.classifiers.labels import classes_of, refuse_rare
        from morphogen.classifiers.task import train_classifier
        from morphogen.cli.labelled import read_labelled
        from morphogen.data.pairs import Pairs, refuse_unreadable

        if self.mask_values is not None:
            raise InputError("--mask-values: a classifier looks at no masks; leave it out")
        options = dict(options)
        architecture = classifiers.resolve(self.method, self._architecture(options, classifiers))
        resolution = resolution_of(options)
        classifiers.refuse_size(self.method, resolution)
        config = _configured(
            self.method, ClassifierConfig, {**options, "architecture": architecture, "keep_last": True}
        )
        data = read_labelled(self.data, without=("test",))
        classes = classes_of([data])
        refuse_rare(data)
        train, val = divided(data, config.seed, by_class=True)
        classes_of([train], classes)
        refuse_unreadable(data, foreground=False)
        train_classifier(self.method, Pairs(train, resolution), Pairs(val, resolution), config, self.out)
        counts = {name: sum(record.label == name for record in train) for name in classes}
        sizes = {"n_train": len(train), "n_val": len(val)}
        return {"kind": "classifier", **sizes, "classes": counts, "architecture": architecture}

    def _architecture(self, options: dict[str, Any], table: Any) -> dict[str, Any]:
        """Takes the options of the architecture out of those of the verb; `table` is the room of the method."""
        known = table.option_names(self.method)
        chosen = {name: options.pop(name) for name in ("encoder",) if name in options and name in known}
        preset = options.pop("preset", None)
        if preset is None:
            return chosen
        if "foundation" in known and "=" not in preset:
            return {**chosen, "foundation": preset}
        return {**chosen, **table.read_options(self.method, preset.split("+"))}


def resolution_of(options: dict[str, Any]) -> int:
    """Takes the resolution out of the options."""
    resolution: int = options.pop("resolution", 64)
    if resolution < 16:
        raise InputError(f"--resolution {resolution}: is too small; give at least 16")
    return resolution


def _configured(method: str, cls: type[Any], options: Mapping[str, Any]) -> Any:
    """The method's config with `options`; those that it does not have are refused."""
    known = {field.name for field in dataclasses.fields(cls)}
    for name in options:
        if name not in known:
            raise InputError(f"--{name.replace('_', '-')}: {method} has no such option; leave it out")
    return cls(**options)


def without_parts(parts: tuple[str, ...], data: Path, mask_values: str | None, bare_images: bool = False) -> Dataset:
    """The dataset without these parts of a stated split, which are dropped before any mask is opened.

    Args:
        parts: Names of the parts.
        data: The folder.
        mask_values: As on the command line.
        bare_images: Take images without a mask, too, where others have one.
    """
    from morphogen.data.faults import stop
    from morphogen.data.mask_values import parse_mask_values
    from morphogen.data.readers import mask_rule, scan, without_gaps
    from morphogen.data.records import Dataset
    from morphogen.data.tables import without_dropped

    found = scan(data, sink=without_gaps if bare_images else stop)
    records = without_dropped(data, [record for record in found if record.split not in parts])
    if not records:
        raise InputError(f"{data}: holds {' and '.join(parts)} records only; give data with a training part")
    rule = mask_rule(data, records, None if mask_values is None else parse_mask_values(mask_values))
    return Dataset(data.resolve().name, data, tuple(records), rule.classes, rule.values)


def divided(data: Dataset, seed: int, by_class: bool = False) -> tuple[Dataset, Dataset]:
    """Training and validation part: as the data says, else a fifth by subject is taken for validation."""
    from morphogen.data.split import take_validation
    from morphogen.progress import say

    val = data.where(lambda record: record.split == "val")
    if len(val):
        return data.where(lambda record: record.split != "val"), val
    train, val = (data.select(ids) for ids in take_validation(data, data.ids, seed=seed, by_class=by_class))
    if {record.subject for record in train if record.subject} & {record.subject for record in val}:
        say("fewer than five subjects: the validation part keeps near-duplicates together, but not subjects")
    return train, val
