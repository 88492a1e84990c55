"""Where the lines of groups are drawn while a model is explored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Block, Design
from hmlm.new_rows import new_rows
from hmlm.plots.curves import Axis, choose_axis, held_rows

LINE_POINTS = 25


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LineRows:
    """The rows at which each group's line is drawn.

    Attributes
    ----------
    axis : Axis
        What runs along the horizontal axis.
    x : ndarray, shape (J, G)
        Places along it; the group's own first and last among them.
    X : ndarray, shape (J, G, p)
        Population columns there, other predictors held at the group's own values.
    Z : ndarray, shape (J, G, q)
        Columns of the group effects.
    offset : ndarray, shape (J, G)
        Offset, zero where there is none.
    """

    axis: Axis
    x: np.ndarray
    X: np.ndarray
    Z: np.ndarray
    offset: np.ndarray


def line_rows(design: Design, block: Block) -> LineRows:
    """Choose where every group's line is drawn, and make the model's columns there."""
    axis = choose_axis(design, block.group, None)
    frame, J = design.data.frame, len(block.levels)
    if axis.name is None:
        x = np.column_stack([np.full(J, 0.5), block.sizes + 0.5])
    elif axis.categories:
        x = np.tile(np.arange(len(axis.categories), dtype=float), (J, 1))
    else:
        by_group = frame[axis.name].groupby(block.index)
        own = by_group.agg(["min", "max"]).to_numpy(dtype=float)
        whole = np.linspace(own.min(), own.max(), LINE_POINTS)
        x = np.sort(np.column_stack([np.tile(whole, (J, 1)), own]), axis=1)
    G = x.shape[1]
    order = np.argsort(block.index, kind="stable")
    members = np.split(order, np.cumsum(block.sizes)[:-1])
    table = held_rows(design, members, axis, list(x))
    arrays = new_rows(design, table, "include").mean
    place = design.blocks.index(block)
    return LineRows(
        axis=axis,
        x=x,
        X=arrays.X.reshape(J, G, -1),
        Z=arrays.Z[place].reshape(J, G, -1),
        offset=arrays.offset.reshape(J, G),
    )
