"""Estimates of groups at every between-group sd, from complete pooling to none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from hmlm.design import Block, Design
from hmlm.display import clip
from hmlm.errors import HmlmError, counted
from hmlm.estimates import line_lead, total_lead
from hmlm.fitting.maximum_likelihood import REML
from hmlm.palette import COMPLETE, INK, NAVY, NONE, PARTIAL
from hmlm.plots.canvas import PLAIN, add_note, group_block, is_bayesian, look, new_axes
from hmlm.plots.sizes import DASHES, check_axes, determined_groups, pick_column

GRID = 121
MOST_LABELS = 12


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ConditionalEstimates:
    """Estimates of J groups at T between-group sds.

    Attributes
    ----------
    sds : ndarray, shape (T,)
        The between-group sds tau.
    mean, sd : ndarray, shape (T, J)
        Conditional mean and sd of the groups' totals (or lines) given tau.
    log_likelihood : ndarray, shape (T,)
        Log restricted likelihood of tau, up to a constant.
    sigma : ndarray, shape (T,)
        Residual sd at each tau; one where the standard errors are known.
    """

    sds: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    log_likelihood: np.ndarray
    sigma: np.ndarray


def condition_on_sd(
    design: Design, block: Block, column: int, sds: np.ndarray, D: np.ndarray
) -> ConditionalEstimates:
    r"""Return what the groups' estimates would be if the between-group sd were known.

    Given tau (and sigma), with a flat prior on beta, effects and totals are normal, with beta
    integrated out exactly. With known standard errors nothing else is left. Otherwise sigma is at
    its restricted maximum likelihood estimate given tau, and with several effects of a group the
    other sds, and the correlations, are those of `D`.

    Parameters
    ----------
    design : Design
        A gaussian model with one grouping factor.
    block : Block
        Its effects.
    column : int
        Position of the effect whose sd is tau.
    sds : ndarray, shape (T,)
        Values of tau, zero or above.
    D : ndarray, shape (q, q)
        Covariance of the effects, whose row and column are rescaled to tau.

    References
    ----------
    .. [1] Gelman et al. (2013), Bayesian Data Analysis, third edition, section 5.4.
    """
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    J, q = len(block.levels), len(block.columns)
    Z, X, y = block.Z, design.X, design.response
    own = np.column_stack([Z, X, y])
    products = np.zeros((J, q, own.shape[1]))
    np.add.at(products, block.index, (w[:, None] * Z)[:, :, None] * own[:, None, :])
    rest = np.column_stack([X, y])
    whole = (w[:, None] * rest).T @ rest
    lead = line_lead(design, block)
    if lead is None:
        lead = np.broadcast_to(total_lead(design, block), (J, q, X.shape[1]))
    factor = np.linalg.cholesky(_correlations(D))
    base = np.sqrt(np.diagonal(D))

    def parts(tau: float, sigma: float) -> tuple[Any, ...]:
        scales = np.array(base)
        scales[column] = tau
        L = scales[:, None] * factor
        M, R = products[:, :, :q] / sigma**2, products[:, :, q:] / sigma**2
        K = np.eye(q) + L.T @ M @ L
        P = L @ np.linalg.solve(K, np.broadcast_to(L.T, (J, q, q)))
        total = whole / sigma**2 - np.einsum("jqa,jqr,jrb->ab", R, P, R)
        A, c = total[:-1, :-1], total[:-1, -1]
        beta = np.linalg.solve(A, c) if len(c) else c
        n, p = len(y), len(c)
        fit = -0.5 * (
            np.linalg.slogdet(K)[1].sum()
            + 2 * n * np.log(sigma)
            + (np.linalg.slogdet(A)[1] if p else 0.0)
            + float(total[-1, -1] - c @ beta)
        )
        return fit, P, R, A, beta

    size = np.sqrt(whole[-1, -1] / len(y)) or 1.0
    found: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    for tau in sds:
        sigma = 1.0
        if not design.known_se:
            best = optimize.minimize_scalar(
                lambda s, tau=tau: -parts(tau, float(np.exp(s)))[0],
                bounds=(np.log(size) - 12, np.log(size) + 2),
                method="bounded",
                options={"xatol": 1e-7},
            )
            sigma = float(np.exp(best.x))
        fit, P, R, A, beta = parts(float(tau), sigma)
        gain = P @ R[:, :, :-1]
        modes = np.einsum("jqr,jr->jq", P, R[:, :, -1])
        left = (lead - gain)[:, column]
        mean = modes[:, column] + left @ beta
        variance = P[:, column, column]
        if len(beta):
            variance = variance + np.einsum("jp,pj->j", left, np.linalg.solve(A, left.T))
        found.append((mean, np.sqrt(np.maximum(variance, 0.0)), fit, sigma))
    return ConditionalEstimates(
        sds=np.asarray(sds, dtype=float),
        mean=np.array([f[0] for f in found]),
        sd=np.array([f[1] for f in found]),
        log_likelihood=np.array([f[2] for f in found]),
        sigma=np.array([f[3] for f in found]),
    )


def _correlations(D: np.ndarray) -> np.ndarray:
    """Return the correlations of D, no nearer to one than a Cholesky factor can be had."""
    sd = np.sqrt(np.diagonal(D))
    R = D / np.where(np.outer(sd, sd) > 0, np.outer(sd, sd), 1.0)
    R = 0.999999 * R
    np.fill_diagonal(R, 1.0)
    return np.asarray(R)


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
    with look():
        _draw_curves(axes, curves, ends, block)
        _draw_posterior(axes[2], curves, fit, block, k)
        at = float(grid[-1])
        ticks = [t for t in axes[2].get_xticks() if 0 <= t <= 0.97 * at]
        axes[2].set_xticks([*ticks, 1.1 * at], [*(f"{t:g}" for t in ticks), "\u221e"])
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
            add_note(axes[2], [f"{blank} have no estimate of their own."])
    return axes


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
        spread = float(np.std(design.response - design.X @ _least_squares(design)))
    own = np.bincount(block.index, w * block.Z[:, k] ** 2, len(block.levels))
    error = spread / np.sqrt(np.median(own[own > 0])) if (own > 0).any() else spread
    top = max(2.5 * estimate, 2.2 * float(error))
    return np.linspace(0.0, top or 1.0, GRID)


def _least_squares(design: Design) -> np.ndarray:
    return np.asarray(np.linalg.lstsq(design.X, design.response, rcond=None)[0])


def _draw_curves(
    axes: np.ndarray, curves: ConditionalEstimates, ends: ConditionalEstimates, block: Block
) -> None:
    from matplotlib.collections import LineCollection

    J, at = len(block.levels), float(curves.sds[-1])
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
        area = float(np.clip(260 / np.sqrt(J), 8, 36))
        ax.scatter(np.zeros(J), limits[0], s=area, color=COMPLETE, linewidths=0, zorder=2.3)
        ax.scatter(
            np.full(J, far), limits[1], s=area, color=NONE, linewidths=0, alpha=alpha, zorder=2.3
        )
        ax.autoscale_view()
        if J <= MOST_LABELS:
            _name_lines(ax, limits[1], [clip(level, 14) for level in block.levels], far, step)
    handles = [
        axes[0].scatter([], [], s=30, color=COMPLETE, linewidths=0),
        LineCollection([], colors=PARTIAL, linewidths=1.6),
        axes[0].scatter([], [], s=30, color=NONE, linewidths=0),
    ]
    names = ["complete pooling", "given the between-group sd", "no pooling"]
    axes[0].legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)


def _name_lines(ax: Any, heights: np.ndarray, names: list[str], far: float, share: float) -> None:
    """Write each group's name at the right end of its line, a share of the axis apart at least."""
    low, high = ax.get_ylim()
    step = share * (high - low)
    order = np.argsort(heights, kind="stable")[: int(np.isfinite(heights).sum())]
    wanted = heights[order]
    # The nearest places in this order that lie a step apart: least squares under that constraint.
    shift = step * np.arange(len(wanted))
    flat = optimize.isotonic_regression(wanted - shift).x
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
    legend = ax.legend(loc="upper right")
    for text in legend.get_texts():
        text.set_parse_math(False)
