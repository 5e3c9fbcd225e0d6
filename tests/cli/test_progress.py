"""Progress on a terminal and without one."""

import io
import re

import pytest
from rich.console import Console

from bmtl.cli import progress as module
from bmtl.cli.progress import duration, progress
from bmtl.experiments import UnderWay


class Clock:
    """A clock and an event that run as the test says."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def lines(monkeypatch):
    """A function that runs a schedule of (seconds, what was done by then) without a terminal, and returns the lines."""

    def told(schedule, total, rest="", running=(), **options):
        clock, printed = Clock(), io.StringIO()
        monkeypatch.setattr(module, "time", clock)
        console = Console(file=printed, width=40)
        left = iter(running)
        work = module._Work(total, "runs", rest, options.get("size", total), lambda: next(left, ()))
        lines = module._Lines(work, console)
        waits = iter(schedule)

        class Ended:
            def wait(self, seconds):
                events = next(waits, None)
                if events is None:
                    return True
                clock.now += seconds
                for event in events:
                    lines.advance(*event[:2], new=event[-1] != "there") if isinstance(event, tuple) else lines.advance(
                        event
                    )
                return False

            def set(self):
                pass

        lines.ended = Ended()
        with lines:
            pass
        return printed.getvalue().splitlines()

    return told


def test_without_a_terminal_lines_say_what_is_done(lines):
    assert lines([["ew"], ["uw", "stl"], ["[b]"]], 4)[1:] == [
        "1 of 4 runs, 5 s, about 15 s left; last: ew",
        "3 of 4 runs, 10 s, about 3 s left; last: stl",
        "4 of 4 runs, 15 s; last: [b]",
    ]


def test_lines_become_rarer_with_time_but_there_is_one_a_minute(lines):
    said = [int(line.split(", ")[1].split()[0]) for line in lines([[]] * 21 + [[]] * 20, 4) if " s" in line]
    assert said[:3] == [5, 10, 15]
    work = module._Work(1, "runs", "", 1, tuple)
    work.start -= 36000
    assert module._Lines(work, Console()).interval() == 60


def test_within_a_run_lines_say_how_far_it_is(lines):
    """A run of three networks of four: from the fifth second, when it is seen first, to the tenth it gains 3/4 of one."""
    running = [[UnderWay("stl", 0.25, 3)], [UnderWay("stl", 0.5, 3)], [UnderWay("stl", 1.0, 3)]]
    assert lines([[], [], []], 2, running=running, size=4) == [
        "0 of 2 runs, 5 s; now: stl 25 %",
        "0 of 2 runs, 10 s, about 17 s left; now: stl 50 %",
        "0 of 2 runs, 15 s, about 4 s left; now: stl predicts",
    ]
    assert lines([[]], 1, running=[[UnderWay("ew", 0.2)]]) == ["trained 20 %, 5 s"]
    assert lines([[]], 1, running=[[UnderWay("ew", 1.0)]]) == ["trained, now predictions, 5 s"]


def test_what_was_there_says_nothing_about_the_time_left(lines):
    assert lines([[("a", 1, "there"), ("b", 1, "there")], ["c"], []], 5)[:2] == [
        "2 of 5 runs (2 there already), 5 s; last: b",
        "3 of 5 runs (2 there already), 10 s, about 20 s left; last: c",
    ]


def test_what_still_takes_a_while_is_said_once_all_are_done(lines):
    assert lines([["a"], ["b"]], 2, "now tables")[1:] == [
        "1 of 2 runs, 5 s, about 5 s left; last: a",
        "2 of 2 runs, 10 s; now tables",
    ]


def test_a_line_is_never_broken():
    printed = io.StringIO()
    with progress(Console(file=printed, width=20), 1, "runs") as advance:
        advance("a method with a very long name (split 3, seed 1)")
    assert printed.getvalue() == "1 of 1 run, 0 s; last: a method with a very long name (split 3, seed 1)\n"


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
    assert "2 of 2 runs" in plain
    assert "now tables" in plain
    with progress(console, 1, "runs", under_way=lambda: [UnderWay("x", 0.5)]):
        pass  # what ends in an error leaves no thread and no bar behind


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (119.4, "119 s"), (150, "2 min"), (3600, "60 min"), (7200, "2 h 0 min"), (8100, "2 h 15 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
