"""Of several processes that were launched together, one speaks, and each samples its share."""

from __future__ import annotations

import pytest

from morphogen import launched
from morphogen.cli.sample import _shard
from morphogen.launched import PATIENCE, Place, place, tells_of_failure
from morphogen.progress import say, track


def launch(monkeypatch: pytest.MonkeyPatch, rank: int, local_rank: int, world: int) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", local_rank), ("WORLD_SIZE", world)):
        monkeypatch.setenv(name, str(value))


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert place() == Place(0, 0, 1)
    launch(monkeypatch, 3, 1, 4)
    assert place() == Place(3, 1, 4)


@pytest.mark.parametrize(
    ("local_rank", "known", "everywhere", "tells", "waits"),
    [
        (0, True, False, True, 0.0),  # a refusal that all processes find
        (1, True, False, True, PATIENCE),  # the launcher has not ended it: its own fault
        (0, False, False, True, PATIENCE / 2),  # perhaps the other one has gone
        (1, False, False, True, PATIENCE),
        (0, True, True, True, 0.0),  # a signal stops all
        (1, True, True, False, 0.0),
    ],
)
def test_who_tells_of_a_failure(
    monkeypatch: pytest.MonkeyPatch, local_rank: int, known: bool, everywhere: bool, tells: bool, waits: float
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(launched.time, "sleep", waited.append)
    launch(monkeypatch, 2 + local_rank, local_rank, 4)
    assert tells_of_failure(known, everywhere) is tells
    assert sum(waited) == waits
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert tells_of_failure(known, everywhere)
    assert sum(waited) == waits


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_shows_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    monkeypatch.setattr("morphogen.progress.SECONDS_BETWEEN_LINES", 0.0)
    launch(monkeypatch, rank, rank, 2)
    assert list(track("ab", "letters")) == ["a", "b"]
    say("done")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ([] if rank else ["letters: 50 % (1/2), 0:00 left", "letters: 100 % (2/2), 0:00 left", "done"])


def test_processes_divide_the_share_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for worker in range(3):
        for rank in range(2):
            launch(monkeypatch, rank, rank, 2)
            found.append(_shard(f"{worker}/3"))
    assert found == [(k, 6) for k in range(6)]
