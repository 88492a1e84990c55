"""What the rows of a group have in common, from rows or from their sums."""

from __future__ import annotations

import numpy as np

from hmlm.cells import needs_rows
from hmlm.design import Block, Design, Predictor


def group_values(design: Design, block: Block) -> np.ndarray:
    """Return the population columns of the first row of every group, or their group's average.

    Returns
    -------
    ndarray, shape (J, p)
        The average where the model has sums only: the same where a column is constant in a group.
    """
    cells = design.cells
    if cells is None or cells.ones is None:
        first = np.zeros(len(block.levels), dtype=int)
        first[block.index[::-1]] = np.arange(len(block.index))[::-1]
        return np.asarray(design.X[first])
    J, one = len(block.levels), cells.ones
    size = np.bincount(block.index, one**2, J)
    sums = np.array([np.bincount(block.index, one * x, J) for x in design.X.T]).reshape(-1, J)
    return np.asarray((sums / size).T)


def constant_within(design: Design, block: Block) -> np.ndarray:
    """Say which population columns have one value in all rows of each group, shape (p,).

    Examples
    --------
    >>> import hmlm
    >>> alcohol = hmlm.load_dataset("alcohol")
    >>> design = hmlm.Model("alcuse ~ coa + time + (1 | id)", alcohol).design
    >>> constant_within(design, design.blocks[0]).tolist()
    [True, True, False]
    """
    X, cells = design.X, design.cells
    own = group_values(design, block)
    if cells is None or cells.ones is None:
        return np.asarray((X == own[block.index]).all(axis=0))
    moved = X - cells.ones[:, None] * own[block.index]
    spread = design.predictors[0].spread
    size = cells.mean_weight * spread.n * (spread.variance + 1e-4 * spread.mean**2)
    return np.asarray((moved**2).sum(axis=0) <= 1e-13 * np.where(size > 0, size, 1.0))


def row_shares(design: Design, block: Block) -> tuple[np.ndarray | None, np.ndarray]:
    """Return by what each row counts in the average of its group, and the sum in every group.

    Raises
    ------
    HmlmError
        If the model has weighted sums only, or an offset was taken off: averages need the rows.
    """
    cells = design.cells
    if cells is None:
        return None, block.sizes
    if cells.ones is None:
        return cells.counts.astype(float), block.sizes
    if design.spec.weights is not None or design.known_se or cells.has_offset:
        needs_rows(cells, "The average expected outcome of a group", block.group)
    return cells.ones, block.sizes


def group_variance(D: np.ndarray, block: Block, Z: np.ndarray | None = None) -> np.ndarray:
    """Return the average of z'Dz over the rows: trace(D Z'Z) / N, shape (draws,)."""
    Z = block.Z if Z is None else Z
    cells, n = block.cells, len(Z)
    weighted = Z
    if cells is not None:
        n = cells.n
        weighted = Z if cells.sums else cells.counts[:, None] * Z
    return np.asarray(np.einsum("skl,kl->s", D, Z.T @ weighted / n))


def column_covariance(design: Design, p: Predictor) -> np.ndarray:
    """Return the covariance of a predictor's population columns over the rows of the table."""
    cells = design.cells
    if cells is None:
        return np.atleast_2d(np.cov(p.X, rowvar=False))
    one = np.ones(len(p.X)) if cells.ones is None else cells.ones
    moved = p.X - one[:, None] * p.spread.mean
    weighted = moved if cells.sums else cells.counts[:, None] * moved
    return np.asarray(moved.T @ weighted / (cells.n - 1))
