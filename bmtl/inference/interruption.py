"""Ctrl-C, wherever Python is when it is pressed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback


class Interruption(Callback):
    """Whether Ctrl-C was pressed; raises it after a batch where it could not be raised at once.

    Python prints an exception of a finalizer (``__del__``), and goes on. A signal that arrives while garbage is collected is
    handled in the next finalizer, such as that of Lightning's profiler, and its `KeyboardInterrupt` would be lost.

    Attributes:
        noted: Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.noted = False

    def on_train_batch_end(self, *args: Any) -> None:
        if self.noted:
            raise KeyboardInterrupt


class _Noting:
    """Python's own handler of Ctrl-C, which an `Interruption` knows of too."""

    def __init__(self, interruption: Interruption, usual: Any) -> None:
        self.interruption, self.usual = interruption, usual

    def __call__(self, number: int, frame: Any) -> None:
        self.interruption.noted = True
        within = frame
        while within is not None:
            if within.f_code.co_name == "__del__":
                return
            within = within.f_back
        self.usual(number, frame)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Notes Ctrl-C, and leaves the handler as it was. Lightning's exit on Ctrl-C is noted and goes no further.

    In another thread than the main one, and under a handler that is not Python's, only that exit is noted.
    """
    interruption = Interruption()
    main = threading.current_thread() is threading.main_thread()
    usual = signal.getsignal(signal.SIGINT) if main else None
    if usual is signal.default_int_handler or isinstance(usual, _Noting):
        signal.signal(signal.SIGINT, _Noting(interruption, usual))
    try:
        yield interruption
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise  # a callback's own
        interruption.noted = True  # Lightning's way of ending on Ctrl-C: exit, the signal left ignored
    finally:
        if usual is not None:
            signal.signal(signal.SIGINT, usual)
