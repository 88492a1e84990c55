"""What the panels of groups show: what runs along the axis, and what each fit predicts there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hmlm.cells import needs_rows
from hmlm.design import Design
from hmlm.errors import HmlmError, listed, suggest
from hmlm.plots.canvas import named_columns

GRID = 61


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Axis:
    """What runs along the horizontal axis: a column's numbers, its categories, or the rows."""

    name: str | None
    categories: tuple[Any, ...] = ()

    @property
    def label(self) -> str:
        """Text below the axis."""
        return "observation" if self.name is None else self.name


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Curve:
    """One fit in one panel."""

    x: np.ndarray
    estimate: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def choose_axis(design: Design, group: str, x: str | None) -> Axis:
    """Choose the predictor along the horizontal axis.

    That of the user; else the first number in the group term that varies within groups, the first
    number in the model that does, the first factor that does; else the rows of the group.

    Raises
    ------
    HmlmError
        If `x` is no predictor of the model, or the model was fitted from sums over the rows.
    """
    needs_rows(design.cells, "A figure of groups along a predictor", group)
    frame, spec = design.data.frame, design.spec
    texts = [spec.terms, *(t.terms for t in spec.group_terms)]
    own = [t.terms for t in spec.group_terms if t.group == group]
    if x is not None:
        predictors = list(dict.fromkeys(c for t in texts for c in named_columns(t, frame)))
        if x not in predictors:
            raise HmlmError(
                f"'{x}' is no predictor of the model.{suggest(x, predictors)} There are: "
                f"{listed(predictors) or 'none'}."
            )
        return Axis(name=x, categories=categories_of(design, x))
    candidates = [
        [c for t in own for c in named_columns(t, frame)],
        [c for t in texts for c in named_columns(t, frame)],
    ]
    index = design.data.index[group]
    varying = [[c for c in some if _varies_within(frame[c], index)] for some in candidates]
    for some in varying:
        for column in some:
            if not categories_of(design, column):
                return Axis(name=column)
    for some in varying:
        for column in some:
            return Axis(name=column, categories=categories_of(design, column))
    return Axis(name=None)


def categories_of(design: Design, column: str) -> tuple[Any, ...]:
    """Return the categories of a factor; nothing for numbers."""
    values = design.data.frame[column]
    if isinstance(values.dtype, pd.CategoricalDtype):
        return tuple(values.cat.categories)
    texts = [design.spec.terms, *(t.terms for t in design.spec.group_terms)]
    as_factor = re.compile(rf"\bC\(\s*`?{re.escape(column)}`?\s*[,)]")
    numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numbers and not any(as_factor.search(t) for t in texts):
        return ()
    return tuple(np.unique(values.to_numpy()).tolist())


def _varies_within(values: pd.Series, index: np.ndarray) -> bool:
    codes = pd.factorize(values)[0]
    first = np.zeros(index.max() + 1, dtype=codes.dtype)
    first[index[::-1]] = codes[::-1]
    return bool((codes != first[index]).any())


def predict_curves(
    fit: Any, design: Design, group: str, members: list[np.ndarray], axis: Axis, prob: float
) -> list[Curve]:
    """Predict along the axis, for all panels at once.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    design : Design
        The design of the first fit, which has the axis.
    group : str
        Grouping factor of the panels.
    members : list of ndarray of int
        Rows of the group in each panel.
    axis : Axis
        What runs along the axis.
    prob : float
        Probability of the band.
    """
    family = fit.design.spec.family
    if family.outcome in ("ordered", "category"):
        raise HmlmError(
            f"a {family.name} outcome has a probability for each category, not one expected value: "
            "use fit.predict() or hmlm.plot_ppc_groups(fit)."
        )
    every = np.concatenate(members)
    none = fit.design.spec.pooling == "none"
    values = None
    if axis.name is not None and not axis.categories:
        values = design.data.frame[axis.name].to_numpy(dtype=float)
    grids: list[np.ndarray] = []
    for rows in members:
        if values is not None:
            own = values[rows].min(), values[rows].max()
            ends = own if none else (values[every].min(), values[every].max())
            grid = np.unique(np.append(np.linspace(*ends, GRID), own))
        elif axis.name is not None:
            grid = np.arange(len(axis.categories), dtype=float)
        else:
            grid = np.array([0.5, len(rows) + 0.5])
        grids.append(grid)
    table = held_rows(fit.design, members, axis, grids)
    predicted = _only(fit, group).predict(table, kind="mean", groups="include", prob=prob)
    shifts = _other_effects(fit, group, members) if none else np.zeros(len(members))
    curves = []
    start = 0
    for grid, shift in zip(grids, shifts, strict=True):
        part = predicted.iloc[start : start + len(grid)]
        start += len(grid)
        curves.append(
            Curve(
                x=grid,
                estimate=part["estimate"].to_numpy() + shift,
                lower=part["lower"].to_numpy() + shift,
                upper=part["upper"].to_numpy() + shift,
            )
        )
    return curves


def held_rows(
    design: Design, members: Sequence[np.ndarray], axis: Axis, grids: Sequence[np.ndarray]
) -> pd.DataFrame:
    """Return new rows of several groups: the axis runs along each one's grid, all else is held.

    Numbers that vary within a group are held at its mean, other columns at their usual value.

    Parameters
    ----------
    design : Design
        The design that has the rows.
    members : sequence of ndarray of int
        Rows of each group.
    axis : Axis
        What runs along the axis.
    grids : sequence of ndarray
        Places along the axis for each group.
    """
    frame = design.data.frame.iloc[np.concatenate(members)].reset_index(drop=True)
    sizes = [len(rows) for rows in members]
    own = np.repeat(np.arange(len(members)), sizes)
    first = np.cumsum([0, *sizes[:-1]])
    times = [len(grid) for grid in grids]
    held: dict[Any, pd.Series] = {}
    for column in frame:
        series = frame[column]
        if column == axis.name:
            run: Any = np.concatenate(grids)
            if axis.categories:
                run = [axis.categories[int(k)] for k in run]
            held[column] = pd.Series(run)
            if isinstance(series.dtype, pd.CategoricalDtype):
                held[column] = held[column].astype(series.dtype)
            continue
        values = series.iloc[first]
        if _varies_within(series, own):
            groups = series.groupby(own, observed=True)
            if categories_of(design, str(column)):
                values = groups.agg(lambda s: s.mode().iloc[0]).astype(series.dtype)
            else:
                values = values.where(groups.nunique().to_numpy() == 1, groups.mean().to_numpy())
        held[column] = values.repeat(times).reset_index(drop=True)
    return pd.DataFrame(held)


def _only(fit: Any, group: str) -> Any:
    """Return the fit with the effects of one grouping factor and no other."""
    blocks = tuple(b for b in fit.design.blocks if b.group == group)
    if len(blocks) == len(fit.design.blocks):
        return fit
    return replace(fit, design=replace(fit.design, blocks=blocks))


def _other_effects(fit: Any, group: str, members: list[np.ndarray]) -> np.ndarray:
    """Mean of the other factors' own coefficients in each group, which no pooling needs."""
    total = np.zeros(len(fit.design.y))
    for block in fit.design.blocks:
        if block.group != group:
            own = np.nan_to_num(fit.describe(f"b_{block.group}", 0.5).estimate)
            total += np.einsum("nk,nk->n", block.Z, own[block.index])
    return np.array([total[rows].mean() for rows in members])
