"""Which values of a predictor are compared with which."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmlm.cells import needs_rows
from hmlm.data_grid import check_column, check_levels, factor_levels
from hmlm.design import Design
from hmlm.errors import HmlmError, listed, suggest
from hmlm.new_rows import Groups, group_modes, predictor_columns

RESULTS = frozenset("variable contrast category estimate std_error lower upper prob".split())
STEP = 1e-4
MOST = 500


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Setting:
    """Rows with a predictor set to some values; as they are where there is none.

    Attributes
    ----------
    variable : str or None
        The predictor.
    values : object
        One value for all rows, or an array with one for each.
    weights : ndarray or float
        Weights of the rows in an average.
    """

    variable: str | None = None
    values: Any = None
    weights: np.ndarray | float = 1.0

    def applied(self, frame: pd.DataFrame, unchanged: Any = None) -> Any:
        """Return the rows with these values; `unchanged` where nothing is set."""
        if self.variable is None:
            return unchanged
        values = self.values
        if np.ndim(values) == 0:
            values = pd.Series([values] * len(frame), index=frame.index)
        return frame.assign(**{self.variable: values})


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Contrast:
    """Two settings of a predictor that are compared.

    Attributes
    ----------
    variable : str
        The predictor.
    label : str
        What is compared.
    high, low : Setting
        The two.
    """

    variable: str
    label: str
    high: Setting
    low: Setting


def make_contrasts(
    design: Design,
    frame: pd.DataFrame,
    variables: str | Sequence[str] | Mapping[str, Any] | None,
    groups: Groups,
    minus: bool = True,
) -> list[Contrast]:
    """Return the contrasts that are asked for; see `hmlm.compare_predictions`.

    Parameters
    ----------
    design : Design
        What was fitted.
    frame : pandas.DataFrame
        Rows whose predictors will be set.
    variables : str, sequence, mapping or None
        Predictors, and how to compare.
    groups : str or mapping
        What becomes of group effects.
    minus : bool
        Whether labels read ``b - a``; else ``b / a``.
    """
    if variables is None:
        asked: dict[str, Any] = dict.fromkeys(predictor_columns(design))
    elif isinstance(variables, str):
        asked = {variables: None}
    elif isinstance(variables, Mapping):
        asked = dict(variables)
    else:
        asked = dict.fromkeys(variables)
    if not asked:
        raise HmlmError("the model has no predictor to compare predictions by.")
    sign = "-" if minus else "/"
    found = []
    for column, how in asked.items():
        _check_settable(design, frame, column, groups)
        levels = factor_levels(design, column)
        if levels:
            found += _factor_contrasts(design, column, levels, how, sign)
        else:
            found += _number_contrasts(design, frame, column, how, sign)
    if len(found) > MOST:
        raise HmlmError(f"{len(found):,} contrasts are too many: name the levels to compare.")
    return found


def slope_contrasts(
    design: Design, frame: pd.DataFrame, variables: str | Sequence[str] | None
) -> list[Contrast]:
    """Return contrasts of each row with itself a little further on, weighted to be slopes."""
    predictors = predictor_columns(design)
    if variables is None:
        asked = [c for c in predictors if not factor_levels(design, c)]
        if not asked:
            raise HmlmError("the model has no predictor that is a number, so there is no slope.")
    else:
        asked = [variables] if isinstance(variables, str) else list(dict.fromkeys(variables))
    found = []
    for column in asked:
        _check_settable(design, frame, column, "include")
        if factor_levels(design, column):
            raise HmlmError(
                f"'{column}' is a factor, along which there is no slope: use "
                "hmlm.compare_predictions."
            )
        trained = design.data.frame[column].to_numpy(dtype=float)
        ends = trained.min(), trained.max()
        x = frame[column].to_numpy(dtype=float)
        half = 0.5 * STEP * (ends[1] - ends[0] or 1.0)
        # Splines end where the data do: a row at an end is compared with the inside.
        inside = (x >= ends[0]) & (x <= ends[1])
        high = np.where(inside, np.minimum(x + half, ends[1]), x + half)
        low = np.where(inside, np.maximum(x - half, ends[0]), x - half)
        weights = 1.0 / (high - low)
        found.append(
            Contrast(
                variable=column,
                label="slope",
                high=Setting(variable=column, values=high, weights=weights),
                low=Setting(variable=column, values=low, weights=weights),
            )
        )
    return found


def _check_settable(design: Design, frame: pd.DataFrame, column: str, groups: Groups) -> None:
    check_column(design, column)
    if column not in frame and column in predictor_columns(design):
        raise HmlmError(
            f"there is no column '{column}' in the new data.{suggest(column, list(frame))} "
            f"Columns: {listed(frame, 20)}."
        )
    if column in predictor_columns(design):
        return
    modes = group_modes(design, groups)
    if all(modes[g] != "include" for g in modes if column in g.split(":")):
        raise HmlmError(
            f"'{column}' is a grouping factor whose effects are not included, so that predictions "
            "do not depend on it: pass groups='include'."
        )


def _factor_contrasts(
    design: Design, column: str, levels: tuple[Any, ...], how: Any, sign: str
) -> list[Contrast]:
    if how is None or how == "reference":
        pairs = [(level, levels[0]) for level in levels[1:]]
    elif isinstance(how, str) and how == "pairwise":
        pairs = [(b, a) for a, b in itertools.combinations(levels, 2)]
    elif isinstance(how, str) and how == "sequential":
        pairs = [(b, a) for a, b in itertools.pairwise(levels)]
    elif isinstance(how, str) or np.ndim(how) == 0 or len(how) < 2:
        raise HmlmError(
            f"the levels of '{column}' are compared as 'reference', 'pairwise' or 'sequential', or "
            f"are two or more of {listed(levels)}; not {how!r}."
        )
    else:
        chosen = check_levels(design, column, how)
        pairs = [(level, chosen[0]) for level in chosen[1:]]
    values = _once_each(column, [v for pair in pairs for v in pair])
    return [
        Contrast(
            variable=column,
            label=f"{high} {sign} {low}",
            high=values[high],
            low=values[low],
        )
        for high, low in pairs
    ]


def _once_each(column: str, values: Sequence[Any]) -> dict[Any, Setting]:
    return {v: Setting(variable=column, values=v) for v in dict.fromkeys(values)}


def _number_contrasts(
    design: Design, frame: pd.DataFrame, column: str, how: Any, sign: str
) -> list[Contrast]:
    trained = design.data.frame[column].to_numpy(dtype=float)
    if how is None:
        how = (0, 1) if set(np.unique(trained)) <= {0.0, 1.0} else 1
    if isinstance(how, str):
        if how in ("sd", "iqr"):
            instead = "Give two values, or a step, in place of 'sd' and 'iqr'"
            group = next(iter(design.spec.groups), "group")
            needs_rows(design.cells, f"The spread of '{column}'", group, instead)
        if how == "sd":
            x, half = frame[column].to_numpy(dtype=float), 0.5 * float(trained.std(ddof=1))
            return [_moved(column, "x + sd/2", "x - sd/2", x + half, x - half, sign)]
        if how not in ("iqr", "minmax"):
            raise HmlmError(
                f"'{column}' is a number: compare it by a step, two or more values, 'sd', 'iqr' or "
                f"'minmax', not {how!r}."
            )
        low, high = np.quantile(trained, [0.25, 0.75] if how == "iqr" else [0, 1])
        how = (float(low), float(high))
    if np.ndim(how) == 0:
        step, values = float(how), frame[column]
        if not np.isfinite(step) or step == 0:
            raise HmlmError(f"'{column}' cannot be raised by {how}: pass a step other than zero.")
        words = f"x + {how:g}" if step > 0 else f"x - {-how:g}"
        x = values.to_numpy(dtype=float)
        return [_moved(column, words, "x", x + step, x, sign)]
    chosen = [float(v) for v in how]
    if len(chosen) < 2 or not np.isfinite(chosen).all():
        raise HmlmError(
            f"'{column}' is compared at two or more finite values, such as (0, 1), not {how!r}."
        )
    values_of = _once_each(column, chosen)
    first = chosen[0]
    return [
        Contrast(
            variable=column,
            label=f"{v:g} {sign} {first:g}",
            high=values_of[v],
            low=values_of[first],
        )
        for v in chosen[1:]
    ]


def _moved(
    column: str, high: str, low: str, up: np.ndarray, down: np.ndarray, sign: str
) -> Contrast:
    return Contrast(
        variable=column,
        label=f"({high}) {sign} {low if low == 'x' else f'({low})'}",
        high=Setting(variable=column, values=up),
        low=Setting(variable=column, values=down),
    )
