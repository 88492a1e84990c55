"""The figure of the course: one panel a group, its data, and what each fit makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.display import clip
from hmlm.errors import HmlmError, listed, suggest
from hmlm.linear import within_groups
from hmlm.palette import GREY, INK, Style, distinct_styles
from hmlm.plots.canvas import (
    PLAIN,
    is_bayesian,
    level_positions,
    look,
    new_axes,
    place_legend,
    set_labels,
)
from hmlm.plots.curves import Axis, Curve, choose_axis, predict_curves

MOST_PANELS = 25
DEFAULT_PANELS = 8
TITLE_WIDTH = 20


def plot_groups(
    *fits: Any,
    levels: Iterable[Any] | int | None = None,
    x: str | None = None,
    group: str | None = None,
    prob: float = 0.95,
    columns: int = 4,
    axes: Any = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw one panel for each of some groups: data, and the curve of every fit.

    The first fit has a band, which holds the expected outcome of the group with probability
    `prob`. Other predictors are held at the group's own value where they are constant in it, and
    at its mean (a factor at its most frequent level) where they vary. Effects of other grouping
    factors are left out. A fit without pooling is drawn over the range of the group's own data.

    Parameters
    ----------
    *fits : BayesFit or ClassicalFit
        One or more fits of the same rows; the one with the band first.
    levels : iterable or int, optional
        Labels of the groups to draw, at most 25, or how many to choose. Without them 8 are
        chosen: of the smallest to the largest groups (or the lowest to the highest, where all
        have one size), always some with a low and some with a high estimate of their own.
    x : str, optional
        Predictor along the horizontal axis: by default the first number in the group term that
        varies within groups, else the first predictor that does.
    group : str, optional
        Grouping factor; by default the first of the formula.
    prob : float
        Probability of the band.
    columns : int
        Panels in a row.
    axes : array of matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        One a panel, in the order of the levels.

    Raises
    ------
    HmlmError
        If there is no fit, if the fits are of different rows, if a level, a column or a grouping
        factor does not exist, or if there are more panels than can be read.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> alone = model.with_pooling("none").fit(hmlm.OLS())
    >>> axes = hmlm.plot_groups(model.fit(hmlm.REML()), alone, levels=["308", "335", "370"])
    >>> [ax.get_title(loc="left") for ax in axes]
    ['Subject 308', 'Subject 335', 'Subject 370']
    >>> axes[0].figure.savefig("subjects.png")  # doctest: +SKIP
    """
    design = _check_fits(fits)
    group = _name_group(design, group)
    index, labels = design.data.index[group], design.data.levels[group]
    axis = choose_axis(design, group, x)
    places = _choose_levels(design, group, axis, levels)
    if columns < 1:
        raise HmlmError(f"columns is a number of panels in a row, not {columns}.")
    panels = make_panels(axes, len(places), columns, size, shared=axis.name is not None)
    members = [np.flatnonzero(index == j) for j in places]
    styles = distinct_styles([(f.design.spec.pooling, is_bayesian(f)) for f in fits])
    sizes_differ = bool(np.ptp(np.bincount(index)) > 0)
    with look():
        for fit, style in zip(fits, styles, strict=True):
            curves = predict_curves(fit, design, group, members, axis, prob)
            for ax, curve in zip(panels, curves, strict=True):
                _draw_curve(ax, curve, axis, style, band=fit is fits[0])
        for ax, rows, j in zip(panels, members, places, strict=True):
            draw_data(ax, design, rows, axis)
            title = panel_title(
                group, labels, j, places, title_width(panels, columns, sizes_differ)
            )
            ax.set_title(title, loc="left", **PLAIN)
            if sizes_differ:
                ax.set_title(f"n = {len(rows):,}", loc="right", fontsize=8.5, color=GREY)
        finish_panels(panels, design, axis, columns, own=axes is None)
        _add_legend(panels, fits, styles, prob, own=axes is None)
    return panels


def panel_title(group: str, labels: pd.Index, level: int, places: list[int], width: int) -> str:
    """Name a panel: with the factor, unless that makes some title too long."""
    longest = max(len(str(labels[j])) for j in places)
    lead = f"{group} " if len(group) + 1 + longest <= width else ""
    return lead + clip(labels[level], width)


def title_width(panels: np.ndarray, columns: int, sizes: bool) -> int:
    """Return how many letters of a title a panel has room for, beside the number of rows."""
    figure = panels[0].figure
    inches = min(figure.get_figwidth() / min(columns, len(panels)) - 0.2, 6.0)
    letters = int((inches - (0.5 if sizes else 0.0)) / 0.075)
    return int(np.clip(letters, 5, TITLE_WIDTH))


def _check_fits(fits: tuple[Any, ...]) -> Design:
    if not fits:
        raise HmlmError("plot_groups needs at least one fit.")
    design: Design = fits[0].design
    for fit in fits[1:]:
        same = len(fit.design.y) == len(design.y) and np.array_equal(fit.design.y, design.y)
        if not same:
            raise HmlmError(
                f"{fit.label} and {fits[0].label} are fits of different rows or outcomes: fit them "
                "to the same table."
            )
    return design


def _name_group(design: Design, group: str | None) -> str:
    known = design.data.groups
    if not known:
        raise HmlmError("the formula has no group term, so there are no groups to draw.")
    if group is None:
        return known[0]
    if group not in known:
        raise HmlmError(
            f"'{group}' is no grouping factor of the formula.{suggest(group, known)} There are: "
            f"{listed(known)}."
        )
    return group


def _choose_levels(
    design: Design, group: str, axis: Axis, levels: Iterable[Any] | int | None
) -> list[int]:
    index, labels = design.data.index[group], design.data.levels[group]
    if levels is None or isinstance(levels, (int, np.integer)):
        wanted = DEFAULT_PANELS if levels is None else int(levels)
        found = spread_levels(design, index, axis, min(wanted, len(labels)))
    else:
        chosen = [levels] if isinstance(levels, str) else list(levels)
        found = level_positions(labels, chosen, group)
    if not 0 < len(found) <= MOST_PANELS:
        raise HmlmError(
            f"{len(found)} panels cannot be read: choose from 1 to {MOST_PANELS} levels of "
            f"'{group}', for example levels=8."
        )
    return found


def spread_levels(design: Design, index: np.ndarray, axis: Axis, wanted: int) -> list[int]:
    """Choose groups that differ in size and estimate: two from each of wanted / 2 strata."""
    if wanted < 1:
        return []
    sizes = np.bincount(index)
    mean = np.bincount(index, design.shares) / sizes
    second = mean
    first = sizes.astype(float)
    if not np.ptp(sizes):
        first = mean
        if axis.name is not None and not axis.categories:
            values = design.data.frame[axis.name].to_numpy(dtype=float)
            Z = np.column_stack([np.ones(len(index)), values])
            second = within_groups(Z, index, design.shares[:, None]).coefficients[:, 1, 0]
    order = np.lexsort([np.arange(len(sizes)), mean, first])
    found: list[int] = []
    for part in np.array_split(order, (wanted + 1) // 2):
        inside = part[np.argsort(second[part], kind="stable")]
        found += [int(inside[0]), int(inside[-1])]
    found = list(dict.fromkeys(found))[:wanted]
    rest = (int(j) for j in order if j not in found)
    while len(found) < wanted:
        found.append(next(rest))
    return sorted(found)


def make_panels(
    axes: Any, wanted: int, columns: int, size: tuple[float, float] | None, shared: bool
) -> np.ndarray:
    """Return the axes of panels of groups: those given, or those of a new figure."""
    if axes is not None:
        given = np.ravel(np.asarray(axes, dtype=object))
        if len(given) < wanted:
            raise HmlmError(f"{wanted} panels need {wanted} axes; {len(given)} were given.")
        return given[:wanted]
    columns = min(columns, wanted)
    rows = -(-wanted // columns)
    if size is None:
        size = (max(2.05 * columns + 0.4, 4.8), 1.9 * rows + 0.9 if wanted > 1 else 3.6)
    grid = new_axes(rows, columns, size, sharex=shared, sharey=True)
    every = grid.ravel()
    for ax in every[wanted:]:
        ax.remove()
    for ax in every[max(wanted - columns, 0) : wanted]:
        ax.tick_params(labelbottom=True)
    return np.asarray(every[:wanted])


def _draw_curve(ax: Any, curve: Curve, axis: Axis, style: Style, band: bool) -> None:
    shade = {"color": style.color, "alpha": 0.17, "linewidth": 0, "zorder": 1}
    if not axis.categories:
        if band:
            ax.fill_between(curve.x, curve.lower, curve.upper, **shade)
        ax.plot(curve.x, curve.estimate, **style.line)
        if len(curve.x) == 1:  # all rows of the group at one value: a point is no line
            if band and np.isfinite(curve.lower).all():
                whole = {"color": style.color, "linewidth": 1.2, "zorder": style.zorder}
                ax.vlines(curve.x, curve.lower, curve.upper, **whole)
            bare = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.6}
            mark = {"linestyle": "", "marker": "D", "markeredgecolor": style.color, **bare}
            ax.plot(curve.x, curve.estimate, zorder=3.2, **mark)
        return
    half = 0.32
    for k, at in enumerate(curve.x):
        ends = [at - half, at + half]
        if band:
            ax.fill_between(ends, [curve.lower[k]] * 2, [curve.upper[k]] * 2, **shade)
        ax.plot(ends, [curve.estimate[k]] * 2, **style.line)


def draw_data(ax: Any, design: Design, rows: np.ndarray, axis: Axis) -> None:
    """Draw the outcomes of one group."""
    y = design.shares[rows]
    if axis.name is None:
        places = np.arange(1.0, len(rows) + 1)
    elif axis.categories:
        values = design.data.frame[axis.name].iloc[rows].tolist()
        places = np.array([float(axis.categories.index(v)) for v in values])
        for k in np.unique(places):
            same = places == k
            places[same] += np.linspace(-0.2, 0.2, same.sum() + 2)[1:-1]
    else:
        places = design.data.frame[axis.name].to_numpy(dtype=float)[rows]
    many = len(rows) > 40
    ax.plot(
        places,
        y,
        linestyle="",
        marker="o",
        markersize=3.0 if many else 4.2,
        markeredgewidth=0,
        color=INK,
        alpha=0.45 if many else 0.85,
        zorder=3,
    )


def finish_panels(panels: np.ndarray, design: Design, axis: Axis, columns: int, own: bool) -> None:
    """Tick and label panels of groups."""
    from matplotlib.ticker import MaxNLocator

    for ax in panels:
        if axis.categories:
            names = [clip(c, 14) for c in axis.categories]
            ax.set_xticks(range(len(names)), names, **PLAIN)
            ax.set_xlim(-0.6, len(names) - 0.4)
            if max(map(len, names)) * len(names) > 26:
                ax.tick_params(axis="x", rotation=45)
        elif axis.name is None:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        else:
            distinct = np.unique(design.data.frame[axis.name].to_numpy(dtype=float))
            if len(distinct) <= 5:
                ax.set_xticks(distinct)
            ax.margins(x=0.06)
        if not own:
            set_labels(ax, x=axis.label, y=outcome_label(design))
    if own:
        figure = panels[0].figure
        figure.supxlabel(clip(axis.label, 60), fontsize=10, color=INK, **PLAIN)
        figure.supylabel(clip(outcome_label(design), 60), fontsize=10, color=INK, **PLAIN)


def _add_legend(
    panels: np.ndarray, fits: tuple[Any, ...], styles: list[Style], prob: float, own: bool
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines: list[Any] = [Line2D([], [], **s.line) for s in styles]
    band = Patch(color=styles[0].color, alpha=0.17, linewidth=0)
    dot = Line2D([], [], linestyle="", marker="o", markersize=4.2, markeredgewidth=0, color=INK)
    handles = [dot, (band, lines[0]), *lines[1:]]
    names = ["data", f"{fits[0].label}, {prob:.0%} interval", *(f.label for f in fits[1:])]
    if own:
        figure = panels[0].figure
        place_legend(figure, handles, names, loc="outside upper left")
    else:
        place_legend(panels[0], handles, names, loc="best")


def outcome_label(design: Design) -> str:
    """Return what the vertical axis shows: of counts out of trials their share."""
    spec = design.spec
    return spec.outcome if spec.trials is None else f"{spec.outcome} / {spec.trials}"
