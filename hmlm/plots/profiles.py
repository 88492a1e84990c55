"""Profile likelihoods over posteriors: what the prior, and averaging over the rest, change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hmlm.display import clip
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.fitting.parameters import Parameter, chosen_parameters
from hmlm.fitting.profile import profile_intervals, profile_likelihood
from hmlm.palette import GREY, NAVY, PARTIAL, style
from hmlm.plots.canvas import PLAIN, add_figure_note, is_bayesian, look, new_axes, place_legend
from hmlm.plots.checks import density
from hmlm.plots.sizes import check_axes, check_figure_prob

MOST_PANELS = 12
GRID = 200
FAR = 0.999


def plot_profile(
    fit: Any,
    bayes_fit: Any,
    parameters: str | Sequence[str] | None = None,
    *,
    prob: float = 0.95,
    columns: int = 4,
    axes: Any = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw the profile likelihood of parameters over their posterior densities.

    The profile is the likelihood with all other parameters at their best for each value; the
    posterior has them averaged over, under the prior. With much data both are one normal curve.
    For an sd of few groups they differ: the profile may be highest at zero, while the posterior
    has a long tail of large values. Each is drawn to its own height. The bars below are the
    intervals of both: the values that a likelihood-ratio test does not reject, and the middle of
    the posterior.

    Parameters
    ----------
    fit : ClassicalFit
        A fit of a gaussian model that pools partially. The likelihood is that of ML, as in R: a
        fit by REML is refitted.
    bayes_fit : BayesFit
        A posterior of the same model.
    parameters : str or sequence of str, optional
        Their names: ``"Days"``, ``"sd_Subject[Days]"``, ``"cor_Subject[Intercept, Days]"``,
        ``"sigma"``; the first 12 by default.
    prob : float
        Probability of the intervals.
    columns : int
        Panels in a row.
    axes : array of matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        One for each parameter.

    Raises
    ------
    HmlmError
        If the fits are not one classical and one by sampling of the same model, if the model is
        not gaussian, or there is no parameter of that name.

    References
    ----------
    .. [1] Bates, Maechler, Bolker and Walker (2015), Fitting linear mixed-effects models using
       lme4, Journal of Statistical Software 67(1), section 5.1.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.profiles import plot_profile
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> bayes = model.fit(hmlm.NUTS(draws=200, tune=200), random_seed=1, progressbar=False)
    >>> axes = plot_profile(model.fit(hmlm.ML()), bayes, ["sd_Batch[Intercept]", "sigma"])
    >>> [ax.get_title(loc="left") for ax in axes]
    ['sd_Batch[Intercept]', 'sigma']
    """
    check_figure_prob(prob)
    if columns < 1:
        raise HmlmError(f"columns is a number of panels in a row, not {columns}.")
    _check_fits(fit, bayes_fit)
    chosen = _choose(fit, bayes_fit, parameters)
    shown = chosen[:MOST_PANELS] if parameters is None else chosen
    if len(shown) > 2 * MOST_PANELS:
        raise HmlmError(
            f"{len(shown)} panels cannot be read: name at most {2 * MOST_PANELS} parameters."
        )
    wide = min(columns, len(shown))
    tall = -(-len(shown) // wide)
    own = axes is None
    if own:
        width = max(2.6 * wide + 0.3, 4.6)
        grid = new_axes(tall, wide, size or (width, 2.1 * tall + 0.9)).ravel()
        grid[0].figure.get_layout_engine().set(w_pad=0.09)  # ticks at both ends of each panel
        for ax in grid[len(shown) :]:
            ax.remove()
        axes = grid[: len(shown)]
    axes = check_axes(axes, len(shown))
    table = profile_intervals(fit, prob, [p.name for p in shown])
    blank = []
    with look():
        for ax, parameter, ends in zip(
            axes, shown, table[["lower", "upper"]].to_numpy(dtype=float), strict=True
        ):
            if not _draw(ax, fit, bayes_fit, parameter, ends, prob):
                blank.append(parameter.name)
        handles, names = _legend(bayes_fit, prob)
        place_legend(axes[0].figure, handles, names, loc="outside upper left")
        notes = []
        if str(fit.method) == "REML":
            notes.append("The likelihood is that of ML.")
        if blank:
            notes.append(f"No profile (an effect without variance): {listed(blank)}.")
        if len(shown) < len(chosen):
            left = counted(len(chosen) - len(shown), "more parameter")
            notes.append(f"{left}: name them with parameters=[...].")
        add_figure_note(axes, notes, own)
    return axes


def _check_fits(fit: Any, bayes_fit: Any) -> None:
    if is_bayesian(fit) or not is_bayesian(bayes_fit):
        raise HmlmError(
            "plot_profile draws a classical fit, by hmlm.REML() or hmlm.ML(), and one by sampling, "
            f"in that order, not {fit.label} and {bayes_fit.label}."
        )
    own, other = fit.design, bayes_fit.design
    same = len(own.y) == len(other.y) and np.array_equal(own.y, other.y)
    if not same:
        raise HmlmError(
            f"{fit.label} and {bayes_fit.label} are fits of different rows or outcomes: fit them "
            "to the same table."
        )


def _choose(fit: Any, bayes_fit: Any, names: str | Sequence[str] | None) -> list[Parameter]:
    """Return the parameters that both fits have."""
    chosen = chosen_parameters(fit.design, names)
    known = [p.name for p in chosen_parameters(bayes_fit.design, None)]
    absent = [p.name for p in chosen if p.name not in known]
    if absent:
        raise HmlmError(
            f"{bayes_fit.label} has no parameter {listed(absent)}.{suggest(absent[0], known)} Fit "
            "the same model by both methods."
        )
    return chosen


def _draw(
    ax: Any, fit: Any, bayes_fit: Any, parameter: Parameter, ends: np.ndarray, prob: float
) -> bool:
    """Draw one parameter; return whether it has a profile."""
    own = chosen_parameters(bayes_fit.design, [parameter.name])[0]
    draws = bayes_fit.variable(own.variable)[(slice(None), slice(None), *own.place)].reshape(-1)
    trace = None if np.isnan(ends).all() else _trace(fit, parameter)
    low, high = _frame(parameter, draws, trace)
    bayes = style(bayes_fit.design.spec.pooling, bayesian=True)
    tails = np.quantile(draws, [0.5 - prob / 2, 0.5 + prob / 2])
    x, height = density(draws, low, high)
    top = float(height.max()) or 1.0
    ax.fill_between(x, 0, height / top, color=PARTIAL, alpha=0.22, linewidth=0, zorder=1)
    ax.plot(x, height / top, color=bayes.color, linewidth=1.2, zorder=2)
    if trace is not None:
        ax.plot(*trace, color=NAVY, linestyle=(0, (5, 1.5)), linewidth=1.7, zorder=3)
        ax.hlines(-0.09, *np.clip(ends, low, high), color=NAVY, linewidth=2.2, zorder=3)
        at = parameter.value(fit.estimates)
        ax.plot(at, -0.09, "d", color=NAVY, markersize=5.5, zorder=3.2)
    ax.hlines(-0.2, *np.clip(tails, low, high), color=bayes.color, linewidth=2.2, zorder=3)
    ax.plot(float(draws.mean()), -0.2, "o", color=bayes.color, markersize=5, zorder=3.2)
    ax.axhline(0.0, color=GREY, linewidth=0.5, zorder=0.5)
    ax.set_title(clip(parameter.name, 34), loc="left", **PLAIN)
    ax.set_xlim(low, high)
    ax.set_ylim(-0.3, 1.08)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.locator_params(axis="x", nbins=4)
    return trace is not None


def _trace(fit: Any, parameter: Parameter) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative profile likelihood on a grid, exp(-zeta^2 / 2)."""
    from scipy.interpolate import PchipInterpolator

    table = profile_likelihood(fit, parameter.name, prob=FAR, points=9)
    table = table.drop_duplicates("value")
    value = table["value"].to_numpy(dtype=float)
    zeta = table["zeta"].to_numpy(dtype=float)
    if len(value) < 2:
        return value, np.exp(-0.5 * zeta**2)
    grid = np.linspace(value[0], value[-1], GRID)
    # The signed root is nearly straight, so that few points give the whole curve.
    return grid, np.exp(-0.5 * PchipInterpolator(value, zeta)(grid) ** 2)


def _frame(
    parameter: Parameter, draws: np.ndarray, trace: tuple[np.ndarray, np.ndarray] | None
) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(draws, [0.002, 0.995]))
    if trace is not None:
        x, height = trace
        seen = x[height > 0.02]
        low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    pad = 0.06 * (high - low) or 1.0
    low, high = low - pad, high + pad
    if parameter.component == "cor":
        return -1.0, 1.0
    if parameter.component in ("sd", "residual"):
        low = 0.0 if parameter.component == "sd" and low < 0.3 * high else max(low, 0.0)
    return low, high


def _legend(bayes_fit: Any, prob: float) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    color = style(bayes_fit.design.spec.pooling, bayesian=True).color
    handles: list[Any] = [
        Line2D([], [], color=NAVY, linestyle=(0, (5, 1.5)), linewidth=1.7),
        Line2D([], [], color=NAVY, marker="d", markersize=5.5, linewidth=2.2),
        (Patch(color=PARTIAL, alpha=0.22, linewidth=0), Line2D([], [], color=color, linewidth=1.2)),
        Line2D([], [], color=color, marker="o", markersize=5, linewidth=2.2),
    ]
    names = [
        "profile likelihood",
        f"estimate, {prob:.0%} profile interval",
        f"posterior ({bayes_fit.label})",
        f"mean, {prob:.0%} posterior interval",
    ]
    return handles, names
