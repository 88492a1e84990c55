"""Rows that a generalised linear model can fit perfectly, with coefficients that are infinite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from hmlm.likelihoods.exponential import RowLikelihood
from hmlm.likelihoods.scoring import Predictors
from hmlm.linear import within_groups

NEARLY_CERTAIN = 1e-5  # information of a row, over that of its trials, at which to suspect


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Extremes:
    """Which rows are at an end of what the outcome can be.

    Attributes
    ----------
    low, high : ndarray of bool, shape (N,)
        Rows whose likelihood only rises as the linear predictor falls, or rises.
    """

    low: np.ndarray
    high: np.ndarray


def extremes(rows: RowLikelihood) -> Extremes | None:
    """Return the rows that could be separated; None where the family has none."""
    name, y = rows.family.name, rows.y
    if name in ("bernoulli", "binomial"):
        return Extremes(low=y == 0, high=y == rows.trials)
    if name in ("poisson", "negative-binomial") and rows.family.link == "log":
        return Extremes(low=y == 0, high=np.zeros(len(y), dtype=bool))
    return None


def separated_groups(ends: Extremes, columns: Predictors) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups all of whose rows are low, and all of whose rows are high.

    Only those count that have an intercept of their own.
    """
    none = np.zeros(columns.J, dtype=bool)
    if columns.Z is None or columns.index is None:
        return none, none
    index, J = columns.index, columns.J
    ones = np.ones((len(index), 1))
    left = within_groups(columns.Z, index, ones).residual[:, 0]
    count = np.bincount(index, minlength=J)
    own = (count > 0) & (np.bincount(index, weights=left**2, minlength=J) < 1e-12 * count)
    low = own & (np.bincount(index, weights=ends.low, minlength=J) == count)
    high = own & (np.bincount(index, weights=ends.high, minlength=J) == count)
    return low, high


def is_suspect(ends: Extremes, weight: np.ndarray, trials: np.ndarray) -> bool:
    """Return whether some extreme row carries next to no information at the estimates."""
    return bool(((weight < NEARLY_CERTAIN * trials) & (ends.low | ends.high)).any())


def separated_rows(ends: Extremes, columns: Predictors) -> np.ndarray:
    """Return the rows that some direction of the coefficients fits perfectly, at no row's cost.

    A linear program looks for the direction (Konis 2007, Linear programming algorithms for
    detecting separated data in binary logistic regression models, chapter 4).

    Returns
    -------
    ndarray of bool, shape (N,)
        Separated rows.

    Examples
    --------
    >>> import numpy as np
    >>> ends = Extremes(low=np.array([True, True, False]), high=np.array([False, False, True]))
    >>> X = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> separated_rows(ends, Predictors(X=X, offset=np.zeros(3))).tolist()
    [True, True, True]
    """
    from scipy.optimize import linprog

    matrix = _all_columns(columns)
    separated = np.zeros(matrix.shape[0], dtype=bool)
    for _ in range(20):
        left = np.flatnonzero(~separated)
        sign = ends.high[left].astype(float) - ends.low[left]
        here = sparse.csr_array(matrix[left])
        towards = sparse.csr_array(here * sign[:, None])[sign != 0]
        level = here[sign == 0]
        if not towards.shape[0]:
            break
        result = linprog(
            -np.asarray(towards.sum(axis=0)).reshape(-1),
            A_ub=-towards,
            b_ub=np.zeros(towards.shape[0]),
            A_eq=level if level.shape[0] else None,
            b_eq=np.zeros(level.shape[0]) if level.shape[0] else None,
            bounds=(-1.0, 1.0),
            method="highs",
        )
        if result.x is None:
            break
        new = left[np.asarray(np.abs(here @ result.x) > 1e-6) & (sign != 0)]
        if not len(new):
            break
        separated[new] = True
    return separated


def _all_columns(columns: Predictors) -> sparse.csr_array:
    """Return population columns and the groups' own, scaled to a largest entry of one."""
    size = np.abs(columns.X).max(axis=0, initial=0.0)
    pieces = [sparse.csr_array(columns.X / np.where(size > 0, size, 1.0))]
    if columns.Z is not None and columns.index is not None:
        n, q = columns.Z.shape
        size = np.abs(columns.Z).max(axis=0)
        places = (columns.index[:, None] * q + np.arange(q)).reshape(-1)
        values = (columns.Z / np.where(size > 0, size, 1.0)).reshape(-1)
        starts = np.arange(0, n * q + 1, q)
        pieces.append(sparse.csr_array((values, places, starts), shape=(n, columns.J * q)))
    return sparse.csr_array(sparse.hstack(pieces, format="csr"))
