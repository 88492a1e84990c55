"""What all figures share: their look, their text, and what a fit is to a figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hmlm.design import Block, Design
from hmlm.display import clip
from hmlm.errors import HmlmError, listed, suggest
from hmlm.palette import INK

LOOK: Any = {
    "axes.edgecolor": INK,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.size": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "xtick.color": INK,
    "xtick.labelsize": 9,
    "xtick.major.width": 0.7,
    "ytick.color": INK,
    "ytick.labelsize": 9,
    "ytick.major.width": 0.7,
}

MOST_GROUPS = 1_000
SEED = 1

# Names come from the user's table and are shown as they stand: `$x_{` is no formula.
PLAIN: dict[str, Any] = {"parse_math": False}


def new_axes(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> Any:
    """Make a figure with the look of the project; return its axes as an array."""
    import matplotlib.pyplot as plt

    # Outside of the context: the first figure loads the backend, which may set parameters to stay.
    figure = plt.figure(figsize=size, layout="constrained")
    with look():
        return figure.subplots(rows, columns, squeeze=False, **kwargs)


def look() -> Any:
    """Return a context in which artists are made with the look of the project."""
    import matplotlib as mpl

    return mpl.rc_context(LOOK)


def set_labels(ax: Any, *, x: str = "", y: str = "") -> None:
    """Label the axes with names from the table."""
    ax.set_xlabel(clip(x, 60), **PLAIN)
    ax.set_ylabel(clip(y, 60), **PLAIN)


def add_note(ax: Any, notes: Iterable[str]) -> None:
    """Write notes below the axes, on the left, in small type."""
    if text := "\n".join(notes):
        ax.annotate(
            text,
            (0, 0),
            (0, -37),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color=INK,
            annotation_clip=False,
            **PLAIN,
        )


def add_figure_note(axes: np.ndarray, notes: Iterable[str], own: bool) -> None:
    """Write notes below all panels of a figure of its own, else below the first panel."""
    if text := "\n".join(notes):
        if own:
            place = {"x": 0.01, "ha": "left", "fontsize": 8.5, "color": INK}
            axes[0].figure.supxlabel(text, **place, **PLAIN)
        else:
            add_note(axes[0], text.split("\n"))


def is_bayesian(fit: Any) -> bool:
    """Return whether a fit is a posterior, without making its draws."""
    return hasattr(type(fit), "draws")


def group_block(design: Design, group: str | None) -> Block:
    """Return the effects of one grouping factor, the first by default."""
    known = [b.group for b in design.blocks]
    if group is None:
        return design.blocks[0]
    if group not in known:
        raise HmlmError(
            f"the fit has no group term of '{group}'.{suggest(group, known)} It has: "
            f"{listed(known)}."
        )
    return design.blocks[known.index(group)]


def level_positions(levels: Any, chosen: Iterable[Any], group: str) -> list[int]:
    """Return where the chosen labels stand among the levels; '3' also finds 3."""
    exact = {level: k for k, level in enumerate(levels)}
    as_text = {str(level): k for k, level in enumerate(levels)}
    found = []
    for label in chosen:
        place = exact.get(label, as_text.get(str(label)))
        if place is None:
            raise HmlmError(
                f"'{label}' is no level of '{group}'.{suggest(str(label), as_text)} "
                f"Levels: {listed(levels)}."
            )
        found.append(place)
    return list(dict.fromkeys(found))


def named_columns(text: str, columns: Iterable[Any]) -> list[str]:
    """Return the columns that a piece of a formula names, in its order.

    Examples
    --------
    >>> from hmlm.plots.canvas import named_columns
    >>> named_columns("1 + log(dose):x + `a b`", ["x", "dose", "a b", "log", "a"])
    ['dose', 'x', 'a b']
    """
    quoted = re.findall(r"`([^`]*)`", text)
    places = {}
    bare = re.sub(r"`[^`]*`", lambda m: " " * len(m[0]), text)
    for column in columns:
        if column in quoted:
            places[column] = text.index(f"`{column}`")
        elif match := re.search(rf"(?<!\w){re.escape(column)}(?![\w(])", bare):
            places[column] = match.start()
    return sorted(places, key=lambda c: places[c])


def marker_areas(sizes: np.ndarray, typical: float, most: float = 260.0) -> np.ndarray:
    """Return areas of markers in square points, in proportion to the sizes of groups.

    The median group has the typical area, as far as the largest marker allows; the smallest are
    made large enough to be seen.
    """
    scale = min(typical / float(np.median(sizes)), most / float(sizes.max()))
    return np.maximum(scale * sizes, min(3.0, typical))


def drawn_groups(groups: int, most: int = MOST_GROUPS) -> tuple[np.ndarray, list[str]]:
    """Choose the groups that a figure draws: all, or of very many a sample, the same each time.

    Parameters
    ----------
    groups : int
        How many there are.
    most : int
        How many are drawn at most.

    Returns
    -------
    places : ndarray of int
        Positions of the groups drawn, rising.
    notes : list of str
        What the figure is to say of it: nothing where all are drawn.

    Examples
    --------
    >>> from hmlm.plots.canvas import drawn_groups
    >>> places, notes = drawn_groups(1_000_000)
    >>> len(places), notes
    (1000, ['1,000 of 1,000,000 groups drawn, chosen at random.'])
    >>> drawn_groups(3)
    (array([0, 1, 2]), [])
    """
    if groups <= most:
        return np.arange(groups), []
    rng = np.random.default_rng(SEED)
    places = np.sort(rng.choice(groups, most, replace=False, shuffle=False))
    return places, [f"{most:,} of {groups:,} groups drawn, chosen at random."]


def group_numbers(
    fit: Any, name: str, places: Any, column: Any, prob: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return estimate, lower and upper end of effects, totals or lines of some groups.

    As `fit.describe`, but of a posterior without diagnostics of convergence, which take long for
    some thousand groups and stand in no figure.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    name : str
        ``b_g``, ``total_g`` or ``line_g``.
    places : array of int or slice
        Which groups.
    column : int, array of int or slice
        Which columns of the group term.
    prob : float
        Probability of the intervals.
    """
    if not is_bayesian(fit):
        numbers = fit.describe(name, prob)
        parts = (numbers.estimate, numbers.lower, numbers.upper)
        found = [np.asarray(part, dtype=float)[places][..., column] for part in parts]
        return found[0], found[1], found[2]
    draws = fit._quantity(name)[:, :, places][..., column]
    lower, upper = np.quantile(draws, [0.5 - prob / 2, 0.5 + prob / 2], axis=(0, 1))
    return draws.mean(axis=(0, 1)), lower, upper


def group_areas(sizes: np.ndarray, typical: float) -> tuple[np.ndarray, list[str]]:
    """Return areas of markers for groups of these sizes, and what the figure is to say of them."""
    areas = marker_areas(np.asarray(sizes, dtype=float), typical, most=8 * typical)
    return areas, ["Areas of markers: rows of each group."] if np.ptp(sizes) > 0 else []


def place_legend(
    target: Any,
    handles: Sequence[Any],
    names: Sequence[str],
    columns: int | None = None,
    **where: Any,
) -> Any:
    """Add a legend to axes or a figure, in as many columns as it has room for.

    Names are shown as they stand, and are shortened where even one column is too wide. On axes the
    legend stands above them, and above what is written there on the right.

    Parameters
    ----------
    target : matplotlib Axes or Figure
        Where to.
    handles : sequence of artists
        What is explained.
    names : sequence of str
        How.
    columns : int, optional
        Columns at most; as many as there are names by default.
    **where
        Arguments for Matplotlib's ``legend``.
    """
    figure = target.figure
    on_axes = figure is not target
    above = on_axes and "loc" not in where
    room = 1.1 * target.bbox.width if on_axes else 0.98 * target.bbox.width
    if above:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.3}
        where = {**place, "handletextpad": 0.5, **where}
        if target.get_title(loc="right") or target.get_title(loc="left"):
            from matplotlib.transforms import ScaledTranslation

            up = ScaledTranslation(0, 15 / 72, figure.dpi_scale_trans)
            where["bbox_transform"] = target.transAxes + up
    texts = [clip(name, 60) for name in names]
    tried = min(columns or len(texts), len(texts))
    while True:
        legend = target.legend(handles, texts, ncols=tried, **where)
        for text in legend.get_texts():
            text.set_parse_math(False)
        wide = legend.get_window_extent().width
        longest = max(map(len, texts))
        if wide <= room or (tried == 1 and longest <= 8):
            return legend
        legend.remove()
        if tried > 1:
            tried -= 1
        else:
            texts = [
                clip(name, max(8, min(longest - 1, int(longest * room / wide)))) for name in texts
            ]
