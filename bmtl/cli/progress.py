"""Progress of what takes a while: a bar on a terminal, and lines now and then where there is none, as in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[str], None]
"""Counts one more as done; takes what it was."""

_NEWS_SECONDS, _QUIET_SECONDS = 5.0, 30.0


@contextmanager
def progress(console: Console, total: int, what: str, rest: str = "") -> Iterator[Advance]:
    """Shows how many of `total` are done, and about how long the rest takes.

    Args:
        console: Where it is shown. Without a terminal, as in a log or a pipe, a line says so at most every five seconds
            where there is news, and every thirty otherwise.
        total: How many there are.
        what: They are, in the plural.
        rest: What still takes a while once all are done.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("left:"), TimeRemainingColumn(), console=console) as bar:
            running = bar.add_task("training", total=total)

            def advance(text: str) -> None:
                bar.update(running, advance=1, description=f"{escape(text)} done")
                if rest and bar.tasks[0].finished:
                    bar.update(running, description=escape(rest))

            yield advance
        return
    with _Lines(console, total, what, rest) as lines:
        yield lines.advance


class _Lines:
    """A thread that prints lines; `advance` is called by another."""

    def __init__(self, console: Console, total: int, what: str, rest: str) -> None:
        self.console, self.total, self.what, self.rest = console, total, what, rest
        self.done, self.last, self.said = 0, "", 0
        self.start = time.monotonic()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Lines:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.ended.set()
        self.thread.join()
        if self.done > self.said:
            self._say()

    def advance(self, text: str) -> None:
        self.last, self.done = text, self.done + 1
        if not self.said:  # the first says how long the others may take
            self._say()

    def _watch(self) -> None:
        quiet = 0.0
        while not self.ended.wait(_NEWS_SECONDS):
            quiet += _NEWS_SECONDS
            if self.done > self.said or quiet >= _QUIET_SECONDS:
                self._say()
                quiet = 0.0

    def _say(self) -> None:
        done, seconds = self.done, time.monotonic() - self.start
        self.said = done
        left = f", about {duration(seconds / done * (self.total - done))} left" if 0 < done < self.total else ""
        last = f"; last: {self.last}" if done else ""
        if self.rest and done >= self.total:
            last = f"; {self.rest}"
        self.console.print(
            f"{done} of {self.total} {self.what}, {duration(seconds)}{left}{last}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def duration(seconds: float) -> str:
    """A time as people say it: "12 s", "3 min", "2 h 10 min"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
