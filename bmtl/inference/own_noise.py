"""Whether a program draws random numbers outside its sample statements, as a dropout that stays on does."""

from typing import Any, Self

import torch
from pyro.poutine.messenger import Messenger

from bmtl.inference.programs import generators


class OwnNoise(Messenger):
    """Watches a run.

    Attributes:
        found: Whether torch's random generators moved between two sample statements, before the first or after the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __enter__(self) -> Self:
        self._last = generators()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._compare()
        super().__exit__(*error)

    def _pyro_sample(self, msg: Any) -> None:
        self._compare()

    def _pyro_post_sample(self, msg: Any) -> None:
        self._last = generators()

    def _compare(self) -> None:
        (last, on_devices), (now, now_on_devices) = self._last, generators()
        same = torch.equal(last, now) and len(on_devices) == len(now_on_devices)
        self.found = self.found or not (same and all(map(torch.equal, on_devices, now_on_devices)))
