"""How far runs are that are under way, for who waits: counted by a callback, and read from the runs' folders."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from bmtl.evaluation.storage import atomic

RUNNING = ".running"
"""File in a cell's folder while it is trained. It says how far the run is, and after a kill which cells were at work."""

_WRITTEN_EVERY = 1.0  # second


@dataclass(frozen=True)
class UnderWay:
    """A run that is under way.

    Attributes:
        run: What it is called.
        done: Share of its training that is done, 0 to 1; predictions follow.
        networks: How many networks it trains, one after the other.
    """

    run: str
    done: float = 0.0
    networks: int = 1


class ShareDone(Callback):
    """Calls a function with the share of a run's training that is done, after each batch and at each network's end.

    Its networks count equally, and one whose training ends early counts as a whole one.

    Args:
        networks: How many are trained, one after the other.
        say: Takes the share, 0 to 1.
    """

    def __init__(self, networks: int, say: Callable[[float], None]) -> None:
        self.networks, self.say = networks, say
        self.ended = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        epochs = trainer.current_epoch + (batch_idx + 1) / max(trainer.num_training_batches, batch_idx + 1)
        self._say(epochs / max(trainer.max_epochs or 0, epochs, 1))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended += 1
        self._say(0.0)

    def _say(self, network: float) -> None:
        self.say(min(1.0, (self.ended + network) / self.networks))


@contextmanager
def marked(folder: Path, run: str, networks: int) -> Iterator[ShareDone]:
    """While it lasts, a file in `folder` says how far a run is; the callback that is given keeps it up to date.

    The file is written at most once a second. It is removed at the end, whatever ends it; after a kill it stays.
    """
    path = folder / RUNNING
    written = 0.0

    def write(done: float) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written >= _WRITTEN_EVERY or done == 1.0:
            written = now
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(asdict(UnderWay(run, done, networks))))

    write(0.0)
    try:
        yield ShareDone(networks, write)
    finally:
        path.unlink(missing_ok=True)


def under_way(out: str | Path) -> list[UnderWay]:
    """The runs under `out` that are under way now, in this process or another; a damaged mark is left out."""
    found = []
    for path in sorted(Path(out).rglob(RUNNING)):
        try:
            found.append(UnderWay(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # it ended just now
            continue
    return found
