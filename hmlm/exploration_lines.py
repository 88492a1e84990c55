"""Where the lines of groups are drawn while a model is explored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Block, Design
from hmlm.new_rows import new_rows
from hmlm.plots.curves import Axis, categories_of, choose_axis

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
    frame, index, J = design.data.frame, block.index, len(block.levels)
    by_group = frame.groupby(index, observed=True)
    held: dict[Any, pd.Series] = {}
    for column in frame:
        numbers = not categories_of(design, str(column))
        constant = bool((by_group[str(column)].nunique() <= 1).all())
        mean = numbers and not constant
        held[column] = (
            by_group[str(column)].mean() if mean else by_group[str(column)].agg(_most_frequent)
        )
    if axis.name is None:
        x = np.column_stack([np.full(J, 0.5), block.sizes + 0.5])
    elif axis.categories:
        x = np.tile(np.arange(len(axis.categories), dtype=float), (J, 1))
    else:
        own = by_group[axis.name].agg(["min", "max"]).to_numpy(dtype=float)
        whole = np.linspace(own.min(), own.max(), LINE_POINTS)
        x = np.sort(np.column_stack([np.tile(whole, (J, 1)), own]), axis=1)
    G = x.shape[1]
    table = pd.DataFrame(
        {c: s.astype(frame[c].dtype) if s.dtype == object else s for c, s in held.items()}
    )
    table = table.iloc[np.repeat(np.arange(J), G)].reset_index(drop=True)
    if axis.name is not None:
        run: Any = x.ravel()
        if axis.categories:
            run = pd.Series([axis.categories[int(k)] for k in x.ravel()])
            if isinstance(frame[axis.name].dtype, pd.CategoricalDtype):
                run = run.astype(frame[axis.name].dtype)
        table[axis.name] = run
    arrays = new_rows(design, table, "include").mean
    place = design.blocks.index(block)
    return LineRows(
        axis=axis,
        x=x,
        X=arrays.X.reshape(J, G, -1),
        Z=arrays.Z[place].reshape(J, G, -1),
        offset=arrays.offset.reshape(J, G),
    )


def _most_frequent(values: pd.Series) -> Any:
    return values.mode().iloc[0]
