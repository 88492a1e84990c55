"""The columns of a table that a specification names, read and checked."""

from __future__ import annotations

import re
from typing import Any

from hmlm.data import GroupedData, make_grouped_data
from hmlm.errors import HmlmError
from hmlm.spec import ModelSpec

ANY_TYPE = ("binary", "trials", "ordered", "category")


def read_data(spec: ModelSpec, data: Any, missing: str = "drop") -> GroupedData:
    """Check the columns that a specification names and index its grouping factors.

    Parameters
    ----------
    spec : ModelSpec
        What to fit.
    data : data frame
        The table.
    missing : {"drop", "impute"}
        What becomes of rows whose outcome alone is missing: left out as all incomplete rows are,
        or kept aside in `GroupedData.held` to be predicted.

    Raises
    ------
    DataError
        If the data cannot be used; see `make_grouped_data`.
    """
    if missing not in ("drop", "impute"):
        raise HmlmError(f"missing is 'drop' or 'impute', not {missing!r}.")
    columns = named_columns(spec)
    numeric = spec.outcome in spec.columns and spec.family.outcome not in ANY_TYPE
    return make_grouped_data(
        data,
        columns,
        spec.all_groups,
        [spec.outcome] if numeric else [],
        outcome_columns(spec) if missing == "impute" else (),
    )


def named_columns(spec: ModelSpec) -> list[str]:
    """Return the columns that a specification names, those of weights and errors among them."""
    extra = [spec.weights, spec.standard_error]
    return [*spec.columns, *(c for c in extra if c and not is_number(c))]


def used_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Return all columns that a model needs, those of grouping factors among them, each once."""
    factors = [f for g in spec.all_groups for f in g.split(":")]
    return tuple(dict.fromkeys([*named_columns(spec), *factors]))


def outcome_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Return the columns that make the outcome and that nothing else needs.

    Examples
    --------
    >>> from hmlm.formula import parse_formula
    >>> outcome_columns(parse_formula("log(y) ~ x + (1 | g)"))
    ('y',)
    """
    if spec.outcome in spec.columns:
        return (spec.outcome,)
    right = " ".join(
        [spec.terms, *map(str, spec.group_terms), *map(str, spec.distributional), str(spec.trials)]
    )
    return tuple(
        c for c in spec.columns if names_column(spec.outcome, c) and not names_column(right, c)
    )


def names_column(text: str, column: str) -> bool:
    """Whether a formula has a column in it."""
    return bool(re.search(rf"(?<![\w`]){re.escape(column)}(?![\w`(])|`{re.escape(column)}`", text))


def is_number(text: str) -> bool:
    """Whether text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
