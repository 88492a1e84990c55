"""Outcomes that the prior expects, against the data: before the data are used."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from hmlm.data import GroupedData
from hmlm.design import Design
from hmlm.display import clip
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.palette import GREY, INK, PARTIAL
from hmlm.plots.canvas import PLAIN, add_note, look, new_axes, set_labels
from hmlm.prior_draws import draw_prior_predictive

MOST_SEPARATE = 25
MOST_LABELS = 24
CURVES = 60
GRID = 256
MOST_SMOOTHED = 4_000


def plot_prior_predictive(
    model: Any,
    group: str | None = None,
    draws: int = 400,
    prob: float = 0.9,
    random_seed: int | None = None,
) -> Any:
    """Draw outcomes from the prior against the data.

    Parameters
    ----------
    model : Model
        The model.
    group : str, optional
        For yes/no outcomes and counts out of trials, the grouping factor whose shares of successes
        are shown; the first one when None.
    draws : int
        Number of draws from the prior.
    prob : float
        Probability of the intervals.
    random_seed : int, optional
        Seed.

    Returns
    -------
    matplotlib Axes
        Continuous outcomes: the density of the data and those of 60 data sets that the prior
        draws, on a logarithmic axis where positive outcomes spread over more than three powers of
        ten. Counts and categories: the share of rows with each value, in bars for the data, with
        median and interval of the prior's data sets; counts above 25 in classes that double. Yes/no
        outcomes and trials: the same for the share of successes of every group, in order.

    Raises
    ------
    PriorError
        If a prior is flat or half-flat.
    HmlmError
        If `prob` is not between 0 and 1, or there is no such group.

    Notes
    -----
    The figure of Gabry et al. (2019, Visualization in Bayesian workflow, Journal of the Royal
    Statistical Society A 182, 389-402, section 3). A prior should cover the data and not much that
    is impossible; it need not look like them.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.plots.prior_predictive import plot_prior_predictive
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> ax = plot_prior_predictive(model, draws=100, random_seed=1)
    >>> ax.get_xlabel(), len(ax.lines)
    ('Reaction', 62)
    """
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
    design: Design = model.design
    kind = design.spec.family.outcome
    known = list(design.data.index)
    if group is not None and group not in known:
        raise HmlmError(
            f"the model has no grouping factor '{group}'.{suggest(group, known)} It has: "
            f"{listed(known) or 'none'}."
        )
    tree = draw_prior_predictive(model, draws, random_seed)
    y = tree["prior_predictive"]["y"].to_numpy()[0]
    size = (6.4, 3.8)
    if kind in ("binary", "trials"):
        group = group or (known[0] if known else None)
        levels = len(design.data.levels[group]) if group else 1
        size = (float(np.clip(0.28 * levels + 2, 4.0, 11.0)), 3.8)
    ax = new_axes(1, 1, size)[0, 0]
    with look():
        if kind in ("binary", "trials"):
            _shares(ax, design, design.data, y, group, prob)
        elif design.spec.family.discrete:
            _bars(ax, design, y, prob)
        else:
            _curves(ax, design, y)
        impossible = float(tree["prior_predictive"].attrs["impossible"])
        if impossible:
            add_note(
                ax,
                [f"The prior gives {impossible:.0%} of rows a mean that the family cannot have."],
            )
    return ax


def _curves(ax: Any, design: Design, y: np.ndarray) -> None:
    """Draw densities of a continuous outcome."""
    family, data = design.spec.family, design.y
    finite = y[np.isfinite(y)]
    low, high = np.quantile(finite, [0.05, 0.95]) if len(finite) else (0.0, 1.0)
    low, high = min(low, float(data.min())), max(high, float(data.max()))
    log = bool(family.outcome == "positive" and high / max(low, 1e-300) > 1e3)

    def turned(values: np.ndarray) -> np.ndarray:
        good = values[np.isfinite(values) & ((values > 0) if log else True)]
        return np.log10(good) if log else good

    ends = np.log10([max(low, 1e-12), high]) if log else np.array([low, high])
    room = 0.06 * float(ends[1] - ends[0])
    left, right = float(ends[0]) - room, float(ends[1]) + room
    walls: tuple[float, ...] = ()
    if family.outcome == "unit":
        left, right, walls = 0.0, 1.0, (0.0, 1.0)
    elif family.outcome == "positive" and not log:
        left, walls = max(left, 0.0), (0.0,)
    grid = np.linspace(left, right, GRID)
    top = 0.0

    def draw(values: np.ndarray, **how: Any) -> None:
        nonlocal top
        if len(values) < 2 or not np.ptp(values) > 0:
            return
        inside = _density(values, grid, walls)
        if how["color"] == INK:
            top = 1.6 * float(inside.max())
        ax.plot(10.0**grid if log else grid, inside, **how)

    middle = turned(y.ravel())
    for k, row in enumerate(y[:CURVES]):
        label = "data sets from the prior" if k == 0 else None
        draw(turned(row), color=PARTIAL, alpha=0.3, linewidth=0.8, label=label)
    draw(middle, color=PARTIAL, linewidth=2.0, linestyle="--", label="prior, all together")
    draw(turned(data), color=INK, linewidth=2.2, label="data")
    if log:
        ax.set_xscale("log")
    ax.set_xlim((10.0**left, 10.0**right) if log else (left, right))
    ax.set_ylim(0, top or None)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    set_labels(ax, x=design.spec.outcome)
    _legend(ax)


def _density(values: np.ndarray, grid: np.ndarray, walls: tuple[float, ...]) -> np.ndarray:
    """Return a density on a grid, by a normal kernel that is reflected at the walls."""
    values = values[:: max(1, len(values) // MOST_SMOOTHED)]
    # The rule of thumb by quartiles, which outliers do not widen.
    spread = float(np.subtract(*np.quantile(values, [0.75, 0.25]))) / 1.34
    least = 1e-3 * float(grid[-1] - grid[0])
    width = 0.9 * max(spread or float(values.std()), least) * len(values) ** -0.2
    mirrored = np.concatenate([values, *(2 * wall - values for wall in walls)])
    near = mirrored[(mirrored > grid[0] - 5 * width) & (mirrored < grid[-1] + 5 * width)]
    parts = np.exp(-0.5 * ((grid[:, None] - near) / width) ** 2).sum(axis=1)
    return np.asarray(parts / (np.sqrt(2 * np.pi) * width * len(values)))


def _classes(design: Design, y: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return labels of values or classes of a count or category; the class of data and draws."""
    data = design.y.astype(np.int64)
    if design.categories:
        return [str(c) for c in design.categories], data, y.astype(np.int64)
    known = np.nan_to_num(y, nan=-1.0)
    high = int(max(data.max(), np.quantile(known, 0.95)))
    if high <= MOST_SEPARATE:
        edges = np.arange(high + 2)
    else:
        edges = np.unique(np.concatenate([[0], 2 ** np.arange(int(np.log2(high)) + 2)]))
    labels = []
    for a, b in pairwise(edges):
        labels.append(f"{a:,}" if b - a == 1 else f"{_short(int(a))}\u2013{_short(int(b) - 1)}")
    labels.append(f"\u2265 {_short(int(edges[-1]))}")
    where = np.searchsorted(edges, known, side="right") - 1
    return labels, np.searchsorted(edges, data, side="right") - 1, where


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.0f}{unit}"
    return f"{value:.0f}"


def _bars(ax: Any, design: Design, y: np.ndarray, prob: float) -> None:
    """Draw shares of values: bars of the data, intervals of the prior."""
    labels, data, drawn = _classes(design, y)
    K = len(labels)
    observed = np.bincount(data, minlength=K)[:K] / len(data)
    shares = np.stack([(drawn == k).mean(axis=1) for k in range(K)], axis=1)
    low, mid, high = np.quantile(shares, [0.5 - prob / 2, 0.5, 0.5 + prob / 2], axis=0)
    at = np.arange(K)
    ax.bar(at, observed, width=0.82, color=GREY, alpha=0.45, label="data")
    ax.vlines(at, low, high, color=PARTIAL, linewidth=1.6, label=f"prior, {prob:.0%}")
    ax.plot(at, mid, "o", color=PARTIAL, markersize=4, label="prior, median")
    long = max(len(text) for text in labels) > 4 and K > 8
    ax.set_xticks(at, [clip(text, 14) for text in labels], rotation=60 if long else 0, **PLAIN)
    if long:
        for text in ax.get_xticklabels():
            text.set_ha("right")
            text.set_rotation_mode("anchor")
    ax.set_ylim(0, None)
    set_labels(ax, x=design.spec.outcome, y="share of rows")
    _legend(ax)


def _shares(
    ax: Any, design: Design, data: GroupedData, y: np.ndarray, group: str | None, prob: float
) -> None:
    """Draw the share of successes in every group, in the order of the data."""
    n = np.ones(len(design.y)) if design.trials is None else design.trials
    index = data.index[group] if group else np.zeros(len(design.y), dtype=np.int64)
    levels = [str(v) for v in data.levels[group]] if group else ["all rows"]
    J = len(levels)
    total = np.maximum(np.bincount(index, n, J), 1e-300)
    member = sparse.csr_array(
        (np.ones(len(index)), (np.arange(len(index)), index)), (len(index), J)
    )
    observed = np.bincount(index, design.y, J) / total
    shares = (y @ member) / total
    order = np.argsort(observed, kind="stable")
    low, mid, high = np.quantile(shares, [0.5 - prob / 2, 0.5, 0.5 + prob / 2], axis=0)[:, order]
    at = np.arange(J)
    if J <= 60:
        ax.vlines(
            at, low, high, color=PARTIAL, linewidth=1.6, alpha=0.6, label=f"prior, {prob:.0%}"
        )
        ax.plot(at, mid, "_", color=PARTIAL, markersize=8, label="prior, median")
    else:
        ax.fill_between(
            at,
            low,
            high,
            step="mid",
            color=PARTIAL,
            alpha=0.25,
            linewidth=0,
            label=f"prior, {prob:.0%}",
        )
        ax.plot(at, mid, color=PARTIAL, linewidth=1.0, label="prior, median")
    size = 5 if J <= 60 else 2.5
    ax.plot(at, observed[order], "o", color=INK, markersize=size, label="data", zorder=3)
    if J <= MOST_LABELS:
        names = [clip(levels[k], 12) for k in order]
        turn = 60 if max(map(len, names)) > 3 else 0
        ax.set_xticks(at, names, rotation=turn, **PLAIN)
    else:
        ax.set_xticks([])
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlim(-0.8, J - 0.2)
    label = design.categories[1] if design.categories else design.spec.outcome
    where = f"{counted(J, 'group')} of {group}, by their share" if group else ""
    set_labels(ax, x=where, y=f"share of {label}")
    _legend(ax)


def _legend(ax: Any) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2)
