"""The funnel: the sd of groups against the effect of one, draw by draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hmlm.design import Block, Design
from hmlm.display import clip
from hmlm.errors import HmlmError
from hmlm.palette import GREY, PARTIAL, VERMILION
from hmlm.plots.canvas import (
    PLAIN,
    SEED,
    add_figure_note,
    group_block,
    is_bayesian,
    level_positions,
    look,
    new_axes,
    place_legend,
    set_labels,
)
from hmlm.plots.sizes import check_axes, pick_column, sizes_along

MOST_PANELS = 16
MOST_DRAWS = 3_000


def plot_funnel(
    fit: Any,
    levels: Iterable[Any] | int | None = None,
    columns: str | Sequence[str] | None = None,
    *,
    group: str | None = None,
    axes: Any = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw the sd of a group term, on a log scale, against the effects of groups.

    Where the sd is small, effects can only be near zero: the draws fill a funnel. A sampler whose
    coordinates are the effects themselves (centred) needs ever smaller steps towards its neck;
    where its steps are too large a trajectory diverges, and what lies below is not explored. The
    shaded cone holds 95% of groups at each sd. Effects that are integrated out while the sd is
    sampled, and are drawn afterwards, have the same funnel, but no sampler has to walk it: the
    figure says so.

    Parameters
    ----------
    fit : BayesFit
        A posterior under partial pooling.
    levels : iterable or int, optional
        Labels of the groups to draw, a panel each, or how many: those with the least data. By
        default the one with the least.
    columns : str or sequence of str, optional
        Columns of the group term, a panel each; the first by default.
    group : str, optional
        Grouping factor; by default the first of the formula.
    axes : array of matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        A panel for each level and column, the columns of one level side by side. At most 3,000
        draws are shown, a random sample of more; of divergent ones all.

    Raises
    ------
    HmlmError
        If the fit is no posterior or does not pool partially, if a level, a column or a grouping
        factor does not exist, or if there are more panels than can be read.

    References
    ----------
    .. [1] Neal (2003), Slice sampling, Annals of Statistics 31, 705-767, section 8.
    .. [2] Betancourt and Girolami (2015), Hamiltonian Monte Carlo for hierarchical models, in
       Current Trends in Bayesian Methodology with Applications.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.funnel import plot_funnel
    >>> eight = hmlm.load_dataset("eight_schools")
    >>> model = hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma")
    >>> fit = model.fit(hmlm.NUTS(draws=200, tune=200), random_seed=1, progressbar=False)
    >>> axes = plot_funnel(fit, levels=["A", "H"])
    >>> [ax.get_title(loc="left") for ax in axes], axes[0].get_yscale()
    (['school A', 'school H'], 'log')
    """
    design: Design = fit.design
    _check_fit(fit, design)
    block = group_block(design, group)
    names = [columns] if isinstance(columns, str) else columns
    chosen = [0] if names is None else [pick_column(block, c) for c in names]
    places = _choose(design, block, levels)
    panels = [(j, k) for j in places for k in chosen]
    if not 0 < len(panels) <= MOST_PANELS:
        raise HmlmError(
            f"{len(panels)} panels cannot be read: choose from 1 to {MOST_PANELS} levels of "
            f"'{block.group}', for example levels=4."
        )
    wide = min(len(panels), 4 if len(chosen) == 1 else max(1, 4 // len(chosen)) * len(chosen))
    tall = -(-len(panels) // wide)
    own = axes is None
    if own:
        width = max(2.7 * wide + 0.5, 4.6)
        grid = new_axes(tall, wide, size or (width, 2.8 * tall + 1.0)).ravel()
        for ax in grid[len(panels) :]:
            ax.remove()
        axes = grid[: len(panels)]
    axes = check_axes(axes, len(panels))
    sds = fit.variable(f"sd_{block.group}")
    effects = fit.variable(f"b_{block.group}")
    bad = _divergent(fit, sds.shape[:2])
    shown = _shown(bad)
    with look():
        for ax, (j, k) in zip(axes, panels, strict=True):
            sd, effect = sds[..., k].reshape(-1), effects[:, :, j, k].reshape(-1)
            _draw(ax, sd, effect, bad, shown)
            title = f"{block.group} {block.levels[j]}"
            if len(chosen) > 1:
                title += f", {block.columns[k]}"
            ax.set_title(clip(title, 28), loc="left", **PLAIN)
            set_labels(
                ax,
                x=f"effect on {block.columns[k]}",
                y=f"sd_{block.group}[{block.columns[k]}]",
            )
        handles, heads = _legend(int(bad.sum()), bad.size)
        figure = axes[0].figure
        place_legend(figure, handles, heads, loc="outside upper left")
        add_figure_note(axes, _notes(fit, block, bad), own)
    return axes


def _check_fit(fit: Any, design: Design) -> None:
    if not is_bayesian(fit):
        raise HmlmError(
            f"{fit.label} has no draws, and the funnel is one of draws: fit the model with "
            "hmlm.NUTS()."
        )
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            f"{fit.label} does not pool partially, so no sd governs the effects of its groups: "
            "pass a fit of a model with a group term."
        )


def _choose(design: Design, block: Block, levels: Iterable[Any] | int | None) -> list[int]:
    if levels is None or isinstance(levels, (int, np.integer)):
        wanted = 1 if levels is None else int(levels)
        order = np.argsort(sizes_along(design, block), kind="stable")
        return [int(j) for j in order[: max(wanted, 0)]]
    chosen = [levels] if isinstance(levels, str) else list(levels)
    return level_positions(block.levels, chosen, block.group)


def _divergent(fit: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return which draws diverged, in one row."""
    found = fit._stats.get("diverging")
    return np.asarray(np.zeros(shape) if found is None else found, dtype=bool).reshape(-1)


def _shown(bad: np.ndarray) -> np.ndarray:
    """Choose the draws that are drawn, of those that did not diverge."""
    fine = np.flatnonzero(~bad)
    if len(fine) <= MOST_DRAWS:
        return fine
    return np.sort(np.random.default_rng(SEED).choice(fine, MOST_DRAWS, replace=False))


def _draw(ax: Any, sd: np.ndarray, effect: np.ndarray, bad: np.ndarray, shown: np.ndarray) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    seen = np.concatenate([shown, np.flatnonzero(bad)])
    known = sd[seen]
    high = float(known.max())
    low = float(known[known > 0].min(initial=high))
    # Few draws lie far down: a scale of many decades would hide all others.
    low = max(low, high * 1e-4)
    bottom, top = low / 1.3, high * 1.3
    reach = 1.08 * float(np.abs(effect[seen]).max()) or 1.0
    heights = np.geomspace(bottom, top, 100)
    half = np.minimum(1.96 * heights, reach)
    ax.fill_betweenx(heights, -half, half, color=GREY, alpha=0.13, linewidth=0, zorder=0.5)
    alpha = float(np.clip(14 / np.sqrt(max(len(shown), 1)), 0.22, 0.7))
    dots = {"s": 9, "color": PARTIAL, "alpha": alpha, "linewidths": 0, "zorder": 2}
    ax.scatter(effect[shown], sd[shown], **dots)
    if bad.any():
        marks = {"s": 34, "marker": "X", "edgecolors": "white", "linewidths": 0.5, "zorder": 3}
        ax.scatter(effect[bad], sd[bad], color=VERMILION, **marks)
    ax.set_yscale("log")
    ax.set_ylim(bottom, top)
    ax.set_xlim(-reach, reach)
    subs = (1.0, 2.0, 5.0) if top / bottom < 200 else (1.0,)
    ax.yaxis.set_major_locator(LogLocator(subs=subs))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.locator_params(axis="x", nbins=5)


def _legend(diverged: int, total: int) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bare: dict[str, Any] = {"linestyle": "", "markeredgewidth": 0}
    handles: list[Any] = [
        Line2D([], [], marker="o", markersize=4, color=PARTIAL, **bare),
        Patch(color=GREY, alpha=0.2, linewidth=0),
    ]
    names = ["draws", "95% of groups, given the sd"]
    if diverged:
        handles.insert(1, Line2D([], [], marker="X", markersize=7, color=VERMILION, **bare))
        names.insert(1, f"divergent ({diverged:,} of {total:,})")
    return handles, names


def _notes(fit: Any, block: Block, bad: np.ndarray) -> list[str]:
    """Say how the funnel was explored."""
    form = ""
    if fit._centered and block.group in fit._centered:
        form = f"Effects {'' if fit._centered[block.group] else 'not '}centred. "
    if fit._stats.get("diverging") is None:
        return [f"{form}{fit.label} has no divergences to show: it follows no trajectories."]
    if fit._conditional and block is fit.design.blocks[0] and not bad.any():
        return [
            "Effects integrated out while the sd was sampled, and",
            "drawn afterwards: no trajectory, so no divergence here.",
        ]
    share = f"{int(bad.sum()):,} of {bad.size:,} draws diverged."
    return [form + (share if bad.any() else f"None of {bad.size:,} draws diverged.")]
