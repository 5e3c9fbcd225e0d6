"""One BLAS thread for small matrices."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_FROM = 24  # OpenBLAS starts threads from about K = 28; setting a limit costs 25 microseconds, an eigh of that size 75


def one_thread(size: int) -> AbstractContextManager[Any]:
    """Keeps the BLAS of numpy and scipy at one thread, where `size` is large enough for it to start more.

    A second thread gains nothing below some hundred rows, and on a busy machine each call waits for it.
    """
    return nullcontext() if size < _FROM else _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    # Finding the loaded libraries costs milliseconds, and they do not change: numpy's and scipy's are there by now.
    return ThreadpoolController()
