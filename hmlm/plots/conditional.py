"""Estimates of groups at every between-group sd, from complete pooling to none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import optimize

from hmlm.design import Block, Design
from hmlm.display import clip
from hmlm.errors import HmlmError, counted
from hmlm.fitting.maximum_likelihood import REML
from hmlm.palette import COMPLETE, INK, NAVY, NONE, PARTIAL
from hmlm.plots.canvas import (
    PLAIN,
    add_note,
    drawn_groups,
    group_areas,
    group_block,
    is_bayesian,
    look,
    new_axes,
    place_legend,
)
from hmlm.plots.conditional_estimates import ConditionalEstimates, condition_on_sd
from hmlm.plots.sizes import DASHES, check_axes, determined_groups, pick_column

GRID = 121
MOST_LABELS = 12
MOST_CURVES = 150  # more of them cover each other


def plot_conditional(
    model: Any,
    *,
    group: str | None = None,
    column: str | None = None,
    sds: Sequence[float] | None = None,
    axes: Any = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    r"""Draw each group's estimate at every between-group sd tau, and what the data say of tau.

    The upper panel has the conditional mean of each group's total (of its line, with group-level
    predictors) given tau, from complete pooling at zero to no pooling at infinity; the middle one
    its conditional sd; the lower one the posterior of tau. Partial pooling averages the curves
    over that posterior.

    For gaussian models with one grouping factor, under a flat prior on beta. With known standard
    errors and one effect of each group the curves are exact (BDA, equations 5.17 to 5.21). With an
    unknown sigma, sigma is at its restricted maximum likelihood estimate given tau; with several
    effects of each group, the other sds and the correlations are those of the fit. The posterior
    is that of the draws of a Bayesian fit, under its priors; and, as a line, the restricted
    likelihood of tau, scaled to a density: its posterior under a flat prior on tau where the
    standard errors are known, and a profile over sigma otherwise.

    Parameters
    ----------
    model : Model, BayesFit or ClassicalFit
        A model, or a fit of it. Of a model with several effects of each group, or without `sds`,
        the REML fit is used.
    group : str, optional
        Grouping factor.
    column : str, optional
        Column of its group term; the first by default.
    sds : sequence of float, optional
        Values of tau; by default 121 from zero to well above the estimate.
    axes : array of three matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        Three: estimates, their sds, posterior of tau.

    Raises
    ------
    HmlmError
        If the model is not gaussian, has another number of grouping factors than one, or does not
        pool partially; if `sds` are no increasing numbers from zero; or if a column is unknown.

    References
    ----------
    .. [1] Gelman et al. (2013), Bayesian Data Analysis, third edition, figures 5.5 to 5.7.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.conditional import plot_conditional
    >>> eight = hmlm.load_dataset("eight_schools")
    >>> axes = plot_conditional(hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma"))
    >>> [ax.get_ylabel() for ax in axes]
    ['Intercept', 'its sd', 'density']
    """
    design: Design = model.design
    _check_model(design)
    block = group_block(design, group)
    k = pick_column(block, column)
    fit = model if hasattr(model, "describe") else REML().run(design)
    D = _population(fit, block)
    grid = _grid(design, block, k, float(np.sqrt(D[k, k]))) if sds is None else _check_sds(sds)
    scale = max(float(grid[-1]), np.sqrt(D[k, k]), 1e-8)
    curves = condition_on_sd(design, block, k, grid, D)
    ends = condition_on_sd(design, block, k, np.array([0.0, 1e4 * scale]), D)
    # Groups whose rows do not determine their effects have no estimate without pooling.
    alone = determined_groups(block)
    ends.mean[1, ~alone] = ends.sd[1, ~alone] = np.nan
    if axes is None:
        heights = {"height_ratios": (3.2, 2.0, 1.5)}
        axes = new_axes(3, 1, size or (6.6, 7.4), sharex=True, gridspec_kw=heights)[:, 0]
    axes = check_axes(axes, 3)
    drawn, notes = drawn_groups(len(block.levels), MOST_CURVES)
    areas, meaning = group_areas(
        block.sizes[drawn], float(np.clip(260 / np.sqrt(len(drawn)), 8, 36))
    )
    with look():
        _draw_curves(axes, _some(curves, drawn), _some(ends, drawn), block.levels[drawn], areas)
        _draw_posterior(axes[2], curves, fit, block, k)
        at = float(grid[-1])
        ticks = [t for t in axes[2].get_xticks() if 0 <= t <= 0.97 * at]
        axes[2].set_xticks([*ticks, 1.1 * at], [*(f"{t:g}" for t in ticks), "\u221e"])
        axes[2].get_xticklabels()[-1].set_fontsize(11.5)
        for ax in axes:
            ax.set_xlim(-0.03 * at, (1.32 if len(block.levels) <= MOST_LABELS else 1.15) * at)
        axes[0].set_ylabel(clip(block.columns[k], 40), **PLAIN)
        axes[1].set_ylabel("its sd")
        axes[2].set_ylabel("density")
        axes[2].set_xlabel(
            clip(f"between-group sd of {block.columns[k]} by {block.group}", 60), **PLAIN
        )
        for ax in axes[:2]:
            ax.set_xlabel("")
        if not alone.all():
            blank = f"{(~alone).sum():,} of {counted(len(alone), 'group')}"
            notes.append(f"{blank} have no estimate of their own.")
        add_note(axes[2], [*notes, *meaning])
    return axes


def _some(curves: ConditionalEstimates, drawn: np.ndarray) -> ConditionalEstimates:
    """Return the curves of some groups."""
    return replace(curves, mean=curves.mean[:, drawn], sd=curves.sd[:, drawn])


def _check_model(design: Design) -> None:
    wrong = ""
    if str(design.spec.family) != "gaussian" or design.distributional:
        wrong = f"is of the {design.spec.family} family, or models more than the mean"
    elif design.spec.pooling != "partial":
        wrong = f"has {design.spec.pooling} pooling"
    elif len(design.blocks) != 1:
        wrong = f"has {len(design.blocks)} grouping factors"
    if wrong:
        raise HmlmError(
            "plot_conditional draws gaussian models of the mean with one grouping factor under "
            f"partial pooling, and this model {wrong}: hmlm.plot_shrinkage draws any fit."
        )


def _check_sds(sds: Sequence[float]) -> np.ndarray:
    grid = np.asarray(sds, dtype=float).reshape(-1)
    rising = len(grid) >= 2 and bool((np.diff(grid) > 0).all())
    if not (rising and np.isfinite(grid).all() and grid[0] >= 0):
        raise HmlmError("sds must be two or more increasing finite numbers from zero up.")
    return grid


def _population(fit: Any, block: Block) -> np.ndarray:
    sd = np.asarray(fit.describe(f"sd_{block.group}", 0.95).estimate, dtype=float)
    R = np.eye(len(sd))
    if block.correlated:
        R = np.nan_to_num(np.array(fit.describe(f"cor_{block.group}", 0.95).estimate))
        np.fill_diagonal(R, 1.0)
    return np.asarray(R * np.outer(sd, sd))


def _grid(design: Design, block: Block, k: int, estimate: float) -> np.ndarray:
    """Return sds from zero to where estimates come near to no pooling."""
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    spread = 1.0
    if not design.known_se:
        squares = ((design.response - design.X @ _least_squares(design)) ** 2).sum()
        squares += 0.0 if design.cells is None else design.cells.rest
        spread = float(np.sqrt(squares / design.n_rows))
    own = np.bincount(block.index, w * block.Z[:, k] ** 2, len(block.levels))
    error = spread / np.sqrt(np.median(own[own > 0])) if (own > 0).any() else spread
    top = max(2.5 * estimate, 2.2 * float(error))
    return np.linspace(0.0, top or 1.0, GRID)


def _least_squares(design: Design) -> np.ndarray:
    return np.asarray(np.linalg.lstsq(design.X, design.response, rcond=None)[0])


def _draw_curves(
    axes: np.ndarray,
    curves: ConditionalEstimates,
    ends: ConditionalEstimates,
    levels: Any,
    areas: np.ndarray,
) -> None:
    from matplotlib.collections import LineCollection

    J, at = len(levels), float(curves.sds[-1])
    alpha = float(np.clip(6.0 / np.sqrt(J), 0.25, 0.95))
    width = 1.4 if J <= 40 else 0.7
    far = 1.1 * at
    panels = ((axes[0], curves.mean, ends.mean, 0.07), (axes[1], curves.sd, ends.sd, 0.11))
    for ax, drawn, limits, step in panels:
        lines = [np.column_stack([curves.sds, drawn[:, j]]) for j in range(J)]
        ax.add_collection(
            LineCollection(lines, colors=PARTIAL, linewidths=width, alpha=alpha, zorder=2)
        )
        last = [np.array([[at, drawn[-1, j]], [far, limits[1, j]]]) for j in range(J)]
        ax.add_collection(
            LineCollection(
                last, colors=PARTIAL, linestyles=":", linewidths=0.8, alpha=0.6 * alpha, zorder=1.9
            )
        )
        dots = {"s": areas, "linewidths": 0, "zorder": 2.3}
        ax.scatter(np.zeros(J), limits[0], color=COMPLETE, alpha=alpha, **dots)
        ax.scatter(np.full(J, far), limits[1], color=NONE, alpha=alpha, **dots)
        ax.autoscale_view()
        if J <= MOST_LABELS:
            _name_lines(ax, limits[1], [clip(level, 14) for level in levels], far, step)
    handles = [
        axes[0].scatter([], [], s=30, color=COMPLETE, linewidths=0),
        LineCollection([], colors=PARTIAL, linewidths=1.6),
        axes[0].scatter([], [], s=30, color=NONE, linewidths=0),
    ]
    names = ["complete pooling", "given the between-group sd", "no pooling"]
    place_legend(axes[0], handles, names)


def _name_lines(ax: Any, heights: np.ndarray, names: list[str], far: float, share: float) -> None:
    """Write each group's name at the right end of its line, a share of the axis apart at least."""
    low, high = ax.get_ylim()
    step = share * (high - low)
    order = np.argsort(heights, kind="stable")[: int(np.isfinite(heights).sum())]
    wanted = heights[order]
    # The nearest places in this order that lie a step apart: least squares under that constraint.
    shift = step * np.arange(len(wanted))
    flat = optimize.isotonic_regression(wanted - shift).x
    # Within the axes: bounds on an isotonic regression are had by cutting it off.
    flat = np.clip(flat, low + 0.3 * step, max(high - shift[-1] - 0.3 * step, low + 0.3 * step))
    for place, j in zip(flat + shift, order, strict=True):
        ax.annotate(
            names[j],
            (far, heights[j]),
            (1.05 * far, place),
            fontsize=8,
            color=INK,
            va="center",
            arrowprops={"arrowstyle": "-", "color": COMPLETE, "linewidth": 0.4, "shrinkB": 3},
            annotation_clip=False,
            **PLAIN,
        )


def _draw_posterior(
    ax: Any, curves: ConditionalEstimates, fit: Any, block: Block, column: int
) -> None:
    grid = curves.sds
    if is_bayesian(fit):
        draws = fit.variable(f"sd_{block.group}")[..., column].reshape(-1)
        bins = np.linspace(0.0, grid[-1], 41)
        counts = np.histogram(draws, bins)[0] / (len(draws) * np.diff(bins))
        ax.stairs(
            counts, bins, fill=True, color=PARTIAL, alpha=0.3, linewidth=0, label=f"{fit.label}"
        )
    density = np.exp(curves.log_likelihood - curves.log_likelihood.max())
    area = float(np.trapezoid(density, grid))
    ax.plot(
        grid,
        density / (area or 1.0),
        color=NAVY,
        linestyle=DASHES if is_bayesian(fit) else "-",
        linewidth=1.4,
        label="likelihood of the sd",
    )
    ax.set_ylim(bottom=0)
    place_legend(ax, *ax.get_legend_handles_labels(), loc="upper right")
