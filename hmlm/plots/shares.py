"""Shares of the variance by level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hmlm.display import clip
from hmlm.errors import HmlmError
from hmlm.palette import GREY, distinct_styles
from hmlm.plots.canvas import PLAIN, add_note, is_bayesian, look, new_axes, place_legend
from hmlm.variance import split_variance

MOST_FITS = 5


def plot_variance(
    *fits: Any,
    prob: float = 0.95,
    method: str | None = None,
    ax: Any = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw the share of the variance that lies at each level, with intervals.

    The levels are those of `hmlm.variance.split_variance`: what the predictors explain, each
    grouping factor, and what is left within groups. Classical fits have no intervals.

    Parameters
    ----------
    *fits : BayesFit or ClassicalFit
        One to five fits under partial or complete pooling.
    prob : float
        Probability of the intervals.
    method : {"theoretical", "delta", "lognormal", "trigamma"}, optional
        How to find the variance of a family without a residual.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    matplotlib Axes
        A row for each level, from predictors to residual.

    Raises
    ------
    HmlmError
        If there is no fit, or more than five, or one that does not pool.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.shares import plot_variance
    >>> model = hmlm.Model("strength ~ 1 + (1 | batch/cask)", hmlm.load_dataset("pastes"))
    >>> ax = plot_variance(model.fit(hmlm.REML()))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['predictors', 'batch', 'batch:cask', 'residual']
    """
    if not 1 <= len(fits) <= MOST_FITS:
        raise HmlmError(f"plot_variance draws from 1 to {MOST_FITS} fits, not {len(fits)}.")
    tables = [_rows(split_variance(fit, prob, method)) for fit in fits]
    found = dict.fromkeys(label for table in tables for label in table["label"])
    labels = sorted(found, key=lambda label: label.startswith("residual"))
    place = {label: k for k, label in enumerate(labels)}
    if ax is None:
        height = 1.3 + (0.25 + 0.2 * len(fits)) * len(labels)
        ax = new_axes(1, 1, size or (6.2, float(np.clip(height, 2.2, 12.0))))[0, 0]
    styles = distinct_styles([(f.design.spec.pooling, is_bayesian(f)) for f in fits])
    thick = 0.7 / len(fits)
    handles = []
    with look():
        for k, (table, style) in enumerate(zip(tables, styles, strict=True)):
            at = np.array([place[label] for label in table["label"]], dtype=float)
            at += (k - (len(fits) - 1) / 2) * thick
            share = table["share"].to_numpy(dtype=float)
            handles.append(
                ax.barh(at, share, 0.9 * thick, color=style.color, alpha=0.45, linewidth=0)
            )
            ax.hlines(at, table["share_lower"], table["share_upper"], color=style.color, lw=2.0)
            ends = table["share_upper"].fillna(table["share"]).to_numpy(dtype=float)
            for height, value, end in zip(at, share, ends, strict=True):
                ax.annotate(
                    f"{value:.0%}",
                    (end, height),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8.5,
                )
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.set_yticks(range(len(labels)), [clip(label, 30) for label in labels], **PLAIN)
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(0, 1.1)
        shown = [0.0, 0.25, 0.5, 0.75, 1.0]
        ax.set_xticks(shown, [f"{t:.0%}" for t in shown])
        ax.set_xlabel("share of the variance")
        if any(table["share_lower"].notna().any() for table in tables):
            ax.set_title(f"{prob:.0%} intervals", loc="right", fontsize=8.5, color=GREY)
        place_legend(ax, handles, [f.label for f in fits], 3)
        if any(table["share_lower"].isna().all() for table in tables):
            add_note(ax, ["Classical fits have no intervals of shares."])
    return ax


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the parts of the whole, with a label each."""
    parts = table[table["component"] != "total"]
    words = {"population": "predictors", "residual": "residual"}
    labels = [
        (words.get(component) or str(group)) + (f", {term}" if term else "")
        for component, group, term in zip(
            parts["component"], parts["group"], parts["term"], strict=True
        )
    ]
    return parts.assign(label=labels)
