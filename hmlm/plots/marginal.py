"""Figures of comparisons and slopes, in the units of the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hmlm.averages import Comparing
from hmlm.data_grid import check_column, factor_levels, grid_of
from hmlm.design import Design
from hmlm.display import clip
from hmlm.marginal import average_slopes, compare_predictions
from hmlm.new_rows import Groups, predictor_columns
from hmlm.palette import GREY, style
from hmlm.plots.canvas import PLAIN, is_bayesian, look, new_axes, set_labels
from hmlm.plots.predictions import (
    COLORS,
    FEW,
    GRID,
    dodge,
    draw_intervals,
    draw_legend,
    outcome_label,
)

MOST_LABELS = 60


def plot_comparisons(
    fit: Any,
    variables: str | Sequence[str] | Mapping[str, Any] | None = None,
    by: str | None = None,
    *,
    comparison: Comparing = "difference",
    groups: Groups | None = None,
    prob: float = 0.95,
    ax: Any = None,
    size: tuple[float, float] | None = None,
    random_seed: int | None = None,
) -> Any:
    """Draw comparisons of average predictions with their intervals.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit.
    variables : str, sequence of str, or mapping, optional
        What to compare; see `hmlm.compare_predictions`.
    by : str, optional
        A comparison for each level of this factor or grouping factor, averaged over its rows; or
        a line along this number (of more than 4 values), other predictors held at their mean or
        usual level.
    comparison : {"difference", "ratio", "log odds ratio"}
        How to compare.
    groups : str or mapping, optional
        What becomes of group effects: by default included where rows of the fit are averaged
        over, and at the population along a number.
    prob : float
        Probability of the intervals.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.
    random_seed : int, optional
        Seed of new groups.

    Returns
    -------
    matplotlib Axes
        A row for each contrast or level; more than 60 levels stand in the order of their
        estimates, without labels.

    Raises
    ------
    HmlmError
        If a column, a level or a comparison is unknown.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.marginal import plot_comparisons
    >>> alcohol = hmlm.load_dataset("alcohol")
    >>> fit = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol).fit(hmlm.REML())
    >>> ax = plot_comparisons(fit, {"coa": (0, 1), "peer": "sd"})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['coa: 1 - 0', 'peer: (x + sd/2) - (x - sd/2)']
    """

    def table_of(new_data: Any, chosen: Groups) -> pd.DataFrame:
        return compare_predictions(
            fit,
            variables,
            by,
            new_data,
            comparison=comparison,
            groups=chosen,
            prob=prob,
            random_seed=random_seed,
        )

    label = {"difference": "difference", "ratio": "ratio"}.get(comparison, comparison)
    what = f"{label} in {outcome_label(fit.design, 'mean')}"
    return _draw_contrasts(
        fit, table_of, by, groups, prob, what, 1.0 if comparison == "ratio" else 0.0, ax, size
    )


def plot_slopes(
    fit: Any,
    variables: str | Sequence[str] | None = None,
    by: str | None = None,
    *,
    groups: Groups | None = None,
    prob: float = 0.95,
    ax: Any = None,
    size: tuple[float, float] | None = None,
    random_seed: int | None = None,
) -> Any:
    """Draw average slopes of predictions with their intervals.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit.
    variables : str or sequence of str, optional
        Predictors that are numbers; all such by default.
    by, groups, prob, ax, size, random_seed
        As in `plot_comparisons`.

    Returns
    -------
    matplotlib Axes
        A row for each slope or level, or a line along a number.

    Raises
    ------
    HmlmError
        If a column is unknown or a factor.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.marginal import plot_slopes
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> ax = plot_slopes(fit, "Days", by="Subject")
    >>> len(ax.get_yticklabels())
    18
    """

    def table_of(new_data: Any, chosen: Groups) -> pd.DataFrame:
        return average_slopes(
            fit, variables, by, new_data, groups=chosen, prob=prob, random_seed=random_seed
        )

    what = f"slope of {outcome_label(fit.design, 'mean')}"
    return _draw_contrasts(fit, table_of, by, groups, prob, what, 0.0, ax, size)


def _draw_contrasts(
    fit: Any,
    table_of: Any,
    by: str | None,
    groups: Groups | None,
    prob: float,
    what: str,
    nothing: float,
    ax: Any,
    size: tuple[float, float] | None,
) -> Any:
    design: Design = fit.design
    along = False
    if by is not None:
        check_column(design, by)
        along = by in predictor_columns(design) and not factor_levels(design, by)
        along = along and design.data.frame[by].nunique() > FEW
    if along and by is not None:
        trained = design.data.frame[by]
        grid = grid_of(fit, **{by: np.linspace(trained.min(), trained.max(), GRID)})
        table = table_of(grid, groups or "population")
    else:
        table = table_of(None, groups or "include")
    several = table["variable"].nunique() > 1 or table["contrast"].nunique() > 1 or by is None
    names = [
        f"{v}: {c}" if c != "slope" else str(v)
        for v, c in zip(table["variable"], table["contrast"], strict=True)
    ]
    if "category" in table:
        names = [f"{n}, {c}" for n, c in zip(names, table["category"], strict=True)]
        several = True
    table = table.assign(name=names)
    with look():
        if along:
            ax = new_axes(1, 1, size or (5.6, 3.8))[0, 0] if ax is None else ax
            _draw_along(ax, fit, table, by or "", several)
            set_labels(ax, x=by or "", y=what)
            ax.axhline(nothing, color=GREY, linewidth=0.8, linestyle=(0, (5, 2)), zorder=0.5)
        else:
            ax = _draw_rows(ax, fit, table, by, size)
            set_labels(ax, x=what, y=by or "")
            ax.axvline(nothing, color=GREY, linewidth=0.8, linestyle=(0, (5, 2)), zorder=0.5)
        title = f"{prob:.0%} interval"
        if not several:
            title = f"{names[0]}, {title}"
        ax.set_title(title, loc="right", fontsize=8.5, color=GREY, **PLAIN)
        draw_legend(ax)
    return ax


def _draw_along(ax: Any, fit: Any, table: pd.DataFrame, by: str, several: bool) -> None:
    own = style(fit.design.spec.pooling, is_bayesian(fit))
    for k, (name, part) in enumerate(table.groupby("name", sort=False)):
        color = COLORS[k % len(COLORS)] if several else own.color
        at = part[by].to_numpy(dtype=float)
        ax.fill_between(at, part["lower"], part["upper"], color=color, alpha=0.15, linewidth=0)
        ax.plot(at, part["estimate"], color=color, linewidth=1.8, label=name if several else None)


def _draw_rows(
    ax: Any, fit: Any, table: pd.DataFrame, by: str | None, size: tuple[float, float] | None
) -> Any:
    """Draw a point and an interval for every contrast, or level; one row below the other."""
    own = style(fit.design.spec.pooling, is_bayesian(fit))
    rows = table["name"] if by is None else table[by].map(str)
    labels = list(dict.fromkeys(rows))
    contrasts = ["" if by is None else n for n in table["name"]]
    kinds = list(dict.fromkeys(contrasts))
    many = len(labels) > MOST_LABELS
    if many:
        first = table[np.array(contrasts) == kinds[0]].sort_values("estimate", kind="stable")
        labels = list(rows[first.index])
    place = {label: k for k, label in enumerate(labels)}
    if ax is None:
        height = 7.0 if many else min(12.0, 1.1 + 0.26 * len(labels) * max(1, len(kinds) ** 0.5))
        ax = new_axes(1, 1, size or (6.2, max(height, 2.0)))[0, 0]
    for k, kind in enumerate(kinds):
        mask = np.array(contrasts) == kind
        part = table[mask]
        color = own.color if len(kinds) == 1 else COLORS[k % len(COLORS)]
        at = np.array([place[r] for r in rows[mask]], dtype=float) + dodge(k, len(kinds))
        label = kind if len(kinds) > 1 else None
        draw_intervals(ax, at, part, thin=many, across=True, color=color, label=label)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    if many:
        ax.set_yticks([])
    else:
        ax.set_yticks(range(len(labels)), [clip(label, 34) for label in labels], **PLAIN)
    return ax
