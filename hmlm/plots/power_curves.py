"""Power of a planned study against what was varied."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmlm.errors import HmlmError, listed
from hmlm.palette import ACCENTS, BLUE, GREY, INK, ORANGE
from hmlm.plots.canvas import PLAIN, add_note, look, new_axes, set_labels

_COLORS = (BLUE, ORANGE, *ACCENTS)
_LINES: Any = ("-", (0, (5, 2)), (0, (1, 1.3)), "-.")
MOST_LINES = 12


def plot_power(
    result: Any, x: str | None = None, target: float | None = 0.8, ax: Any = None
) -> Any:
    """Draw power, with 95% Monte Carlo intervals, against what was varied.

    Parameters
    ----------
    result : PowerResult
        From `plan_power` with something to vary.
    x : str, optional
        What stands on the horizontal axis, the first of the varied when None; a line is drawn for
        each combination of the others, and for each test.
    target : float, optional
        Power to reach, drawn as a dashed line; none when None.
    ax : matplotlib Axes, optional
        Where to draw; a new figure when None.

    Returns
    -------
    matplotlib Axes
        The axes.

    Raises
    ------
    HmlmError
        If nothing was varied, or there would be more than twelve lines.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.power_curves import plot_power
    >>> from hmlm.power_study import plan_power
    >>> from hmlm.study import make_study
    >>> result = plan_power(
    ...     "y ~ x",
    ...     make_study(per_group=20, predictors={"x": "binary"}),
    ...     {"Intercept": 0, "x": 0.5, "sigma": 1},
    ...     test="x",
    ...     n_simulations=20,
    ...     vary={"per_group": [20, 60]},
    ...     random_seed=1,
    ...     progressbar=False,
    ... )
    >>> plot_power(result).get_ylabel()
    'power'
    """
    if not result.varied:
        raise HmlmError(
            "nothing was varied, so there is one power and no line to draw: pass vary=..., such as "
            "vary={'school': [10, 20, 40]}, to plan_power."
        )
    x = result.varied[0] if x is None else x
    if x not in result.varied:
        raise HmlmError(f"'{x}' was not varied. These were: {listed(result.varied)}.")
    table = result.table
    others = [v for v in result.varied if v != x]
    keys = [*others, *(["test"] if table["test"].nunique() > 1 else [])]
    groups = list(table.groupby(keys, sort=False)) if keys else [((), table)]
    if len(groups) > MOST_LINES:
        raise HmlmError(
            f"these are {len(groups)} lines, more than can be told apart ({MOST_LINES}): draw from "
            "a result in which fewer settings vary."
        )
    ax = new_axes(1, 1, (5.6, 3.6))[0, 0] if ax is None else ax
    with look():
        if target is not None:
            ax.axhline(target, color=GREY, linestyle=(0, (5, 2)), linewidth=1.0, zorder=1)
        ax.axhline(result.alpha, color=GREY, linestyle=(0, (1, 1.5)), linewidth=0.9, zorder=1)
        for k, (values, rows) in enumerate(groups):
            rows = rows.sort_values(x)
            power, n = rows["power"].to_numpy(), rows["n_simulations"].to_numpy()
            low, high = _wilson(power, n)
            color = _COLORS[k % len(_COLORS)]
            words = [
                str(v) if key == "test" else f"{key} = {v:g}"
                for key, v in zip(keys, values if isinstance(values, tuple) else (), strict=True)
            ]
            at = rows[x].to_numpy(dtype=float)
            ax.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0, zorder=2)
            ax.plot(
                at,
                power,
                color=color,
                linestyle=_LINES[k // len(_COLORS) % len(_LINES)],
                marker="o",
                markersize=4,
                linewidth=1.7,
                label=", ".join(words),
                zorder=3,
            )
        ticks = sorted(table[x].unique())
        if len(ticks) <= 8:
            ax.set_xticks(ticks)
        ax.set_ylim(0, 1.02)
        size = {"per_group": "rows per group"}
        size |= {g: f"number of levels of {g}" for g in result.sizes}
        set_labels(ax, x=size.get(x, x), y="power")
        if keys:
            legend = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
            for text in legend.get_texts():
                text.set_color(INK)
                text.set(**PLAIN)
    fewest = int(table["n_simulations"].min())
    share = f"{target:g} and " if target is not None else ""
    add_note(
        ax,
        [
            f"By {result.method}, {fewest:,} simulations or more a point; bands: 95% Monte Carlo "
            f"intervals.",
            f"Horizontal lines: {share}alpha = {result.alpha:g}.",
        ],
    )
    return ax


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's (1927) 95% interval of a share."""
    z = 1.959964
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half
