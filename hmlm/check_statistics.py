"""What predictive checks compare: statistics of data and replicates, draw by draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy import sparse

from hmlm.design import Block, Design
from hmlm.new_rows import predictor_columns
from hmlm.outcome_distribution import normal_residuals, outcome_moments, tail_areas
from hmlm.replicates import RowDraws

Side = Literal["both", "above", "below"]
MOST_CATEGORIES = 12
MOST_BINS = 40
FEWEST_GROUPS = 6
FEWEST_IN_ORDER = 5  # rows of a group whose order is looked at
FEWEST_FOR_SPREAD = 3  # rows of a group whose sd is looked at
SMALLEST_RESIDUAL = 0.05
CALIBRATION_BINS = 10


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Discrepancy:
    """One statistic of the data and of the replicates.

    Attributes
    ----------
    name : str
        What it measures.
    group, term : str
        Grouping factor and predictor or column that it is about; empty where there is none.
    observed, replicated : ndarray, shape (draws,)
        The statistic T(y, theta) of the data and T(y_rep, theta) of a replicate, at each draw.
    side : {"both", "above", "below"}
        Where misfit would lie.
    names : tuple of str
        Groups, or values of the outcome, that stand out most.
    """

    name: str
    group: str
    term: str
    observed: np.ndarray
    replicated: np.ndarray
    side: Side = "both"
    names: tuple[str, ...] = ()

    @property
    def p(self) -> float:
        """Tail area: the share of replicates at least as extreme, doubled for two sides."""
        above = float((self.replicated >= self.observed).mean())
        below = float((self.replicated <= self.observed).mean())
        if self.side == "both":
            return min(1.0, 2.0 * min(above, below))
        return above if self.side == "above" else below

    @property
    def high(self) -> bool:
        """Whether the data lie above the replicates."""
        return bool((self.observed >= self.replicated).mean() > 0.5)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class NumericPredictor:
    """A predictor whose line is checked.

    Attributes
    ----------
    name : str
        Its column.
    curve : ndarray, shape (N,) or (J,)
        Its square less intercept and slope, of length one.
    block : Block or None
        The factor in whose groups it does not vary, where there is one.
    """

    name: str
    curve: np.ndarray
    block: Block | None


def _share(design: Design, y: np.ndarray) -> np.ndarray:
    """Outcomes as they are averaged: shares where there are trials, NaN without a trial."""
    if design.trials is None:
        return y
    with np.errstate(divide="ignore", invalid="ignore"):
        return y / design.trials


def outcome_statistics(design: Design, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return statistics of the outcome alone by name, each (draws,), for y of shape (draws, N)."""
    return dict(_outcome_statistics(design, y))


def _outcome_statistics(design: Design, y: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    kind = design.spec.family.outcome
    if kind in ("ordered", "category"):
        for code, label in enumerate(design.categories[:MOST_CATEGORIES]):
            yield f"share of {label}", (y == code).mean(axis=1)
        return
    if design.trials is not None and design.trials.max() > 1:
        known = design.trials > 0
        share = _share(design, y)[:, known]
        yield "mean", share.mean(axis=1)
        yield "sd", share.std(axis=1)
        yield "share of zeros", (share == 0).mean(axis=1)
        yield "share of ones", (share == 1).mean(axis=1)
        return
    if kind in ("binary", "trials"):
        yield "share of ones", y.mean(axis=1)
        return
    yield "mean", y.mean(axis=1)
    yield "sd", y.std(axis=1)
    yield "minimum", y.min(axis=1)
    yield "maximum", y.max(axis=1)
    if kind == "count":
        yield "share of zeros", (y == 0).mean(axis=1)
        yield "share of ones", (y == 1).mean(axis=1)


def member_matrix(index: np.ndarray, J: int) -> sparse.csr_array:
    """Return the matrix (N, J) of zeros and ones that sums rows by group."""
    return sparse.csr_array((np.ones(len(index)), (np.arange(len(index)), index)), (len(index), J))


def draw_residuals(
    design: Design, rows: RowDraws, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return residuals at every draw, (draws, N), that are standard normal when the model holds.

    At a draw from the posterior they are so without loss for the parameters that were estimated
    (Johnson 2004; Yuan and Johnson 2012).
    """
    below, above = tail_areas(
        design.spec.family,
        y,
        rows.etas[0],
        rows.values,
        design.trials,
        design.weights,
        rows.probabilities,
    )
    return normal_residuals(below, above, rng)


def pearson_residuals(design: Design, rows: RowDraws, y: np.ndarray) -> np.ndarray:
    """Return outcome less mean over sd, (draws, N); zero where the model allows one value only."""
    mean, sd = outcome_moments(
        design.spec.family,
        rows.etas[0],
        rows.values,
        design.trials,
        design.weights,
        rows.probabilities,
    )
    return np.where(sd > 0, (y - mean) / np.where(sd > 0, sd, 1.0), 0.0)


def residual_statistics(
    design: Design, rows: RowDraws, lines: Iterable[NumericPredictor], rng: np.random.Generator
) -> Iterable[Discrepancy]:
    """Yield statistics of the residuals at some draws, of the data and of the replicates.

    Parameters
    ----------
    design : Design
        What was fitted.
    rows : RowDraws
        The draws.
    lines : iterable of NumericPredictor
        Predictors that vary within groups.
    rng : numpy.random.Generator
        Source of the random numbers.
    """
    family = design.spec.family
    pair: tuple[np.ndarray, np.ndarray]

    def said(
        name: str, a: np.ndarray, b: np.ndarray, group: str = "", term: str = ""
    ) -> Discrepancy:
        side: Side = "above" if name == "spread of group sds" else "both"
        return Discrepancy(name=name, group=group, term=term, observed=a, replicated=b, side=side)

    if family.discrete:
        r, s = pearson_residuals(design, rows, design.y), pearson_residuals(design, rows, rows.y)
        if family.outcome == "count" or (design.trials is not None and design.trials.max() > 1):
            yield said("dispersion", (r**2).mean(axis=1), (s**2).mean(axis=1))
    else:
        r = draw_residuals(design, rows, design.y, rng)
        s = rng.standard_normal(r.shape)
        for name, power in (("skewness of residuals", 3), ("tails of residuals", 4)):
            yield said(name, _moment(r, power), _moment(s, power))
        mean = outcome_moments(family, rows.etas[0], rows.values)[0]
        if (np.ptp(mean, axis=1) > 0).all():
            pair = correlation(np.abs(r), mean), correlation(np.abs(s), mean)
            yield said("spread against fitted", *pair)
        for group in design.spec.all_groups:
            index = design.data.index[group]
            sizes = np.bincount(index, minlength=len(design.data.levels[group]))
            if (sizes >= FEWEST_FOR_SPREAD).sum() >= FEWEST_GROUPS:
                pair = _spread_of_sds(r, index, sizes), _spread_of_sds(s, index, sizes)
                yield said("spread of group sds", *pair, group)
    for line in lines:
        pair = correlation(r, line.curve[None]), correlation(s, line.curve[None])
        yield said("linearity", *pair, "", line.name)
    for group, first, second in _neighbours(design):
        index = design.data.index[group]
        pair = _lagged(r, index, first, second), _lagged(s, index, first, second)
        yield said("order within groups", *pair, group)


def _lagged(r: np.ndarray, index: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Autocorrelation of neighbours, the residuals of a group over their root mean square."""
    member = member_matrix(index, int(index.max()) + 1)
    size = np.sqrt(np.maximum((r**2) @ member / member.sum(axis=0), 1e-12))
    r = r / size[:, index]
    return np.asarray((r[:, first] * r[:, second]).mean(axis=1))


def _moment(r: np.ndarray, power: int) -> np.ndarray:
    centred = r - r.mean(axis=1, keepdims=True)
    return np.asarray((centred**power).mean(axis=1) / (centred**2).mean(axis=1) ** (power / 2))


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of a and b along the second axis, one for each draw."""
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    return np.asarray((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def _spread_of_sds(r: np.ndarray, index: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sd between groups of the mean log size of residuals, each with the weight of its rows.

    Logarithms, and not squares, so that a few large residuals do not look like a wide group.
    """
    weight = (
        np.where(sizes >= FEWEST_FOR_SPREAD, sizes, 0) / sizes[sizes >= FEWEST_FOR_SPREAD].sum()
    )
    logs = np.log(np.maximum(np.abs(r), SMALLEST_RESIDUAL)) @ member_matrix(index, len(sizes))
    logs = logs / np.maximum(sizes, 1)
    return np.asarray(np.sqrt((logs - (logs @ weight)[:, None]) ** 2 @ weight))


def _neighbours(design: Design) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    """Rows that follow each other within the groups of one factor, the finest with enough rows."""
    best: tuple[str, np.ndarray, np.ndarray] | None = None
    most = 0
    for group in design.spec.all_groups:
        index, J = design.data.index[group], len(design.data.levels[group])
        long = np.bincount(index, minlength=J) >= FEWEST_IN_ORDER
        if long[index].mean() < 0.5 or J <= most:
            continue
        order = np.argsort(index, kind="stable")
        same = (index[order][1:] == index[order][:-1]) & long[index[order][1:]]
        best, most = (group, order[:-1][same], order[1:][same]), J
    return [] if best is None else [best]


def numeric_predictors(design: Design) -> list[NumericPredictor]:
    """Return the predictors with three values or more whose square is not already a line."""
    found = []
    partial = design.spec.pooling == "partial"
    for name in predictor_columns(design):
        column = design.data.frame[name]
        if not is_numeric_dtype(column) or is_bool_dtype(column):
            continue
        x = column.to_numpy(dtype=float)
        outer: Block | None = None
        for block in design.blocks if partial else ():
            if _is_constant(x, block):
                outer = block
                break
        if outer is not None:
            if "Intercept" not in outer.columns:
                continue
            x = pd.Series(x).groupby(outer.index).first().to_numpy()
        if len(np.unique(x)) < 3 or len(x) < FEWEST_GROUPS:
            continue
        z = (x - x.mean()) / x.std()
        basis = np.column_stack([np.ones(len(z)), z])
        curve = z**2 - basis @ np.linalg.lstsq(basis, z**2, rcond=None)[0]
        if (length := float(np.sqrt((curve**2).sum()))) > 1e-6:
            found.append(NumericPredictor(name=name, curve=curve / length, block=outer))
    return found


def _is_constant(x: np.ndarray, block: Block) -> bool:
    if len(block.levels) == len(x):
        return False
    grouped = pd.Series(x).groupby(block.index)
    return bool((grouped.max() == grouped.min()).all())


def calibration_statistics(design: Design, rows: RowDraws) -> Iterable[Discrepancy]:
    """Yield the mean distance of shares from probabilities, in bins of the draw's probabilities.

    At each draw the rows are put in bins by the probabilities of that draw, so that a replicate
    and the data are in the same position (bins by posterior means would not be: they have seen
    the data).
    """
    n = np.ones(len(design.y)) if design.trials is None else design.trials
    bins = min(CALIBRATION_BINS, len(n) // 10)
    if bins < 2:
        return
    p = outcome_moments(design.spec.family, rows.etas[0], rows.values)[0]
    order = np.argsort(p, axis=1)
    starts = np.linspace(0, len(n), bins + 1).astype(int)[:-1]

    def error(y: np.ndarray) -> np.ndarray:
        gap = np.take_along_axis(y - n * p, order, axis=1)
        return np.asarray(np.abs(np.add.reduceat(gap, starts, axis=1)).sum(axis=1) / n.sum())

    yield Discrepancy(
        name="calibration error",
        group="",
        term="",
        observed=error(design.y[None]),
        replicated=error(rows.y),
        side="above",
    )


def count_bins(y: np.ndarray) -> tuple[int, int]:
    """Return the width of the bins of counts, and the number of the last one, which is open."""
    top = max(int(np.quantile(y, 0.99)), 1)
    width = -(-(top + 1) // MOST_BINS)
    return width, top // width + 1


def bin_counts(y: np.ndarray, width: int, last: int) -> np.ndarray:
    """Return how many counts are in each bin, (draws, bins), for y of shape (draws, N)."""
    code = np.minimum(np.floor_divide(y, width), last).astype(np.int64)
    code += (last + 1) * np.arange(len(y))[:, None]
    return np.bincount(code.ravel(), minlength=len(y) * (last + 1)).reshape(len(y), last + 1)


def rootogram_statistic(design: Design, bars: np.ndarray, width: int, last: int) -> Discrepancy:
    """Return the distance of the roots of the bars from those expected (Kleiber, Zeileis 2016)."""
    root = np.sqrt(bars.mean(axis=0))
    own = np.sqrt(bin_counts(design.y[None], width, last)[0])
    far = (own - root) ** 2
    worst = np.argsort(-far)[:2]
    names = tuple(
        f"too {'many' if own[k] > root[k] else 'few'} {_bar_name(k, width, last)}" for k in worst
    )
    return Discrepancy(
        name="bars of the rootogram",
        group="",
        term="",
        observed=np.full(len(bars), far.sum()),
        replicated=((np.sqrt(bars) - root) ** 2).sum(axis=1),
        side="above",
        names=names,
    )


def _bar_name(k: int, width: int, last: int) -> str:
    if k == last:
        return f"from {k * width} on"
    return f"{k}s" if width == 1 else f"from {k * width} to {(k + 1) * width - 1}"
