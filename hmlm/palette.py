"""One palette for the project: the colour says how a fit pools, the line how it was made.

The colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREY = "#777777"
SKY = "#56B4E9"
GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
INK = "#222222"
NAVY = "#00355A"  # the blue of partial pooling, darker
BRONZE = "#9A6A00"  # the orange of no pooling, darker
SLATE = "#444444"  # the grey of complete pooling, darker

PARTIAL, NONE, COMPLETE = BLUE, ORANGE, GREY
ACCENTS = (GREEN, PURPLE, VERMILION, SKY)

_Dash = str | tuple[float, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How a fit is drawn in every figure.

    Attributes
    ----------
    color : str
        Colour of its line and markers.
    linestyle : str or (float, tuple of float)
        As Matplotlib has it.
    linewidth : float
        In points.
    zorder : float
        What lies above what.
    """

    color: str
    linestyle: _Dash = "-"
    linewidth: float = 1.6
    zorder: float = 2.0

    @property
    def line(self) -> dict[str, Any]:
        """Arguments for Matplotlib's ``plot``."""
        return {
            "color": self.color,
            "linestyle": self.linestyle,
            "linewidth": self.linewidth,
            "zorder": self.zorder,
        }


_STYLES = {
    ("partial", True): Style(color=PARTIAL, linewidth=2.0, zorder=2.4),
    ("partial", False): Style(color=NAVY, linestyle=(0, (1, 1.3)), linewidth=1.6, zorder=2.6),
    ("none", True): Style(color=BRONZE, linewidth=1.5, zorder=2.2),
    ("none", False): Style(color=NONE, linewidth=1.5, zorder=2.3),
    ("complete", True): Style(color=SLATE, linestyle=(0, (5, 2)), linewidth=1.4, zorder=2.0),
    ("complete", False): Style(color=COMPLETE, linestyle=(0, (5, 2)), linewidth=1.4, zorder=2.1),
}


def style(pooling: str, bayesian: bool = False) -> Style:
    """Return how a kind of fit is drawn.

    Parameters
    ----------
    pooling : {"partial", "none", "complete"}
        How the fit pools.
    bayesian : bool
        Whether it is a posterior.

    Examples
    --------
    >>> from hmlm.palette import style
    >>> style("partial", bayesian=True).color, style("partial").linestyle
    ('#0072B2', (0, (1, 1.3)))
    """
    return _STYLES[pooling, bayesian]


def distinct_styles(kinds: Sequence[tuple[str, bool]]) -> list[Style]:
    """Return styles that differ: a kind that comes again takes an accent colour.

    Parameters
    ----------
    kinds : sequence of (str, bool)
        Pooling of each fit, and whether it is a posterior.

    Examples
    --------
    >>> from hmlm.palette import distinct_styles
    >>> [s.color for s in distinct_styles([("none", False), ("none", False)])]
    ['#E69F00', '#009E73']
    """
    styles: list[Style] = []
    spare = 0
    for k, kind in enumerate(kinds):
        own = style(*kind)
        if kind in kinds[:k]:
            own = replace(own, color=ACCENTS[spare % len(ACCENTS)])
            spare += 1
        styles.append(own)
    return styles
