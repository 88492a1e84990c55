"""Figures of predictive checks: the data beside replicates from the fitted model."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmlm.check_statistics import bin_counts, count_bins, member_matrix, outcome_statistics
from hmlm.design import Design
from hmlm.display import clip
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.group_statistics import group_averages
from hmlm.palette import BLUE, GREY, INK, VERMILION
from hmlm.plots.canvas import (
    PLAIN,
    add_note,
    drawn_groups,
    look,
    new_axes,
    place_legend,
    set_labels,
)
from hmlm.replicates import Replicated, draw_replicates

MOST_CURVES = 60
MOST_LABELS = 40
MOST_LINES = 150
GRID = 400
SHARE_BINS = 20


def plot_ppc(
    fit: Any,
    draws: int = 200,
    groups: Replicated = "include",
    random_seed: int | None = None,
    ax: Any = None,
    size: tuple[float, float] = (6.4, 3.8),
) -> Any:
    """Draw the distribution of the outcome over those of replicates.

    Continuous outcomes as densities, at most 60 of the replicates; counts, shares of trials, yes/no
    and categories as bars, with the median and the 95% interval of the replicates.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    draws : int
        Number of replicates.
    groups : {"include", "new"}
        Replicates of the groups of the data, or of new ones.
    random_seed : int, optional
        Seed.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float)
        Width and height of the new figure in inches.

    Returns
    -------
    matplotlib Axes
        The figure.

    References
    ----------
    Gabry, J., et al. (2019). Visualization in Bayesian workflow. Journal of the Royal Statistical
    Society A 182, 389-402.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> from hmlm.plots.checks import plot_ppc
    >>> matplotlib.use("Agg")
    >>> data = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", data).fit(hmlm.REML())
    >>> ax = plot_ppc(fit, draws=20, random_seed=1)
    >>> len(ax.lines)
    21
    """
    design: Design = fit.design
    replicates = draw_replicates(fit, draws, groups, random_seed)
    if ax is None:
        ax = new_axes(1, 1, size)[0, 0]
    with look():
        if design.spec.family.discrete:
            _draw_bars(ax, design, replicates)
        else:
            _draw_densities(ax, design, replicates)
        place_legend(ax, *ax.get_legend_handles_labels(), loc="best")
    return ax


def _draw_densities(ax: Any, design: Design, replicates: np.ndarray) -> None:
    y, outcome = design.y, design.spec.family.outcome
    ends = np.quantile(replicates, [0.002, 0.998])
    low, high = min(y.min(), ends[0]), max(y.max(), ends[1])
    pad = 0.08 * (high - low)
    low = max(low - pad, 0.0) if outcome in ("positive", "unit") else low - pad
    high = min(high + pad, 1.0) if outcome == "unit" else high + pad
    for k, values in enumerate(replicates[:MOST_CURVES]):
        x, height = density(values, low, high)
        label = "replicates" if k == 0 else None
        ax.plot(x, height, color=BLUE, linewidth=0.7, alpha=0.28, zorder=1, label=label)
    x, height = density(y, low, high)
    ax.plot(x, height, color=INK, linewidth=2.0, zorder=3, label="data")
    ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    set_labels(ax, x=design.spec.outcome)


def density(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Smooth a histogram between two ends, which reflect: no mass leaks over a bound.

    Parameters
    ----------
    values : ndarray
        Values; those beyond the ends count for the height alone.
    low, high : float
        The ends.

    Returns
    -------
    x, height : ndarray
        Density on a grid, with the normal kernel and Silverman's rule.
    """
    from scipy.ndimage import gaussian_filter1d

    counts, edges = np.histogram(values, bins=GRID, range=(low, high))
    step = edges[1] - edges[0]
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(float(np.std(values)), float(np.ptp(quartiles)) / 1.349 or np.inf)
    width = max(0.9 * spread * len(values) ** -0.2 / step, 0.5)
    height = gaussian_filter1d(counts / (len(values) * step), width, mode="reflect")
    return edges[:-1] + step / 2, height


def _bars(design: Design, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str] | None, str]:
    """Return places, numbers of rows (draws, bars), labels and the name of the axis."""
    family, name = design.spec.family, design.spec.outcome
    if family.outcome in ("ordered", "category"):
        K = len(design.categories)
        return np.arange(K), bin_counts(y, 1, K - 1), list(design.categories), name
    if family.outcome == "binary" or (design.trials is not None and design.trials.max() <= 1):
        return np.arange(2), bin_counts(y, 1, 1), list(design.categories[:2]) or ["0", "1"], name
    if design.trials is not None and np.ptp(design.trials) > 0:
        known = design.trials > 0
        share = y[:, known] / design.trials[known]
        at = (np.arange(SHARE_BINS + 1)) / SHARE_BINS
        return at, bin_counts(np.round(share * SHARE_BINS), 1, SHARE_BINS), None, f"share of {name}"
    width, last = count_bins(design.y)
    if design.y.max() > last * width:
        name = f"{name} (last bar: {last * width} or more)"
    return width * np.arange(last + 1) + (width - 1) / 2, bin_counts(y, width, last), None, name


def _draw_bars(ax: Any, design: Design, replicates: np.ndarray) -> None:
    places, own, labels, name = _bars(design, design.y[None])
    drawn = _bars(design, replicates)[1]
    step = places[1] - places[0]
    low, middle, high = np.quantile(drawn, [0.025, 0.5, 0.975], axis=0)
    ax.bar(places, own[0], width=0.8 * step, color=GREY, alpha=0.45, label="data", zorder=1)
    ax.vlines(places, low, high, color=BLUE, linewidth=1.8, zorder=3)
    ax.plot(
        places, middle, "o", color=BLUE, markersize=4.5, zorder=4, label="replicates, 95% interval"
    )
    if labels is not None:
        ax.set_xticks(places, [clip(v, 14) for v in labels], **PLAIN)
        if max(map(len, labels)) * len(labels) > 60:
            ax.tick_params(axis="x", rotation=45)
    elif step >= 1:
        ax.xaxis.get_major_locator().set_params(integer=True)
    set_labels(ax, x=name, y="rows")


def _chosen_group(design: Design, group: str | None) -> str:
    known = list(design.spec.all_groups)
    if not known:
        raise HmlmError("the model has no grouping factor: write (1 | group) in the formula.")
    if group is None:
        return known[0]
    if group not in known:
        raise HmlmError(
            f"the fit has no group term of '{group}'.{suggest(group, known)} It has: "
            f"{listed(known)}."
        )
    return group


def plot_ppc_groups(
    fit: Any,
    group: str | None = None,
    draws: int = 500,
    groups: Replicated = "include",
    prob: float = 0.95,
    random_seed: int | None = None,
    ax: Any = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw the mean outcome of every group, or its share, beside the interval of replicates.

    Groups stand in the order of their means. Those outside of their interval are marked; with the
    groups of the data about 1 - `prob` of them or fewer would be. Of more than 1,000 groups a
    random sample of 1,000 is drawn, the same each time, and the figure says so.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    group : str, optional
        Grouping factor; the first of the formula by default.
    draws : int
        Number of replicates.
    groups : {"include", "new"}
        Replicates of the groups of the data, or of new ones in the same rows.
    prob : float
        Probability of the intervals.
    random_seed : int, optional
        Seed.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    matplotlib Axes
        The figure.

    Raises
    ------
    HmlmError
        If there is no such factor, or the outcome is a category without order.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> from hmlm.plots.checks import plot_ppc_groups
    >>> matplotlib.use("Agg")
    >>> data = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", data).fit(hmlm.REML())
    >>> plot_ppc_groups(fit, draws=100, random_seed=1).get_xlabel()
    'Subject, in order of the mean'
    """
    design: Design = fit.design
    _refuse_categories(design)
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
    group = _chosen_group(design, group)
    replicates = group_averages(design, group, draw_replicates(fit, draws, groups, random_seed))
    own = group_averages(design, group, design.y[None])[0]
    order = np.argsort(own)
    order = order[~np.isnan(own[order])]  # groups without a trial have no share
    J = len(order)
    tails = [0.5 - prob / 2, 0.5, 0.5 + prob / 2]
    low, middle, high = np.quantile(replicates[:, order], tails, axis=0)
    outside = (own[order] < low) | (own[order] > high)
    beyond = f"{int(outside.sum()):,} of {counted(J, 'group')}" if outside.any() else ""
    places, notes = drawn_groups(J)
    order, outside, J = order[places], outside[places], len(places)
    low, middle, high = low[places], middle[places], high[places]
    if ax is None:
        ax = new_axes(1, 1, size or (min(max(0.28 * J + 2.2, 5.2), 8.6), 4.2))[0, 0]
    at = np.arange(J)
    thick = float(np.clip(220 / J, 0.8, 6.0))
    dot = float(np.clip(260 / J, 2.0, 5.5))
    with look():
        if J > MOST_LINES:
            ax.fill_between(at, low, high, step="mid", color=BLUE, alpha=0.35, linewidth=0)
        else:
            ax.vlines(at, low, high, color=BLUE, linewidth=thick, alpha=0.35, zorder=1)
        ax.plot([], [], color=BLUE, linewidth=4, alpha=0.35, label=f"replicates, {prob:.0%}")
        if J <= MOST_LABELS:
            ax.plot(at, middle, "_", color=BLUE, markersize=1.6 * thick, zorder=2)
        within = {"markersize": dot, "markeredgewidth": 0, "zorder": 3}
        ax.plot(at[~outside], own[order][~outside], "o", color=INK, label="data", **within)
        if beyond:
            label = f"data outside ({beyond})"
            within["markersize"] = dot + 1.0
            ax.plot(at[outside], own[order][outside], "o", color=VERMILION, label=label, **within)
        if J <= MOST_LABELS:
            names = [clip(design.data.levels[group][j], 14) for j in order]
            ax.set_xticks(at, names, rotation=90 if J > 8 else 0, **PLAIN)
        else:
            ax.set_xticks([])
        ax.set_xlim(-1, J)
        share = design.spec.family.outcome in ("binary", "trials")
        set_labels(
            ax,
            x=f"{group}, in order of the mean",
            y=f"{'share' if share else 'mean'} of {design.spec.outcome}",
        )
        place_legend(ax, *ax.get_legend_handles_labels(), markerscale=max(1.0, 4.0 / dot))
        add_note(ax, notes)
    return ax


def _refuse_categories(design: Design) -> None:
    if design.spec.family.outcome == "category":
        raise HmlmError(
            f"the categories of '{design.spec.outcome}' have no order, and so no mean: use "
            "hmlm.plot_ppc(fit)."
        )


def plot_ppc_statistics(
    fit: Any,
    group: str | None = None,
    draws: int = 500,
    groups: Replicated = "include",
    random_seed: int | None = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw statistics of replicates as histograms, with those of the data as lines.

    Statistics of the outcome (mean, sd, minimum and maximum; shares of zeros and ones), and how far
    the means and the sds of groups spread.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    group : str, optional
        Grouping factor; the first of the formula by default.
    draws : int
        Number of replicates.
    groups : {"include", "new"}
        Replicates of the groups of the data, or of new ones.
    random_seed : int, optional
        Seed.
    size : (float, float), optional
        Width and height of the figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        One a statistic.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> from hmlm.plots.checks import plot_ppc_statistics
    >>> matplotlib.use("Agg")
    >>> data = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", data).fit(hmlm.REML())
    >>> [ax.get_xlabel() for ax in plot_ppc_statistics(fit, draws=100, random_seed=1)]
    ['mean', 'sd', 'minimum', 'maximum', 'sd of Subject means', 'sd of Subject sds']
    """
    design: Design = fit.design
    replicates = draw_replicates(fit, draws, groups, random_seed)
    drawn, own = _statistics(design, replicates, group), _statistics(design, design.y[None], group)
    names = [n for n in own if np.isfinite(own[n]).all() and np.isfinite(drawn[n]).all()]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    grid = new_axes(rows, columns, size or (2.9 * columns, 2.3 * rows)).ravel()
    for ax in grid[len(names) :]:
        ax.remove()
    with look():
        for ax, name in zip(grid, names, strict=False):
            _draw_histogram(ax, name, drawn[name], float(own[name][0]))
    return np.asarray(grid[: len(names)])


def _draw_histogram(ax: Any, name: str, drawn: np.ndarray, own: float) -> None:
    if np.ptp(drawn) > 0:
        ax.hist(drawn, bins=min(30, len(np.unique(drawn))), color=BLUE, alpha=0.45)
    else:
        half = 0.1 * max(abs(drawn[0]), 1.0)
        ax.bar(drawn[0], len(drawn), width=half, color=BLUE, alpha=0.45)
        ax.set_xlim(drawn[0] - 4 * half, drawn[0] + 4 * half)
    above, below = float((drawn >= own).mean()), float((drawn <= own).mean())
    p = min(1.0, 2.0 * min(above, below))
    ax.axvline(own, color=INK if p >= 0.05 else VERMILION, linewidth=2.0)
    ax.set_title(f"p {f'< {1 / len(drawn):.2g}' if p == 0 else f'= {p:.3f}'}", loc="left")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.locator_params(axis="x", nbins=5)
    set_labels(ax, x=name)


def _statistics(design: Design, y: np.ndarray, group: str | None) -> dict[str, np.ndarray]:
    found = outcome_statistics(design, y)
    if not design.spec.all_groups or design.spec.family.outcome == "category":
        return found
    group = _chosen_group(design, group)
    short = clip(group, 20)
    found[f"sd of {short} means"] = np.nanstd(group_averages(design, group, y), axis=1)
    if design.spec.family.outcome not in ("binary", "trials"):
        index = design.data.index[group]
        sizes = np.bincount(index, minlength=len(design.data.levels[group]))
        member = member_matrix(index, len(sizes))
        means = (y @ member) / np.maximum(sizes, 1)
        squares = ((y - means[:, index]) ** 2 @ member)[:, sizes > 1]
        if squares.shape[1] > 1:
            sds = np.sqrt(squares / (sizes[sizes > 1] - 1.0))
            found[f"sd of {short} sds"] = sds.std(axis=1)
    return found
