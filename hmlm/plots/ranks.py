"""Ranks of groups: how sure a league table is."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.display import clip
from hmlm.errors import HmlmError
from hmlm.palette import GREY, PARTIAL, style
from hmlm.plots.canvas import (
    PLAIN,
    add_note,
    drawn_groups,
    group_areas,
    group_block,
    is_bayesian,
    look,
    new_axes,
)
from hmlm.plots.sizes import check_axes, check_figure_prob, estimate_kind, pick_column

MOST_LABELS = 60
Best = Literal["highest", "lowest"]


def rank_groups(
    fit: Any,
    group: str | None = None,
    column: str | None = None,
    *,
    best: Best = "highest",
    prob: float = 0.95,
) -> pd.DataFrame:
    """Rank the groups in every draw, and say what the posterior holds of their ranks.

    Parameters
    ----------
    fit : BayesFit
        A posterior of a model with group effects.
    group : str, optional
        Grouping factor; by default the first of the formula.
    column : str, optional
        Column of its group term; the first by default.
    best : {"highest", "lowest"}
        Which estimate has rank 1.
    prob : float
        Probability of the equal-tailed intervals.

    Returns
    -------
    pandas.DataFrame
        Columns ``group, level, term, rank`` (posterior mean), ``lower, upper, best`` (probability
        of rank 1) and ``prob``, in the order of the levels.

    Raises
    ------
    HmlmError
        If the fit is no posterior, or a word, a column or a grouping factor is unknown.

    References
    ----------
    .. [1] Goldstein and Spiegelhalter (1996), League tables and their limitations, Journal of the
       Royal Statistical Society A 159, 385-443.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.plots.ranks import rank_groups
    >>> eight = hmlm.load_dataset("eight_schools")
    >>> model = hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma")
    >>> fit = model.fit(hmlm.NUTS(draws=200, tune=200), random_seed=1, progressbar=False)
    >>> table = rank_groups(fit)
    >>> table["level"][table["best"].idxmax()], round(float(table["best"].sum()), 6)
    ('A', 1.0)
    """
    check_figure_prob(prob)
    if best not in ("highest", "lowest"):
        raise HmlmError(f"best is 'highest' or 'lowest', not {best!r}.")
    if not is_bayesian(fit):
        raise HmlmError(
            f"{fit.label} has no draws, and ranks of estimates say nothing of how sure they are: "
            "fit the model with hmlm.NUTS()."
        )
    design: Design = fit.design
    if not design.blocks:
        raise HmlmError(
            f"{fit.label} has no group effects to rank: fit a model with a group term, without "
            "complete pooling."
        )
    block = group_block(design, group)
    k = pick_column(block, column)
    draws = fit._quantity(f"{estimate_kind(design, block)}_{block.group}")[..., k]
    draws = draws.reshape(-1, draws.shape[-1])
    order = np.argsort(-draws if best == "highest" else draws, axis=1, kind="stable")
    ranks = np.empty(order.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1, dtype=np.int32)[None], axis=1)
    tails = [0.5 - prob / 2, 0.5 + prob / 2]
    lower, upper = np.quantile(ranks, tails, axis=0, method="inverted_cdf")
    return pd.DataFrame(
        {
            "group": block.group,
            "level": np.asarray(block.levels, dtype=object),
            "term": block.columns[k],
            "rank": ranks.mean(axis=0),
            "lower": lower.astype(int),
            "upper": upper.astype(int),
            "best": (ranks == 1).mean(axis=0),
            "prob": prob,
        }
    )


def plot_ranks(
    fit: Any,
    group: str | None = None,
    column: str | None = None,
    *,
    best: Best = "highest",
    prob: float = 0.95,
    axes: Any = None,
    size: tuple[float, float] | None = None,
) -> np.ndarray:
    """Draw the rank of every group with its interval, and the probability that it is the best.

    Parameters
    ----------
    fit : BayesFit
        A posterior of a model with group effects.
    group, column, best, prob
        As in `rank_groups`.
    axes : array of two matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    ndarray of matplotlib Axes
        Two: ranks, with the best mean rank on top, and probabilities of rank 1. More than 60
        groups have no labels. Of more than 1,000 groups a random sample of 1,000 is drawn (ranks
        are those among all), the same each time; the figure says so.

    Raises
    ------
    HmlmError
        If the fit is no posterior, or a word, a column or a grouping factor is unknown.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.ranks import plot_ranks
    >>> eight = hmlm.load_dataset("eight_schools")
    >>> model = hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma")
    >>> fit = model.fit(hmlm.NUTS(draws=200, tune=200), random_seed=1, progressbar=False)
    >>> axes = plot_ranks(fit)
    >>> axes[0].get_yticklabels()[0].get_text(), axes[1].get_xlabel()
    ('A', 'probability of rank 1')
    """
    table = rank_groups(fit, group, column, best=best, prob=prob)
    every = len(table)
    drawn, notes = drawn_groups(every)
    table = table.assign(size=group_block(fit.design, group).sizes).iloc[drawn]
    table = table.sort_values("rank", kind="stable", ignore_index=True)
    J = len(table)
    labelled = J <= MOST_LABELS
    if axes is None:
        height = 0.21 * J + 1.3 if labelled else 7.0
        axes = new_axes(
            1, 2, size or (7.2, max(2.6, height)), sharey=True, gridspec_kw={"width_ratios": (3, 1)}
        )[0]
    axes = check_axes(axes, 2)
    color = PARTIAL
    if fit.design.spec.pooling != "partial":
        color = style(fit.design.spec.pooling, bayesian=True).color
    at = np.arange(J)
    alpha = 1.0 if labelled else float(np.clip(6.0 / np.sqrt(J), 0.35, 0.9))
    own: dict[str, Any] = {"color": color, "alpha": alpha}
    areas, meaning = group_areas(table["size"].to_numpy(), 26.0 if labelled else 6.0)
    with look():
        axes[0].hlines(
            at, table["lower"], table["upper"], linewidth=1.8 if labelled else 0.7, zorder=2, **own
        )
        axes[0].scatter(table["rank"], at, s=areas, linewidths=0, zorder=2.3, color=color)
        pad = 0.02 * every + 0.3
        axes[0].set_xlim(1 - pad, every + pad)
        axes[0].xaxis.get_major_locator().set_params(integer=True, steps=[1, 2, 5, 10])
        axes[0].set_xticks([t for t in axes[0].get_xticks() if 1 <= t <= every])
        axes[0].set_xlim(1 - pad, every + pad)
        axes[0].set_xlabel(f"rank of {clip(table['term'][0], 30)} (1 is {best})", **PLAIN)
        axes[0].set_ylabel(clip(table["group"][0], 40), **PLAIN)
        axes[0].set_title(fit.label, loc="left", parse_math=False)
        axes[0].set_title(f"mean and {prob:.0%} interval", loc="right", fontsize=8.5, color=GREY)
        if labelled:
            axes[1].barh(at, table["best"], 0.72, color=color, linewidth=0)
        else:  # bars of some hundred groups are thinner than a pixel
            axes[1].hlines(at, 0, table["best"], color=color, linewidth=1.0)
        axes[1].set_xlim(0, max(1.15 * float(table["best"].max()), 0.05))
        axes[1].set_xlabel("probability of rank 1")
        axes[0].set_ylim(J - 0.4, -0.6)
        axes[1].set_ylim(J - 0.4, -0.6)
        axes[0].set_yticks(
            at if labelled else [],
            [clip(level, 24) for level in table["level"]] if labelled else [],
            **PLAIN,
        )
        for ax in axes:
            ax.tick_params(axis="y", length=0)
        add_note(axes[0], [*notes, *meaning])
    return axes
