"""Small exact pieces of linear algebra: rank, and least squares inside groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def dependent_columns(
    X: np.ndarray, tolerance: float = 1e-7, spread: np.ndarray | None = None
) -> dict[int, list[int]]:
    """Find columns that are linear combinations of earlier ones.

    Parameters
    ----------
    X : ndarray, shape (N, p)
        The columns.
    tolerance : float
        Part of a column's length that has to remain outside the span of the earlier ones; R's
        `lm` uses 1e-7.
    spread : ndarray, shape (p,), optional
        Square root of the sum of squares of each column less its average, where X are not the
        rows themselves.

    Returns
    -------
    dict of int to list of int
        For each dependent column, the earlier columns that it is made of.

    Examples
    --------
    >>> import numpy as np
    >>> dependent_columns(np.array([[1.0, 2.0, 1.0], [1.0, 4.0, 3.0], [1.0, 6.0, 5.0]]))
    {2: [0, 1]}
    """
    n, p = X.shape
    if p == 0:
        return {}
    length = np.sqrt((X**2).sum(axis=0))
    scale = np.where(length > 0, length, 1.0)
    R = np.linalg.qr(X / scale, mode="r")
    diagonal = np.zeros(p)
    diagonal[: min(n, p)] = np.abs(np.diagonal(R))
    suspects = np.flatnonzero(diagonal < np.sqrt(tolerance))
    if not len(suspects):
        return {}
    found: dict[int, list[int]] = {}
    kept: list[int] = []
    for k in range(p):
        if length[k] == 0:
            found[k] = []
            continue
        if k in suspects and kept:
            coefficient, *_ = np.linalg.lstsq(X[:, kept] / scale[kept], X[:, k] / scale[k])
            rest = X[:, k] / scale[k] - X[:, kept] / scale[kept] @ coefficient
            varies = np.std(X[:, k]) * np.sqrt(n) if spread is None else float(spread[k])
            # Relative to what varies of the column, and never below the rounding of its numbers.
            if np.linalg.norm(rest) < max(tolerance * min(1.0, varies / scale[k]), 1e-13):
                found[k] = [
                    i
                    for i, c in zip(kept, coefficient, strict=True)
                    if abs(c) > 1e-6 * np.abs(coefficient).max()
                ]
                continue
        kept.append(k)
    return found


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class WithinGroups:
    """Least squares on Z inside each group.

    Attributes
    ----------
    coefficients : ndarray, shape (J, q, m)
        Least-squares coefficients of every column of M in every group, of least length where they
        are not unique.
    residual : ndarray, shape (N, m)
        What is left of M.
    inverse : ndarray, shape (J, q, q)
        Pseudo-inverse of Z'Z.
    estimable : ndarray of bool, shape (J, q)
        Whether the rows of the group determine a coefficient.
    rank : ndarray of int, shape (J,)
        Rank of Z in each group.
    """

    coefficients: np.ndarray
    residual: np.ndarray
    inverse: np.ndarray
    estimable: np.ndarray
    rank: np.ndarray


def rows_by_size(index: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gather groups of equal size.

    Parameters
    ----------
    index : ndarray of int, shape (N,)
        Group of every row.

    Returns
    -------
    list of (groups, rows)
        For each distinct size n: which groups have it, shape (m,), and their rows, shape (m, n).
    """
    sizes = np.bincount(index)
    order = np.argsort(index, kind="stable")
    starts = np.cumsum(sizes) - sizes
    found = []
    for n in np.unique(sizes[sizes > 0]):
        groups = np.flatnonzero(sizes == n)
        found.append((groups, order[starts[groups][:, None] + np.arange(n)]))
    return found


def within_groups(
    Z: np.ndarray, index: np.ndarray, M: np.ndarray, tolerance: float = 1e-9
) -> WithinGroups:
    """Regress every column of M on Z inside each group, exactly, by singular values.

    Parameters
    ----------
    Z : ndarray, shape (N, q)
        Predictors.
    index : ndarray of int, shape (N,)
        Group of every row.
    M : ndarray, shape (N, m)
        Columns to be explained.
    tolerance : float
        Singular values below this part of the largest count as zero.

    Returns
    -------
    WithinGroups
        Coefficients, residuals and what is estimable.
    """
    J, q, m = int(index.max()) + 1, Z.shape[1], M.shape[1]
    coefficients = np.zeros((J, q, m))
    residual = np.array(M, dtype=float)
    inverse = np.zeros((J, q, q))
    estimable = np.zeros((J, q), dtype=bool)
    rank = np.zeros(J, dtype=int)
    scale = np.sqrt((Z**2).mean(axis=0))
    scale[scale == 0] = 1.0
    for groups, rows in rows_by_size(index):
        U, s, Vt = np.linalg.svd(Z[rows] / scale, full_matrices=False)
        good = s > tolerance * s[:, :1]
        U = U * good[:, None, :]
        V = np.swapaxes(Vt, 1, 2) * good[:, None, :]
        reciprocal = np.where(good, 1.0 / np.where(good, s, 1.0), 0.0)
        inside = np.swapaxes(U, 1, 2) @ M[rows]
        W = V * reciprocal[:, None, :] / scale[:, None]
        coefficients[groups] = W @ inside
        inverse[groups] = W @ np.swapaxes(W, 1, 2)
        residual[rows] = M[rows] - U @ inside
        estimable[groups] = (V**2).sum(axis=2) > 1 - 1e-8
        rank[groups] = good.sum(axis=1)
    return WithinGroups(
        coefficients=coefficients,
        residual=residual,
        inverse=inverse,
        estimable=estimable,
        rank=rank,
    )
