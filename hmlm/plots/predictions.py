"""The figure of predictions: a line or points along one predictor, others held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hmlm.data_grid import check_column, check_levels, factor_levels, grid_of
from hmlm.design import Design
from hmlm.display import clip
from hmlm.errors import HmlmError, counted, listed
from hmlm.new_rows import Groups, predictor_columns
from hmlm.palette import BLUE, GREEN, GREY, INK, PURPLE, SKY, VERMILION, style
from hmlm.plots.canvas import PLAIN, is_bayesian, level_positions, look, new_axes, set_labels

GRID = 61
COLORS = (BLUE, VERMILION, GREEN, PURPLE, "#E69F00", SKY)
DEFAULT_LEVELS = 6
FEW = 4


def plot_predictions(
    fit: Any,
    x: str,
    by: str | None = None,
    *,
    levels: Iterable[Any] | int | None = None,
    groups: Groups = "population",
    kind: str = "mean",
    prob: float = 0.95,
    data: bool = False,
    ax: Any = None,
    size: tuple[float, float] | None = None,
    random_seed: int | None = None,
) -> Any:
    """Draw what a fit predicts along a predictor, others held at their mean or usual level.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit.
    x : str
        Predictor along the horizontal axis.
    by : str, optional
        A line for each level of this factor, or for the quartiles of this number (its values, if
        they are few). Of a grouping
        factor a line for each of some groups, beside that of the population.
    levels : iterable or int, optional
        Levels (or numbers) of `by` to draw, or how many groups; by default all levels of a factor
        and 6 groups from the lowest to the highest. More than 6 are drawn without bands.
    groups : {"population", "average", "new"} or mapping of str to one of these
        What becomes of group effects; those of `by` are included in its lines.
    kind : {"mean", "linear", "response"}
        What to predict; see `BayesFit.predict`.
    prob : float
        Probability of the bands.
    data : bool
        Whether to draw the data too: of counts out of trials their share.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.
    random_seed : int, optional
        Seed of new groups and observations.

    Returns
    -------
    matplotlib Axes
        With one line a level; of an outcome with categories one a category.

    Raises
    ------
    HmlmError
        If a column is no predictor or grouping factor of the model, or a level does not exist.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.predictions import plot_predictions
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> ax = plot_predictions(fit, "Days", by="Subject", levels=["308", "335"])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['Subject 308', 'Subject 335', 'population']
    """
    design: Design = fit.design
    check_column(design, x)
    if x not in predictor_columns(design):
        raise HmlmError(
            f"'{x}' is a grouping factor: pass it as by='{x}', with a predictor along the axis."
        )
    values = factor_levels(design, x)
    trained = design.data.frame[x]
    at = list(values) if values else np.linspace(float(trained.min()), float(trained.max()), GRID)
    if by is not None and design.spec.family.outcome in ("ordered", "category"):
        raise HmlmError(
            "an outcome with categories has a line for each of them: leave `by` out, or predict at "
            "the rows of hmlm.grid_of."
        )
    asked = {"kind": kind, "prob": prob, "random_seed": random_seed}
    curves: list[tuple[str, pd.DataFrame]]
    chosen: list[Any] = []
    grouped = by is not None and by not in predictor_columns(design)
    if by is None:
        table = fit.predict(grid_of(fit, **{x: at}), groups=groups, **asked)
        if "category" in table:
            parts = table.groupby("category", sort=False)
            curves = [(str(label), part) for label, part in parts]
        else:
            curves = [("", table)]
    else:
        check_column(design, by)
        chosen = _group_levels(fit, by, levels) if grouped else _by_values(design, by, levels)
        grid = grid_of(fit, **{by: chosen, x: at})
        modes = _including(design, by, groups) if grouped else groups
        table = fit.predict(grid, groups=modes, **asked)
        pieces = [table.iloc[k * len(at) : (k + 1) * len(at)] for k in range(len(chosen))]
        names = [f"{by} {_text(v)}" if len(f"{by} {_text(v)}") < 24 else _text(v) for v in chosen]
        curves = list(zip(names, pieces, strict=True))
        if grouped and design.spec.pooling == "partial":
            curves.append(
                ("population", fit.predict(grid_of(fit, **{x: at}), groups=groups, **asked))
            )
    if ax is None:
        ax = new_axes(1, 1, size or (5.6, 3.8))[0, 0]
    with look():
        if data:
            _draw_points(ax, design, x, values, by, chosen)
        _draw_curves(ax, fit, curves, at, values, grouped, len(chosen))
        set_labels(ax, x=x, y=outcome_label(design, kind))
        if values:
            ax.set_xticks(range(len(values)), [clip(v, 16) for v in values], **PLAIN)
            ax.set_xlim(-0.6, len(values) - 0.4)
        ax.set_title(f"{prob:.0%} interval", loc="right", fontsize=8.5, color=GREY)
        draw_legend(ax)
    return ax


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else clip(value, 20)


def outcome_label(design: Design, kind: str) -> str:
    """Return what predictions of that kind are of."""
    if kind == "linear":
        return f"linear predictor of {design.spec.outcome}"
    outcome = design.spec.family.outcome
    probability = outcome in ("binary", "trials", "ordered", "category")
    if probability and not (kind == "response" and outcome == "trials"):
        return f"probability of {design.spec.outcome}"
    return design.spec.outcome


def _including(design: Design, by: str, groups: Groups) -> dict[str, Any]:
    """Return what becomes of every factor when one is included."""
    given = groups if isinstance(groups, Mapping) else dict.fromkeys(design.spec.all_groups, groups)
    return {**dict.fromkeys(design.spec.all_groups, "population"), **given, by: "include"}


def _by_values(design: Design, by: str, levels: Iterable[Any] | int | None) -> list[Any]:
    """Return levels of a factor, or values of a number: its quartiles."""
    known = factor_levels(design, by)
    if isinstance(levels, (int, np.integer)):
        raise HmlmError(f"'{by}' is no grouping factor: name the levels or numbers to draw.")
    if known:
        return list(known) if levels is None else check_levels(design, by, _listed(levels))
    if levels is None:
        values = design.data.frame[by]
        few = values.nunique() <= FEW
        return np.unique(values if few else values.quantile([0.25, 0.5, 0.75])).tolist()
    return [float(v) for v in _listed(levels)]


def _listed(levels: Iterable[Any]) -> list[Any]:
    return [levels] if isinstance(levels, str) else list(levels)


def _group_levels(fit: Any, by: str, levels: Iterable[Any] | int | None) -> list[Any]:
    design: Design = fit.design
    if by not in design.spec.all_groups:
        whole = [g for g in design.spec.all_groups if by in g.split(":")]
        raise HmlmError(
            f"'{by}' alone is no grouping factor: it is part of {listed(whole)}. Predict at the "
            "rows of hmlm.grid_of."
        )
    labels = list(design.data.levels[by])
    if levels is not None and not isinstance(levels, (int, np.integer)):
        return [labels[k] for k in level_positions(labels, _listed(levels), by)]
    wanted = DEFAULT_LEVELS if levels is None else int(levels)
    if wanted < 1:
        raise HmlmError(f"levels is a number of groups, or their labels, not {levels}.")
    mean = pd.Series(design.y).groupby(design.data.index[by]).mean().to_numpy()
    order = np.argsort(mean, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(wanted, len(order))).round().astype(int))
    return [labels[k] for k in order[places]]


def _draw_curves(
    ax: Any,
    fit: Any,
    curves: list[tuple[str, pd.DataFrame]],
    at: Any,
    values: tuple[Any, ...],
    grouped: bool,
    chosen: int,
) -> None:
    own = style(fit.design.spec.pooling, is_bayesian(fit))
    many = chosen > len(COLORS)
    for k, (label, table) in enumerate(curves):
        whole = grouped and label == "population"
        color = own.color if len(curves) == 1 else INK if whole else COLORS[k % len(COLORS)]
        thin = many and not whole
        if thin:
            color = SKY if grouped else color
            label = (
                f"{counted(chosen, 'group')}" if grouped and k == 0 else "" if grouped else label
            )
        width = 0.7 if thin else 2.2 if whole else 1.8
        dash: Any = own.linestyle if len(curves) == 1 else "-"
        shown: dict[str, Any] = {
            "color": color,
            "zorder": 2.6 if whole else 2.3,
            "label": label or None,
        }
        columns = [table[c].to_numpy() for c in ("estimate", "lower", "upper")]
        middle, lower, upper = columns
        if not values:
            if not thin:
                ax.fill_between(at, lower, upper, color=color, alpha=0.15, linewidth=0, zorder=1)
            alpha = max(0.15, min(0.8, 40 / chosen)) if thin else 1.0
            ax.plot(at, middle, linestyle=dash, linewidth=width, alpha=alpha, **shown)
            continue
        places = np.arange(len(values)) + dodge(k, len(curves))
        draw_intervals(ax, places, table, thin=thin, **shown)


def draw_intervals(
    ax: Any,
    places: np.ndarray,
    table: pd.DataFrame,
    *,
    thin: bool,
    across: bool = False,
    **shown: Any,
) -> None:
    """Draw a point and its interval for each row of a table, upright or across the axes."""
    label = shown.pop("label", None)
    middle = table["estimate"].to_numpy(dtype=float)
    lower, upper = table["lower"].to_numpy(dtype=float), table["upper"].to_numpy(dtype=float)
    bars = ax.hlines if across else ax.vlines
    bars(places, lower, upper, linewidth=0.5 if thin else 1.5, **shown)
    at = (middle, places) if across else (places, middle)
    ax.plot(*at, linestyle="", marker="o", markersize=2.0 if thin else 5.2, label=label, **shown)


def dodge(k: int, count: int) -> float:
    """Return how far the points of one of several series stand beside their place."""
    return 0.0 if count == 1 else -0.3 + 0.6 * k / (count - 1)


def _draw_points(
    ax: Any, design: Design, x: str, values: tuple[Any, ...], by: str | None, chosen: list[Any]
) -> None:
    """Draw the data: of chosen levels in their colours, all others in grey."""
    if design.spec.family.outcome in ("ordered", "category"):
        return
    frame = design.data.frame
    y = design.y if design.trials is None else design.y / np.maximum(design.trials, 1.0)
    column = frame[x]
    if values:
        codes = np.array([values.index(v) for v in column.tolist()], dtype=float)
        places = codes + np.random.default_rng(0).uniform(-0.22, 0.22, len(y))
    else:
        places = column.to_numpy(dtype=float)
    colors = np.full(len(y), GREY, dtype=object)
    if (
        by is not None
        and len(chosen) <= len(COLORS)
        and (factor_levels(design, by) or by not in predictor_columns(design))
    ):
        own = frame[by].map(str).to_numpy()
        for k, level in enumerate(chosen):
            colors[own == str(level)] = COLORS[k]
    many = len(y) > 300
    ax.scatter(
        places,
        y,
        s=6 if many else 14,
        c=colors.tolist(),
        alpha=0.3 if many else 0.6,
        linewidths=0,
        zorder=0.9,
    )


def draw_legend(ax: Any) -> None:
    """Add a legend beside the axes, if anything has a label."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    legend = ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)
