"""One BLAS thread inside a fit: two threads made one evaluation thirty times slower."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_LOCK = threading.Lock()
_HELD: list[Any] = []  # the limit, once for each fit that is under way


@lru_cache(maxsize=1)
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be held)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread while the returned context is open.

    The limit is of the whole process: where several threads fit at the same time, the first to
    come sets it, and the last to go gives back what was there.
    """
    with _LOCK:
        _HELD.append(_HELD[0] if _HELD else _controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _LOCK:
            limit = _HELD.pop()
            if not _HELD:
                limit.restore_original_limits()
