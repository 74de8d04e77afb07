"""The recipe of a study: what it refuses, and when a folder holds another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from morphogen.errors import InputError
from morphogen.study.identity import config_hash, identity, load_study, refuse_other_study, save_study
from morphogen.study.recipe import StudyConfig

Make = Callable[..., StudyConfig]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arms": ("real", "sin")}, "--arms sin: is not known; did you mean syn"),
        ({"arms": ("real", "real")}, "names something twice"),
        ({"arms": ("real", "syn+x")}, "'x' is not option=value"),
        ({"arms": ("syn+n=3", "syn-geo+solver=ddim")}, "copy-paste has no options for sampling; give none but n"),
        ({"generator": "gan"}, "--generator gan: is not known"),
        ({"judges": ()}, "--judges: names none"),
        ({"judges": ("unett",)}, "did you mean unet"),
        ({"mask_transform": "warp"}, "--mask-transform warp"),
        ({"steps": 0}, "--steps 0: is too small"),
        ({"per_mask": 0}, "--per-mask 0"),
        ({"recipe": "best"}, "--recipe best: there is no such recipe"),
        ({"recipe": "published"}, "--recipe published: unet has none; leave it out, or take"),
        ({"folds": 1}, "--folds 1: is too small; give at least 2"),
        ({"mask_values": "0=0,7"}, "--mask-values: '0=0,7' is not a rule"),
        ({"gates": ("blurr",)}, "--gates blurr: is not known; did you mean blur"),
        ({"gates": ("blur", "blur")}, "names something twice"),
        ({"test": ("kvasir",)}, "is not NAME=DIR"),
        ({"test": ("test=/x",)}, "is taken"),
        ({"test": ("a=/x", "a=/y")}, "is taken"),
        ({"test": ("../a=/x",)}, "is not NAME=DIR"),
    ],
)
def test_refuses_in_one_line(make_config: Make, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        make_config(**options).check()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_accepts_the_default(make_config: Make) -> None:
    make_config(test=("kvasir=/data/kvasir",)).check()
    make_config(arms=("syn-geo+n=5",), generator="siamese").check()
    make_config(arms=("syn-geo+guidance=5", "syn-geo+solver=ddim"), generator="siamese").check()


def test_saved_study_is_continued_and_another_one_refused(make_config: Make) -> None:
    config = make_config(arms=("real",))
    config.out.mkdir()
    save_study(config)
    refuse_other_study(config)
    refuse_other_study(make_config(arms=("real",), cells="x*", device="cuda"))
    before = (config.out / "study.yaml").read_bytes()
    with pytest.raises(InputError, match=r"--steps 2, not 3; use its value or name another --out"):
        refuse_other_study(make_config(arms=("real",), steps=3))
    with pytest.raises(InputError, match="--annotated 8, not"):
        refuse_other_study(make_config(arms=("real",), annotated=None))
    assert (config.out / "study.yaml").read_bytes() == before


def test_an_arm_may_join_later_and_is_noted(make_config: Make) -> None:
    config = make_config(arms=("real", "syn"))
    config.out.mkdir()
    save_study(config)
    later = make_config(arms=("real", "features"))
    refuse_other_study(later)
    save_study(later)
    save_study(config)
    saved = load_study(config.out / "study.yaml")
    assert saved["arms"] == ["real", "syn", "features"]
    assert saved["added_arms"] == ["features"]


def test_a_folder_with_other_files_is_refused(make_config: Make) -> None:
    config = make_config()
    config.out.mkdir()
    refuse_other_study(config)
    (config.out / ".study.yaml.1234.tmp").write_text("half a fi")  # of a killed process
    refuse_other_study(config)
    (config.out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        refuse_other_study(config)


def test_damaged_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    for text in ("- a\n- b\n", "a: [", "\x00"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"study\.yaml: is not a study's configuration"):
            load_study(path)


def test_yaml_gives_the_fields_back(make_config: Make, tmp_path: Path) -> None:
    from morphogen.cli.options import read_options
    from morphogen.cli.study import Study

    config = make_config(arms=("real", "syn"), test=("further=/data/x",), prompt="a polyp")
    config.out.mkdir()
    save_study(config)
    options = read_options(config.out / "study.yaml", Study)
    assert identity(StudyConfig(**options, out=tmp_path)) == identity(config)


def test_hash_follows_what_a_cell_depends_on(make_config: Make) -> None:
    base = config_hash(make_config(), "s")
    same = [{"out": Path("x")}, {"arms": ("real",)}, {"cells": "a*"}, {"data": Path("y")}, {"test": ("a=/b",)}]
    other = [{"steps": 3}, {"resolution": 32}, {"generator_steps": 5}, {"per_mask": 2}, {"mask_transform": "flip"}]
    other.append({"mask_values": "0=0,255=1"})
    assert all(config_hash(make_config(**options), "s") == base for options in same)
    hashes = {config_hash(make_config(**options), "s") for options in other} | {config_hash(make_config(), "t"), base}
    assert len(hashes) == len(other) + 2


def test_the_number_of_candidates_is_part_of_a_cell_only_where_it_is_stated(make_config: Make) -> None:
    old = StudyConfig(data=Path("/d"), out=Path("/o"), synthetic=None)
    assert config_hash(old, "splits") == "407f2da13b55"
    some = StudyConfig(data=Path("/d"), out=Path("/o"), synthetic=100)
    other = StudyConfig(data=Path("/d"), out=Path("/o"), synthetic=101)
    assert len({config_hash(some, "splits"), config_hash(other, "splits"), "407f2da13b55"}) == 3
    published = StudyConfig(data=Path("/d"), out=Path("/o"), judges=("segformer",), recipe="published")
    assert config_hash(published, "splits") != "407f2da13b55"
    variant = StudyConfig(data=Path("/d"), out=Path("/o"), arms=("syn-geo+n=100",))
    assert config_hash(variant, "splits") == "407f2da13b55"


def test_cells_that_are_older_than_gates_are_of_a_study_without_any(make_config: Make) -> None:
    old = StudyConfig(data=Path("/d"), out=Path("/o"))
    assert config_hash(old, "splits") == "407f2da13b55"
    assert config_hash(StudyConfig(data=Path("/d"), out=Path("/o"), gates=("blur",)), "splits") != "407f2da13b55"


def test_a_study_that_is_older_than_gates_is_continued_without_any(make_config: Make) -> None:
    config = make_config(arms=("real",))
    config.out.mkdir()
    save_study(config)
    saved = yaml.safe_load((config.out / "study.yaml").read_text())
    assert saved.pop("gates") == []
    (config.out / "study.yaml").write_text(yaml.safe_dump(saved))
    refuse_other_study(config)
    with pytest.raises(InputError, match=r"--gates \(default\), not blur; use its value or name another --out"):
        refuse_other_study(make_config(arms=("real",), gates=("blur",)))
