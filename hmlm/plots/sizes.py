"""Estimates against the size of groups: small groups are pulled most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Block, Design
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.estimates import line_lead
from hmlm.palette import COMPLETE, NONE, PARTIAL
from hmlm.plots.canvas import (
    add_note,
    drawn_groups,
    group_block,
    group_numbers,
    look,
    new_axes,
    place_legend,
    set_labels,
)
from hmlm.plots.pulls import gather_pulls, plain_fit

FENCE = 3.0
DASHES = (0, (5, 2))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GroupFigures:
    """The estimates of one fit for one column of a group term; every array has shape (J,)."""

    estimate: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def pick_column(block: Block, column: str | None) -> int:
    """Return the position of a column of a group term, the first by default.

    Raises
    ------
    HmlmError
        If the column does not vary by group.
    """
    if column is None:
        return 0
    if column not in block.columns:
        raise HmlmError(
            f"'{column}' does not vary by '{block.group}'.{suggest(column, block.columns)} "
            f"These do: {listed(block.columns)}."
        )
    return block.columns.index(column)


def determined_groups(block: Block) -> np.ndarray:
    """Return which groups have rows that determine all of their effects."""
    q = len(block.columns)
    gram = np.zeros((len(block.levels), q, q))
    np.add.at(gram, block.index, block.Z[:, :, None] * block.Z[:, None, :])
    return np.asarray(np.linalg.matrix_rank(gram, hermitian=True) == q)


def estimate_kind(design: Design, block: Block) -> str:
    """Return the component that no pooling estimates too: the group's line, or its total."""
    return "total" if line_lead(design, block) is None else "line"


def group_figures(
    fit: Any, block: Block, column: str, kind: str, levels: pd.Index, prob: float
) -> GroupFigures:
    """Return a fit's estimates and intervals of one column, in the order of the levels."""
    absent = [column] if column not in block.columns else list(levels.difference(block.levels))
    if absent:
        raise HmlmError(
            f"{fit.label} has no estimate of {listed(absent)}: fit the same model to the same rows."
        )
    places, k = block.levels.get_indexer(levels), block.columns.index(column)
    estimate, lower, upper = group_numbers(fit, f"{kind}_{block.group}", places, k, prob)
    return GroupFigures(estimate=estimate, lower=lower, upper=upper)


def plot_sizes(
    partial_fit: Any,
    none_fit: Any = None,
    complete_fit: Any = None,
    *,
    group: str | None = None,
    column: str | None = None,
    prob: float = 0.9,
    axes: Any = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw estimates of groups against their sizes, without and with partial pooling.

    Without pooling (left) small groups scatter widely, with wide intervals; under partial pooling
    (right) they lie near the average and have intervals as wide as the groups differ, or less. The
    dashed line is the estimate of complete pooling. Groups of one size stand side by side. With
    known standard errors the precision of a group's own data takes the place of its rows.

    Parameters
    ----------
    partial_fit : BayesFit or ClassicalFit
        A fit with partial pooling.
    none_fit, complete_fit : BayesFit or ClassicalFit, optional
        Fits of the same rows without and with complete pooling; classical ones by default.
    group : str, optional
        Grouping factor; by default the first of the formula.
    column : str, optional
        Column of its group term; the first by default.
    prob : float
        Probability of the intervals.
    axes : array of two matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        Two: no pooling, partial pooling.

    Raises
    ------
    HmlmError
        If the fits do not pool as they should or differ in groups, or if a column or a grouping
        factor does not exist.

    References
    ----------
    .. [1] Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical
       Models, figure 12.1.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.sizes import plot_sizes
    >>> model = hmlm.Model("log_radon ~ floor + (1 | county)", hmlm.load_dataset("radon"))
    >>> axes = plot_sizes(model.fit(hmlm.REML()))
    >>> [ax.get_title(loc="left") for ax in axes]
    ['OLS (no pooling)', 'REML']
    """
    check_figure_prob(prob)
    design: Design = partial_fit.design
    if none_fit is None and design.spec.pooling == "partial" and design.blocks:
        none_fit = plain_fit(design, "none")
    facts = gather_pulls(
        partial_fit, none_fit, complete_fit, group, [column] if column is not None else None
    )
    block = group_block(design, group)
    name = facts.columns[0]
    own_block = group_block(none_fit.design, block.group)
    drawn, sampled = drawn_groups(len(block.levels))
    levels, kind = block.levels[drawn], estimate_kind(design, block)
    panels = [
        (none_fit, group_figures(none_fit, own_block, name, "total", levels, prob), NONE),
        (partial_fit, group_figures(partial_fit, block, name, kind, levels, prob), PARTIAL),
    ]
    x = sizes_along(design, block)[drawn]
    places = spread_ties(x)
    if axes is None:
        axes = new_axes(1, 2, size or (8.4, 3.9), sharex=True, sharey=True)[0]
    axes = check_axes(axes, 2)
    J = len(x)
    alpha = float(np.clip(6.0 / np.sqrt(J), 0.3, 0.95))
    with look():
        for ax, (fit, figures, color) in zip(axes, panels, strict=True):
            ax.axhline(
                facts.complete[0],
                color=COMPLETE,
                linestyle=DASHES,
                linewidth=1.3,
                zorder=1,
                label=facts.labels[2],
            )
            ax.vlines(
                places,
                figures.lower,
                figures.upper,
                color=color,
                linewidth=0.6 if J > 200 else 1.0,
                alpha=0.7 * alpha,
                zorder=2,
            )
            ax.scatter(
                places,
                figures.estimate,
                s=float(np.clip(220 / np.sqrt(J), 7, 34)),
                color=color,
                linewidths=0,
                alpha=alpha,
                zorder=2.2,
            )
            ax.set_xscale("log")
            ax.set_title(fit.label, loc="left", parse_math=False)
            ax.set_title(f"{prob:.0%} intervals", loc="right", fontsize=8.5, color=COMPLETE)
            _tick_sizes(ax, x, places)
        _label(axes, design, block, name)
        handles, names = axes[0].get_legend_handles_labels()
        place_legend(axes[0], handles, names, loc="upper right")
        _frame(axes, panels, float(facts.complete[0]), sampled)
    return axes


def check_figure_prob(prob: float) -> None:
    """Raise an HmlmError if the probability of intervals is none."""
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")


def check_axes(axes: Any, wanted: int) -> np.ndarray:
    """Return the axes that a figure needs, as an array."""
    given = np.ravel(np.asarray(axes, dtype=object))
    if len(given) < wanted:
        raise HmlmError(f"the figure needs {wanted} axes; {len(given)} were given.")
    return np.asarray(given[:wanted])


def sizes_along(design: Design, block: Block) -> np.ndarray:
    """Return the rows of each group; with known standard errors the precision of its mean."""
    if not design.known_se or design.weights is None:
        return block.sizes.astype(float)
    return np.sqrt(np.bincount(block.index, design.weights, len(block.levels)))


def spread_ties(x: np.ndarray) -> np.ndarray:
    """Set groups of one size side by side on a log axis, with half the way to the next size."""
    logs = np.log(x)
    distinct, inverse, counts = np.unique(
        np.round(logs, 9), return_inverse=True, return_counts=True
    )
    if counts.max() == 1:
        return np.asarray(x, dtype=float)
    gap = np.diff(distinct).min() if len(distinct) > 1 else 1.0
    room = np.full(len(distinct), gap)
    if len(distinct) > 1:
        gaps = np.diff(distinct)
        room = np.minimum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0]))
    half = np.minimum(0.38 * room, 0.3) if len(distinct) > 1 else np.array([0.5])
    place = np.array(logs)
    for k in np.flatnonzero(counts > 1):
        own = np.flatnonzero(inverse.reshape(-1) == k)
        # Few groups stand closer together than many.
        reach = half[k] * min(1.0, len(own) / 8)
        place[own] += np.linspace(-reach, reach, len(own))
    return np.asarray(np.exp(place))


def _tick_sizes(ax: Any, x: np.ndarray, places: np.ndarray) -> None:
    """Put plain numbers on the log axis: 1, 2, 5, 10 and so on, within the data."""
    from matplotlib.ticker import NullFormatter, NullLocator

    low, high = float(x.min()), float(x.max())
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    nice = [m * 10.0**k for k in decades for m in (1, 2, 5)]
    ticks = [t for t in nice if low * 0.999 <= t <= high * 1.001]
    if len(ticks) < 3:
        nice = [m * 10.0**k for k in decades for m in range(1, 10)]
        ticks = [t for t in nice if low * 0.999 <= t <= high * 1.001] or [low]
    ax.set_xticks(ticks, [f"{t:,.6g}" if t >= 1 else f"{t:.2g}" for t in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    pad = max(1.06, (places.max() / places.min()) ** 0.03)
    ax.set_xlim(places.min() / pad, places.max() * pad)


def _label(axes: np.ndarray, design: Design, block: Block, name: str) -> None:
    x = f"rows of each {block.group}"
    if design.known_se:
        x = "precision of own data (1 / standard error)"
    set_labels(axes[0], x=x, y=name)
    set_labels(axes[1], x=x)


def _frame(axes: np.ndarray, panels: list[Any], complete: float, sampled: list[str]) -> None:
    """Frame the intervals, but not those of far outliers; say how many estimates lie outside."""
    ends = np.concatenate([[f.lower, f.upper, f.estimate] for _, f, _ in panels], axis=1)
    finite = ends[np.isfinite(ends)]
    if not finite.size:
        return
    low, high = np.quantile(finite, [0.25, 0.75])
    fence = FENCE * (high - low)
    inside = finite[(finite >= low - fence) & (finite <= high + fence)]
    bottom, top = min(inside.min(), complete), max(inside.max(), complete)
    pad = 0.05 * (top - bottom) if top > bottom else 1.0
    # Above there is room for the legend.
    axes[0].set_ylim(bottom - pad, top + 2.8 * pad)
    axes[1].set_ylim(bottom - pad, top + 2.8 * pad)
    for ax, (_, figures, _) in zip(axes, panels, strict=True):
        notes = list(sampled) if ax is axes[0] else []
        known = np.isfinite(figures.estimate)
        if blank := int((~known).sum()):
            notes.append(f"{counted(blank, 'group')} without an estimate.")
        away = (figures.estimate < bottom - pad) | (figures.estimate > top + 2.8 * pad)
        if outside := int(away[known].sum()):
            notes.append(f"Outside the frame: {counted(outside, 'estimate')}.")
        add_note(ax, notes)
