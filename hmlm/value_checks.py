"""Values that no model can do with: numbers beyond all arithmetic, and text that is none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hmlm.errors import DataError

LARGEST = 1e100  # squares of larger numbers, summed and multiplied, overflow


def check_size(name: object, values: np.ndarray) -> None:
    """Refuse numbers whose squares, summed and multiplied, a computer cannot hold.

    Raises
    ------
    DataError
        If the largest is above `LARGEST`.

    Examples
    --------
    >>> import numpy as np
    >>> check_size("x", np.array([1.0, 1e200]))
    Traceback (most recent call last):
    ...
    hmlm.errors.DataError: column 'x' reaches 1e+200, and squares of such numbers are beyond ...
    """
    largest = max(float(values.max()), -float(values.min())) if len(values) else 0.0
    if largest > LARGEST:
        raise DataError(
            f"column '{name}' reaches {largest:.3g}, and squares of such numbers are beyond what a "
            "computer can hold: correct them, or measure in a larger unit."
        )


def check_text(what: str, values: Iterable[object]) -> None:
    """Refuse text that no file and no terminal can hold: half of a surrogate pair.

    Raises
    ------
    DataError
        For the first value of the kind.

    Examples
    --------
    >>> check_text("a level of column 'g'", ["a", "é"])
    """
    for value in values:
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{what} is no valid text, {ascii(value)[:80]}: decode the file as what it is."
            ) from error
