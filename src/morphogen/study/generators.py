"""The generators of a study: its own, and those that arms name beside it (``syn-geo+generator=copy-paste``).

What says how a generator of the study is trained and sampled takes a `StudyConfig`. `study_of` gives that of another
generator: the study as it would be with this one in place of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from morphogen.errors import InputError
from morphogen.generators import GENERATORS
from morphogen.sampling.budgets import NONE, check_balance
from morphogen.sampling.gates import INTO_IMAGES, OWN_MASKS
from morphogen.study.arms import BALANCE, OWN, Arm, Variant, arm
from morphogen.study.recipe import StudyConfig
from morphogen.words import kinds_of, read_value


def paints_into_images(config: StudyConfig) -> bool:
    """Whether the study's generator paints into images, of any size, rather than whole images of its own size."""
    return "images" in GENERATORS[config.generator].needs


def makes_masks(config: StudyConfig) -> bool:
    """Whether the study's generator makes masks too, for captions of its own, rather than paint masks."""
    return "masks" not in GENERATORS[config.generator].needs


def generator_config(config: StudyConfig, seed: int) -> Any:
    """The generator's own config: the preset, where it has presets, and what the study says beside it.

    Raises:
        InputError: The generator has no such preset.
    """
    known, entry = _fields(config), GENERATORS[config.generator]
    stated = {
        "resolution": (not paints_into_images(config) and config.resolution) or None,
        "seed": seed,
        "max_train_steps": config.generator_steps,
        "adapt_steps": config.adapt_steps,
        "prompt": config.prompt,
    }
    changes = {name: value for name, value in stated.items() if name in known and value is not None}
    return entry.configure(config.preset if "foundation" in known or entry.has_presets else None, **changes)


def _fields(config: StudyConfig) -> set[str]:
    return {field.name for field in fields(GENERATORS[config.generator].config())}


def own_resolution(config: StudyConfig) -> int:
    """The side in px that the study's generator works at by itself: its preset's, else its foundation's.

    Raises:
        InputError: The generator has no such preset, or there is no such foundation.
    """
    from morphogen.foundation.model import native_resolution

    settings = generator_config(config, 0)
    return int(settings.resolution or native_resolution(settings.foundation))


def has_foundation(config: StudyConfig) -> bool:
    """Whether the study's generator rests on a foundation."""
    return "foundation" in _fields(config)


def uses_foundation(config: StudyConfig) -> bool:
    """Whether the study rests on a foundation: its generator does, or one of its arms or judges."""
    resting = {"autoencoded", "features"} & {*config.arms, *(judge.partition("+")[0] for judge in config.judges)}
    return has_foundation(config) or bool(resting)


def foundation_name(config: StudyConfig) -> str:
    """The foundation of the study's generator, to be loaded by this name.

    Of one that rests on none it is the preset itself, or the default one where the generator has presets of its own.

    Raises:
        InputError: The generator has no such preset.
    """
    if has_foundation(config):
        return str(generator_config(config, 0).foundation)
    return StudyConfig.preset if GENERATORS[config.generator].has_presets else config.preset


def study_of(config: StudyConfig, generator: str | None) -> StudyConfig:
    """The study with another generator in place of its own, and without what does not concern that one.

    It has the preset that ``--presets`` gives it, else the study's foundation where it rests on one; its own defaults
    for the rest of its training, and the study's masks, prompt and resolution. Gates that it has no score for are left
    out, and so is `balance` where it paints masks. Arms and judges are left out too: they stand on the foundation of
    the study's own generator.

    Args:
        config: The study.
        generator: Name of the generator; None for the study's own, whose study lacks such gates and nothing else.

    Raises:
        InputError: The study's own generator has no such preset.
    """
    if generator in (None, config.generator):
        return _with_fitting_gates(config)
    theirs = replace(config, generator=str(generator), generator_steps=None, adapt_steps=None, arms=(), judges=())
    preset = config.named_presets.get(theirs.generator)
    if preset is None:
        preset = foundation_name(config) if has_foundation(theirs) else StudyConfig.preset
    balance = config.balance if makes_masks(theirs) else NONE
    return _with_fitting_gates(replace(theirs, preset=preset, balance=balance))


def _with_fitting_gates(config: StudyConfig) -> StudyConfig:
    gates = tuple(gate for gate in config.gates if scores_for(config, gate))
    return config if gates == config.gates else replace(config, gates=gates)


def check_presets(config: StudyConfig) -> None:
    """Refuse a generator's preset that no arm has, or that cannot be.

    Raises:
        InputError: There is such a preset, or the generators of an arm have none that fits the study.
    """
    named = others(config, config.arms)
    for name, preset in config.named_presets.items():
        if name == config.generator:
            raise InputError(f"--presets {name}={preset}: is the study's own generator; write --preset {preset}")
        if name not in named:
            fault = f"no arm has pairs of {name}"
            raise InputError(f"--presets {name}={preset}: {fault}; leave it out, or add syn-geo+generator={name}")
        if not GENERATORS[name].has_presets:
            raise InputError(f"--presets {name}={preset}: {name} has no presets; leave it out")
        stated = {word.partition("=")[0] for word in preset.split("+")}
        if "seed" in stated:
            fault = "the seeds of a study are those of its repetitions"
            raise InputError(f"--presets {name}={preset}: {fault}; leave seed out")
        if "resolution" in stated and not paints_into_images(study_of(config, name)):
            fault = "all generators of a study work at its resolution"
            raise InputError(f"--presets {name}={preset}: {fault}; give --resolution alone")
    for name in named:
        try:
            generator_config(study_of(config, name), 0)
        except InputError as error:
            raise InputError(f"--presets {name}: {str(error).removeprefix('--')}") from None


def scores_for(config: StudyConfig, gate: str) -> bool:
    """Whether the pairs of the study's generator have what a gate looks at."""
    if gate in INTO_IMAGES:
        return paints_into_images(config)
    return gate not in OWN_MASKS or makes_masks(config)


def others(config: StudyConfig, arms: Iterable[str]) -> tuple[str, ...]:
    """The generators that these arms name beside the study's own, in their order."""
    named = [name for one in arms for name in arm(one).generators if name != config.generator]
    return tuple(dict.fromkeys(named))


def variants_of(config: StudyConfig, arm: Arm) -> tuple[Variant, ...]:
    """How the pairs of an arm are sampled, one for each of its generators.

    Raises:
        InputError: A generator has no such option for sampling, or the option no such value.
    """
    named = arm.generators or (config.generator,)
    return tuple(_variant(config, arm, None if name == config.generator else name) for name in named)


def _variant(config: StudyConfig, arm: Arm, generator: str | None) -> Variant:
    """Options with the generator's own values say nothing new.

    ``balance`` is the study's, for generators that make masks for captions of their own.
    """
    if not arm.sampling:
        return replace(OWN, generator=generator)
    config = study_of(config, generator)
    entry, settings = GENERATORS[config.generator], generator_config(config, 0)
    kinds = {name: kind for name, kind in kinds_of(type(settings)).items() if name in entry.sampling}
    kinds |= {BALANCE: str} if makes_masks(config) else {}
    if not kinds:
        raise InputError(f"--arms {arm.name}: {config.generator} has no options for sampling; give none but n")
    values = {
        option: read_value({"n": int, **kinds}, option, word, f"--arms {arm.base}") for option, word in arm.sampling
    }
    check_balance(values.get(BALANCE, NONE), f"--arms {arm.name}: {BALANCE}")
    try:
        replace(settings, **{name: value for name, value in values.items() if name != BALANCE})
    except InputError as error:
        raise InputError(f"--arms {arm.name}: {str(error).removeprefix('--')}") from None
    own = {name: getattr(config if name == BALANCE else settings, name) for name in values}
    return Variant(tuple((name, value) for name, value in values.items() if value != own[name]), generator)
