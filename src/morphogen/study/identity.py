"""Which study it is: the hash that its cells carry, and study.yaml, by which its folder is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from morphogen.errors import InputError
from morphogen.files import refuse_unwritable, write_text
from morphogen.study.generators import others
from morphogen.study.recipe import StudyConfig

NOT_THE_STUDY = ("out", "cells", "dry_run", "device")
"""Fields that say how a study is run, not what it is: they may differ from run to run."""

NOT_THE_CELL = (*NOT_THE_STUDY, "data", "annotated", "arms", "judges", "test", "seeds", "presets")
"""Fields that do not change what happens inside one cell, or stand in its name, or in the cell itself (presets)."""


def identity(config: StudyConfig) -> dict[str, Any]:
    """What must stay the same for a study to be continued, in plain YAML values; paths are absolute."""
    values: dict[str, Any] = {}
    for field in fields(StudyConfig):
        value = getattr(config, field.name)
        if field.name == "test":
            value = [f"{name}={folder.absolute()}" for name, folder in config.tests.items()]
        elif isinstance(value, Path):
            value = str(value.absolute())
        elif isinstance(value, tuple):
            value = list(value)
        if field.name not in NOT_THE_STUDY:
            values[field.name] = value
    return values


def config_hash(config: StudyConfig, splits_hash: str) -> str:
    """Twelve hex digits of everything that decides a cell beside its name: the recipe without paths, and the splits."""
    values = {name: value for name, value in identity(config).items() if name not in NOT_THE_CELL}
    if config.mask_values is None:
        del values["mask_values"]  # a rule that is found belongs to the data
    if not config.gates:
        del values["gates"]  # cells that are older than gates have none
    if config.balance == StudyConfig.balance:
        del values["balance"]
    for name in ("synthetic", "recipe", "gate_segmenter"):  # cells that are older know none of them
        if values[name] is None:
            del values[name]
    text = json.dumps([values, splits_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def refuse_other_study(config: StudyConfig) -> None:
    """Refuse an output folder that holds something else than this study, before anything is written.

    Its arms may differ: every cell stands for itself, so that an arm can be added later (`save_study` notes it). So may
    the generators that they name, but one of them has one preset.

    Raises:
        InputError: The folder holds another study (names the first field that differs), or other files, or cannot be
            written.
    """
    refuse_unwritable(config.out)
    saved_file = config.out / "study.yaml"
    if not saved_file.exists():
        # a process that was killed while it wrote study.yaml leaves .study.yaml.PID.tmp behind
        if config.out.is_dir() and any(not file.name.startswith(".study.yaml.") for file in config.out.iterdir()):
            raise InputError(f"{config.out}: holds other files and no study.yaml; name an empty or new --out folder")
        return
    saved, wanted = {"gates": [], "balance": StudyConfig.balance, **load_study(saved_file)}, identity(config)
    _refuse_other_presets(config, saved)
    for name, value in wanted.items():
        if name not in ("arms", "presets") and saved.get(name) != value:
            option = name.replace("_", "-")
            raise InputError(
                f"{saved_file}: the study there has --{option} {_words(saved.get(name))}, not {_words(value)}; "
                "use its value or name another --out"
            )


def load_study(path: Path) -> dict[str, Any]:
    """Read a study.yaml.

    Raises:
        InputError: The file is not a YAML mapping.
    """
    try:
        saved = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        saved = None
    if not isinstance(saved, Mapping):
        raise InputError(f"{path}: is not a study's configuration; name another --out")
    return dict(saved)


def stated_arms(config: StudyConfig) -> tuple[str, ...]:
    """The arms of the study, those of earlier commands first: the same ones whatever a single command names."""
    path = config.out / "study.yaml"
    saved = load_study(path)["arms"] if path.exists() else []
    return tuple(dict.fromkeys([*saved, *config.arms]))


def stated_presets(config: StudyConfig) -> tuple[str, ...]:
    """The presets of the study's other generators, as `stated_arms`."""
    path = config.out / "study.yaml"
    saved = load_study(path).get("presets", []) if path.exists() else []
    return tuple(dict.fromkeys([*saved, *config.presets]))


def save_study(config: StudyConfig) -> None:
    """Write ``study.yaml``, the resolved configuration, into the study's folder.

    Where it is there, the arms that it lacks join it, and are listed as ``added_arms`` too: they were chosen when
    results of the study may have been known.
    """
    path, values = config.out / "study.yaml", identity(config)
    if path.exists():
        values = load_study(path)
        added = [arm for arm in config.arms if arm not in values["arms"]]
        if not added:
            return
        values["arms"] += added
        values["added_arms"] = [*values.get("added_arms", ()), *added]
        values["presets"] = list(stated_presets(config))
    write_text(path, yaml.safe_dump(values, sort_keys=False))


def _refuse_other_presets(config: StudyConfig, saved: Mapping[str, Any]) -> None:
    """Refuse a preset, or none, for a generator that an arm of the study in the folder has with another one."""
    theirs = replace(config, presets=tuple(saved.get("presets", ())))
    for name in sorted({*others(config, saved["arms"])} & {*others(config, config.arms)}):
        if config.named_presets.get(name) != (preset := theirs.named_presets.get(name)):
            stated = f"--presets {name}={preset}" if preset else f"no --presets for {name}"
            raise InputError(
                f"{config.out / 'study.yaml'}: the study there has {stated}; use that or name another --out"
            )


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "(default)"
    return "(default)" if value is None else str(value)
