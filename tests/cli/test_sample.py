"""``morphogen sample``: what a generator needs, and how the command fails."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.data.mask_words import AREA_BINS
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.foundation.inpainting import widen
from morphogen.generators.copy_paste.model import CopyPasteConfig, train
from morphogen.generators.inpaint.config import InpaintConfig
from morphogen.generators.inpaint.holes import feathered
from morphogen.generators.inpaint.model import train as train_inpaint
from small_foundations import perturb, small_foundation, small_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and a trained run/."""
    root = tmp_path_factory.mktemp("sample")
    train(phantom_dataset(root / "data", "mucosa", 3, 32), CopyPasteConfig(resolution=32), root / "run")
    return root


def _sample(folder: Path, *words: str | Path) -> int:
    return main(["sample", str(folder / "run"), *map(str, words)])


def test_shards_together_make_the_whole(folder: Path, tmp_path: Path) -> None:
    words = ("--masks", folder / "data", "--per-mask", 2, "--out", tmp_path / "out", "--json", tmp_path / "r.json")
    for worker, made, complete in ((0, 3, False), (1, 3, True), (1, 0, True)):
        assert _sample(folder, *words, "--shard", f"{worker}/2") == 0
        result = json.loads((tmp_path / "r.json").read_text())
        assert result == {"out": str(tmp_path / "out"), "n": 6, "share": 3, "made": made, "complete": complete}
    assert len(read_dataset(tmp_path / "out").annotated) == 6


def test_a_folder_of_mask_files_will_do(folder: Path, tmp_path: Path) -> None:
    for name, masks in (("a", folder / "data"), ("b", shutil.copytree(folder / "data" / "masks", tmp_path / "loose"))):
        assert _sample(folder, "--masks", masks, "--out", tmp_path / name) == 0
    for path in (tmp_path / "a" / "masks").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "masks" / path.name).read_bytes()


@pytest.mark.parametrize("loose", [False, True])
def test_mask_values_that_are_no_labels_can_be_stated(
    loose: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(folder / "data", tmp_path / "data")
    for path in (data / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 0] = np.where(np.arange((mask == 0).sum()) % 2, 7, 0)
        Image.fromarray(mask).save(path)
    words = ("--masks", data / "masks" if loose else data, "--out", tmp_path / "out")
    assert _sample(folder, *words) == 2
    assert "--mask-values 0=0,7=1,255=2" in capsys.readouterr().err
    assert _sample(folder, *words, "--mask-values", "0=0,7=0,255=1") == 0
    assert _sample(folder, "--masks", folder / "data", "--out", tmp_path / "plain") == 0
    for path in (tmp_path / "plain" / "masks").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / "masks" / path.name).read_bytes()


def test_prompts_are_recorded(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a polyp\n\na small polyp\n")
    words = ("--masks", folder / "data", "--prompts", tmp_path / "prompts.txt")
    assert _sample(folder, *words, "--out", tmp_path / "out") == 0
    assert [record.caption for record in read_dataset(tmp_path / "out")] == ["a polyp", "a small polyp", "a polyp"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "needs masks; give them with --masks"),
        (["--masks", "{}/data", "--images", "{}/data"], "--images: this generator takes no images"),
        (["--masks", "{}/data", "--prompts", "{}/none.txt"], "none.txt: does not exist"),
        (["--masks", "{}/data", "--shard", "2/2"], "--shard: 2/2"),
        (["--masks", "{}/data", "--shard", "half"], "--shard: 'half'"),
        (["--masks", "{}/data", "--batch-size", "0"], "--batch-size: is 0"),
        (["--masks", "{}/data", "--mask-transform", "bend"], "--mask-transform: 'bend'"),
        (["--masks", "{}/data", "--mask-values", "0=0;9=1"], "--mask-values: '0=0;9=1' is not a rule"),
        (["--masks", "{}/data", "--preset", "solver=ddim"], "--preset solver=ddim: this generator has no options"),
        (["--masks", "{}/data", "--areas", "even"], "--areas even: this generator paints into no images"),
        (["--masks", "{}/data", "--place", "as-is"], "--place as-is: this generator paints into no images"),
        (["--masks", "{}/nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    words: list[str], line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _sample(folder, *(word.format(folder) for word in words), "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "holds no trained generator"),
        ("{}", "names no generator of this version"),
        ("not json", "names no generator of this version"),
    ],
)
def test_a_folder_without_generator_is_refused(
    content: str | None, line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "final").mkdir()
    if content is not None:
        (tmp_path / "final" / "generator.json").write_text(content)
    assert main(["sample", str(tmp_path), "--masks", str(folder / "data"), "--out", str(tmp_path / "out")]) == 2
    assert line in capsys.readouterr().err


class TestFoundation:
    """The foundation itself, as a generator of images without masks."""

    PROMPTS = "a polyp\n\na photo of a polyp\n"

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder with a foundation f/ and prompts.txt."""
        root = tmp_path_factory.mktemp("foundation")
        (root / "prompts.txt").write_text(cls.PROMPTS)
        (root / "unknown.txt").write_text("a polyp\na polip\n")
        (root / "empty.txt").write_text("\n")
        foundation = small_tiny()
        perturb(foundation.unet)
        foundation.save(root / "f")
        return root

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, model: Path) -> dict[str, bytes]:
        """Every file that one worker writes: two images of each prompt."""
        words = ("--prompts", str(model / "prompts.txt"), "--per-mask", "2", "--batch-size", "1")
        assert main(["sample", str(model / "f"), *words, "--out", str(model / "whole")]) == 0
        return _files(model / "whole")

    def test_images_and_their_rows_and_no_masks(self, model: Path, whole: dict[str, bytes]) -> None:
        ids = ["text0001_00", "text0001_01", "text0002_00", "text0002_01"]
        assert sorted(whole) == sorted([f"images/{id_}.png" for id_ in ids] + ["manifest.jsonl", "run.json"])
        rows = [json.loads(line) for line in whole["manifest.jsonl"].splitlines()]
        assert [row["prompt"] for row in rows] == ["a polyp"] * 2 + ["a photo of a polyp"] * 2
        for id_, row in zip(ids, rows, strict=True):
            assert row["id"] == id_
            assert row["sha256"] == {"image": hashlib.sha256(whole[f"images/{id_}.png"]).hexdigest()}
        assert len({row["sha256"]["image"] for row in rows}) == 4
        data = read_dataset(model / "whole")
        assert len(data) == 4
        assert not len(data.annotated)
        assert data[3].caption == "a photo of a polyp"

    def test_workers_and_restarts_end_with_the_same_bytes(
        self, model: Path, whole: dict[str, bytes], tmp_path: Path
    ) -> None:
        words = ["sample", str(model / "f"), "--prompts", str(model / "prompts.txt"), "--out", str(tmp_path / "out")]
        words += ["--per-mask", "2", "--batch-size", "1", "--json", str(tmp_path / "r.json")]

        def made(shard: str) -> tuple[int, bool]:
            assert main([*words, "--shard", shard]) == 0
            result = json.loads((tmp_path / "r.json").read_text())
            return result["made"], result["complete"]

        assert made("1/2") == (2, False)
        (tmp_path / "out" / "images" / "text0001_01.png").write_bytes(b"damaged")
        assert made("1/2") == (1, False)
        assert made("0/2") == (2, True)
        assert made("0/1") == (0, True)
        assert _files(tmp_path / "out") == whole

    def test_another_seed_is_another_run(self, model: Path, whole: dict[str, bytes]) -> None:
        words = ["sample", str(model / "f"), "--prompts", str(model / "prompts.txt"), "--out", str(model / "whole")]
        assert main([*words, "--per-mask", "2", "--seed", "1"]) == 2
        assert _files(model / "whole") == whole

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["--prompts", "{}/unknown.txt"], "prompt 'a polip': the model does not know 'polip'; near words: polyp"),
            (["--prompts", "{}/empty.txt"], "empty.txt: holds no text"),
            ([], "a foundation needs prompts; give them with --prompts"),
            (["--prompts", "{}/prompts.txt", "--masks", "{}"], "--masks: a foundation takes no masks"),
            (["--prompts", "{}/prompts.txt", "--images", "{}"], "--images: a foundation takes no images"),
            (["--prompts", "{}/prompts.txt", "--mask-transform", "flip"], "--mask-transform: a foundation takes no"),
            (["--prompts", "{}/prompts.txt", "--mask-values", "0=0,7=1"], "--mask-values: a foundation takes no"),
            (["--prompts", "{}/prompts.txt", "--per-mask", "0"], "--per-mask: is 0"),
            (["--prompts", "{}/prompts.txt", "--preset", "solver=ddim"], "--preset: is for an inpainting foundation"),
            (["--images", "{}", "--masks", "{}"], "its U-Net reads 4 channels, not those of one for inpainting"),
        ],
    )
    def test_wrong_input_is_refused_before_any_work(
        self, words: list[str], line: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        filled = [word.format(model) for word in words]
        assert main(["sample", str(model / "f"), *filled, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["nothing-here", "runs/nothing", "{}/nothing", "../nothing", "a/b/c", "tinny"])
    def test_no_such_run_or_foundation(
        self, name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_hub: list[str]
    ) -> None:
        (tmp_path / "runs").mkdir()
        words = ["--prompts", str(model / "prompts.txt"), "--out", str(tmp_path / "out")]
        assert main(["sample", name.format(model), *words]) == 2
        error = capsys.readouterr().err
        assert f"{name.format(model)}: no such run or foundation; give a run folder" in error
        assert error.count("\n") == 1
        assert no_hub == []

    def test_masks_are_for_a_run(self, model: Path, capsys: pytest.CaptureFixture[str], no_hub: list[str]) -> None:
        assert main(["sample", "rnus/run", "--masks", str(model), "--out", str(model / "out")]) == 2
        assert "rnus/run: no such run or foundation" in capsys.readouterr().err
        assert no_hub == []

    def test_the_hub_is_asked_for_its_names(self, model: Path, no_hub: list[str]) -> None:
        words = ["--prompts", str(model / "prompts.txt"), "--out", str(model / "out")]
        for name in ("sd15", "owner/name@0123abc"):
            assert main(["sample", name, *words]) == 2
        assert [name.partition("/")[0] for name in no_hub] == ["stable-diffusion-v1-5", "owner"]

    @pytest.fixture
    def no_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names that a hub without network was asked for; the working folder is empty."""
        import huggingface_hub

        asked: list[str] = []

        def download(repository: str, **options: object) -> str:
            asked.append(repository)
            raise ConnectionError

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.chdir(tmp_path)
        return asked

    def test_the_inner_folder_of_a_generator_is_not_taken_for_a_foundation(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        inner = shutil.copytree(model / "f", tmp_path / "final")
        (inner / "generator.json").write_text("{}")
        words = ["--prompts", str(model / "prompts.txt"), "--out", str(tmp_path / "out")]
        assert main(["sample", str(inner), *words]) == 2
        assert "holds no trained generator" in capsys.readouterr().err


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


class TestInpainting:
    """Lesions into images: a trained run, and an inpainting foundation without any training."""

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """data/, a run/ of the small foundation, a stock inpainting folder sd9/, and normal/ images of other sizes."""
        root = tmp_path_factory.mktemp("inpaint")
        data = phantom_dataset(root / "data", "mucosa", 3, 32)
        small_tiny().save(root / "f")
        short = {"max_train_steps": 1, "train_batch_size": 2, "sampling_steps": 2}
        train_inpaint(data, InpaintConfig(foundation=str(root / "f"), normals="removed", **short), root / "run")
        made = widen(small_foundation("sd", root / "t"))
        made.save(root / "sd9")
        (root / "normal").mkdir()
        for k, size in enumerate(((48, 40), (33, 64))):
            picture = Image.open(sorted((root / "run" / "normals" / "images").iterdir())[k]).resize(size)
            picture.save(root / "normal" / f"n{k}.png")
        for name, text in {
            "slots": "endoscopic photo of a {size} polyp\na photo of a polyp\n",
            "wrong": "a photo of a polyp\na photo of a diminutive polyp, large, small, medium-sized\n",
            "long": "a photo of a polyp\n" + "polyp " * 80 + "\n",
            "slot": "a {sort} polyp\n",
        }.items():
            (root / f"{name}.txt").write_text(text)
        return root

    def sampled(self, root: Path, out: Path, *words: str | Path) -> list[dict[str, Any]]:
        assert main(["sample", *map(str, words), "--out", str(out), "--masks", str(root / "data")]) == 0
        return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]

    def test_a_run_paints_into_its_own_images(self, root: Path, tmp_path: Path) -> None:
        rows = self.sampled(root, tmp_path / "out", root / "run", "--per-mask", "2")
        assert [row["id"] for row in rows] == [f"mucosa-00000{k}_0{copy}" for k in range(3) for copy in range(2)]
        assert {row["origin"]["normal"]["source"] for row in rows} == {"removed"}
        assert {row["origin"]["outside"] for row in rows} == {0}
        data = read_dataset(tmp_path / "out")
        assert len(data.annotated) == 6
        assert all(row["prompt"] and row["prompt"] == row["origin"]["prompt"] for row in rows)  # composed from the mask
        assert [record.caption for record in data] == [row["prompt"] for row in rows]
        again = self.sampled(root, tmp_path / "again", root / "run", "--per-mask", "2", "--preset", "guidance=2.5")
        assert [row["sha256"] for row in again] == [row["sha256"] for row in rows]  # its own value

    def test_other_images_of_any_size_and_other_options(self, root: Path, tmp_path: Path) -> None:
        words = (root / "run", "--images", root / "normal", "--preset", "text=none+strength=0.8")
        rows = self.sampled(root, tmp_path / "out", *words)
        sizes = {Image.open(tmp_path / "out" / "images" / f"{row['id']}.png").size for row in rows}
        assert sizes <= {(48, 40), (33, 64)}
        for row in rows:
            assert (row["origin"]["text"], row["origin"]["strength"], row["origin"]["prompt"]) == ("none", 0.8, "")
            normal = np.array(Image.open(root / "normal" / f"{row['origin']['normal']['id']}.png"))
            made = np.array(Image.open(tmp_path / "out" / "images" / f"{row['id']}.png"))
            mask = np.array(Image.open(tmp_path / "out" / "masks" / f"{row['id']}.png"))
            same = (made == normal).all(axis=2)
            assert same[feathered(mask, row["origin"]["feather"]) == 0].all()
            assert not same[mask > 0].all()

    def test_lesions_stay_where_their_masks_have_them(self, root: Path, tmp_path: Path) -> None:
        """Image, mask and text of the user's own; and a run's own images, whose lesions were painted away."""
        (tmp_path / "prompts.txt").write_text("a photo of a polyp\nendoscopic photo of a polyp\na {size} polyp\n")
        words: tuple[str | Path, ...] = ("--place", "as-is", "--prompts", tmp_path / "prompts.txt")
        sources: dict[str, tuple[tuple[str | Path, ...], Path]] = {
            "folder": ((root / "sd9", "--preset", "grammar=polyp", "--images", root / "data"), root / "data"),
            "removed": ((root / "run",), root / "run" / "normals"),
        }
        for source, (given, images) in sources.items():
            rows = self.sampled(root, tmp_path / source, *given, *words)
            assert [row["id"] for row in rows] == [f"mucosa-00000{k}_00" for k in range(3)]
            said = [row["origin"]["prompt"] for row in rows]
            assert said[:2] == ["a photo of a polyp", "endoscopic photo of a polyp"]
            assert said[2].startswith("a ")
            for row in rows:
                name = row["source_mask"]
                params = row["mask_transform"]
                assert (params["place"], params["normal"]) == ("as-is", {"id": name, "source": source})
                made, own = (
                    np.array(Image.open(folder / f"{stem}.png"))
                    for folder, stem in ((tmp_path / source / "images", row["id"]), (images / "images", name))
                )
                mask = np.array(Image.open(tmp_path / source / "masks" / f"{row['id']}.png"))
                assert np.array_equal(mask, np.array(Image.open(root / "data" / "masks" / f"{name}.png")))
                same = (made == own).all(axis=2)
                assert same[feathered(mask, row["origin"]["feather"]) == 0].all()
                assert not same[mask > 0].all()

    def test_areas_in_turn(self, root: Path, tmp_path: Path) -> None:
        words = ("--images", root / "normal", "--areas", "even", "--per-mask", "3")
        rows = self.sampled(root, tmp_path / "out", root / "run", *words)
        asked = {row["mask_transform"]["area_asked"] for row in rows if row["source_mask"] == "mucosa-000001"}
        assert asked == set(AREA_BINS)

    def test_an_inpainting_foundation_needs_no_training(self, root: Path, tmp_path: Path) -> None:
        words = ("--images", root / "normal", "--prompts", root / "slots.txt")
        rows = self.sampled(root, tmp_path / "out", root / "sd9", *words, "--preset", "grammar=polyp+sampling_steps=2")
        assert {row["origin"]["text"] for row in rows} == {"given"}
        filled = {row["origin"]["prompt"] for row in rows}
        assert "a photo of a polyp" in filled
        assert {row["prompt"] for row in rows} == filled
        assert any(" polyp" in text and "{" not in text and text.startswith("endoscopic") for text in filled)
        assert {row["origin"]["foundation"] for row in rows} == {"sd9"}

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["{}/run", "--prompts", "{}/wrong.txt"], ", but the mask is "),
            (["{}/run", "--prompts", "{}/long.txt"], "has 80 tokens, and the text encoder reads 62; shorten it"),
            (["{}/run", "--prompts", "{}/slot.txt"], "has no slot 'sort'"),
            (["{}/run", "--images", "{}/nowhere"], "nowhere: does not exist"),
            (["{}/run", "--preset", "lr=3"], "there is no option 'lr'"),
            (["{}/run", "--preset", "text=some"], "--text some: choose mask or none or wrong"),
            (["{}/run", "--per-mask", "0"], "--per-mask: is 0"),
            (["{}/sd9", "--images", "{}/normal", "--prompts", "{}/long.txt"], "has 82 tokens, the start and end marks"),
            (["{}/sd9", "--images", "{}/normal", "--preset", "grammar=none"], "none: no such grammar"),
            (["{}/sd9", "--images", "{}/normal", "--preset", "resolution=30"], "is not a multiple of 4"),
            (
                ["{}/sd9"],
                "--masks: a foundation takes no masks for sampling; leave the option out, or give --images and",
            ),
        ],
    )
    def test_wrong_input_is_refused_before_any_work(
        self, words: list[str], line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = [word.format(root) for word in words]
        if given[0].endswith("sd9") and "--images" not in given:
            given += ["--prompts", str(root / "slots.txt")]
        assert main(["sample", *given, "--masks", str(root / "data"), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.strip().count("\n") == 0
        assert not (tmp_path / "out").exists()

    def test_masks_are_needed(self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["sample", str(root / "run"), "--out", str(tmp_path / "out")]) == 2
        assert "this generator needs masks; give them with --masks" in capsys.readouterr().err

    def test_an_empty_mask_is_refused(self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = shutil.copytree(root / "data", tmp_path / "data")
        file = sorted((data / "masks").iterdir())[1]
        Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(file)
        assert main(["sample", str(root / "run"), "--masks", str(data), "--out", str(tmp_path / "out")]) == 2
        assert f"{file.name}: is empty, so there is nothing to paint" in capsys.readouterr().err


def test_what_cannot_be_is_refused_before_the_generator_is_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("the generator was loaded")

    access, locked = os.access, tmp_path / "locked"
    locked.mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr("morphogen.generators.load_sampler", loaded)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and access(path, mode))  # root may all
    for words, says in (
        (["--out", tmp_path / "file" / "out"], "file: is a file; name a folder for --out"),
        (["--out", locked / "out"], "locked: cannot be written by this user; make it writable, or name another --out"),
        (["--out", tmp_path / "out", "--shard", "2/2"], "--shard: 2/2 names no worker; give I/N with I from 0 to N-1"),
        (["--out", tmp_path / "out", "--shard", "0/0"], "--shard: 0/0 names no worker; give I/N with I from 0 to N-1"),
    ):
        assert _sample(folder, "--masks", folder / "data", *words) == 2
        assert capsys.readouterr().err.strip().endswith(says)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "locked"}
    assert not list(locked.iterdir())
