"""``morphogen sample``: synthetic pairs from a trained generator, or images from a foundation."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError
from morphogen.launched import place

if TYPE_CHECKING:
    from morphogen.data.records import Dataset
    from morphogen.sampling.foundation_sampler import FoundationSampler
    from morphogen.sampling.jobs import Sampler
    from morphogen.sampling.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Sample(Verb):
    """Draw synthetic pairs: images/, masks/ and manifest.jsonl. The same command again continues a stopped run.

    A foundation paints prompts alone: --per-mask images for each of them, and no masks/.
    """

    run_or_foundation: tyro.conf.Positional[Path]
    """Run folder of a generator; or a foundation: tiny, a diffusers folder, or a hub id (owner/name@revision)."""
    out: Path
    """Folder to write; several workers may share it."""
    masks: Path | None = None
    """Masks to paint: a dataset in any layout, or a folder of mask files alone."""
    images: Path | None = None
    """Images to paint into, for generators that need them."""
    prompts: Path | None = None
    """Text file, one prompt a line; the pairs take them in turn."""
    mask_values: str | None = None
    """Label of every raw value in the masks, e.g. 0=0,7=1,255=2; found by itself where it is clear."""
    per_mask: int = 1
    """Pairs per mask (per prompt, where no masks are given)."""
    mask_transform: str = "identity"
    """How masks are varied: identity, flip, shift, rotate, scale, elastic or random."""
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
        from morphogen.progress import say
        from morphogen.sampling.runner import run_jobs

        shard = _shard(self.shard)
        sampler, plan = self._from_foundation() if self._is_foundation() else self._from_generator()
        summary = run_jobs(sampler, plan, self.out, self.batch_size, shard)
        say(f"{summary.total} {'pairs' if plan.classes else 'images'}, {summary.made} of them new, in {self.out}")
        return {
            "out": str(self.out),
            "n": len(plan),
            "share": summary.total,
            "made": summary.made,
            "complete": summary.complete,
        }

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
        if not _on_the_hub(run, self.masks is not None):
            hint = "give a run folder, 'tiny', 'sd15', a diffusers folder, or a hub id as owner/name@revision"
            raise InputError(f"{run}: no such run or foundation; {hint}")
        return True

    def _from_foundation(self) -> tuple[FoundationSampler, Plan]:
        from morphogen.sampling.foundation_sampler import FoundationSampler
        from morphogen.sampling.plan import plan_prompts

        self._check_inputs(FoundationSampler.needs, "a foundation")
        prompts = self._texts() or []
        plan = plan_prompts(prompts, self.per_mask, self.seed, classes=())
        sampler = FoundationSampler(self.run_or_foundation, _device())
        sampler.foundation.check_prompts(prompts)
        return sampler, plan

    def _from_generator(self) -> tuple[Sampler, Plan]:
        from morphogen.generators import load_sampler
        from morphogen.sampling.plan import plan_jobs, plan_prompts

        sampler = load_sampler(self.run_or_foundation, _device())
        self._check_inputs(sampler.needs, "this generator")
        prompts = self._texts()
        if self.masks is not None:
            masks = _masks(self.masks, self.mask_values)
            return sampler, plan_jobs(masks, self.per_mask, self.mask_transform, self.seed, prompts, sampler.resolution)
        if prompts is None:
            raise InputError(f"{self.run_or_foundation}: nothing says what to sample; give --prompts")
        return sampler, plan_prompts(prompts, self.per_mask, self.seed)

    def _check_inputs(self, needs: frozenset[str], who: str) -> None:
        """Refuse a command that lacks something, or gives what would not be used.

        Raises:
            InputError: Names the option.
        """
        for need in sorted(needs):
            if getattr(self, need) is None:
                raise InputError(f"{self.run_or_foundation}: {who} needs {need}; give them with --{need}")
        for extra in ("images", "masks"):
            if getattr(self, extra) is not None and extra not in needs:
                raise InputError(f"--{extra}: {who} takes no {extra} for sampling; leave the option out")
        for option, given in (("transform", self.mask_transform != "identity"), ("values", bool(self.mask_values))):
            if given and self.masks is None:
                raise InputError(f"--mask-{option}: {who} takes no masks for sampling; leave the option out")

    def _texts(self) -> list[str] | None:
        return None if self.prompts is None else _prompts(self.prompts)


def _device() -> str:
    """Where this process samples: each of those of one machine has a GPU of its own."""
    import torch

    return f"cuda:{place().local_rank}" if torch.cuda.is_available() else "cpu"


def _on_the_hub(name: Path, masks: bool) -> bool:
    """Whether a name that is no path here may be a hub's: a short name, or owner/name.

    It is a mistyped run where there is a folder owner, or where masks are given, which no foundation takes.
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
    here = place()
    return worker * here.world + here.rank, workers * here.world
