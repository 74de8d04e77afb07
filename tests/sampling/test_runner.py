"""The runner: any number of workers, any interruption, the same folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.data.masks import load_mask
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError, WorkError
from morphogen.generators.copy_paste.model import CopyPasteConfig, train
from morphogen.sampling import manifest
from morphogen.sampling import shares as shares_of
from morphogen.sampling.jobs import Job, Pair
from morphogen.sampling.plan import Plan
from morphogen.sampling.runner import run_jobs
from morphogen.training.rng import numpy_rng


class Painter:
    """Noise from the job's seed on its mask; `wobble` adds a grey level that depends on the size of the batch."""

    needs = frozenset({"masks"})
    resolution = 8

    def __init__(self, hash_: str = "painter", wobble: bool = False) -> None:
        self.hash = hash_
        self.wobble = wobble
        self.batches: list[list[str]] = []

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        self.batches.append([job.id for job in jobs])
        pairs = []
        for job in jobs:
            image = numpy_rng(job.seed).integers(0, 250, (8, 8, 3), dtype=np.uint8)
            assert job.mask is not None
            pairs.append(Pair(image + np.uint8(len(jobs) % 2 * self.wobble), job.mask, {"batch": "any"}))
        return pairs


def _jobs(n: int = 10, classes: int = 2) -> list[Job]:
    return [Job(f"j{i:02d}", i, numpy_rng("mask", i).integers(0, classes, (8, 8)), prompt=f"p{i}") for i in range(n)]


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


class TestOutput:
    def test_folder_is_a_dataset_with_origins(self, tmp_path: Path) -> None:
        jobs = _jobs()
        summary = run_jobs(Painter(), jobs, tmp_path / "out")
        assert (summary.total, summary.made, summary.complete) == (10, 10, True)
        data = read_dataset(tmp_path / "out")
        assert data.ids == tuple(job.id for job in jobs)
        for job, record in zip(jobs, data, strict=True):
            assert np.array_equal(load_mask(record, data.mask_values), job.mask)
            assert record.origin is not None
            assert (record.origin["seed"], record.origin["generator_hash"]) == (job.seed, "painter")

    def test_rows_state_the_bytes(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path)
        rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        for row in rows:
            for part in ("image", "mask"):
                content = (tmp_path / f"{part}s" / f"{row['id']}.png").read_bytes()
                assert hashlib.sha256(content).hexdigest() == row["sha256"][part]
        assert {"seed", "source_mask", "prompt", "mask_transform", "versions", "origin"} <= set(rows[0])

    def test_two_classes_are_0_and_255_and_more_are_labels(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path / "two")
        assert set(np.unique(np.array(Image.open(tmp_path / "two/masks/j00.png")))) == {0, 255}
        many = Plan.of(_jobs(classes=3), ("background", "cup", "disc"))
        run_jobs(Painter(), many, tmp_path / "three")
        assert set(np.unique(np.array(Image.open(tmp_path / "three/masks/j00.png")))) == {0, 1, 2}
        data = read_dataset(tmp_path / "three")
        assert data.classes == ("background", "cup", "disc")
        assert np.array_equal(load_mask(data[0], data.mask_values), many[0].mask)

    def test_pngs_hold_pixels_only(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(2), tmp_path)
        for path in tmp_path.rglob("*.png"):
            with Image.open(path) as image:
                assert image.info == {}
                assert len(image.getexif()) == 0

    def test_broken_promises_of_a_generator_are_caught(self, tmp_path: Path) -> None:
        with pytest.raises(WorkError, match="label 2 of 2 classes"):
            run_jobs(Painter(), _jobs(classes=3), tmp_path)
        assert not list(tmp_path.rglob("*.png"))

    def test_without_classes_there_are_images_alone(self, tmp_path: Path) -> None:
        class Bare(Painter):
            def sample(self, jobs: Sequence[Job]) -> list[Pair]:
                return [Pair(pair.image, None) for pair in super().sample(jobs)]

        bare = Plan.of(_jobs(), ())
        for worker in (1, 0):
            run_jobs(Bare(), bare, tmp_path / "out", 4, (worker, 2))
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"images", "manifest.jsonl", "run.json"}
        rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
        assert all(set(row["sha256"]) == {"image"} for row in rows)
        assert run_jobs(Bare(), bare, tmp_path / "out", 4).made == 0
        with pytest.raises(WorkError, match="a mask for 0 classes"):
            run_jobs(Painter(), bare, tmp_path / "masked")
        with pytest.raises(WorkError, match="no mask for 2 classes"):
            run_jobs(Bare(), _jobs(), tmp_path / "unmasked")


class TestWorkers:
    @pytest.mark.parametrize("workers", [2, 3])
    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_any_number_of_workers_gives_the_same_folder(self, workers: int, batch_size: int, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path / "one", batch_size)
        complete = [
            run_jobs(Painter(), _jobs(), tmp_path / "many", batch_size, (worker, workers)).complete
            for worker in reversed(range(workers))
        ]
        assert complete == [False] * (workers - 1) + [True]
        assert _files(tmp_path / "one") == _files(tmp_path / "many")

    def test_equal_batches_give_equal_bytes_and_others_one_grey_level(self, tmp_path: Path) -> None:
        for name, batch_size, workers in (("a", 1, 1), ("b", 1, 2), ("c", 4, 2)):
            for worker in range(workers):
                run_jobs(Painter(wobble=True), _jobs(), tmp_path / name, batch_size, (worker, workers))
        assert _files(tmp_path / "a") == _files(tmp_path / "b")
        differences = [
            np.abs(
                np.array(Image.open(path)).astype(int) - np.array(Image.open(tmp_path / "c/images" / path.name))
            ).max()
            for path in (tmp_path / "a" / "images").iterdir()
        ]
        assert max(differences) == 1

    def test_worker_takes_every_nth_job(self, tmp_path: Path) -> None:
        painter = Painter()
        run_jobs(painter, _jobs(7), tmp_path, 2, (1, 3))
        assert painter.batches == [["j01", "j04"]]

    @pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
    def test_impossible_workers_are_refused(self, shard: tuple[int, int], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--shard"):
            run_jobs(Painter(), _jobs(), tmp_path / "out", 4, shard)
        assert not (tmp_path / "out").exists()


class TestTwoRunsAtOnce:
    @pytest.mark.parametrize(
        ("there", "here", "refused"),
        [
            ((0, 1), (0, 1), True),
            ((1, 2), (1, 2), True),
            ((1, 2), (0, 1), True),
            ((1, 4), (3, 6), True),
            ((0, 2), (1, 2), False),
            ((0, 4), (3, 6), False),
        ],
    )
    def test_the_same_pairs_are_made_by_one_of_them(
        self, there: tuple[int, int], here: tuple[int, int], refused: bool, tmp_path: Path
    ) -> None:
        """The second run starts while the first one paints its first batch."""
        says: list[str] = []

        class Meeting(Painter):
            def sample(self, jobs: Sequence[Job]) -> list[Pair]:
                if not self.batches:
                    before = _files(tmp_path)
                    try:
                        run_jobs(Painter(), _jobs(24), tmp_path, 4, here)
                    except InputError as error:
                        says.append(str(error))
                        assert _files(tmp_path) == before
                return super().sample(jobs)

        run_jobs(Meeting(), _jobs(24), tmp_path, 4, there)
        assert [f"share {here[0]}/{here[1]}; let it end" in line for line in says] == [True] * refused
        assert not list(tmp_path.glob(".share*"))

    def test_positions_in_common_are_what_the_rule_says(self, tmp_path: Path) -> None:
        shares = [(r, w) for w in (1, 2, 3, 4, 6) for r in range(w)]
        for r, w in shares:
            for r_other, w_other in shares:
                common = set(range(r, 24, w)) & set(range(r_other, 24, w_other))
                path = tmp_path / f".share-{r_other}-of-{w_other}.lock"
                assert shares_of.overlaps(path, r, w) == bool(common)

    def test_what_a_killed_run_left_holds_nobody_up(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path, 4, (0, 2))
        for name in (".share-1-of-2.lock", ".share-0-of-3.lock"):
            (tmp_path / name).touch()
        assert run_jobs(Painter(), _jobs(), tmp_path, 4).complete
        assert not list(tmp_path.glob(".share*"))


class TestResume:
    def test_what_verifies_is_kept_and_the_rest_made_in_the_same_batches(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path, 4)
        before = _files(tmp_path)
        (tmp_path / "images/j05.png").unlink()
        (tmp_path / "masks/j09.png").write_bytes(b"damaged")
        kept = tmp_path / "images/j04.png"
        os.utime(kept, (1, 1))
        painter = Painter()
        summary = run_jobs(painter, _jobs(), tmp_path, 4)
        assert painter.batches == [["j04", "j05", "j06", "j07"], ["j08", "j09"]]
        assert summary.made == 2
        assert kept.stat().st_mtime == 1
        assert _files(tmp_path) == before

    def test_nothing_is_sampled_twice(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path)
        painter = Painter()
        assert run_jobs(painter, _jobs(), tmp_path).complete
        assert painter.batches == []

    def test_a_torn_row_is_made_again(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path / "whole")
        run_jobs(Painter(), _jobs(), tmp_path / "torn", 1, (0, 2))
        rows = tmp_path / "torn" / "manifest-0.jsonl"
        rows.write_bytes(rows.read_bytes()[:-30])
        assert run_jobs(Painter(), _jobs(), tmp_path / "torn", 1, (0, 2)).made == 1
        run_jobs(Painter(), _jobs(), tmp_path / "torn", 1, (1, 2))
        assert _files(tmp_path / "torn") == _files(tmp_path / "whole")

    def test_another_generator_or_plan_is_refused(self, tmp_path: Path) -> None:
        run_jobs(Painter(), _jobs(), tmp_path)
        before = _files(tmp_path)
        for painter, jobs in ((Painter("other"), _jobs()), (Painter(), _jobs(9))):
            with pytest.raises(InputError, match="holds another sampling run"):
                run_jobs(painter, jobs, tmp_path)
        assert _files(tmp_path) == before

    def test_a_folder_with_other_things_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="holds other files"):
            run_jobs(Painter(), _jobs(), tmp_path)
        with pytest.raises(InputError, match="is a file"):
            run_jobs(Painter(), _jobs(), tmp_path / "thesis.txt")
        assert _files(tmp_path) == {"thesis.txt": b"mine"}


def test_full_disk_is_one_line_and_the_run_goes_on_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_jobs(Painter(), _jobs(), tmp_path / "whole", 4)
    original, left = Path.write_bytes, [5]

    def write_bytes(path: Path, content: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            original(path, content[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return original(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(WorkError, match="the disk is full") as error:
        run_jobs(Painter(), _jobs(), tmp_path / "full", 4)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "full").rglob("*.tmp"))
    monkeypatch.undo()
    run_jobs(Painter(), _jobs(), tmp_path / "full", 4)
    assert _files(tmp_path / "full") == _files(tmp_path / "whole")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_round_trip(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(manifest.encode_png(array))
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), array)


def test_killed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL in the middle of a real command; started again, it must end where an undisturbed one ends."""
    data = phantom_dataset(tmp_path / "data", "mucosa", 4, 32)
    run = train(data, CopyPasteConfig(resolution=32), tmp_path / "run")

    def words(out: Path) -> list[str]:
        return ["sample", str(run), "--masks", str(data.root), "--per-mask", "60", "--out", str(out)]

    assert main(words(tmp_path / "whole")) == 0
    call = f"import sys; from morphogen.cli import main; sys.exit(main({words(tmp_path / 'killed')!r}))"
    process = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.DEVNULL)
    images = tmp_path / "killed" / "images"
    deadline = time.monotonic() + 120
    while not images.is_dir() or len(list(images.iterdir())) < 40:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.jsonl").exists()
    assert main(words(tmp_path / "killed")) == 0
    assert _files(tmp_path / "killed") == _files(tmp_path / "whole")
