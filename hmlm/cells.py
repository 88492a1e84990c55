"""Rows that stand for many rows of a table: what a likelihood needs of them, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.errors import HmlmError


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Moments:
    """Averages and spreads of columns over all rows of a table.

    Attributes
    ----------
    n : int
        Number of rows.
    mean : ndarray, shape (k,)
        Averages.
    sd : ndarray, shape (k,)
        Standard deviations, with n - 1; NaN for one row.
    """

    n: int
    mean: np.ndarray
    sd: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """Average squared distance from the average, shape (k,)."""
        return np.nan_to_num(self.sd) ** 2 * ((self.n - 1) / self.n)

    @property
    def rms(self) -> np.ndarray:
        """Root mean squares, shape (k,)."""
        return np.sqrt(self.mean**2 + self.variance)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Cells:
    """What the rows of a design stand for, where they are not the rows of the table.

    There are two forms. In one, each row is a distinct combination of values that `counts` rows of
    the table have. In the other (`sums`), for a gaussian outcome with the identity link, rows are
    made up: they have the same sums of squares and products as the table's rows in every cell
    (combination of groups), which is all that the likelihood depends on. There the columns are
    weighted already, the offset is taken off the outcome, and a column of ones is `ones`.

    Attributes
    ----------
    n : int
        Rows of the table that were used.
    counts : ndarray of int, shape (R,)
        How many of them each row stands for; zero for made-up rows beside the mean of a cell.
    ones : ndarray of shape (R,), or None
        What a column of ones is; None in the first form, where it is one.
    within : ndarray of shape (R,), or None
        Sum of squares of the outcome in the row's cell that no column explains, at the row of the
        mean of the cell, zero elsewhere.
    log_weights : float
        Sum of the logarithms of the weights.
    mean_weight : float
        Average weight.
    y : ndarray of shape (R,), or None
        The made-up outcome.
    y_moments : Moments or None
        Of the outcome less its offset, without weights.
    encodings : mapping of str to Encoding
        Made columns by the text of their terms.
    moments : mapping of str to Moments
        Of the same columns, without weights.
    has_offset : bool
        Whether the formula has an offset.
    """

    n: int
    counts: np.ndarray
    ones: np.ndarray | None = None
    within: np.ndarray | None = None
    log_weights: float = 0.0
    mean_weight: float = 1.0
    y: np.ndarray | None = None
    y_moments: Moments | None = None
    encodings: Mapping[str, Any]
    moments: Mapping[str, Moments]
    has_offset: bool = False

    @property
    def sums(self) -> bool:
        """Whether the rows are made up to have the same sums."""
        return self.ones is not None

    @property
    def rest(self) -> float:
        """Sum of squares of the outcome inside the cells that no column explains."""
        return 0.0 if self.within is None else float(self.within.sum())


def moments(values: np.ndarray, counts: np.ndarray | None = None) -> Moments:
    """Return averages and spreads of columns, or of one column.

    Parameters
    ----------
    values : ndarray, shape (N, k) or (N,)
        The columns.
    counts : ndarray, shape (N,), optional
        How many rows of the table each row stands for; one when None.

    Examples
    --------
    >>> import numpy as np
    >>> moments(np.array([1.0, 3.0]), np.array([3, 1])).mean
    array(1.5)
    """
    if counts is None:
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.nan * values.sum(axis=0)
        return Moments(n=len(values), mean=np.asarray(values.mean(axis=0)), sd=np.asarray(sd))
    n = int(counts.sum())
    mean = counts @ values / n
    square = counts @ (values - mean) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(square / (n - 1)) if n > 1 else np.nan * square
    return Moments(n=n, mean=np.asarray(mean), sd=np.asarray(sd))


def needs_rows(cells: Cells | None, what: str, group: str = "group", instead: str = "") -> None:
    """Refuse what needs the rows of the table where a model has their sums only.

    Parameters
    ----------
    cells : Cells or None
        What the rows of a design stand for; None where they are those of the table.
    what : str
        What needs the rows, as the beginning of a sentence.
    group : str
        A grouping factor, for the advice.
    instead : str
        What else can be done, as a sentence.

    Raises
    ------
    HmlmError
        With the next step.

    Examples
    --------
    >>> needs_rows(None, "A prediction for the rows of the fit")
    """
    if cells is None:
        return
    raise HmlmError(
        f"{what} needs the rows of the table, and this model was fitted from sums over its "
        f"{cells.n:,} rows. {instead or 'Predictions take new_data=...'}; or fit a sample of "
        f"whole groups, hmlm.sample_groups(data, '{group}', 1000), or all rows in memory, with "
        "aggregate=False."
    )
