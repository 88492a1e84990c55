"""Terms of a formula as expressions of a lazy table: the same columns, made where the data are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from hmlm.column_facts import ColumnFacts, Facts
from hmlm.encoding import evaluate, plain_names
from hmlm.errors import DataError, counted

MEASURED = frozenset({"number", "integer", "boolean"})
STATEFUL = frozenset({"center", "scale"})
_LOGARITHMS = {"log": np.e, "log2": 2.0, "log10": 10.0}


class NotLazyError(Exception):
    """A term that no expression of the table's columns makes."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LazyColumn:
    """One column of numbers.

    Attributes
    ----------
    key : str
        What it is: equal columns have equal keys.
    expression : narwhals.Expr or None
        How it is made; None for a column of ones.
    safe : bool
        Whether it is finite wherever its columns are.
    """

    key: str
    expression: nw.Expr | None
    safe: bool

    @property
    def value(self) -> nw.Expr:
        """The expression; one where there is none."""
        return nw.lit(1.0) if self.expression is None else self.expression


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LazyTerms:
    """The columns of a sum of terms.

    Attributes
    ----------
    text : str
        The sum of terms.
    names : tuple of str
        Names of the columns, as of an `Encoding`.
    columns : tuple of LazyColumn
        How they are made.
    offset : LazyColumn or None
        Sum of the offsets, if there are any.
    source : object
        What makes the columns from new rows, as of an `Encoding`.
    """

    text: str
    names: tuple[str, ...]
    columns: tuple[LazyColumn, ...]
    offset: LazyColumn | None
    source: Any


def template_frame(facts: Facts) -> pd.DataFrame:
    """Return a few rows that have every level of every factor, and the types of all columns.

    Parameters
    ----------
    facts : Facts
        What is known of the columns.

    Examples
    --------
    >>> import polars as pl
    >>> from hmlm.column_facts import read_facts
    >>> from hmlm.sources import open_source
    >>> table = pl.LazyFrame({"x": [1.0, 2.5, 4.0], "f": ["b", "a", "a"]})
    >>> template_frame(read_facts(open_source(table), ["x"], ["f"]))
         x  f
    0  1.0  a
    1  2.5  b
    2  4.0  a
    """
    own = facts.columns.values()
    rows = max(3, *(len(c.levels) for c in own if c.levels is not None), 3)
    return pd.DataFrame({c.name: _template_column(c, rows) for c in own})


def _template_column(column: ColumnFacts, rows: int) -> pd.Series:
    """Return values of one column in the type that it has in memory."""
    at = np.arange(rows)
    if column.levels is not None and len(column.levels):
        values: Any = column.levels.take(at % len(column.levels))
        if column.kind == "category":
            return pd.Series(pd.Categorical(values, categories=column.levels, ordered=True))
    elif column.kind in MEASURED:
        values = np.linspace(column.low, column.high, rows)
        square = column.mean * (1.0 - column.mean) * column.n / max(column.n - 1, 1)
        either = (column.low, column.high) == (0.0, 1.0) and np.isclose(column.sd**2, square)
        if column.kind == "integer" or either:  # of zero and one nothing lies between
            values = np.round(values)
    else:
        return pd.Series([""] * rows)  # a grouping factor: what its levels are is said elsewhere
    return pd.Series(values).astype(plain_type(column))


def plain_type(column: ColumnFacts) -> Any:
    """Return the type that a column has in memory once incomplete rows are left out."""
    if column.kind == "integer" and not column.missing:
        return np.int64
    if column.kind == "boolean" and not column.missing:
        return np.bool_
    return np.float64 if column.kind in MEASURED else object


def lazy_terms(text: str, facts: Facts, template: pd.DataFrame) -> LazyTerms:
    """Translate a sum of terms into expressions.

    The terms, their coding and their names are those that formulae gives for `template`. The
    averages and spreads of `center` and `scale` are those of the template until they are set: see
    `stateful_calls`.

    Parameters
    ----------
    text : str
        Terms that `hmlm.formula.parse_formula` has checked.
    facts : Facts
        What is known of the columns.
    template : pandas.DataFrame
        Rows from `template_frame`.

    Raises
    ------
    NotLazyError
        If a term cannot be made by an expression, such as a spline.
    """
    if text == "0":
        return LazyTerms(text=text, names=(), columns=(), offset=None, source=None)
    plain = plain_names(text, template)
    if plain is not None:
        columns = tuple(_one() if n == "Intercept" else _number(n) for n in plain)
        return LazyTerms(text=text, names=plain, columns=columns, offset=None, source=None)
    source = evaluate(text, template).common
    if source is None:
        return LazyTerms(text=text, names=(), columns=(), offset=None, source=None)
    labels = [label for t in source.terms.values() if t.kind != "offset" for label in t.labels]
    columns, offset = columns_of(source, facts)
    return LazyTerms(text=text, names=tuple(labels), columns=columns, offset=offset, source=source)


def columns_of(source: Any, facts: Facts) -> tuple[tuple[LazyColumn, ...], LazyColumn | None]:
    """Translate the terms of formulae's matrix, and return their columns and the offset.

    Raises
    ------
    NotLazyError
        If a term cannot be made by an expression.
    """
    found: list[LazyColumn] = []
    offset: LazyColumn | None = None
    for term in source.terms.values():
        if term.kind == "intercept":
            own = [_one()]
        else:
            pieces = [_component(c, facts) for c in term.components]
            own = pieces[0]
            if not all(pieces):
                raise DataError(
                    f"predictor '{term.name}' has the same level in all "
                    f"{counted(facts.n_complete, 'row')}: leave it out of the formula."
                )
            for piece in pieces[1:]:
                own = [_times(a, b) for a in own for b in piece]
        if term.kind == "offset":
            offset = own[0] if offset is None else _plus(offset, own[0])
            continue
        found += own
    return tuple(found), offset


def outcome_part(text: str, facts: Facts, template: pd.DataFrame) -> Any:
    """Return what formulae makes of the left side of a formula; None for a plain column.

    Raises
    ------
    DataError
        If it is no column of numbers.
    """
    if text in template:
        return None
    response = evaluate(f"{text} ~ 1", template).response
    if response.kind != "numeric":
        raise DataError(
            f"the outcome '{text}' is no column of numbers; a gaussian model needs one number in "
            f"each of {counted(facts.n_complete, 'row')}."
        )
    (component,) = response.term.term.components
    return component


def lazy_outcome(text: str, part: Any, facts: Facts) -> LazyColumn:
    """Translate the left side of a formula into an expression; see `outcome_part`."""
    if part is None:
        return _number(text)
    (column,) = _component(part, facts)
    return column


def stateful_calls(source: Any) -> Iterator[tuple[int, Any]]:
    """Yield the calls of an encoding that remember averages, with the depth of what they take.

    Parameters
    ----------
    source : object
        What makes columns from new rows: formulae's matrix, or None.
    """
    for term in source.terms.values() if source is not None else ():
        for component in getattr(term, "components", ()):
            yield from calls_of(component)


def calls_of(component: Any) -> Iterator[tuple[int, Any]]:
    """Yield the calls of one variable or call that remember averages, as `stateful_calls`."""
    call = getattr(component, "call", None)
    if call is not None:
        yield from _walk(call)


def _walk(node: Any) -> Iterator[tuple[int, Any]]:
    inner = [pair for child in _children(node) for pair in _walk(child)]
    yield from inner
    if getattr(node, "stateful_transform", None) is not None:
        yield 1 + max((depth for depth, _ in inner), default=0), node


def _children(node: Any) -> list[Any]:
    keywords = getattr(node, "kwargs", {})
    return [*getattr(node, "args", ()), *keywords.values()]


def argument(call: Any, facts: Facts) -> LazyColumn:
    """Return the argument of a call as a column."""
    return LazyColumn(
        key=str(call.args[0]), expression=_lift(_value(call.args[0], facts)), safe=False
    )


def _one() -> LazyColumn:
    return LazyColumn(key="1", expression=None, safe=True)


def _number(name: str) -> LazyColumn:
    return LazyColumn(key=name, expression=nw.col(name).cast(nw.Float64), safe=True)


def _times(a: LazyColumn, b: LazyColumn) -> LazyColumn:
    if a.expression is None or b.expression is None:
        return b if a.expression is None else a
    return LazyColumn(
        key=f"{a.key} : {b.key}", expression=a.expression * b.expression, safe=a.safe and b.safe
    )


def _plus(a: LazyColumn, b: LazyColumn) -> LazyColumn:
    return LazyColumn(key=f"{a.key} + {b.key}", expression=a.value + b.value, safe=False)


def _component(component: Any, facts: Facts) -> list[LazyColumn]:
    """Translate one variable or call; a factor makes several columns."""
    call = getattr(component, "call", None)
    if component.kind == "categoric":
        name = component.name if call is None else _factor_of(call)
        return _indicators(facts.columns[name], component.levels, component.contrast_matrix.matrix)
    if call is None:
        return [_number(component.name)]
    if component.kind == "offset":
        return [argument(call, facts)]
    if component.kind != "numeric":
        raise NotLazyError(str(component))
    value = _lift(_value(call, facts))
    return [LazyColumn(key=str(call), expression=value, safe=False)]


def _factor_of(call: Any) -> str:
    first: Any = call.args[0] if call.args else None
    if call.callee != "C" or type(first).__name__ != "LazyVariable":
        raise NotLazyError(str(call))
    return str(first.name)


def _indicators(column: ColumnFacts, levels: list[Any], contrasts: np.ndarray) -> list[LazyColumn]:
    """Return the columns that code a factor: each a sum of indicators of its levels."""
    found = []
    own = nw.col(column.name)
    for code in np.asarray(contrasts, dtype=float).T:
        total: nw.Expr | None = None
        for level, weight in zip(levels, code, strict=True):
            if weight == 0:
                continue
            if isinstance(level, str):
                here = own.cast(nw.String) == level
            else:
                here = own.cast(nw.Float64) == float(level)
            part = nw.when(here).then(nw.lit(float(weight))).otherwise(nw.lit(0.0))
            total = part if total is None else total + part
        key = f"{column.name}[{', '.join(f'{w:g}' for w in code)}]"
        total = nw.lit(0.0) if total is None else total
        found.append(LazyColumn(key=key, expression=total, safe=True))
    return found


def _lift(value: Any) -> nw.Expr:
    return value if isinstance(value, nw.Expr) else nw.lit(float(value))


def _value(node: Any, facts: Facts) -> Any:
    """Return what a node of formulae's tree is: an expression, a number or text."""
    kind = type(node).__name__
    if kind == "LazyValue":
        return node.value
    if kind == "LazyVariable":
        if node.name not in facts.columns:
            raise NotLazyError(node.name)
        column = facts.columns[node.name]
        measured = column.kind in MEASURED
        return nw.col(node.name).cast(nw.Float64 if measured else nw.String)
    if kind == "_Parentheses":
        return _value(node.args[0], facts)
    if hasattr(node, "op"):
        return _operation(node, [_value(arg, facts) for arg in node.args])
    if not hasattr(node, "callee") or node.kwargs or len(node.args) != 1:
        raise NotLazyError(str(node))
    return _function(node, _value(node.args[0], facts))


def _operation(node: Any, values: list[Any]) -> Any:
    name = node.op.__name__
    if len(values) == 1:
        return values[0] if name == "pos" else values[0] * -1.0
    if not any(isinstance(v, nw.Expr) for v in values):
        return node.op(*values)
    if name in ("add", "sub", "mul", "truediv", "pow"):
        left = _lift(values[0])
        right = values[1] if isinstance(values[1], nw.Expr) else float(values[1])
        return node.op(left, right)
    here = node.op(*values)
    return nw.when(here).then(nw.lit(1.0)).otherwise(nw.lit(0.0))


def _function(node: Any, x: Any) -> Any:
    name = node.callee
    if name == "I":
        return x
    x = _lift(x)
    if name in STATEFUL:
        state = node.stateful_transform
        moved = x - float(state.mean)
        return moved if name == "center" else moved / float(state.std)
    if name in _LOGARITHMS or name in ("log1p", "sqrt"):
        # Engines differ in what they say of others: here such values are missing.
        x = x + 1.0 if name == "log1p" else x
        allowed = x >= 0.0 if name == "sqrt" else x > 0.0
        x = nw.when(allowed).then(x).otherwise(nw.lit(None, dtype=nw.Float64))
        return x.sqrt() if name == "sqrt" else x.log(_LOGARITHMS.get(name, math.e))
    if name == "exp":
        return x.exp()
    if name == "abs":
        return x.abs()
    raise NotLazyError(str(node))


def state_values(found: Mapping[str, tuple[float, float]], calls: list[Any]) -> None:
    """Set the averages and standard deviations that calls of `center` and `scale` remember.

    Parameters
    ----------
    found : mapping of str to tuple of float
        Average and standard deviation (over n) of each argument.
    calls : list
        The calls.
    """
    for call in calls:
        mean, sd = found[str(call.args[0])]
        call.stateful_transform.mean = mean
        if call.callee == "scale":
            call.stateful_transform.std = sd
