"""``morphogen sample`` from a generator with captions of its own: how many pairs, and of which classes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.generators import GENERATORS, GeneratorEntry
from morphogen.generators.copy_paste.model import CopyPasteConfig
from morphogen.generators.copy_paste.model import train as train_copies
from study.fake_dual import DualConfig, train


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/ with 7 nevi and 3 melanomas, run/ of a generator with captions, copies/ of one without, prompts.txt."""
    root = tmp_path_factory.mktemp("balance")
    phantom_dataset(root / "data", "skin", 10, 32)
    ids = read_dataset(root / "data").ids
    rows = [f"{id_},{'nevus' if k < 7 else 'melanoma'}" for k, id_ in enumerate(ids)]
    (root / "data" / "records.csv").write_text("\n".join(["id,class", *rows]) + "\n")
    data = read_dataset(root / "data")
    train(data, DualConfig(), root / "run")
    train_copies(data, CopyPasteConfig(resolution=32), root / "copies")
    (root / "prompts.txt").write_text("a nevus\na melanoma\n")
    (root / "wrong.txt").write_text("a nevus\na unicorn\n")
    return root


@pytest.fixture(autouse=True)
def dual(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = GeneratorEntry("dual-fake", "makes both", "here", frozenset(), "study.fake_dual")
    monkeypatch.setitem(GENERATORS, "dual-fake", entry)


def sampled(room: Path, out: Path, *words: str) -> Counter[str | None]:
    """Classes of the pairs that the command made."""
    assert main(["sample", str(room / "run"), "--out", str(out), *words]) == 0
    return Counter(record.label for record in read_dataset(out))


def test_in_proportion_to_the_training_images(room: Path, tmp_path: Path) -> None:
    assert sampled(room, tmp_path / "a") == {"nevus": 7, "melanoma": 3}
    assert sampled(room, tmp_path / "b", "--n", "20") == {"nevus": 14, "melanoma": 6}
    assert sampled(room, tmp_path / "c", "--per-mask", "2", "--balance", "none") == {"nevus": 14, "melanoma": 6}
    for name in ("images", "masks"):
        for path in (tmp_path / "a" / name).iterdir():
            assert path.read_bytes() == (tmp_path / "b" / name / path.name).read_bytes()


def test_balanced(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampled(room, tmp_path / "a", "--balance", "largest") == {"melanoma": 4}
    assert sampled(room, tmp_path / "b", "--balance", "9") == {"nevus": 2, "melanoma": 6}
    assert "pairs by class: melanoma 6, nevus 2" in capsys.readouterr().out
    assert sampled(room, tmp_path / "c", "--balance", "melanoma=5,nevus=1") == {"nevus": 1, "melanoma": 5}


def test_the_pairs_say_their_captions(room: Path, tmp_path: Path) -> None:
    sampled(room, tmp_path / "a", "--balance", "largest")
    captions = json.loads((room / "run" / "final" / "captions.json").read_text())
    assert {r.caption for r in read_dataset(tmp_path / "a")} <= {
        c["text"] for c in captions if c["label"] == "melanoma"
    }


def test_shards_make_the_whole(room: Path, tmp_path: Path) -> None:
    whole = sampled(room, tmp_path / "a", "--balance", "9")
    for shard in ("1/2", "0/2"):
        found = sampled(room, tmp_path / "b", "--balance", "9", "--shard", shard)
    assert found == whole
    for path in (tmp_path / "a" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "images" / path.name).read_bytes()


def test_prompts_go_before_captions(room: Path, tmp_path: Path) -> None:
    assert sampled(room, tmp_path / "a", "--prompts", str(room / "prompts.txt"), "--per-mask", "2") == {None: 4}
    assert {r.caption for r in read_dataset(tmp_path / "a")} == {"a nevus", "a melanoma"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{}/run --balance biggest", "--balance biggest: give none, largest, a number to fill every class up to"),
        (
            "{}/run --balance melanomas=3",
            "--balance melanomas: no training image with a masked lesion is of this class; did",
        ),
        ("{}/run --balance 2", "--balance 2: every class has 3 images with a masked lesion or more already; ask"),
        (
            "{}/run --balance largest --n 9",
            "--n: --balance largest says how many pairs there are; leave one of the two",
        ),
        (
            "{}/run --balance 9 --per-mask 2",
            "--per-mask: --balance 9 says how many pairs there are; leave one of the two",
        ),
        ("{}/run --n 0", "--n: is 0; give 1 or more"),
        ("{}/run --per-mask 0", "--per-mask: is 0; give 1 or more"),
        ("{}/run --prompts {}/prompts.txt --balance 9", "--balance: --prompts says what to make; leave the option out"),
        ("{}/run --prompts {}/prompts.txt --n 9", "--n: --prompts says what to make; leave the option out"),
        ("{}/run --prompts {}/wrong.txt --batch-size 1", "the model does not know 'unicorn'"),
        ("{}/run --masks {}/data", "--masks: this generator takes no masks for sampling; leave the option out"),
        ("{}/copies --masks {}/data --balance 9", "--balance: this generator has no captions of its own; leave the"),
        ("{}/copies --masks {}/data --n 9", "--n: this generator has no captions of its own; leave the option out"),
        ("tiny --prompts {}/prompts.txt --n 9", "--n: a foundation has no captions of its own; leave the option out"),
    ],
)
def test_what_does_not_go_together(
    words: str, says: str, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", *words.replace("{}", str(room)).split(), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()
