"""Progress: what is printed where there is no terminal, and that a terminal gets one bar."""

from __future__ import annotations

import pytest

from morphogen import progress
from morphogen.progress import Stage, clock, plain_line, say, track


def test_track_yields_everything_in_order() -> None:
    assert list(track(iter("abc"), "letters")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (36061, "10:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_time_left_follows_from_the_steps_of_this_run() -> None:
    # 40 of 100 steps were there before; 20 more took 10 s, so the last 40 take 20 s
    assert plain_line("training", done=60, total=100, start=40, seconds=10.0) == "training: 60 % (60/100), 0:20 left"
    assert plain_line("training", done=40, total=100, start=40, seconds=10.0) == "training: 40 % (40/100)"
    assert plain_line("reading", done=7, total=None, start=0, seconds=1.0) == "reading: 7"


def test_lines_come_at_most_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    with Stage("training", total=10) as stage:
        for _ in range(10):
            stage.advance(note="loss 0.5")
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 5
    assert lines[0].startswith("training  loss 0.5: ")
    assert "left" in lines[0]


def test_nested_stages_share_one_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True)
    with Stage("outer", 2) as outer:
        for _ in track([1, 2], "inner"):
            assert len(progress._BARS) == 2
            assert progress._BARS[0] is progress._BARS[1]
            say("a line above the bar [not markup]")
            outer.advance()
    assert not progress._BARS


def test_the_bar_goes_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True)
    with pytest.raises(ZeroDivisionError), Stage("outer", 2):
        raise ZeroDivisionError
    assert not progress._BARS
