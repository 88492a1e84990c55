"""Priors in pictures: the prior of each parameter, with its posterior where there is one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.default_priors import PredictorPriors, ResolvedPriors
from hmlm.design import Design
from hmlm.display import clip
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.palette import GREY, INK, style
from hmlm.plots.canvas import PLAIN, add_note, look, new_axes
from hmlm.prior_distributions import log_prior_density, prior_quantile
from hmlm.priors import Prior

MOST_PANELS = 24
GRID = 400
_MOST_DRAWS = 20_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Panel:
    """One parameter: its name and prior, and the draws of its posterior.

    `order` is the place of a cutpoint among how many, else None. `draws` is empty without a fit;
    `many` holds the averages of several parameters that have one prior, those of groups.
    """

    name: str
    prior: Prior
    note: str
    draws: np.ndarray
    size: int = 0
    order: tuple[int, int] | None = None
    many: np.ndarray | None = None


def plot_priors(fit_or_model: Any, parameters: Sequence[str] | None = None) -> Any:
    """Draw the prior of each parameter, and the posterior over it where a fit is given.

    Parameters
    ----------
    fit_or_model : BayesFit or Model
        A fit by sampling, or a model that has not been fitted.
    parameters : sequence of str, optional
        Which parameters, by their names in ``model.priors``; the first 24 when None. The part
        before the bracket, ``sd_g`` or ``cutpoints``, stands for all of its kind.

    Returns
    -------
    ndarray of matplotlib Axes
        One for each parameter. Each density is drawn to its own height: what is to be compared is
        where prior and posterior lie. The prior is grey; the axis covers its middle 90 percent and
        all of the posterior. An intercept with a centred prior is shown where the prior is, at the
        average of the predictors. Of own coefficients of groups (no pooling) the averages of the
        posterior are marked below.

    Raises
    ------
    HmlmError
        If the fit is classical, so that it has no prior, or there is no parameter of that name.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.plots.priors import plot_priors
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> axes = plot_priors(model)
    >>> [ax.get_title(loc="left") for ax in axes.flat][:2]
    ['Intercept', 'Days']
    """
    design, priors, fit = _read(fit_or_model)
    panels = _choose(_panels(design, priors, fit), parameters)
    shown = panels[:MOST_PANELS] if parameters is None else panels
    wide = min(4, max(1, round(len(shown) ** 0.5 + 0.49)))
    tall = -(-len(shown) // wide)
    axes = new_axes(tall, wide, (2.7 * wide + 0.3, 1.9 * tall + 0.7))
    axes.flat[0].figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    bayes = style(design.spec.pooling, bayesian=True)
    with look():
        for ax, panel in zip(axes.flat, shown, strict=False):
            _draw(ax, panel, bayes)
        for ax in list(axes.flat)[len(shown) :]:
            ax.set_axis_off()
        figure = axes.flat[0].figure
        handles = [_handle(GREY, "prior", True)]
        if fit is not None:
            handles.append(_handle(bayes.color, "posterior", False))
        figure.legend(handles=handles, loc="outside upper right", ncols=2)
        if len(shown) < len(panels):
            left = counted(len(panels) - len(shown), "more parameter")
            add_note(axes[-1, 0], [f"{left}: name them with parameters=[...]."])
    return axes


def _read(source: Any) -> tuple[Design, ResolvedPriors, BayesFit | None]:
    """Return design and priors of a fit or a model, and the fit if it is one."""
    if isinstance(source, BayesFit):
        return source.design, source.priors, source
    if hasattr(source, "_resolved"):
        return source.design, source._resolved(), None
    raise HmlmError(
        f"{getattr(source, 'label', type(source).__name__)} has no prior to draw: pass a model, "
        "or its fit by hmlm.NUTS()."
    )


def _panels(design: Design, priors: ResolvedPriors, fit: BayesFit | None) -> list[Panel]:
    """Return a panel for each parameter, in the order of the table of priors."""
    written = {e.parameter: e.prior for e in priors.entries}
    draws: dict[str, np.ndarray] = {}
    for v in design.variables if fit is not None else ():
        if v.kind != "group" or design.spec.pooling == "none":
            values = fit.variable(v.name)  # type: ignore[union-attr]
            draws[v.name] = values.reshape(-1, *values.shape[2:])
    blank = np.zeros(0)
    found: list[Panel] = []
    last: list[Panel] = []
    if priors.cutpoints is not None:
        labels = design.coords["cutpoint"]
        cut = draws.get("cutpoints")
        if cut is not None and "beta" in draws:
            cut = cut - (draws["beta"] @ priors.x_means)[:, None]
        at = " at average predictors" if np.any(priors.x_means) else ""
        for k, label in enumerate(labels):
            own = blank if cut is None else cut[:, k]
            name, order = f"cutpoints[{label}]", (k + 1, len(labels))
            found.append(Panel(name=name, prior=priors.cutpoints, note=at, draws=own, order=order))
    for p in design.predictors:
        own_priors: PredictorPriors = priors.predictor(p.name)
        beta = draws.get(p.named("beta"))
        if beta is not None:
            beta = beta + own_priors.constant * (beta @ own_priors.x_means)[:, None]
        for k, term in enumerate(p.terms):
            centred = own_priors.constant[k] != 0 and np.any(own_priors.x_means)
            note = " at average predictors" if centred else ""
            values = blank if beta is None else beta[:, k]
            found.append(
                Panel(name=p.named(term), prior=own_priors.beta[k], note=note, draws=values)
            )
        for block in p.blocks:
            g, q = block.group, len(block.columns)
            for k, column in enumerate(block.columns):
                name = p.named(f"sd_{g}[{column}]")
                if name in written:
                    sd = draws.get(p.named(f"sd_{g}"))
                    values = blank if sd is None else sd[:, k]
                    found.append(Panel(name=name, prior=written[name], note="", draws=values))
                name = p.named(f"b_{g}[{column}]")
                if name in written:
                    b = draws.get(p.named(f"b_{g}"))
                    own = blank if b is None else b[:, :, k].ravel()
                    many = None if b is None else b[:, :, k].mean(axis=0)
                    last.append(
                        Panel(name=name, prior=written[name], note="", draws=own, many=many)
                    )
            if (name := p.named(f"cor_{g}")) in written:
                cor = draws.get(name)
                for part in block.slices:
                    for i in range(part.start, min(part.stop, q)):
                        for j in range(i + 1, part.stop):
                            pair = f"{name}[{block.columns[i]}, {block.columns[j]}]"
                            values = blank if cor is None else cor[:, i, j]
                            size = part.stop - part.start
                            found.append(
                                Panel(
                                    name=pair, prior=written[name], note="", draws=values, size=size
                                )
                            )
    for name in design.parameters:
        values = draws.get(name, blank)
        found.append(Panel(name=name, prior=written[name], note="", draws=values))
    return [*found, *last]


def _choose(panels: list[Panel], parameters: Sequence[str] | None) -> list[Panel]:
    if parameters is None:
        return panels
    if isinstance(parameters, str):
        parameters = [parameters]
    known = [p.name for p in panels]
    chosen = []
    for name in parameters:
        own = [p for p in panels if name in (p.name, re.sub(r"\[[^\]]*\]$", "", p.name))]
        if not own:
            raise HmlmError(
                f"there is no parameter '{name}' with a prior.{suggest(name, known)} Known: "
                f"{listed(known, 20)}."
            )
        chosen += own
    return chosen


def _draw(ax: Any, panel: Panel, bayes: Any) -> None:
    """Draw the densities of one parameter."""
    low, high = _range(panel)
    x = np.linspace(low, high, GRID)
    ax.set_title(clip(panel.name, 34), **PLAIN)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    density = _prior_density(panel, x)
    top = float(np.max(density[np.isfinite(density)], initial=0.0))
    if top > 0:
        y = np.minimum(density, top) / top * (0.8 if len(panel.draws) else 1.0)
        ax.fill_between(x, 0, y, color=GREY, alpha=0.28, linewidth=0, label="prior")
        ax.plot(x, y, color=GREY, linewidth=1.0)
    if len(panel.draws):
        from arviz_stats.base.array import array_stats

        own = panel.draws[:: max(1, len(panel.draws) // _MOST_DRAWS)]
        if np.ptp(own) > 0:
            grid, height, _ = array_stats.kde(own)
            ax.plot(grid, height / height.max(), label="posterior", **bayes.line)
    if panel.many is not None:
        marks = np.zeros_like(panel.many) - 0.05
        ax.plot(panel.many, marks, "|", color=bayes.color, alpha=0.6, markersize=5)
    ax.annotate(
        clip(f"{panel.prior}{panel.note}", 52),
        (0.5, -0.24),
        xycoords="axes fraction",
        ha="center",
        va="top",
        fontsize=7.5,
        color=INK,
        annotation_clip=False,
        **PLAIN,
    )
    ax.set_xlim(low, high)
    ax.set_ylim(-0.1 if panel.many is not None else 0.0, 1.08)
    ax.locator_params(axis="x", nbins=4)


def _range(panel: Panel) -> tuple[float, float]:
    """Return the ends of the axis: the middle 90 percent of the prior, and the posterior."""
    ends = []
    if panel.prior.name == "lkj":
        return -1.0, 1.0
    if panel.prior.name not in ("flat", "half-flat"):
        low, high = (0.0, 0.9) if panel.prior.support == "positive" else (0.05, 0.95)
        if panel.order is not None:
            from scipy import stats

            k, n = panel.order
            low, high = stats.beta.ppf([low, high], k, n - k + 1)
        ends += prior_quantile(panel.prior, [low, high]).tolist()
    if len(panel.draws):
        ends += np.quantile(panel.draws, [0.0005, 0.9995]).tolist()
    if not ends:
        ends = [0.0, 1.0] if panel.prior.name == "half-flat" else [-1.0, 1.0]
    low, high = min(ends), max(ends)
    if panel.prior.support == "unit":
        return 0.0, 1.0
    room = 0.04 * (high - low) or 1.0
    return (max(0.0, low - room) if panel.prior.support == "positive" else low - room), high + room


def _prior_density(panel: Panel, x: np.ndarray) -> np.ndarray:
    """Return the prior density on a grid; of a correlation and a cutpoint the marginal one."""
    from scipy import stats

    if panel.prior.name == "lkj":
        a = panel.prior.parameters["eta"] - 1.0 + panel.size / 2
        return np.asarray(stats.beta.pdf((x + 1) / 2, a, a))
    density = np.exp(log_prior_density(panel.prior, x))
    if panel.order is not None and panel.prior.name != "flat":
        from hmlm.prior_distributions import prior_distribution

        k, n = panel.order
        density = density * stats.beta.pdf(prior_distribution(panel.prior).cdf(x), k, n - k + 1)
    return np.asarray(density)


def _handle(color: str, label: str, filled: bool) -> Any:
    """Return what stands for a curve in the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if filled:
        return Patch(facecolor=color, alpha=0.28, edgecolor=color, label=label)
    return Line2D([], [], color=color, linewidth=2.0, label=label)
