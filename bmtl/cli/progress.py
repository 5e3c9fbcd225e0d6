"""Progress of what takes a while: a bar on a terminal, and lines now and then where there is none, as in a log."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from bmtl.experiments import UnderWay

_NAMED = 3
"""How many of those under way are named."""


class Advance(Protocol):
    """Counts one more as done.

    Args:
        text: What it was.
        size: How much work it was, in the units of the whole.
        new: Whether it was done now. What was there already says nothing about the time that others take.
    """

    def __call__(self, text: str, size: float = 1.0, *, new: bool = True) -> None: ...


@contextmanager
def progress(
    console: Console,
    total: int,
    what: str,
    rest: str = "",
    *,
    size: float | None = None,
    under_way: Callable[[], Sequence[UnderWay]] = tuple,
) -> Iterator[Advance]:
    """Shows how many of `total` are done, how far those are that are under way, and about how long the rest takes.

    Args:
        console: Where it is shown. Without a terminal, as in a log or a pipe, a line says so every five seconds at first,
            later more rarely, and at least once a minute.
        total: How many there are.
        what: They are, in the plural.
        rest: What still takes a while once all are done.
        size: How much work they are together; by default each is 1.
        under_way: What is under way now, and how far; asked in another thread.
    """
    work = _Work(total, what, rest, total if size is None else size, under_way)
    shown: _Shown = _Bar(work, console) if console.is_terminal else _Lines(work, console)
    with shown:
        yield shown.advance


class _Work:
    """What is done of what is to be done."""

    def __init__(
        self, total: int, what: str, rest: str, size: float, under_way: Callable[[], Sequence[UnderWay]]
    ) -> None:
        self.total, self.what, self.rest, self.size, self.under_way = total, what, rest, size, under_way
        self.done, self.kept, self.last = 0, 0, ""
        self.finished = self.there = 0.0  # units of size; of the finished ones those that were there already
        self.running: Sequence[UnderWay] = ()
        self.start = time.monotonic()
        self.base: tuple[float, float] | None = None  # seconds and what was reached when something was first under way

    def advance(self, text: str, size: float = 1.0, *, new: bool = True) -> None:
        self.last, self.done = text, self.done + 1
        self.finished += size
        if not new:
            self.there += size
            self.kept += 1
        self.running = [one for one in self.running if one.run != text]

    def look(self) -> None:
        """Asks what is under way."""
        self.running = self.under_way()
        if self.base is None and self.running:  # before that, processes started
            self.base = (0.0, 0.0) if self.done > self.kept else (self.seconds, self.reached - self.there)

    @property
    def reached(self) -> float:
        """Units of size that are done, those of runs under way included."""
        return min(self.size, self.finished + sum(one.done * one.networks for one in self.running))

    @property
    def alone(self) -> bool:
        """Whether the one run of all is under way: its share is the count."""
        return self.total == 1 and not self.done and bool(self.running)

    @property
    def count(self) -> str:
        if self.alone and self.running[0].done == 1:
            return "trained, now predictions"
        if self.alone:
            return f"trained {100 * self.running[0].done:.0f} %"
        kept = f" ({self.kept:,} there already)" if self.kept else ""
        what = self.what.removesuffix("s") if self.total == 1 else self.what
        return f"{self.done:,} of {self.total:,} {what}{kept}"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> str:
        """About how long the rest takes, where that can be said."""
        since, before = self.base or (0.0, 0.0)
        new = self.reached - self.there - before
        if new <= 0 or self.reached >= self.size:
            return ""
        return f"about {duration((self.seconds - since) / new * (self.size - self.reached))} left"

    @property
    def now(self) -> str:
        """What is under way, and how far."""
        said = [f"{one.run} {100 * one.done:.0f} %" if one.done < 1 else f"{one.run} predicts" for one in self.running]
        more = [f"{len(said) - _NAMED} more"] if len(said) > _NAMED else []
        return ", ".join([*said[:_NAMED], *more])


class _Shown(ABC):
    """A thread that shows the work again and again; `advance` is called by another."""

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Shown:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.ended.set()
        self.thread.join()

    def advance(self, text: str, size: float = 1.0, *, new: bool = True) -> None:
        self.work.advance(text, size, new=new)

    def _watch(self) -> None:
        while not self.ended.wait(self.interval()):
            self.work.look()
            self.show()

    @abstractmethod
    def interval(self) -> float:
        """Seconds until the work is shown again."""

    @abstractmethod
    def show(self) -> None:
        """Shows it once."""


class _Bar(_Shown):
    def __init__(self, work: _Work, console: Console) -> None:
        super().__init__(work)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        self.bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=console)
        self.task = self.bar.add_task("", total=work.size, count=work.count, left="")

    def __enter__(self) -> _Bar:
        self.bar.start()
        super().__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self.work.running = ()
        self.show()
        self.bar.stop()

    def advance(self, text: str, size: float = 1.0, *, new: bool = True) -> None:
        super().advance(text, size, new=new)
        self.show()

    def interval(self) -> float:
        return 1.0

    def show(self) -> None:
        work = self.work
        said = (
            work.rest
            if work.rest and work.done >= work.total
            else work.now or (f"last: {work.last}" if work.done else "")
        )
        self.bar.update(self.task, description=escape(said), completed=work.reached, count=work.count, left=work.left)


class _Lines(_Shown):
    def __init__(self, work: _Work, console: Console) -> None:
        super().__init__(work)
        self.console = console
        self.said = 0

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        if self.work.done > self.said:
            self.show()

    def advance(self, text: str, size: float = 1.0, *, new: bool = True) -> None:
        super().advance(text, size, new=new)
        if not self.said and new:  # the first says how long the others may take
            self.show()

    def interval(self) -> float:
        rest = self.work.done >= self.work.total  # nothing more is known of it
        return min(60.0, max(20.0 if rest else 5.0, self.work.seconds / 20))

    def show(self) -> None:
        work = self.work
        self.said = work.done
        times = f"{work.count}, {duration(work.seconds)}" + (f", {work.left}" if work.left else "")
        parts = [times]
        if work.rest and work.done >= work.total:
            parts.append(work.rest)
        else:
            parts += [f"last: {work.last}"] if work.done else []
            parts += [f"now: {work.now}"] if work.now and not work.alone else []
        self.console.print("; ".join(parts), markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A time as people say it: "12 s", "3 min", "2 h 10 min"."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
