"""`StudyConfig`: what a study is. The same fields are its YAML, its command line and its Python call."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphogen.errors import InputError
from morphogen.study.arms import Arm, arm

OWN_TEST = "test"
"""Name of the study's own test part among the test sets."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Train a segmenter or a classifier with and without synthetic pairs, and say whether they help.

    Fixed splits by subject (grouped folds below 150 subjects), one generator and one segmenter per arm for every
    repetition, all arms with the same number of steps. Run the same command again to continue, or with
    further arms to add them.
    """

    data: Path
    """Folder of annotated images (any layout that `morphogen data check` reads)."""
    out: Path
    """Folder of the study; a second run continues what is there."""
    annotated: int | None = None
    """Annotated pairs that the study may use in each repetition, its validation part included; all by default."""
    mask_values: str | None = None
    """What the values in the masks of `data` and of the test sets mean, e.g. 0=0,7=1,255=2; found where it is clear."""
    arms: tuple[str, ...] = ()
    """real, real-geo, syn, syn-geo, duplicated, more-real, autoencoded, features, synthetic-only, oversampled (real
    images, those of rarer classes again and again), semi and semi-syn (the training images outside --annotated too,
    without masks, beside real or real and synthetic pairs); by default those up to duplicated, and more-real where the
    data has it. Those with synthetic pairs may carry options: +n=100 takes the first 100 accepted pairs, +gates=none
    those that the gates dropped too, +generator=copy-paste those of another generator than --generator, of several
    (+generator=siamese,copy-paste) an equal share each; others are the generator's for sampling
    (syn-geo+n=100+text=none). semi and semi-syn take +method=diff-cl (by default), cps, ua-mt or bcp. The verdict
    speaks of the first syn-geo."""
    generator: str = "siamese"
    """What makes the synthetic pairs (`morphogen models` lists the generators)."""
    judges: tuple[str, ...] = ("unet",)
    """Segmenters and classifiers trained in every arm, each with any options of its own (segformer+size=b0); the
    verdict speaks of the first. Classifiers need the class of every image (records.csv)."""
    preset: str = "tiny"
    """Preset of the generator, or its foundation: tiny, sd15, a folder, or a hub id; also joined by +, with any option
    of the generator (sd15+mixed_precision=bf16). `autoencoded` takes its foundation too."""
    presets: tuple[str, ...] = ()
    """Presets of the generators that arms name beside it, NAME=PRESET: controlnet=tiny+guidance=4. By default the
    study's foundation. --generator-steps and --adapt-steps are not theirs: controlnet=tiny+max_train_steps=600."""
    adapt_steps: int | None = None
    """Steps of fine-tuning the foundation on the images that the generator trains on, first; what the preset does by
    default, 0 for none."""
    test: tuple[str, ...] = ()
    """Further test sets, NAME=DIR; every run of the study is scored on them too."""
    seeds: int | None = None
    """Repetitions to run: the first K folds (all by default), or K seeds where the split is fixed (3 by default)."""
    folds: int = 5
    """Folds where there are fewer than 150 subjects."""
    resolution: int = 0
    """Side in px at which generator and segmenters work, 0 for the generator's own (its preset's, else its
    foundation's); scores are at the native size of each mask. A generator that paints into images works at its own in
    any case, and gives pairs of the images' size."""
    steps: int = 400
    """Optimiser steps of every judge, the same in all arms."""
    train_batch_size: int = 16
    """Batch of the judges."""
    recipe: str | None = None
    """published: the judges train as their authors did, in length, batch, optimiser and schedule, the same in all arms;
    --steps and --train-batch-size are then those of the segmenters of gates and adherence alone."""
    generator_steps: int | None = None
    """Optimiser steps of the generator, where it takes any; its own default otherwise."""
    per_mask: int = 1
    """Synthetic pairs per annotated training pair."""
    synthetic: int | None = None
    """Synthetic pairs to make in each repetition, of which gates and +n=K take; by default --per-mask for every
    annotated training pair. The masks are taken in a shuffled order, again and again."""
    balance: str = "none"
    """Classes of the synthetic pairs, for a generator that makes its own masks: none, in proportion to the training
    images; largest, as many as fill every class up to the largest; N, up to N; or melanoma=100,nevus=20. With
    --synthetic so many candidates are made, in these proportions, and of each class only what it lacks is taken. An arm
    may have its own (syn-geo+balance=largest)."""
    mask_transform: str = "random"
    """How the masks to paint follow from the annotated ones: identity, random, flip, shift, rotate, scale, elastic."""
    prompt: str | None = None
    """Prompt of every synthetic pair, where the generator takes one; its own default otherwise. For inpainting what
    masks decide stands as a slot: {size}, {shape}."""
    gates: tuple[str, ...] = ()
    """Quality gates, any of adherence, agreement, copies, blur, saturation and, for a generator that paints into
    images, drawn and untouched, or for one that makes masks of its own, area and ambiguous; where images have classes,
    class-agreement: pairs that fail one stay in synthetic/, but no arm trains on them. Limits come from the training
    images, or are fixed."""
    gate_segmenter: str | None = None
    """Segmenter of the gates adherence and agreement, with any options of its own (segformer+size=b0); by default a
    U-Net of another encoder than the first judge's. With latent, --gates agreement is the validation of DiffAug."""
    device: str = "cpu"
    """Where segmenters predict and generators sample; training takes what accelerate finds."""
    cells: str | None = None
    """Run only the cells whose name matches this pattern, e.g. 'syn-geo.*' or '*.fold0.*'."""
    dry_run: bool = False
    """Print the plan with its time, disk and memory, and stop."""

    @property
    def tests(self) -> dict[str, Path]:
        """The further test sets by name.

        Raises:
            InputError: A word is not NAME=DIR, or the name is taken.
        """
        sets: dict[str, Path] = {}
        for word in self.test:
            name, sign, folder = word.partition("=")
            if not sign or not folder or not name.replace("-", "").replace("_", "").isalnum():
                raise InputError(f"--test {word}: is not NAME=DIR; write for example --test kvasir=/data/kvasir")
            if name == OWN_TEST or name in sets:
                raise InputError(f"--test {word}: the name {name!r} is taken; choose another one")
            sets[name] = Path(folder)
        return sets

    @property
    def named_presets(self) -> dict[str, str]:
        """Generator -> preset of ``--presets``.

        Raises:
            InputError: A word is not NAME=PRESET, or a generator has two.
        """
        presets: dict[str, str] = {}
        for word in self.presets:
            name, sign, preset = word.partition("=")
            if not (name and sign and preset):
                raise InputError(f"--presets {word}: is not NAME=PRESET; write for example controlnet=tiny+guidance=4")
            if name in presets:
                raise InputError(f"--presets {word}: {name} has a preset already; give it one")
            presets[name] = preset
        return presets

    def check(self) -> None:
        """Refuse what can be refused without looking at the data.

        Raises:
            InputError: An unknown arm, generator or judge; a number out of range; a malformed test set.
        """
        from morphogen.classifiers import CLASSIFIERS
        from morphogen.data.mask_transforms import MASK_TRANSFORMS
        from morphogen.data.mask_values import parse_mask_values
        from morphogen.generators import GENERATORS
        from morphogen.sampling.gates import GATES, SEGMENTED
        from morphogen.segmenters import SEGMENTERS, published, resolve
        from morphogen.study.generators import check_presets
        from morphogen.study.kinds import classifiers_among, room_of

        arms = [arm(name) for name in self.arms]
        _known("--generator", [self.generator], GENERATORS)
        _known("--judges", [judge.partition("+")[0] for judge in self.judges], [*SEGMENTERS, *CLASSIFIERS])
        for judge in self.judges:
            room_of(judge).named(judge)
        _refuse_for_classifiers(self, arms, classifiers_among(self.judges))
        _known("--mask-transform", [self.mask_transform], MASK_TRANSFORMS)
        _known("--gates", self.gates, GATES)
        if self.gate_segmenter is not None:
            _known("--gate-segmenter", [self.gate_segmenter.partition("+")[0]], SEGMENTERS)
            resolve(*room_of(self.gate_segmenter).named(self.gate_segmenter))
            if not {*SEGMENTED} & {*self.gates}:
                fault = f"no gate among --gates asks a segmenter; add {' or '.join(SEGMENTED)}"
                raise InputError(f"--gate-segmenter {self.gate_segmenter}: {fault}, or leave it out")
        for option, values in (("--arms", self.arms), ("--judges", self.judges), ("--gates", self.gates)):
            if len(set(values)) != len(values):
                raise InputError(f"{option} {' '.join(values)}: names something twice; name each once")
        if not self.judges:
            raise InputError("--judges: names none; name at least one judge")
        lowest = {"annotated": 2, "seeds": 1, "folds": 2, "steps": 1, "train_batch_size": 1, "generator_steps": 1}
        for name, low in {**lowest, "per_mask": 1, "synthetic": 1, "resolution": 16 if self.resolution else 0}.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"--{name.replace('_', '-')} {value}: is too small; give at least {low}")
        if self.recipe not in (None, "published"):
            raise InputError(f"--recipe {self.recipe}: there is no such recipe; give published, or leave it out")
        for judge in self.judges if self.recipe else ():
            published(judge.partition("+")[0], 1)
        for one in arms if self.recipe else ():
            if one.semi:
                fault = f"{one.name} among --arms trains as its method does, not as the judge was published"
                raise InputError(f"--recipe {self.recipe}: {fault}; leave one of them out")
        _ = self.tests
        check_presets(self)
        _check_balance(self)
        _refuse_twins(self, arms)
        _refuse_text_of_prompt(self, arms)
        if self.mask_values is not None:
            parse_mask_values(self.mask_values)


def _check_balance(config: StudyConfig) -> None:
    from morphogen.sampling.budgets import NONE, check_balance
    from morphogen.study.generators import makes_masks

    check_balance(config.balance)
    if config.balance != NONE and not makes_masks(config):
        fault = f"{config.generator} paints the masks of the training pairs, whatever their classes"
        raise InputError(f"--balance {config.balance}: {fault}; leave the option out")


def _refuse_twins(config: StudyConfig, arms: Sequence[Arm]) -> None:
    """Refuse sampling options that the generator lacks, and two names of one arm."""
    from morphogen.study.generators import variants_of

    seen: dict[tuple[Any, ...], str] = {}
    for one in arms:
        gated = one.gated and bool(config.gates)
        twin = seen.setdefault((one.base, one.semi, one.n, gated, frozenset(variants_of(config, one))), one.name)
        if twin != one.name:
            raise InputError(f"--arms {twin} {one.name}: are one and the same arm; leave one of them out")


def _refuse_text_of_prompt(config: StudyConfig, arms: Sequence[Arm]) -> None:
    """Refuse to say how prompts are made where the study gives one: all such arms would be painted with its words."""
    if config.prompt is None:
        return
    words = [("--arms", one.name) for one in arms if "text" in dict(one.sampling)]
    presets = [("--preset", config.preset), *(("--presets", preset) for preset in config.named_presets.values())]
    words += [(option, said) for option, said in presets if any(w.startswith("text=") for w in said.split("+"))]
    for option, word in words:
        fault = "text= says how prompts are made, and --prompt gives one"
        raise InputError(f"{option} {word}: {fault}; leave one of them out")


def _refuse_for_classifiers(config: StudyConfig, arms: Sequence[Arm], classifiers: Sequence[str]) -> None:
    """Refuse what classifiers among the judges cannot do, and what cannot be done where they are alone."""
    if not classifiers:
        return
    for one in arms:
        if one.segments and len(classifiers) == len(config.judges):
            fault = f"is for segmenters, and {' '.join(classifiers)} among --judges only classify"
            raise InputError(f"--arms {one.name}: {fault}; add a segmenter to the judges, or leave the arm out")
    if config.recipe is not None:
        raise InputError(f"--recipe {config.recipe}: {classifiers[0]} among --judges has none; leave one of them out")


def _known(option: str, names: Iterable[str], table: Iterable[str]) -> None:
    known = list(table)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
            raise InputError(f"{option} {name}: is not known; {hint}")
