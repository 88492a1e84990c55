"""What all figures share: their look, their text, and what a fit is to a figure."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
            (0, -34),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color=INK,
            annotation_clip=False,
            **PLAIN,
        )


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
