"""Rows at which a model is looked at: some predictors run, the others are held."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.new_rows import predictor_columns

MOST_ROWS = 1_000_000


def factor_levels(design: Design, column: str) -> tuple[Any, ...]:
    """Return the levels of a column that is a factor to the model; nothing for numbers.

    Examples
    --------
    >>> import hmlm
    >>> cbpp = hmlm.load_dataset("cbpp")
    >>> formula = "p(incidence, size) ~ period + (1 | herd)"
    >>> design = hmlm.Model(formula, cbpp, family="binomial").design
    >>> factor_levels(design, "period"), factor_levels(design, "size")
    (('1', '2', '3', '4'), ())
    """
    values = design.data.frame[column]
    if isinstance(values.dtype, pd.CategoricalDtype):
        return tuple(values.cat.categories)
    factors = {f for g in design.spec.all_groups for f in g.split(":")}
    group_only = column in factors and column not in predictor_columns(design)
    numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numbers and not group_only and not _written_as_factor(design, column):
        return ()
    return tuple(np.unique(values.to_numpy()).tolist())


def _written_as_factor(design: Design, column: str) -> bool:
    spec = design.spec
    texts = [spec.terms, *(t.terms for t in spec.group_terms)]
    for more in spec.distributional:
        texts += [more.terms, *(t.terms for t in more.group_terms)]
    as_factor = re.compile(rf"\bC\(\s*`?{re.escape(column)}`?\s*[,)]")
    return any(as_factor.search(t) for t in texts)


def known_columns(design: Design) -> list[str]:
    """Return predictors and grouping factors, the columns that a prediction may depend on."""
    factors = [f for g in design.spec.all_groups for f in g.split(":")]
    return list(dict.fromkeys([*predictor_columns(design), *factors]))


def check_column(design: Design, column: str) -> None:
    """Raise an HmlmError if a column is neither a predictor nor a grouping factor."""
    known = known_columns(design)
    if column not in known:
        raise HmlmError(
            f"'{column}' is no predictor of the model.{suggest(str(column), known)} There are: "
            f"{listed(known) or 'none'}."
        )


def check_levels(design: Design, column: str, values: Iterable[Any]) -> list[Any]:
    """Return levels of a factor as the data of the fit have them; '3' also finds 3.

    Raises
    ------
    HmlmError
        If the factor has no such level.
    """
    levels = factor_levels(design, column)
    as_text = {str(level): level for level in levels}
    found = []
    for value in values:
        if str(value) not in as_text:
            raise HmlmError(
                f"'{value}' is no level of '{column}'.{suggest(str(value), as_text)} Levels: "
                f"{listed(levels)}."
            )
        found.append(as_text[str(value)])
    return found


def grid_of(fit: Any, /, **values: Any) -> pd.DataFrame:
    """Make a table of rows in which some predictors take given values and others are held.

    Parameters
    ----------
    fit : ClassicalFit or BayesFit
        A fit.
    **values : scalar or sequence
        Values of predictors and grouping factors, each with each. A number may be any; a level
        of a predictor must be one of the fit, a level of a grouping factor may be new. Names that
        are no Python words go through ``**{"my column": [...]}``.

    Returns
    -------
    pandas.DataFrame
        Columns given, then the other predictors: numbers at their mean, factors and yes/no
        columns at their most frequent level. Other columns of the outcome (trials, standard
        errors, weights) are at their median. Grouping factors that are not given are left out:
        predict with ``groups="population"``, ``"average"`` or ``"new"``.

    Raises
    ------
    HmlmError
        If a name is no predictor or grouping factor, a predictor has no such level, or the grid
        is larger than a million rows.

    Examples
    --------
    >>> import hmlm
    >>> alcohol = hmlm.load_dataset("alcohol")
    >>> fit = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol).fit(hmlm.REML())
    >>> grid_of(fit, time=[0, 2], coa=[0, 1]).round(2)
       time  coa  peer
    0     0    0  1.02
    1     0    1  1.02
    2     2    0  1.02
    3     2    1  1.02
    """
    design: Design = fit.design
    frame = design.data.frame
    predictors = predictor_columns(design)
    given: dict[str, list[Any]] = {}
    for column, value in values.items():
        check_column(design, column)
        scalar = isinstance(value, (str, bytes)) or np.ndim(value) == 0
        listed_values = [value] if scalar else list(value)
        if not listed_values:
            raise HmlmError(f"'{column}' has no values: give at least one.")
        if column in predictors and factor_levels(design, column):
            listed_values = check_levels(design, column, listed_values)
        given[column] = listed_values
    size = int(np.prod([len(v) for v in given.values()], dtype=float))
    if size > MOST_ROWS:
        raise HmlmError(f"a grid of {counted(size, 'row')} is too large: give fewer values.")
    crossed = list(itertools.product(*given.values()))
    made: dict[str, Any] = {
        column: _as_trained(pd.Series([row[k] for row in crossed]), frame[column])
        for k, column in enumerate(given)
    }
    for column in predictors:
        if column in made:
            continue
        series, typical = frame[column], design.data.typical
        if column in typical:
            held = _as_trained(pd.Series([typical[column]] * size), series)
        elif factor_levels(design, column):
            held = series.mode().iloc[[0] * size].reset_index(drop=True)
        else:
            held = pd.Series(np.full(size, float(series.mean())))
        made[column] = held
    spec = design.spec
    for extra in (spec.trials, spec.standard_error, spec.weights):
        if design.data.cells is None and extra is not None and extra in frame and extra not in made:
            middle = frame[extra].quantile(0.5, interpolation="nearest")
            made[extra] = pd.Series(np.full(size, middle))
    if not made:
        return pd.DataFrame(index=pd.RangeIndex(1))
    return pd.DataFrame(made)


def _as_trained(values: pd.Series, trained: pd.Series) -> pd.Series:
    if isinstance(trained.dtype, pd.CategoricalDtype):
        if values.isin(trained.cat.categories).all():
            return values.astype(trained.dtype)
    return values
