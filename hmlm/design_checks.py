"""What a design cannot be made of: columns that depend on each other, and too few rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hmlm.blocks import Block, Predictor, distances
from hmlm.cells import Moments
from hmlm.data import read_only
from hmlm.errors import DataError, counted, listed
from hmlm.linear import dependent_columns, within_groups
from hmlm.spec import ModelSpec


def keep_columns(predictor: Predictor, keep: np.ndarray) -> Predictor:
    """Return a predictor with some of its population columns; the others count as dropped.

    Parameters
    ----------
    predictor : Predictor
        Columns and their names.
    keep : ndarray of bool, shape (p,)
        Which of them stay.
    """
    if keep.all():
        return predictor
    own = predictor.moments
    if own is not None:
        own = Moments(n=own.n, mean=own.mean[keep], sd=own.sd[keep])
    pairs = list(zip(predictor.terms, keep, strict=True))
    return replace(
        predictor,
        X=read_only(np.ascontiguousarray(predictor.X[:, keep])),
        terms=tuple(t for t, stays in pairs if stays),
        aliased=(*predictor.aliased, *(t for t, stays in pairs if not stays)),
        moments=own,
    )


def repeated_by_groups(X: np.ndarray, block: Block) -> np.ndarray:
    """Say which population columns own coefficients of every group, and earlier columns, repeat."""
    if not X.shape[1]:
        return np.zeros(0, dtype=bool)
    residual = within_groups(block.Z, block.index, X).residual
    size = np.sqrt((X**2).sum(axis=0))
    repeated = np.asarray(np.sqrt((residual**2).sum(axis=0)) < 1e-7 * size)
    left = np.flatnonzero(~repeated)
    repeated[left[list(dependent_columns(residual[:, left]))]] = True
    return repeated


def independent_columns(predictor: Predictor, n: int, collinear: str) -> np.ndarray:
    """Say which columns depend on no earlier ones; refuse the others unless they are dropped.

    Parameters
    ----------
    predictor : Predictor
        Columns and their names.
    n : int
        Number of rows of the table.
    collinear : {"error", "drop"}
        What to do with a column that depends on earlier ones.
    """
    X, terms = predictor.X, predictor.terms
    dependent = dependent_columns(X, spread=distances(predictor.moments))
    if dependent and collinear == "error":
        k, others = next(iter(dependent.items()))
        value, constant = X[0, k], np.ptp(X[:, k]) == 0
        if predictor.moments is not None:
            value = predictor.moments.mean[k]
            constant = not predictor.moments.sd[k] > 1e-12 * abs(value)
        if others in ([], [0]) and constant:
            raise DataError(
                f"predictor '{terms[k]}' has the same value ({value:g}) in all "
                f"{counted(n, 'row')}: leave it out of the formula."
            )
        raise DataError(
            f"predictor '{terms[k]}' is collinear: in all {counted(n, 'row')} it is a linear "
            f"combination of {listed(repr(terms[i]) for i in others)}. Leave one of them out, or "
            "pass collinear='drop' to drop it as lme4 does."
        )
    return np.array([k not in dependent for k in range(len(terms))], dtype=bool)


def check_sizes(spec: ModelSpec, n: int, p: int, blocks: tuple[Block, ...]) -> None:
    """Refuse models with fewer rows than parameters."""
    if n < p or (n == p and spec.family.scale):
        raise DataError(
            f"{counted(n, 'row')} are too few for {counted(p, 'population coefficient')} and a "
            "residual: leave predictors out or add rows."
        )
    if spec.standard_error is not None or not spec.family.scale:
        return
    for block in blocks:
        J, q = len(block.levels), len(block.columns)
        if spec.pooling == "partial" and n <= J * q:
            largest = int(block.sizes.max())
            how = (
                f"every group of '{block.group}' has one row"
                if largest == 1
                else f"the groups of '{block.group}' have at most {counted(largest, 'row')}"
            )
            raise DataError(
                f"{how} ({counted(n, 'row')} for {counted(J, 'group')} with "
                f"{counted(q, 'effect')} each): the effects of {listed(block.columns)} cannot be "
                f"told from the residual. Use (1 | {block.group}) or fewer effects, a coarser "
                "group, or leave the term out."
            )
