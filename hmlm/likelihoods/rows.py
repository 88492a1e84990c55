"""The rows of a model whose likelihood is a sum over rows: merged where they are alike, sorted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from hmlm.cells import Cells
from hmlm.design import Block, Design, Predictor

MERGE_BELOW = 0.8


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BlockRows:
    """One block of group effects in the rows.

    Attributes
    ----------
    block : Block
        The block as the design has it.
    predictor : int
        Which linear predictor it belongs to.
    index : ndarray of int, shape (N,)
        Group of every row.
    Z : ndarray, shape (N, q)
        Columns.
    starts : ndarray of int, shape (J + 1,), or None
        First row of every group, where rows are sorted by it.
    """

    block: Block
    predictor: int
    index: np.ndarray
    Z: np.ndarray
    starts: np.ndarray | None

    @property
    def plain(self) -> bool:
        """Whether it is an intercept alone."""
        return self.block.columns == ("Intercept",)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PredictorRows:
    """One linear predictor in the rows.

    Attributes
    ----------
    predictor : Predictor
        As the design has it.
    X : ndarray, shape (C, p)
        Distinct patterns of the population columns; for an ordinal outcome less their means.
    offset : ndarray, shape (C,)
        Offset of every pattern.
    pattern : ndarray of int, shape (N,), or None
        Every row's pattern; None where each row is its own.
    """

    predictor: Predictor
    X: np.ndarray
    offset: np.ndarray
    pattern: np.ndarray | None

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        """Return values of patterns for every row."""
        return values if self.pattern is None else values[self.pattern]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Rows:
    """All that the likelihood needs to know of the rows.

    Attributes
    ----------
    y : ndarray, shape (N,)
        Outcome; the sum over merged rows of a binomial or Poisson one.
    n : ndarray, shape (N,)
        Trials; of a Poisson outcome how many rows were merged; else one.
    w : ndarray, shape (N,)
        Weights.
    m : ndarray, shape (N,)
        How many rows were merged, for families whose outcome is not summed; else one.
    predictors : tuple of PredictorRows
        The mean first.
    blocks : tuple of BlockRows
        Of all predictors, coarse factors before fine ones.
    constant : float
        What the merged rows leave out of the log likelihood.
    merged : int
        How many rows of the table these are.
    """

    y: np.ndarray
    n: np.ndarray
    w: np.ndarray
    m: np.ndarray
    predictors: tuple[PredictorRows, ...]
    blocks: tuple[BlockRows, ...]
    constant: float
    merged: int


def make_rows(design: Design) -> Rows:
    """Merge rows that are alike, and sort them by the factor with the most groups.

    Yes/no outcomes and counts out of trials with the same predictors and groups are one binomial
    count; Poisson counts enter through their sum; rows of other families are merged where the
    outcome is the same too. The log likelihood is the same function of all parameters. Rows that
    stand for several of the table count as often.
    """
    if design.cells is not None and design.cells.sums:
        return _made_rows(design, design.cells)
    family = design.spec.family.name
    summed = family in ("bernoulli", "binomial", "poisson")
    y, N = design.y, len(design.y)
    trials = np.ones(N) if design.trials is None else design.trials
    weights = np.ones(N) if design.weights is None else design.weights
    often = np.ones(N) if design.counts is None else design.counts.astype(float)
    code = _distinct(_columns(design, summed), N)
    constant = 0.0
    if family in ("bernoulli", "binomial"):
        ways = special.gammaln(trials + 1) - special.gammaln(y + 1)
        constant = float(((ways - special.gammaln(trials - y + 1)) * often).sum())
    elif family == "poisson":
        constant = -float((special.gammaln(y + 1) * often).sum())
    if code is None:
        first, count = np.arange(N), often
        if summed:
            y, trials = y * often, trials * often
    else:
        first = np.unique(code, return_index=True)[1]
        count = np.bincount(code, weights=often)
        if summed:
            y = np.bincount(code, weights=y * often)
            trials = np.bincount(code, weights=trials * often)
        else:
            y, trials = y[first], trials[first]
    blocks = [(r, b) for r, p in enumerate(design.predictors) for b in p.blocks]
    finest = max((b for _, b in blocks), key=lambda b: len(b.levels), default=None)
    order = np.arange(len(first))
    if finest is not None:
        order = np.argsort(finest.index[first], kind="stable")
    take = first[order]
    one = np.ones(len(take))
    return Rows(
        y=y[order],
        n=count[order] if family == "poisson" else trials[order],
        w=weights[take],
        m=one if summed else count[order],
        predictors=tuple(_predictor_rows(design, p, take) for p in design.predictors),
        blocks=tuple(
            BlockRows(
                block=b,
                predictor=r,
                index=b.index[take],
                Z=b.Z[take],
                starts=_starts(b, take) if b is finest or _sorted(b, take) else None,
            )
            for r, b in sorted(blocks, key=lambda pair: len(pair[1].levels))
        ),
        constant=constant,
        merged=design.n_rows,
    )


def _made_rows(design: Design, cells: Cells) -> Rows:
    """Return the made-up rows of a gaussian model, and one for what none of them explains.

    That one has no columns: it says how many more rows the table has, and what is left of their
    sum of squares, which only sigma depends on.
    """
    R = len(design.y)
    more = cells.n - R
    blocks = sorted((b for b in design.blocks), key=lambda b: len(b.levels))
    finest = blocks[-1] if blocks else None
    order = np.arange(R) if finest is None else np.argsort(finest.index, kind="stable")
    extra = [np.sqrt(cells.rest / more)] if more else []
    one = np.ones(R + len(extra))

    def longer(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[order], np.zeros((len(extra), *values.shape[1:]))])

    def grouped(block: Block) -> np.ndarray:
        # The row without columns goes to the last group: it adds nothing there.
        return np.concatenate([block.index[order], np.full(len(extra), len(block.levels) - 1)])

    def first_rows(index: np.ndarray, J: int) -> np.ndarray | None:
        increasing = bool((np.diff(index) >= 0).all())
        return np.searchsorted(index, np.arange(J + 1)) if increasing else None

    found = []
    for block in blocks:
        index = grouped(block)
        found.append(
            BlockRows(
                block=block,
                predictor=0,
                index=index,
                Z=longer(block.Z),
                starts=first_rows(index, len(block.levels)),
            )
        )
    mean = design.predictors[0]
    return Rows(
        y=np.concatenate([design.response[order], extra]),
        n=one,
        w=one,
        m=np.concatenate([np.ones(R), np.full(len(extra), float(more))]),
        predictors=(
            PredictorRows(
                predictor=mean, X=longer(mean.X), offset=np.zeros(len(one)), pattern=None
            ),
        ),
        blocks=tuple(found),
        constant=0.5 * cells.log_weights,
        merged=cells.n,
    )


def _columns(design: Design, summed: bool) -> Iterable[np.ndarray]:
    """Yield the columns in which rows must agree to be merged, groups first."""
    for p in design.predictors:
        for block in p.blocks:
            yield block.index
    if not summed:
        yield design.y
        if design.trials is not None:
            yield design.trials
    if design.weights is not None:
        yield design.weights
    for p in design.predictors:
        yield from p.X.T
        for block in p.blocks:
            yield from block.Z.T
        if p.offset is not None:
            yield p.offset


def _distinct(
    columns: Iterable[np.ndarray], N: int, below: float = MERGE_BELOW
) -> np.ndarray | None:
    """Return a number for each distinct row; None where they are hardly fewer than the rows."""
    code = np.zeros(N, dtype=np.int64)
    found = 1
    for column in columns:
        if column[0] == column[-1] and (column == column[0]).all():
            continue
        own, values = pd.factorize(column)
        code, distinct = pd.factorize(code * len(values) + own)
        found = len(distinct)
        if found > below * N:
            return None
    return np.asarray(code) if found <= below * N else None


def _predictor_rows(design: Design, p: Predictor, take: np.ndarray) -> PredictorRows:
    X = p.X
    if not p.name and design.spec.family.outcome == "ordered":
        X = X - p.spread.mean
    X = X[take]
    offset = np.zeros(len(take)) if p.offset is None else p.offset[take]
    code = _distinct([*X.T, offset], len(take))
    if code is None:
        return PredictorRows(predictor=p, X=X, offset=offset, pattern=None)
    first = np.unique(code, return_index=True)[1]
    return PredictorRows(predictor=p, X=X[first], offset=offset[first], pattern=code)


def _sorted(block: Block, take: np.ndarray) -> bool:
    return bool((np.diff(block.index[take]) >= 0).all())


def _starts(block: Block, take: np.ndarray) -> np.ndarray:
    return np.searchsorted(block.index[take], np.arange(len(block.levels) + 1))
