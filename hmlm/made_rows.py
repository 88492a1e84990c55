"""Rows with the same sums of squares and products as those of a table, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ZERO = 1e-13  # what is left of a column's square in a cell, over the square, that is nothing
NOISE = 1e-14  # the same, over squares about the mean of the table, which rounding leaves behind
AT_ONCE = 4_000_000  # numbers


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class MadeRows:
    """Rows that stand for those of a table.

    Attributes
    ----------
    values : ndarray, shape (R, k)
        Values of the columns, the outcome last, weighted.
    ones : ndarray, shape (R,)
        What a column of ones is.
    cell : ndarray of int, shape (R,)
        The cell of every row.
    counts : ndarray of int, shape (R,)
        How many rows of the table each stands for: all of its cell, or none.
    within : ndarray, shape (R,)
        Sum of squares of the outcome in the cell that no column explains, at one of its rows.
    """

    values: np.ndarray
    ones: np.ndarray
    cell: np.ndarray
    counts: np.ndarray
    within: np.ndarray


def make_rows_of_sums(
    n: np.ndarray,
    weight: np.ndarray,
    means: np.ndarray,
    products: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
) -> MadeRows:
    """Make few rows with given sums of squares and products in every cell.

    With m the mean of a cell's rows v, W the sum of their weights and S = sum w (v - m)(v - m)',
    sum w (1, v)(1, v)' = W (1, m)(1, m)' + (0, R)'(0, R), R a Cholesky factor of S = R'R. So the
    row sqrt(W) (1, m) and the rows of (0, R) have the sums of the cell. Rows of R whose pivot is
    nothing are left out, and the last, which has the outcome alone, is kept as a number.

    Parameters
    ----------
    n : ndarray of int, shape (C,)
        Rows of the table in each cell.
    weight : ndarray, shape (C,)
        Sum of their weights.
    means : ndarray, shape (C, k)
        Weighted means; the outcome is the last column.
    products : ndarray, shape (C, k, k)
        Sums of weighted products about the means.
    centre, scale : ndarray, shape (k,)
        Mean and standard deviation of each column over the table, which say what is nothing.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    >>> v = np.column_stack([x, y])
    >>> S = (v - v.mean(axis=0)).T @ (v - v.mean(axis=0))
    >>> made = make_rows_of_sums(
    ...     np.array([3]), np.array([3.0]), v.mean(axis=0)[None], S[None], np.zeros(2), np.ones(2)
    ... )
    >>> made.values.shape, np.allclose(made.values[:, 0] @ made.values, x @ v)
    ((2, 2), True)
    """
    C, k = means.shape
    root = np.sqrt(weight)
    pieces = [root[:, None] * means]
    cells = [np.arange(C)]
    within = np.zeros(C)
    step = max(1, AT_ONCE // max(k * k, 1))
    for start in range(0, C, step):
        part = slice(start, start + step)
        left = products[part].copy()
        least = NOISE * weight[part, None] * (scale**2 + (means[part] - centre) ** 2)
        own = np.diagonal(left, axis1=1, axis2=2)
        least = np.maximum(least, ZERO * own)
        for j in range(k - 1):
            pivot = left[:, j, j]
            good = np.flatnonzero(pivot > least[:, j])
            rows = left[good, j] / np.sqrt(pivot[good])[:, None]
            rows[:, :j] = 0.0
            left[good] -= rows[:, :, None] * rows[:, None, :]
            pieces.append(rows)
            cells.append(start + good)
        within[part] = np.maximum(left[:, k - 1, k - 1], 0.0)
    extra = sum(len(c) for c in cells) - C
    none = np.zeros(extra)
    return MadeRows(
        values=np.concatenate(pieces),
        ones=np.concatenate([root, none]),
        cell=np.concatenate(cells),
        counts=np.concatenate([n.astype(np.int64), none.astype(np.int64)]),
        within=np.concatenate([within, none]),
    )
