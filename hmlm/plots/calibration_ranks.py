"""Ranks of simulation-based calibration: ECDF differences with bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hmlm.display import clip
from hmlm.errors import HmlmError, listed, suggest
from hmlm.palette import BLUE, GREY, VERMILION
from hmlm.plots.canvas import PLAIN, look, new_axes
from hmlm.rank_uniformity import rank_band

MOST_PANELS = 24
PANELS_IN_A_ROW = 4


def plot_calibration_ranks(calibration: Any, quantities: str | Sequence[str] | None = None) -> Any:
    """Draw the ECDF of the ranks less the uniform one, with its simultaneous band.

    A line that leaves its band is red. A posterior that is too narrow makes an S that first rises
    (ranks pile up at both ends), one that is too wide the other S; one that is too high or too low
    a single arch above or below zero.

    Parameters
    ----------
    calibration : Calibration
        From `calibrate`.
    quantities : str or sequence of str, optional
        Which quantities, at most 24; when None all, or of more than 24 the furthest from uniform.

    Returns
    -------
    ndarray of matplotlib Axes
        The panels; those without a quantity are hidden.

    Raises
    ------
    HmlmError
        If a quantity was not ranked, or more than 24 are asked for.

    References
    ----------
    .. [1] Sailynoja, Burkner and Vehtari (2022), Graphical test for discrete uniformity and its
       applications in goodness-of-fit evaluation and multiple sample comparison, Statistics and
       Computing 32, 32.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np, pandas as pd
    >>> from hmlm.calibration import Calibration
    >>> from hmlm.plots.calibration_ranks import plot_calibration_ranks
    >>> from hmlm.rank_uniformity import uniformity_table
    >>> rng = np.random.default_rng(1)
    >>> ranks = pd.DataFrame({"beta": rng.integers(0, 20, 100)})
    >>> table = uniformity_table(["beta"], ranks.to_numpy(), 19, 10, 0.95, rng)
    >>> found = Calibration(
    ...     table=table,
    ...     ranks=ranks,
    ...     true_values=ranks,
    ...     n_draws=19,
    ...     diagnostics=pd.DataFrame(),
    ...     prob=0.95,
    ...     random_seed=1,
    ...     seconds=0.0,
    ... )
    >>> plot_calibration_ranks(found).shape
    (1, 1)
    """
    table = calibration.table.set_index("quantity")
    if quantities is None:
        order = table["furthest"].abs().sort_values(ascending=False).index[:MOST_PANELS]
        names = [name for name in table.index if name in set(order)]
    else:
        names = [quantities] if isinstance(quantities, str) else list(quantities)
    for name in names:
        if name not in table.index:
            raise HmlmError(
                f"'{name}' was not ranked.{suggest(name, table.index)} There are "
                f"{listed(table.index)}."
            )
    if not 1 <= len(names) <= MOST_PANELS:
        raise HmlmError(f"between 1 and {MOST_PANELS} quantities can be drawn, not {len(names)}.")
    across = min(PANELS_IN_A_ROW, len(names))
    down = -(-len(names) // across)
    axes = new_axes(down, across, (2.5 * across + 0.7, 2.0 * down + 0.7), sharex=True, sharey=True)
    with look():
        for ax, name in zip(axes.flat, names, strict=False):
            _panel(ax, name, calibration, bool(table.loc[name, "inside"]))
        for ax in axes.flat[len(names) :]:
            ax.set_visible(False)
        for k in range(across):
            lowest = max(r for r in range(down) if r * across + k < len(names))
            axes[lowest, k].set_xlabel("rank, as a share")
            axes[lowest, k].tick_params(labelbottom=True)
        for ax in axes[:, 0]:
            ax.set_ylabel("ECDF - uniform")
    axes[0, 0].figure.suptitle(
        f"{len(calibration.ranks):,} simulations, ranks among {calibration.n_draws:,} draws, "
        f"{calibration.prob:.0%} bands",
        fontsize=9.5,
        x=0.01,
        ha="left",
    )
    return axes


def _panel(ax: Any, name: str, calibration: Any, inside: bool) -> None:
    ranks = calibration.ranks[name].to_numpy()
    x, difference, lower, upper = rank_band(ranks, calibration.n_draws, calibration.prob)
    color = BLUE if inside else VERMILION
    ax.fill_between(x, lower, upper, step="post", color=GREY, alpha=0.25, linewidth=0, zorder=1)
    ax.axhline(0, color=GREY, linewidth=0.7, zorder=1)
    ax.step(x, difference, where="post", color=color, linewidth=1.5, zorder=3)
    ax.set_title(clip(name, 30), **PLAIN)
    ax.set_xlim(0, 1)
    ax.set_xticks(np.array([0.0, 0.5, 1.0]))
