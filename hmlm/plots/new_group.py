"""What a fit says of a group that it has not seen, beside one that it has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.design import Design
from hmlm.display import clip
from hmlm.errors import HmlmError
from hmlm.palette import GREEN, GREY, INK, PARTIAL
from hmlm.plots.canvas import (
    PLAIN,
    add_note,
    group_block,
    level_positions,
    look,
    new_axes,
    place_legend,
    set_labels,
)
from hmlm.plots.curves import Axis, choose_axis, held_rows
from hmlm.plots.groups import (
    draw_data,
    finish_panels,
    make_panels,
    outcome_label,
    panel_title,
    spread_levels,
    title_width,
)
from hmlm.plots.sizes import check_axes, check_figure_prob, sizes_along
from hmlm.prediction import Kind

GRID = 41
MOST_PANELS = 12
MOST_ROWS = 25
COLORS = {"new": GREEN, "include": PARTIAL, "population": INK}
LINES: dict[str, Any] = {"new": (0, (5, 1.5, 1, 1.5)), "include": "-", "population": (0, (5, 2))}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Band:
    """Estimate and interval along the axis of one panel, shape (G,) each."""

    x: np.ndarray
    estimate: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def width(self) -> float:
        """Width in the middle of the axis."""
        k = len(self.x) // 2
        return float(self.upper[k] - self.lower[k])


def plot_new_group(
    fit: Any,
    levels: Iterable[Any] | int | None = None,
    *,
    group: str | None = None,
    x: str | None = None,
    kind: Kind = "mean",
    prob: float = 0.9,
    random_seed: int | None = 1,
    columns: int = 4,
    axes: Any = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw what is predicted of a new group, beside groups of the data and the population.

    Of a group of the data the fit knows its own effects, up to their uncertainty. Of a new one it
    knows only the population from which its effects come: its band holds both the uncertainty of
    the average line and how much groups differ, and is the wider the more they do. The band of the
    population is that of the average line alone. All three are predicted for the same values of
    the other predictors: those of the group of the data (their averages where they vary in it).

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit with partial pooling.
    levels : iterable or int, optional
        Labels of the groups to draw beside the new one, or how many to choose. By default the one
        with the least and the one with the most data; without a predictor all, or 8 of many.
    group : str, optional
        Grouping factor that has a new level; by default the first of the formula. Effects of other
        factors are left out.
    x : str, optional
        Predictor along the horizontal axis, by default as in `hmlm.plot_groups`.
    kind : {"mean", "linear", "response"}
        Expected outcomes, linear predictors or new observations, as in ``fit.predict``.
    prob : float
        Probability of the bands.
    random_seed : int, optional
        Seed of the draws of the new group's effects.
    columns : int
        Panels in a row.
    axes : array of matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        A panel for each group of the data; one for all where there is no predictor.

    Raises
    ------
    HmlmError
        If the fit does not pool partially, if its outcome is a category, or if a level, a column
        or a grouping factor does not exist.

    References
    ----------
    .. [1] Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical
       Models, section 12.8 (predictions for new observations and new groups).

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.new_group import plot_new_group
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> axes = plot_new_group(model.fit(hmlm.REML()), levels=["308", "335"])
    >>> [ax.get_title(loc="left") for ax in axes]
    ['Subject 308', 'Subject 335']
    """
    check_figure_prob(prob)
    design: Design = fit.design
    _check_fit(fit, design)
    if columns < 1:
        raise HmlmError(f"columns is a number of panels in a row, not {columns}.")
    block = group_block(design, group)
    name = block.group
    axis = choose_axis(design, name, x)
    places = _choose(design, name, axis, levels)
    index = design.data.index[name]
    members = [np.flatnonzero(index == j) for j in places]
    bands = {
        mode: _predict(fit, design, name, members, axis, mode, kind, prob, random_seed)
        for mode in ("new", "include", "population")
    }
    others = [f for f in design.spec.all_groups if f != name]
    notes = ["Effects of other grouping factors are left out."] if others else []
    if axis.name is None:
        return _draw_rows(fit, design, name, places, bands, notes, prob, kind, axes, size)
    return _draw_panels(
        fit, design, name, places, bands, notes, prob, kind, axes, size, axis, columns
    )


def _check_fit(fit: Any, design: Design) -> None:
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            f"{fit.label} does not pool partially, so it has no population of groups to draw a "
            "new one from: pass a fit of a model with a group term, by hmlm.NUTS() or hmlm.REML()."
        )
    family = design.spec.family
    if family.outcome in ("ordered", "category"):
        raise HmlmError(
            f"a {family.name} outcome has a probability for each category, not one expected value: "
            "use fit.predict(groups='new')."
        )


def _choose(
    design: Design, group: str, axis: Axis, levels: Iterable[Any] | int | None
) -> list[int]:
    labels, index = design.data.levels[group], design.data.index[group]
    most = MOST_ROWS if axis.name is None else MOST_PANELS
    if levels is None and axis.name is not None:
        block = group_block(design, group)
        amount = sizes_along(design, block)
        if not np.ptp(amount):
            amount = np.bincount(index, design.shares) / block.sizes
        found = list(dict.fromkeys([int(np.argmin(amount)), int(np.argmax(amount))]))
    elif levels is None or isinstance(levels, (int, np.integer)):
        wanted = len(labels) if levels is None else int(levels)
        if levels is None and wanted > 12:
            wanted = 8
        found = spread_levels(design, index, axis, min(wanted, len(labels)))
    else:
        chosen = [levels] if isinstance(levels, str) else list(levels)
        found = level_positions(labels, chosen, group)
    if not 0 < len(found) <= most:
        raise HmlmError(
            f"{len(found)} groups cannot be read: choose from 1 to {most} levels of '{group}', for "
            "example levels=4."
        )
    return found


def _predict(
    fit: Any,
    design: Design,
    group: str,
    members: list[np.ndarray],
    axis: Axis,
    mode: str,
    kind: Kind,
    prob: float,
    seed: int | None,
) -> list[_Band]:
    """Predict in all panels at once, with the effects of one factor as the mode says."""
    grid = np.zeros(1)
    if axis.categories:
        grid = np.arange(len(axis.categories), dtype=float)
    elif axis.name is not None:
        values = design.data.frame[axis.name].to_numpy(dtype=float)
        grid = np.linspace(values.min(), values.max(), GRID)
    table = held_rows(design, members, axis, [grid] * len(members))
    modes: Any = dict.fromkeys(design.spec.all_groups, "population") | {group: mode}
    found = fit.predict(table, kind=kind, groups=modes, prob=prob, random_seed=seed)
    G = len(grid)
    parts = [found.iloc[k * G : (k + 1) * G] for k in range(len(members))]
    return [
        _Band(x=grid, **{c: p[c].to_numpy(dtype=float) for c in ("estimate", "lower", "upper")})
        for p in parts
    ]


def _heads(fit: Any, group: str, prob: float) -> dict[str, str]:
    short = clip(group, 24)
    return {
        "new": f"new {short}, {prob:.0%} interval",
        "include": f"{short} of the data",
        "population": f"population ({fit.label})",
    }


def _draw_panels(
    fit: Any,
    design: Design,
    group: str,
    places: list[int],
    bands: dict[str, list[_Band]],
    notes: list[str],
    prob: float,
    kind: Kind,
    axes: Any,
    size: tuple[float, float] | None,
    axis: Axis,
    columns: int,
) -> np.ndarray:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if axes is None and size is None:
        wide = min(columns, len(places))
        size = (max(3.1 * wide + 0.5, 4.8), 2.7 * -(-len(places) // wide) + 0.9)
    panels = make_panels(axes, len(places), columns, size, shared=True)
    index, labels = design.data.index[group], design.data.levels[group]
    width = title_width(panels, columns, True)
    with look():
        for k, (ax, j) in enumerate(zip(panels, places, strict=True)):
            for shift, mode in enumerate(bands):
                _draw_band(ax, bands[mode][k], mode, axis, 0.22 * (shift - 1))
            if kind != "linear":
                draw_data(ax, design, np.flatnonzero(index == j), axis)
            ax.set_title(panel_title(group, labels, j, places, width), loc="left", **PLAIN)
            text = _ratio(bands["new"][k], bands["include"][k])
            ax.set_title(text, loc="right", fontsize=8.5, color=GREY)
        finish_panels(panels, design, axis, columns, own=axes is None)
        if kind == "linear":
            _relabel(panels, f"linear predictor of {design.spec.outcome}", axes is None)
        handles: list[Any] = [
            (
                Patch(color=COLORS[mode], alpha=0.2, linewidth=0),
                Line2D([], [], color=COLORS[mode], linestyle=LINES[mode], linewidth=1.6),
            )
            for mode in bands
        ]
        heads = _heads(fit, group, prob)
        names = [heads[mode] for mode in bands]
        if axes is None:
            place_legend(panels[0].figure, handles, names, loc="outside upper left")
        else:
            place_legend(panels[0], handles, names, loc="best")
        if axes is not None or notes:
            add_note(panels[-1] if axes is not None else panels[0], notes)
    return panels


def _relabel(panels: np.ndarray, text: str, own: bool) -> None:
    if own:
        panels[0].figure.supylabel(clip(text, 60), fontsize=10, color=INK, **PLAIN)
    for ax in panels if not own else ():
        set_labels(ax, x=ax.get_xlabel(), y=text)


def _ratio(new: _Band, known: _Band) -> str:
    """Say how much wider the band of the new group is, in the middle of the axis."""
    if not (np.isfinite(new.width) and np.isfinite(known.width) and known.width > 0):
        return ""
    return f"new: {new.width / known.width:.1f} × as wide"


def _draw_band(ax: Any, band: _Band, mode: str, axis: Axis, shift: float) -> None:
    color, order = COLORS[mode], {"new": 1.0, "population": 1.4, "include": 1.7}[mode]
    if axis.categories:
        at = band.x + shift
        ax.vlines(at, band.lower, band.upper, color=color, linewidth=2.0, zorder=order)
        mark = {"new": "s", "include": "o", "population": "D"}[mode]
        ax.plot(at, band.estimate, mark, color=color, markersize=5, zorder=order + 1)
        return
    alpha = {"new": 0.16, "population": 0.16, "include": 0.26}[mode]
    shade = {"color": color, "alpha": alpha, "linewidth": 0, "zorder": order}
    ax.fill_between(band.x, band.lower, band.upper, **shade)
    if mode == "new":
        for end in (band.lower, band.upper):
            ax.plot(band.x, end, color=color, linestyle=LINES[mode], linewidth=1.1, zorder=order)
    line = {"color": color, "linestyle": LINES[mode], "linewidth": 1.7, "zorder": order + 1}
    ax.plot(band.x, band.estimate, **line)


def _draw_rows(
    fit: Any,
    design: Design,
    group: str,
    places: list[int],
    bands: dict[str, list[_Band]],
    notes: list[str],
    prob: float,
    kind: Kind,
    axes: Any,
    size: tuple[float, float] | None,
) -> np.ndarray:
    """Draw one row for each group of the data, the new one and the population."""
    n = len(places) + 2
    if axes is None:
        axes = new_axes(1, 1, size or (6.2, float(np.clip(0.27 * n + 1.3, 2.6, 9.0))))[0]
    axes = check_axes(axes, 1)
    ax = axes[0]
    own = sorted(range(len(places)), key=lambda k: -float(bands["include"][k].estimate[0]))
    rows = [("include", bands["include"][k]) for k in own]
    # Without a predictor along the axis the other predictors of the first group are held.
    rows += [("new", bands["new"][0]), ("population", bands["population"][0])]
    labels = design.data.levels[group]
    names = [clip(labels[places[k]], 24) for k in own] + [f"new {clip(group, 20)}", "population"]
    with look():
        for k, (mode, band) in enumerate(rows):
            color, at = COLORS[mode], k + 0.5 * (mode != "include")
            low, high = float(band.lower[0]), float(band.upper[0])
            ax.hlines(at, low, high, color=color, linewidth=2.0 + 1.2 * (mode == "new"), zorder=2)
            mark = {"new": "s", "include": "o", "population": "D"}[mode]
            ax.plot(band.estimate[0], at, mark, color=color, markersize=6, zorder=3)
        new = rows[-2][1]
        ax.axvspan(float(new.lower[0]), float(new.upper[0]), color=GREEN, alpha=0.1, lw=0, zorder=0)
        ax.set_yticks([*range(n - 2), n - 1.5, n - 0.5], names, **PLAIN)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(n, -0.7)
        ax.spines["left"].set_visible(False)
        set_labels(ax, x=_row_label(design, kind), y=group)
        ax.set_title(fit.label, loc="left", parse_math=False)
        ax.set_title(f"{prob:.0%} intervals", loc="right", fontsize=8.5, color=GREY)
        widths = [b.width for m, b in rows if m == "include"]
        if np.isfinite([new.width, *widths]).all() and min(widths) > 0:
            low, high = new.width / max(widths), new.width / min(widths)
            span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
            what = (
                f"The interval of a new {clip(group, 20)} is {span} times as wide as those drawn."
            )
            notes = [what, *notes]
        add_note(ax, notes)
    return axes


def _row_label(design: Design, kind: Kind) -> str:
    head = {"mean": "expected ", "linear": "linear predictor of ", "response": "new "}[kind]
    return head + outcome_label(design)
