"""``morphogen sample``: synthetic pairs from a trained generator, or images from a foundation."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from morphogen.cli.spread import Spread
from morphogen.errors import InputError
from morphogen.launched import place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from morphogen.data.records import Dataset
    from morphogen.generators.inpaint.sampler import InpaintSampler
    from morphogen.sampling.budgets import Budget, Caption
    from morphogen.sampling.foundation_sampler import FoundationSampler
    from morphogen.sampling.jobs import Sampler
    from morphogen.sampling.plan import Plan
    from morphogen.sampling.runner import RunSummary


@dataclass(frozen=True, kw_only=True)
class Sample(Spread):
    """Draw synthetic pairs: images/, masks/ and manifest.jsonl. The same command again continues a stopped run.

    A foundation paints prompts alone: --per-mask images for each of them, and no masks/. One for inpainting paints
    lesions for --masks into --images, without any training. A generator that makes its own masks takes --prompts, or
    the captions of the images that it was trained on, by classes (--balance).
    """

    run_or_foundation: tyro.conf.Positional[Path]
    """Run folder of a generator; or a foundation: tiny, sd15, sdxl-inpaint, a diffusers folder, or a hub id
    (owner/name@revision)."""
    out: Path
    """Folder to write; several workers may share it."""
    masks: Path | None = None
    """Masks to paint: a dataset in any layout, or a folder of mask files alone."""
    images: Path | None = None
    """Normal images to paint into, for generators that need them: a folder; by default those that the run made."""
    prompts: Path | None = None
    """Text file, one prompt a line; the pairs take them in turn. For inpainting, {size}, {shape} and the like are
    filled in from the mask, and without prompts the words are composed from it."""
    preset: str | None = None
    """Options of the sampler as option=value, joined by + (text=none+guidance=5); for an inpainting foundation also
    grammar=polyp."""
    mask_values: str | None = None
    """Label of every raw value in the masks, e.g. 0=0,7=1,255=2; found by itself where it is clear."""
    per_mask: int = 1
    """Pairs per mask (per prompt or caption, where no masks are given)."""
    balance: str | None = None
    """Pairs by class, for a generator with captions of its own: none, in proportion to its training images; largest, as
    many as fill every class up to the largest; N, up to N; or these: melanoma=100,nevus=20. Of the training images
    those with a lesion in their mask count, which are what it has captions of."""
    n: int | None = None
    """Pairs in all for --balance none; by default --per-mask for every caption."""
    mask_transform: str = "identity"
    """How masks are varied: identity, flip, shift, rotate, scale, elastic or random."""
    place: str = "drawn"
    """Of generators that paint into images, where a lesion goes: drawn, into a normal image that the seed draws, at a
    place that it draws; or as-is, where its mask has it, in the image of the same name in --images."""
    areas: str = "own"
    """Of generators that paint into images, how large lesions are: own, as their masks; or even, small, medium and
    large in turn."""
    shard: str = "0/1"
    """I/N: make the share of worker I of N, I from 0 to N-1. Processes that torchrun starts divide it among them."""
    seed: int = 0
    """Seed of everything random."""
    batch_size: int = 8
    """Pairs at a time; equal batches give equal bytes."""

    def run(self) -> dict[str, Any]:
        """Make the pairs of this worker.

        Raises:
            InputError: Something that the generator needs is missing, or an option is out of range.
        """
        from morphogen.files import refuse_unwritable
        from morphogen.progress import say
        from morphogen.sampling.budgets import check_balance
        from morphogen.sampling.runner import run_jobs

        shard = _shard(self.shard)
        self.check_spread()
        if self.ray is not None and self.shard != Sample.shard:
            raise InputError(f"--shard {self.shard}: Ray deals the pairs to its workers; leave the option out")
        refuse_unwritable(self.out)
        if self.balance is not None:
            check_balance(self.balance)
        self._check_placing()
        if self.ray is None:
            sampler, plan = self._planned()
            summary = run_jobs(sampler, plan, self.out, self.batch_size, shard)
        else:
            summary = self._on_ray(self.ray)
        say(f"{summary.total} {summary.what}, {summary.made} of them new, in {self.out}")
        return {
            "out": str(self.out),
            "n": summary.n,
            "share": summary.total,
            "made": summary.made,
            "complete": summary.complete,
        }

    def _on_ray(self, address: str) -> RunSummary:
        from morphogen.sampling.on_ray import run_on_ray

        there = replace(self._with_absolute_paths(), ray=None, workers=None)
        load = partial(Sample._planned, there)
        return run_on_ray(load, self._planned, there.out, self.batch_size, address, self.workers)

    def _with_absolute_paths(self) -> Sample:
        """For processes that start in another folder; what is no path here is a name on the hub."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, Path) and (name == "out" or value.exists()):
                values[name] = value.absolute()
        return Sample(**values)

    def _device(self) -> str:
        """Where this process samples: each of those of one machine has a GPU of its own. With Ray its workers do."""
        import torch

        return f"cuda:{place().local_rank}" if torch.cuda.is_available() and self.ray is None else "cpu"

    def _planned(self) -> tuple[Sampler, Plan]:
        if not self._is_foundation():
            return self._from_generator()
        return self._from_foundation() if None in (self.images, self.masks) else self._into_images()

    def _is_foundation(self) -> bool:
        """Whether a foundation is named: by its folder, or by a name that is no path here.

        Raises:
            InputError: Nothing is there, and the name is no foundation's either.
        """
        run = self.run_or_foundation
        if (run / "final" / "generator.json").is_file() or (run / "generator.json").is_file():
            return False
        if str(run) == "tiny" or run.exists():
            return str(run) == "tiny" or (run / "model_index.json").is_file()
        if not _on_the_hub(run, self.masks is not None and self.images is None):
            hint = "give a run folder, 'tiny', 'sd15', a diffusers folder, or a hub id as owner/name@revision"
            raise InputError(f"{run}: no such run or foundation; {hint}")
        return True

    def _into_images(self) -> tuple[Sampler, Plan]:
        """An inpainting foundation as it is."""
        from morphogen.generators.inpaint.zero_shot import zero_shot

        self._check_inputs(frozenset({"images", "masks"}), "a foundation", paints=True)
        self._refuse_text_of_prompts()
        sampler = zero_shot(str(self.run_or_foundation), self._device(), self.preset)
        return sampler, self._plan_into(sampler)

    def _plan_into(self, sampler: InpaintSampler) -> Plan:
        """Lesions for the masks, in the images that were given or that the run made; prompts are checked first."""
        from morphogen.generators.inpaint.normals import read_normals, read_pictures
        from morphogen.progress import track
        from morphogen.sampling.into import plan_as_is, plan_into

        read = read_normals if self.place == "drawn" else read_pictures
        images = sampler.normals if self.images is None else read(self.images)
        if self.masks is None or images is None:
            raise InputError(f"{self.run_or_foundation}: has no images of its own; give some with --images")
        masks, prompts = _masks(self.masks, self.mask_values), self._texts()
        if self.place == "as-is":
            plan = plan_as_is(masks, images, self.per_mask, self.seed, prompts)
        else:
            n = self.per_mask * len(masks.annotated)
            plan = plan_into(masks, images, n, self.mask_transform, self.seed, prompts, self.areas)
        for job in track(plan, "checking prompts") if prompts else ():
            sampler.check([job])
        return plan

    def _from_foundation(self) -> tuple[FoundationSampler, Plan]:
        from morphogen.sampling.foundation_sampler import FoundationSampler
        from morphogen.sampling.plan import plan_prompts

        self._check_inputs(FoundationSampler.needs, "a foundation")
        if self.preset is not None:
            raise InputError("--preset: is for an inpainting foundation, which needs --images; leave the option out")
        prompts = self._texts() or []
        plan = plan_prompts(prompts, self.per_mask, self.seed, classes=())
        sampler = FoundationSampler(self.run_or_foundation, self._device())
        sampler.foundation.check_prompts(prompts)
        return sampler, plan

    def _from_generator(self) -> tuple[Sampler, Plan]:
        from morphogen.generators import load_sampler
        from morphogen.progress import say
        from morphogen.sampling.budgets import plan_captions
        from morphogen.sampling.plan import BINARY, plan_jobs, plan_prompts

        sampler: Any = load_sampler(self.run_or_foundation, self._device())
        own = {"images"} if self.images is None and getattr(sampler, "normals", None) is not None else set()
        captions = getattr(sampler, "captions", None)
        paints = "images" in sampler.needs
        self._check_inputs(sampler.needs - own, "this generator", captioned=bool(captions), paints=paints)
        if self.preset is not None:
            sampler = _with_options(sampler, self.preset)
        self._refuse_text_of_prompts()
        if paints:
            return sampler, self._plan_into(sampler)
        prompts = self._texts()
        if self.masks is not None:
            masks = _masks(self.masks, self.mask_values)
            if hasattr(sampler, "check_masks"):
                sampler.check_masks(masks, self.mask_transform)
            return sampler, plan_jobs(masks, self.per_mask, self.mask_transform, self.seed, prompts, sampler.resolution)
        classes = getattr(sampler, "classes", BINARY)
        if prompts is not None:
            plan = plan_prompts(prompts, self.per_mask, self.seed, classes)
            sampler.check(plan)
            return sampler, plan
        if not captions:
            raise InputError(f"{self.run_or_foundation}: nothing says what to sample; give --prompts")
        pairs = self._budget(captions)
        dealt = [f"{label or 'no class'} {n}" for label, n in pairs.items()]
        say(f"pairs by class: {', '.join(dealt)}")
        return sampler, plan_captions(captions, pairs, self.seed, classes)

    def _budget(self, captions: Sequence[Caption]) -> Budget:
        """How many pairs of each class to make from a generator's own captions."""
        from morphogen.sampling.budgets import NONE, budget

        words, labels = self.balance or NONE, [caption.label for caption in captions]
        if words == NONE:
            return budget(labels, words, self.n or self.per_mask * len(captions))
        if self.n is not None or self.per_mask != 1:
            extra = "--n" if self.n is not None else "--per-mask"
            raise InputError(f"{extra}: --balance {words} says how many pairs there are; leave one of the two out")
        return budget(labels, words, which=" with a masked lesion")

    def _check_placing(self) -> None:
        """Refuse ways to lay lesions that do not exist or contradict each other, before anything is loaded."""
        from morphogen.sampling.into import AREAS, PLACES

        for option, known in (("place", PLACES), ("areas", AREAS)):
            if (word := getattr(self, option)) not in known:
                raise InputError(f"--{option} {word}: is none of {', '.join(known)}; choose one of them")
        if self.place == "as-is":
            for option, word, own in (
                ("mask-transform", self.mask_transform, "identity"), ("areas", self.areas, "own")
            ):  # fmt: skip
                if word != own:
                    fault = "changes the masks, which --place as-is leaves as they are"
                    raise InputError(f"--{option} {word}: {fault}; leave one of the two out")

    def _check_inputs(self, needs: frozenset[str], who: str, captioned: bool = False, paints: bool = False) -> None:
        """Refuse a command that lacks something, or gives what would not be used.

        Raises:
            InputError: Names the option.
        """
        for need in sorted(needs):
            if getattr(self, need) is None:
                raise InputError(f"{self.run_or_foundation}: {who} needs {need}; give them with --{need}")
        for extra in ("images", "masks"):
            if getattr(self, extra) is not None and extra not in needs:
                both = ", or give --images and --masks to one for inpainting" * (who == "a foundation")
                raise InputError(f"--{extra}: {who} takes no {extra} for sampling; leave the option out{both}")
        for option, given in (("transform", self.mask_transform != "identity"), ("values", bool(self.mask_values))):
            if given and self.masks is None:
                raise InputError(f"--mask-{option}: {who} takes no masks for sampling; leave the option out")
        for option, word, usual in (("place", self.place, "drawn"), ("areas", self.areas, "own")):
            if word != usual and not paints:
                raise InputError(f"--{option} {word}: {who} paints into no images; leave the option out")
        for option in ("balance", "n"):
            if getattr(self, option) is not None and (not captioned or self.prompts is not None):
                why = "--prompts says what to make" if captioned else f"{who} has no captions of its own"
                raise InputError(f"--{option}: {why}; leave the option out")
        for option in ("per_mask", "n"):
            if (value := getattr(self, option)) is not None and value < 1:
                raise InputError(f"--{option.replace('_', '-')}: is {value}; give 1 or more")

    def _refuse_text_of_prompts(self) -> None:
        if self.prompts is not None and self.preset is not None and "text=" in self.preset:
            raise InputError(
                f"--preset {self.preset}: text= says how prompts are made, and --prompts gives them; leave one out"
            )

    def _texts(self) -> list[str] | None:
        return None if self.prompts is None else _prompts(self.prompts)


def _with_options(sampler: Any, words: str) -> Any:
    """The sampler with other options of sampling.

    Raises:
        InputError: It has none, or not this one, or not this value.
    """
    from morphogen.generators import GENERATORS
    from morphogen.words import kinds_of, read_value

    method = getattr(getattr(sampler, "config", None), "method", None)
    known = GENERATORS[method].sampling if method in GENERATORS else ()
    if not known:
        raise InputError(f"--preset {words}: this generator has no options for sampling; leave it out")
    kinds = {name: kind for name, kind in kinds_of(type(sampler.config)).items() if name in known}
    chosen = [word.partition("=") for word in words.split("+")]
    return sampler.with_sampling(
        **{option.replace("-", "_"): read_value(kinds, option, value, "--preset") for option, _, value in chosen}
    )


def _on_the_hub(name: Path, masks: bool) -> bool:
    """Whether a name that is no path here may be a hub's: a short name, or owner/name.

    It is a mistyped run where there is a folder owner, or where masks alone are given, which no foundation takes.
    """
    from morphogen.foundation.model import HUB

    return str(name) in HUB or (len(name.parts) == 2 and not masks and not Path(name.parts[0]).exists())


def _masks(folder: Path, values: str | None) -> Dataset:
    """The annotated records of a dataset; in a folder of loose files, each file is a mask."""
    from morphogen.data.mask_values import parse_mask_values
    from morphogen.data.readers import mask_rule, read_dataset, scan
    from morphogen.data.records import Dataset

    stated = None if values is None else parse_mask_values(values)
    records = scan(folder)
    if any(record.mask is not None for record in records):
        return read_dataset(folder, mask_values=stated, annotated_only=True)
    loose = tuple(replace(record, mask=record.image) for record in records)
    rule = mask_rule(folder, loose, stated)
    return Dataset(folder.resolve().name, folder, loose, rule.classes, rule.values)


def _prompts(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"{file}: does not exist; give a text file with one prompt a line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: is not readable as text; give a text file with one prompt a line") from error
    prompts = [line for line in lines if line]
    if not prompts:
        raise InputError(f"{file}: holds no text; write one prompt a line")
    return prompts


def _shard(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d+/\d+", text):
        raise InputError(f"--shard: {text!r} is not of the form I/N; the first of two workers is 0/2")
    worker, workers = map(int, text.split("/"))
    if worker >= workers:
        raise InputError(f"--shard: {text} names no worker; give I/N with I from 0 to N-1")
    here = place()
    return worker * here.world + here.rank, workers * here.world
