"""Figures of predictive checks: bars of counts, calibration of probabilities, residuals."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from hmlm.check_statistics import CALIBRATION_BINS, bin_counts, count_bins, draw_residuals
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.outcome_distribution import outcome_moments
from hmlm.palette import BLUE, GREY, INK, VERMILION
from hmlm.plots.canvas import look, new_axes, set_labels
from hmlm.replicates import check_draws, draw_replicates, replicate_rows, replicated_parameters

MANY_ROWS = 800
RUNNING_BINS = 20


def plot_rootogram(
    fit: Any,
    draws: int = 500,
    random_seed: int | None = None,
    ax: Any = None,
    size: tuple[float, float] = (6.4, 3.8),
) -> Any:
    """Draw a hanging rootogram: bars of the data hang from the curve that the model expects.

    Heights are square roots of numbers of rows, so that rare counts can be seen. A bar that ends
    below zero has too many rows, one that ends above zero too few; the band around zero is where
    95% of replicates end.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit of counts.
    draws : int
        Number of replicates.
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

    Raises
    ------
    HmlmError
        If the outcome is no count.

    References
    ----------
    Kleiber, C., and Zeileis, A. (2016). Visualizing count data regressions using rootograms. The
    American Statistician 70, 296-303.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> from hmlm.plots.check_residuals import plot_rootogram
    >>> matplotlib.use("Agg")
    >>> data = hmlm.load_dataset("cbpp")
    >>> fit = hmlm.Model("incidence ~ period + (1 | herd)", data, "poisson").fit(hmlm.Laplace())
    >>> plot_rootogram(fit, draws=100, random_seed=1).get_ylabel()
    'root of the number of rows'
    """
    design: Design = fit.design
    if design.spec.family.outcome != "count":
        raise HmlmError(
            f"a rootogram shows counts; '{design.spec.outcome}' of a {design.spec.family.name} "
            "model is none: use hmlm.plot_ppc(fit)."
        )
    replicates = draw_replicates(fit, draws, "include", random_seed)
    width, last = count_bins(design.y)
    bars = bin_counts(replicates, width, last)
    root = np.sqrt(bars.mean(axis=0))
    own = np.sqrt(bin_counts(design.y[None], width, last)[0])
    low, high = root - np.quantile(np.sqrt(bars), [0.975, 0.025], axis=0)
    at = width * np.arange(last + 1) + (width - 1) / 2
    if ax is None:
        ax = new_axes(1, 1, size)[0, 0]
    ends = root - own
    outside = (ends < low) | (ends > high)
    with look():
        # The band has steps as wide as the bars, those at both ends too.
        steps = np.append(at - width / 2, at[-1] + width / 2)
        shade = {"color": BLUE, "alpha": 0.2, "linewidth": 0, "label": "replicates, 95%"}
        ax.fill_between(steps, *(np.append(v, v[-1]) for v in (low, high)), step="post", **shade)
        for which, color, label in (
            (~outside, GREY, "data"),
            (outside, VERMILION, "data outside the band"),
        ):
            if which.any():
                shape = {"width": 0.8 * width, "color": color, "alpha": 0.6, "label": label}
                ax.bar(at[which], own[which], bottom=ends[which], **shape)
        ax.plot(at, root, "o-", color=BLUE, markersize=3.5, linewidth=1.4, label="expected")
        ax.axhline(0.0, color=INK, linewidth=0.8)
        ax.set_xlim(at[0] - 0.75 * width, at[-1] + 0.75 * width)
        ax.xaxis.get_major_locator().set_params(integer=True)
        more = f" (last bar: {last * width} or more)" if design.y.max() > last * width else ""
        set_labels(ax, x=f"{design.spec.outcome}{more}", y="root of the number of rows")
        ax.legend()
    return ax


def plot_calibration(
    fit: Any,
    draws: int = 500,
    bins: int = CALIBRATION_BINS,
    random_seed: int | None = None,
    ax: Any = None,
    size: tuple[float, float] = (4.8, 4.6),
) -> Any:
    """Draw the share of successes against the probability, with the band of replicates.

    At each draw of the parameters the rows are put in bins of equal size by that draw's
    probabilities; shares and probabilities are then averaged over draws. (Bins by posterior means
    would not lie on the diagonal where groups are small, as the means have seen the data.)

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit of yes/no outcomes or counts out of trials.
    draws : int
        Number of draws.
    bins : int
        Number of bins, at most one for every five rows.
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

    Raises
    ------
    HmlmError
        If the outcome has no successes, or there are too few rows.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> from hmlm.plots.check_residuals import plot_calibration
    >>> matplotlib.use("Agg")
    >>> data = hmlm.load_dataset("contraception")
    >>> model = hmlm.Model("use ~ age + urban + (1 | district)", data, "bernoulli")
    >>> ax = plot_calibration(model.fit(hmlm.Laplace()), draws=50, random_seed=1)
    >>> len(ax.lines[-1].get_xdata())
    10
    """
    design: Design = fit.design
    check_draws(draws)
    if design.spec.family.outcome not in ("binary", "trials"):
        raise HmlmError(
            f"calibration is that of probabilities; a {design.spec.family.name} model has none "
            "of a success: use hmlm.plot_residuals(fit)."
        )
    bins = min(int(bins), len(design.y) // 5)
    if bins < 2:
        raise HmlmError(
            f"{len(design.y)} rows cannot fill two bins of five rows: use hmlm.plot_ppc(fit)."
        )
    x, y, low, high = _calibrate(fit, draws, bins, np.random.default_rng(random_seed))
    if ax is None:
        ax = new_axes(1, 1, size)[0, 0]
    outside = (y < low) | (y > high)
    top = min(1.0, 1.1 * max(x.max(), y.max(), high.max()))
    with look():
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (5, 2)), zorder=1)
        ax.fill_between(x, low, high, color=BLUE, alpha=0.2, linewidth=0, label="replicates, 95%")
        colors = np.where(outside, VERMILION, INK)
        ax.scatter(x, y, c=colors, s=26, linewidths=0, zorder=4)
        ax.plot(x, y, color=INK, linewidth=1.2, zorder=3, label="data")
        ax.set_xlim(0, top)
        ax.set_ylim(0, top)
        set_labels(ax, x="probability", y=f"share of {design.spec.outcome}")
        ax.legend(loc="upper left")
    return ax


def _calibrate(
    fit: Any, draws: int, bins: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return probability, share and interval of the replicated share of every bin."""
    design: Design = fit.design
    n = np.ones(len(design.y)) if design.trials is None else design.trials
    starts = np.linspace(0, len(n), bins + 1).astype(int)[:-1]
    found: list[np.ndarray] = []
    posterior = replicated_parameters(fit, draws, "include", rng)
    for rows in replicate_rows(design, posterior, "include", rng):
        p = outcome_moments(design.spec.family, rows.etas[0], rows.values)[0]
        order = np.argsort(p, axis=1)
        total = np.add.reduceat(n[order], starts, axis=1)
        for values in (n * p, np.broadcast_to(design.y, p.shape), rows.y):
            sums = np.add.reduceat(np.take_along_axis(values, order, axis=1), starts, axis=1)
            found.append(sums / np.maximum(total, 1.0))
    p, own, drawn = (np.concatenate(found[k::3]) for k in range(3))
    x = p.mean(axis=0)
    # The distance from the draw's own probability, put where the mean of the bin is.
    low, high = np.quantile(drawn - p, [0.025, 0.975], axis=0)
    return x, x + (own - p).mean(axis=0), np.maximum(x + low, 0), np.minimum(x + high, 1)


def plot_residuals(
    fit: Any,
    random_seed: int | None = 0,
    axes: Any = None,
    size: tuple[float, float] = (8.4, 3.8),
) -> np.ndarray:
    """Draw residuals against fitted values, and their quantiles against the normal ones.

    The residuals are quantile residuals, randomised for discrete outcomes (Dunn and Smyth 1996),
    at one draw of the parameters: when the model holds they are standard normal, whatever the
    family, and without loss for the estimation of parameters and group effects (Johnson 2004; Yuan
    and Johnson 2012). Another `random_seed` takes another draw.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    random_seed : int, optional
        Seed of the draw and of the places of discrete outcomes.
    axes : array of two matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float)
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        The two panels.

    Raises
    ------
    HmlmError
        If the outcome is a category without order.

    References
    ----------
    Dunn, P. K., and Smyth, G. K. (1996). Randomized quantile residuals. Journal of Computational
    and Graphical Statistics 5, 236-244. Johnson, V. E. (2004). A Bayesian chi-squared test for
    goodness-of-fit. Annals of Statistics 32, 2361-2384. Yuan, Y., and Johnson, V. E. (2012).
    Goodness-of-fit diagnostics for Bayesian hierarchical models. Biometrics 68, 156-164.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> from hmlm.plots.check_residuals import plot_residuals
    >>> matplotlib.use("Agg")
    >>> data = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", data).fit(hmlm.REML())
    >>> [ax.get_xlabel() for ax in plot_residuals(fit)]
    ['fitted Reaction', 'normal quantile']
    """
    design: Design = fit.design
    if design.spec.family.outcome == "category":
        raise HmlmError(
            f"the categories of '{design.spec.outcome}' have no order, and so no residual: use "
            "hmlm.plot_ppc(fit)."
        )
    fitted, residuals = _one_draw(fit, np.random.default_rng(random_seed))
    panels = new_axes(1, 2, size)[0] if axes is None else np.asarray(axes).ravel()
    if len(panels) < 2:
        raise HmlmError(f"two panels need two axes; {len(panels)} was given.")
    n = len(fitted)
    dots = {
        "color": INK,
        "markeredgewidth": 0,
        "markersize": 2.2 if n > MANY_ROWS else 3.8,
        "alpha": float(np.clip(400 / n, 0.12, 0.6)),
        "rasterized": n > 20_000,
    }
    with look():
        _draw_against_fitted(panels[0], design, fitted, residuals, dots)
        _draw_quantiles(panels[1], residuals, dots)
    return np.asarray(panels[:2])


def _one_draw(fit: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return fitted values and residuals at one draw of the parameters, taken at random."""
    design: Design = fit.design
    posterior = replicated_parameters(fit, 100, "include", rng)
    k = int(rng.integers(100))
    one = {name: values[k : k + 1] for name, values in posterior.items()}
    rows = next(iter(replicate_rows(design, one, "include", rng)))
    mean = outcome_moments(
        design.spec.family, rows.etas[0], rows.values, None, design.weights, rows.probabilities
    )[0]
    return mean[0], draw_residuals(design, rows, design.y, rng)[0]


def _draw_against_fitted(
    ax: Any, design: Design, fitted: np.ndarray, residuals: np.ndarray, dots: dict[str, Any]
) -> None:
    n = len(fitted)
    ax.plot(fitted, residuals, "o", zorder=2, **dots)
    ax.axhline(0.0, color=GREY, linewidth=0.9, linestyle=(0, (5, 2)), zorder=1)
    bins = min(RUNNING_BINS, n // 8)
    if bins >= 3 and np.ptp(fitted) > 0:
        order = np.argsort(fitted)
        starts = np.linspace(0, n, bins + 1).astype(int)
        sizes = np.diff(starts)
        x = np.add.reduceat(fitted[order], starts[:-1]) / sizes
        mean = np.add.reduceat(residuals[order], starts[:-1]) / sizes
        half = 1.96 / np.sqrt(sizes)
        ax.fill_between(x, -half, half, color=BLUE, alpha=0.22, linewidth=0, zorder=3)
        ax.plot(x, mean, color=BLUE, linewidth=2.0, zorder=4)
        ax.set_title("line: mean of neighbours; band: 95%", fontsize=8.5, color=GREY)
    if design.spec.family.outcome in ("count", "positive") and fitted.min() > 0:
        if fitted.max() / fitted.min() > 50:
            ax.set_xscale("log")
    set_labels(ax, x=f"fitted {design.spec.outcome}", y="quantile residual")


def _draw_quantiles(ax: Any, residuals: np.ndarray, dots: dict[str, Any]) -> None:
    """Draw sorted residuals over the 95% intervals of normal order statistics."""
    n = len(residuals)
    rank = np.arange(1, n + 1)
    normal = special.ndtri((rank - 0.375) / (n + 0.25))
    low, high = (special.ndtri(special.betaincinv(rank, n + 1 - rank, q)) for q in (0.025, 0.975))
    ax.fill_between(normal, low, high, color=BLUE, alpha=0.22, linewidth=0, zorder=1)
    ax.plot(normal, normal, color=GREY, linewidth=0.9, linestyle=(0, (5, 2)), zorder=2)
    ax.plot(normal, np.sort(residuals), "o", zorder=3, **{**dots, "alpha": 0.8})
    ax.set_title("band: 95% of each quantile", fontsize=8.5, color=GREY)
    set_labels(ax, x="normal quantile", y="quantile residual")
