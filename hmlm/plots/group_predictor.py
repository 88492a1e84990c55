"""A group-level predictor against the groups' estimates: what it explains of their differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from hmlm.cells import needs_rows
from hmlm.design import Block, Design
from hmlm.errors import HmlmError, listed, suggest
from hmlm.estimates import line_lead, total_lead
from hmlm.palette import GREY, PARTIAL
from hmlm.plots.canvas import (
    add_note,
    drawn_groups,
    group_areas,
    group_block,
    is_bayesian,
    look,
    new_axes,
    set_labels,
)
from hmlm.plots.curves import categories_of
from hmlm.plots.sizes import check_figure_prob, determined_groups, group_figures, pick_column

GRID = 61


def plot_group_predictor(
    fit: Any,
    x: str,
    group: str | None = None,
    column: str | None = None,
    *,
    prob: float = 0.9,
    ax: Any = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw the estimates of groups against a predictor of groups, with its line and band.

    Each group's estimate is that of its own line (component ``line`` of `hmlm.tidy`): what the
    predictors of groups say of it, and its own deviation. The line is what the predictor says by
    itself, with a band for its uncertainty; other group-level predictors are held at their average
    over groups, in the line and in the estimates (whose intervals are moved, not remade).

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit with partial pooling.
    x : str
        Column of numbers that are the same in all rows of a group, and a predictor of the model.
    group : str, optional
        Grouping factor; by default the first of the formula.
    column : str, optional
        Column of its group term; the first by default. Of a slope, the line is that of the
        predictor's interaction with it.
    prob : float
        Probability of intervals and band.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    HmlmError
        If the fit does not pool partially, or the column is no predictor, no number, or varies
        within groups.

    References
    ----------
    .. [1] Gelman and Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical
       Models, figure 12.5.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.group_predictor import plot_group_predictor
    >>> radon = hmlm.load_dataset("radon")
    >>> fit = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", radon).fit(hmlm.REML())
    >>> ax = plot_group_predictor(fit, "log_uranium")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('log_uranium', 'Intercept')
    """
    check_figure_prob(prob)
    design: Design = fit.design
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            f"{fit.label} does not pool partially: pass a fit of a model with a group term, by "
            "hmlm.NUTS() or hmlm.REML()."
        )
    block = group_block(design, group)
    k = pick_column(block, column)
    own = _group_values(design, block, x)
    grid = np.linspace(own.min(), own.max(), GRID)
    lead = line_lead(design, block)
    if lead is None:
        lead = np.repeat(total_lead(design, block)[None], len(block.levels), axis=0)
    whole = determined_groups(block)
    at_own, at_grid = _lead_of(design, block, x, own, grid, lead[:, k], whole)
    # What predictors of groups other than x add to each estimate, beyond their average.
    shift = lead[:, k] - at_own
    beta = np.asarray(fit.describe("beta", prob).estimate)
    moved = shift @ beta
    drawn, notes = drawn_groups(len(block.levels))
    figures = group_figures(fit, block, block.columns[k], "line", block.levels[drawn], prob)
    own, moved = own[drawn], moved[drawn]
    middle, low, high = _band(fit, at_grid, prob)
    J = len(drawn)
    areas, meaning = group_areas(block.sizes[drawn], float(np.clip(220 / np.sqrt(J), 7, 34)))
    if ax is None:
        ax = new_axes(1, 1, size or (5.8, 4.2))[0, 0]
    alpha = float(np.clip(6.0 / np.sqrt(J), 0.3, 0.95))
    with look():
        ax.fill_between(grid, low, high, color=PARTIAL, alpha=0.17, linewidth=0, zorder=1)
        ax.plot(grid, middle, color=PARTIAL, linewidth=1.8, zorder=2.1)
        ax.vlines(
            own,
            figures.lower - moved,
            figures.upper - moved,
            color=PARTIAL,
            linewidth=0.6 if J > 200 else 1.0,
            alpha=0.6 * alpha,
            zorder=2,
        )
        ax.scatter(
            own,
            figures.estimate - moved,
            s=areas,
            color=PARTIAL,
            linewidths=0,
            alpha=alpha,
            zorder=2.3,
        )
        set_labels(ax, x=x, y=block.columns[k])
        ax.set_title(fit.label, loc="left", parse_math=False)
        ax.set_title(f"{prob:.0%} intervals", loc="right", fontsize=8.5, color=GREY)
        if np.abs(shift[whole]).max(initial=0.0) > 1e-9 * max(1.0, np.abs(lead[:, k]).max()):
            notes.append("Other predictors of groups are held at their average.")
        add_note(ax, [*notes, *meaning])
    return ax


def _group_values(design: Design, block: Block, x: str) -> np.ndarray:
    """Return each group's value of a predictor."""
    from hmlm.new_rows import predictor_columns

    known = predictor_columns(design)
    if x not in known:
        raise HmlmError(
            f"'{x}' is no predictor of the model.{suggest(x, known)} There are: "
            f"{listed(known) or 'none'}."
        )
    needs_rows(design.cells, "A figure along a predictor of groups", block.group)
    if categories_of(design, x):
        raise HmlmError(f"'{x}' has categories: plot_group_predictor draws numbers.")
    values = design.data.frame[x].to_numpy(dtype=float)
    own = np.empty(len(block.levels))
    own[block.index[::-1]] = values[::-1]
    if varying := np.unique(block.index[values != own[block.index]]).size:
        raise HmlmError(
            f"'{x}' varies within {varying:,} of {len(own):,} groups of '{block.group}', so it is "
            f"no predictor of groups: hmlm.plot_groups(fit, x='{x}') draws it within them."
        )
    return own


def _lead_of(
    design: Design,
    block: Block,
    x: str,
    own: np.ndarray,
    grid: np.ndarray,
    lead: np.ndarray,
    whole: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lead of one effect, (J, p) and (G, p), where x moves and nothing else does.

    The columns of X that change with x are made again at each value. Of those that vary within
    groups (an interaction with the column of a slope) the lead is linear in what x is there.
    """
    first = np.empty(len(own), dtype=int)
    first[block.index[::-1]] = np.arange(len(block.index))[::-1]
    average = lead[whole].mean(axis=0) if whole.any() else lead.mean(axis=0)
    base = design.data.frame.iloc[first]
    keep = [design.encoding.names.index(t) for t in design.terms]

    def columns(values: np.ndarray) -> np.ndarray:
        frame = pd.concat([base.iloc[[0]]] * len(values), ignore_index=True)
        frame[x] = values
        return np.asarray(design.encoding.again(frame)[0][:, keep])

    at_own, at_grid = columns(own), columns(grid)
    # A column of which the lead is each group's own value changes with x alone.
    moves = np.ptp(at_grid, axis=0) > 0
    found_own, found_grid = (np.tile(average, (len(v), 1)) for v in (own, grid))
    for m in np.flatnonzero(np.ptp(lead, axis=0) > 0):
        if moves[m] and np.allclose(at_own[:, m], lead[:, m]):
            found_own[:, m], found_grid[:, m] = at_own[:, m], at_grid[:, m]
            continue
        # Groups whose rows do not determine all effects have no such coefficient of their own.
        if whole.sum() < 2 or not np.ptp(own[whole]):
            continue
        slope, intercept = np.polyfit(own[whole], lead[whole, m], 1)
        if np.allclose(slope * own[whole] + intercept, lead[whole, m]):
            found_own[:, m], found_grid[:, m] = slope * own + intercept, slope * grid + intercept
    return found_own, found_grid


def _band(fit: Any, lead: np.ndarray, prob: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the line and its band at each value of the grid."""
    if is_bayesian(fit):
        beta = fit.variable("beta")
        draws = beta.reshape(-1, beta.shape[-1]) @ lead.T
        low, high = np.quantile(draws, [0.5 - prob / 2, 0.5 + prob / 2], axis=0)
        return draws.mean(axis=0), low, high
    middle = lead @ np.asarray(fit.estimates["beta"])
    error = np.sqrt(np.maximum(np.einsum("gp,pr,gr->g", lead, fit.vcov, lead), 0.0))
    half = special.ndtri(0.5 + prob / 2) * error
    return middle, middle - half, middle + half
