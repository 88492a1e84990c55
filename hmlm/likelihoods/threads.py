"""One BLAS thread inside a fit: two threads made one evaluation thirty times slower."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be held)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Hold BLAS to one thread while the returned context is open."""
    context: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return context
