"""Shrinkage: from what each group says on its own to what it says as one of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hmlm.display import clip
from hmlm.errors import counted, listed
from hmlm.palette import COMPLETE, INK, NONE, PARTIAL
from hmlm.plots.canvas import (
    PLAIN,
    add_note,
    drawn_groups,
    group_areas,
    look,
    new_axes,
    place_legend,
    set_labels,
)
from hmlm.plots.pulls import Pulls, gather_pulls

ELLIPSES = (0.5, 0.9, 0.95)
MOST_LABELS = 60
MOST_PULLS = 400  # more of them cover each other
FENCE = 3.0


def plot_shrinkage(
    partial_fit: Any,
    none_fit: Any = None,
    complete_fit: Any = None,
    *,
    group: str | None = None,
    columns: str | Sequence[str] | None = None,
    ax: Any = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw how far partial pooling moves the estimate of each group, and where to.

    With two columns, an arrow for each group leads from its own estimate (no pooling) to the one
    under partial pooling, in the plane of intercepts and slopes. The ellipses hold 50, 90 and 95%
    of the population of groups as the fit estimates it. With one column the groups stand one
    above the other, and bands take the place of ellipses. Markers grow with the rows of a group. Of
    more than 400 groups 400 are drawn, a random sample that is the same each time; the figure says
    so.

    With group-level predictors the estimates are those of the groups' own lines (component
    ``line`` of `hmlm.tidy`); the population is then centred at the average line, and its ellipses
    are those of what the predictors leave unexplained.

    Parameters
    ----------
    partial_fit : BayesFit or ClassicalFit
        A fit with partial pooling.
    none_fit, complete_fit : BayesFit or ClassicalFit, optional
        Fits of the same rows without and with complete pooling; least squares by default.
    group : str, optional
        Grouping factor; by default the first of the formula.
    columns : str or sequence of str, optional
        One or two columns of its group term; the first two by default.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    HmlmError
        If the fits do not pool as they should or differ in groups, or if a column or a grouping
        factor does not exist.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> ax = hmlm.plot_shrinkage(model.fit(hmlm.REML()))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Intercept', 'Days')
    >>> ax.figure.savefig("shrinkage.png")  # doctest: +SKIP
    """
    facts = gather_pulls(partial_fit, none_fit, complete_fit, group, columns)
    J = len(facts.levels)
    places, notes = drawn_groups(J, MOST_PULLS)
    if blank := int((~facts.known).sum()):
        notes.append(f"{blank:,} of {counted(J, 'group')} have no estimate of their own.")
    if facts.relative:
        notes.append(
            "Another factor crosses this one: without pooling only\n"
            "differences are known, here about the same average."
        )
    drawn = replace(
        facts,
        levels=facts.levels[places],
        sizes=facts.sizes[places],
        partial=facts.partial[places],
        none=facts.none[places],
    )
    draw = _draw_plane if len(facts.columns) == 2 else _draw_dumbbells
    return draw(drawn, notes, ax, size)


def _draw_plane(facts: Pulls, notes: list[str], ax: Any, size: tuple[float, float] | None) -> Any:
    from matplotlib.lines import Line2D

    if ax is None:
        ax = new_axes(1, 1, size or (6.4, 5.4))[0, 0]
    J = len(facts.levels)
    many = J > 100
    known = facts.known
    alpha = float(np.clip(6.0 / np.sqrt(J), 0.35, 0.9))
    areas, meaning = group_areas(facts.sizes, float(np.clip(400 / np.sqrt(J), 12, 60)))
    start, stop = facts.none[known], facts.partial[known]
    with look():
        _draw_ellipses(ax, facts)
        ax.quiver(
            *start.T,
            *(stop - start).T,
            angles="xy",
            scale_units="xy",
            scale=1,
            units="inches",
            width=0.008 if many else 0.013,
            headwidth=4.5,
            headlength=6,
            headaxislength=5.5,
            minlength=0.5,
            color=INK,
            alpha=0.7 * alpha,
            zorder=2.4,
        )
        hollow: dict[str, Any] = {
            "facecolors": "white",
            "edgecolors": NONE,
            "linewidths": 0.7 if many else 1.3,
        }
        ax.scatter(*start.T, s=areas[known], alpha=alpha, zorder=2.2, **hollow)
        ax.scatter(*facts.partial.T, s=areas, color=PARTIAL, linewidths=0, alpha=alpha, zorder=2.3)
        ax.plot(*facts.mean, marker="+", color=INK, markersize=17, mew=2, zorder=3)
        ax.plot(*facts.complete, marker="X", color=COMPLETE, markersize=10, mec="white", zorder=3.1)
        outside = _set_limits(ax, facts)
        set_labels(ax, x=facts.columns[0], y=facts.columns[1])
        partial, none, complete = facts.labels
        bare: dict[str, Any] = {"linestyle": "", "markersize": 7}
        handles = [
            Line2D([], [], marker="o", color="white", markeredgecolor=NONE, mew=1.3, **bare),
            Line2D([], [], marker="o", color=PARTIAL, markeredgewidth=0, **bare),
            Line2D([], [], marker="+", color=INK, mew=2, linestyle="", markersize=10),
            Line2D([], [], marker="X", color=COMPLETE, markeredgecolor="white", **bare),
        ]
        names = [none, partial, f"{partial}, average group", complete]
        place_legend(ax, handles, names, 2)
        add_note(ax, [*notes, *_left_outside(outside), *meaning])
    return ax


def _draw_ellipses(ax: Any, facts: Pulls) -> None:
    """Draw the contours of N(mean, D) that hold 50, 90 and 95% of the groups."""
    from matplotlib.patches import Ellipse
    from scipy import special

    values, vectors = np.linalg.eigh(facts.covariance)
    radii = np.sqrt(np.maximum(values, 0.0))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    for prob in ELLIPSES:
        reach = float(np.sqrt(special.chdtri(2, 1 - prob)))
        width, height = 2 * reach * radii[1], 2 * reach * radii[0]
        ax.add_patch(
            Ellipse(
                (float(facts.mean[0]), float(facts.mean[1])),
                width,
                height,
                angle=angle,
                facecolor=(*_rgb(PARTIAL), 0.05),
                edgecolor=(*_rgb(PARTIAL), 0.55),
                linewidth=0.8,
                zorder=1,
            )
        )
        # The label stands at the lowest point of the contour.
        sd = np.sqrt(facts.covariance[1, 1])
        lowest = facts.mean - reach * facts.covariance[:, 1] / sd if sd > 0 else facts.mean
        ax.annotate(
            f"{prob:.0%}",
            lowest,
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            color=PARTIAL,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            zorder=2.9,
        )


def _rgb(color: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(color)


def _set_limits(ax: Any, facts: Pulls) -> int:
    """Frame the estimates; leave far outliers outside, and return how many there are."""
    sd = np.sqrt(np.diagonal(facts.covariance))
    reach = np.sqrt(-2 * np.log(1 - ELLIPSES[-1])) * sd
    start = facts.none[facts.known]
    shown = [facts.mean - reach, facts.mean + reach, facts.complete, *facts.partial]
    if len(start):
        low, high = np.quantile(start, [0.25, 0.75], axis=0)
        fence = FENCE * (high - low)
        shown += list(start[((start >= low - fence) & (start <= high + fence)).all(axis=1)])
    low, high = np.min(shown, axis=0), np.max(shown, axis=0)
    pad = np.where(high > low, 0.05 * (high - low), 1.0)
    ax.set_xlim(low[0] - pad[0], high[0] + pad[0])
    ax.set_ylim(low[1] - pad[1], high[1] + pad[1])
    return int(((start < low - pad) | (start > high + pad)).any(axis=1).sum())


def _draw_dumbbells(
    facts: Pulls, notes: list[str], ax: Any, size: tuple[float, float] | None
) -> Any:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from scipy import special

    J = len(facts.levels)
    labelled = J <= MOST_LABELS
    if ax is None:
        height = 0.19 * J + 1.7 if labelled else 7.0
        ax = new_axes(1, 1, size or (6.4, max(height, 3.2)))[0, 0]
    partial, none = facts.partial[:, 0], facts.none[:, 0]
    order = np.lexsort([np.arange(J), partial])
    place = np.empty(J)
    place[order] = np.arange(J)
    known = facts.known
    alpha = float(np.clip(6.0 / np.sqrt(J), 0.35, 0.9))
    areas, meaning = group_areas(facts.sizes, float(np.clip(200 / np.sqrt(J), 6, 40)))
    mean, sd = float(facts.mean[0]), float(np.sqrt(facts.covariance[0, 0]))
    with look():
        for prob in ELLIPSES:
            reach = special.ndtri(0.5 + prob / 2) * sd
            ax.axvspan(mean - reach, mean + reach, color=PARTIAL, alpha=0.06, lw=0, zorder=0.5)
        ax.axvline(mean, color=PARTIAL, linewidth=0.8, zorder=1)
        ax.axvline(facts.complete[0], color=COMPLETE, linestyle=(0, (5, 2)), lw=1.2, zorder=1.1)
        ends = [np.column_stack([none[known], place[known]]), np.column_stack([partial, place])]
        segments = np.stack([ends[0], ends[1][known]], axis=1)
        width = 1.2 if labelled else 0.6
        ax.add_collection(
            LineCollection(list(segments), colors=INK, alpha=0.6 * alpha, lw=width, zorder=2.1)
        )
        hollow: dict[str, Any] = {
            "facecolors": "white",
            "edgecolors": NONE,
            "linewidths": 1.3 if labelled else 0.7,
        }
        ax.scatter(*ends[0].T, s=areas[known], alpha=alpha, zorder=2.2, **hollow)
        ax.scatter(*ends[1].T, s=areas, color=PARTIAL, linewidths=0, alpha=alpha, zorder=2.3)
        ax.set_ylim(-0.8, J - 0.2)
        ax.set_yticks([])
        if labelled:
            names = [clip(facts.levels[j], 24) for j in order]
            ax.set_yticks(range(J), names, **PLAIN)
            ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        outside = _set_width(ax, facts, mean, sd)
        set_labels(ax, x=facts.columns[0])
        partial_label, none_label, complete_label = facts.labels
        bare: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 6}
        handles: list[Any] = [
            Line2D([], [], color="white", markeredgecolor=NONE, mew=1.3, **bare),
            Line2D([], [], color=PARTIAL, markeredgewidth=0, **bare),
            Line2D([], [], color=COMPLETE, linestyle=(0, (5, 2)), lw=1.2),
            (
                Patch(color=PARTIAL, alpha=0.15, linewidth=0),
                Line2D([], [], color=PARTIAL, linewidth=0.8),
            ),
        ]
        shares = listed(f"{p:.0%}" for p in ELLIPSES)
        heads = [
            none_label,
            partial_label,
            complete_label,
            f"{partial_label}, population: {shares}",
        ]
        place_legend(ax, handles, heads, 2)
        add_note(ax, [*notes, *_left_outside(outside), *meaning])
    return ax


def _set_width(ax: Any, facts: Pulls, mean: float, sd: float) -> int:
    """Frame the estimates of one column; leave far outliers outside, and return how many."""
    reach = 2.0 * sd
    own = facts.none[facts.known, 0]
    shown = [mean - reach, mean + reach, float(facts.complete[0]), *facts.partial[:, 0]]
    if len(own):
        low, high = np.quantile(own, [0.25, 0.75])
        fence = FENCE * (high - low)
        shown += list(own[(own >= low - fence) & (own <= high + fence)])
    bottom, top = min(shown), max(shown)
    pad = 0.05 * (top - bottom) if top > bottom else 1.0
    ax.set_xlim(bottom - pad, top + pad)
    return int(((own < bottom - pad) | (own > top + pad)).sum())


def _left_outside(outside: int) -> list[str]:
    """Say how many estimates lie outside of the frame."""
    if not outside:
        return []
    return [f"Outside the frame: {counted(outside, 'estimate')} without pooling."]
