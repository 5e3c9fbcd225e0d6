"""Progress on a terminal and without one."""

import io
import re

import pytest
from rich.console import Console

from bmtl.cli import progress as module
from bmtl.cli.progress import duration, progress


class Clock:
    """A clock and an event that run as the test says."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def lines(monkeypatch):
    """A function that runs a schedule of (seconds, what was done by then) without a terminal, and returns the lines."""

    def told(schedule, total, rest=""):
        clock, printed = Clock(), io.StringIO()
        monkeypatch.setattr(module, "time", clock)
        console = Console(file=printed, width=40)
        lines = module._Lines(console, total, "runs", rest)
        waits = iter(schedule)

        class Ended:
            def wait(self, seconds):
                events = next(waits, None)
                if events is None:
                    return True
                clock.now += seconds
                for event in events:
                    lines.advance(event)
                return False

            def set(self):
                pass

        lines.ended = Ended()
        with lines:
            pass
        return printed.getvalue().splitlines()

    return told


def test_without_a_terminal_a_line_says_what_is_new(lines):
    assert lines([["ew"], ["uw", "stl"], [], ["[b]"]], 4) == [
        "1 of 4 runs, 5 s, about 15 s left; last: ew",
        "3 of 4 runs, 10 s, about 3 s left; last: stl",
        "4 of 4 runs, 20 s; last: [b]",
    ]


def test_without_news_there_is_a_line_every_thirty_seconds(lines):
    assert lines([[]] * 13, 4) == ["0 of 4 runs, 30 s", "0 of 4 runs, 60 s"]


def test_what_still_takes_a_while_is_said_once_all_are_done(lines):
    assert lines([["a"], ["b"]], 2, "now tables") == [
        "1 of 2 runs, 5 s, about 5 s left; last: a",
        "2 of 2 runs, 10 s; now tables",
    ]


def test_a_line_is_never_broken():
    printed = io.StringIO()
    with progress(Console(file=printed, width=20), 1, "runs") as advance:
        advance("a method with a very long name (split 3, seed 1)")
    assert printed.getvalue() == "1 of 1 runs, 0 s; last: a method with a very long name (split 3, seed 1)\n"


def test_the_last_news_is_said_when_it_ends_early():
    printed = io.StringIO()
    console = Console(file=printed, width=80)
    with pytest.raises(KeyboardInterrupt), progress(console, 5, "runs") as advance:  # noqa: PT012
        advance("a")
        advance("b")
        raise KeyboardInterrupt
    first, last = printed.getvalue().splitlines()
    assert first.startswith("1 of 5 runs")
    assert last.startswith("2 of 5 runs")
    assert last.endswith("last: b")


def test_a_terminal_has_a_bar():
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, width=120, legacy_windows=False)
    with progress(console, 2, "runs", "now tables") as advance:
        advance("a [x]")
        advance("b")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.getvalue())
    assert "2/2" in plain
    assert "now tables" in plain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (119.4, "119 s"), (150, "2 min"), (3600, "60 min"), (7200, "2 h 0 min"), (8100, "2 h 15 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
