"""The errors hmlm raises: each says what was wrong, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HmlmError(ValueError):
    """Base class of every error that hmlm raises about its input."""


class DataError(HmlmError):
    """The table cannot be used as it is: the message names column, rows and next step."""


class FormulaError(HmlmError):
    """The formula cannot be read, or names something that is not allowed."""


class PriorError(HmlmError):
    """A prior has an unknown name, a wrong parameter, or belongs to no term."""


def suggest(name: str, known: Iterable[object]) -> str:
    """Return ' Did you mean ...?' for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def listed(items: Iterable[object], most: int = 8) -> str:
    """Write items as a comma-separated list, cut after `most` of them."""
    texts = [str(i) for i in items]
    more = f", ... ({len(texts)} in all)" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def counted(n: int, noun: str) -> str:
    """Write a count with its noun: '1 row', '3 rows'."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
