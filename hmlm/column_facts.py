"""The first pass over a large table: rows, missing values, means, spreads and levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from hmlm.errors import DataError, counted, listed
from hmlm.lazy_rows import check_columns, collect, complete_rows, key_expressions, plain_keys
from hmlm.lazy_rows import present as where_present
from hmlm.sources import Source

HEAD_ROWS = 1_000  # whose mean is subtracted before squares are summed
WORST_RATIO = 1e6  # squared mean over variance, from which squares are summed again about the mean
MOST_LEVELS = 20_000_000  # of one factor


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ColumnFacts:
    """What is known of one column, over the complete rows.

    Attributes
    ----------
    name : str
        The column.
    kind : str
        'number', 'integer', 'boolean', 'text' or 'category', as `hmlm.sources.schema` says.
    n : int
        Complete rows of the table.
    missing : int
        Rows of the table in which this column has no value (NULL or NaN).
    infinite : int
        Complete rows in which it is infinite.
    mean, sd, low, high : float
        Mean, standard deviation (with n - 1), smallest and largest value; NaN for text and
        categories. True counts as 1.
    levels : pandas.Index or None
        Of a factor, its levels: sorted, or in the order of the categories; else None.
    """

    name: str
    kind: str
    n: int
    missing: int
    infinite: int
    mean: float
    sd: float
    low: float
    high: float
    levels: pd.Index | None = None


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Facts:
    """What is known of a table.

    Attributes
    ----------
    n_rows : int
        Rows of the table.
    n_complete : int
        Rows in which all the columns have a value.
    missing : mapping of str to int
        For each column with missing values, in how many rows they are.
    columns : mapping of str to ColumnFacts
        What is known of every column.
    """

    n_rows: int
    n_complete: int
    missing: Mapping[str, int]
    columns: Mapping[str, ColumnFacts]


def read_facts(source: Source, columns: Sequence[str], factors: Sequence[str] = ()) -> Facts:
    """Read what a model must know of its columns before it can sum their products.

    All counts, means and spreads come from one pass over the table; squares are summed about the
    mean of the first rows, and about the mean itself in a second pass where the first rows were
    far from it (Chan, Golub and LeVeque 1983, The American Statistician 37: 242-247). The levels
    of every factor take a pass of their own over one column.

    Parameters
    ----------
    source : Source
        The table.
    columns : sequence of str
        Columns that the model names: a row is complete where all of them have a value.
    factors : sequence of str
        Those whose levels are wanted; they belong to `columns` in any case.

    Returns
    -------
    Facts
        Counts, and the facts of every column.

    Raises
    ------
    DataError
        If a column is not there or holds dates or lists, if the table has no rows or no complete
        ones, or if a factor has more levels than memory should hold.

    Examples
    --------
    >>> import polars as pl
    >>> from hmlm.column_facts import read_facts
    >>> from hmlm.sources import open_source
    >>> table = pl.LazyFrame({"y": [1.0, 2.0, None, 6.0], "g": ["b", "a", "a", "b"]})
    >>> facts = read_facts(open_source(table), ["y"], ["g"])
    >>> facts.n_rows, facts.n_complete, facts.missing
    (4, 3, {'y': 1})
    >>> facts.columns["y"].mean, facts.columns["g"].levels.tolist()
    (3.0, ['a', 'b'])
    """
    names = list(dict.fromkeys([*columns, *factors]))
    kinds = check_columns(source, names)
    measured = [c for c in names if kinds[c] in {"number", "integer", "boolean"}]
    found = _scalars(source, names, measured, _first_means(source, names, measured))
    n_rows, n_complete = int(found["rows"]), int(found["complete"])
    missing = {c: int(found[f"missing{i}"]) for i, c in enumerate(names)}
    if n_rows == 0:
        raise DataError("the data have no rows (0 rows): check the file or the filter before.")
    if n_complete == 0:
        where = listed(f"{c} ({n})" for c, n in missing.items() if n)
        raise DataError(
            f"no row is complete: {counted(n_rows, 'row')} have missing values, in {where}. "
            "Fill them in or leave the emptiest column out of the formula."
        )
    moments = {c: _moments(found, i, n_complete) for i, c in enumerate(measured)}
    if inexact := [c for c in measured if moments[c][2] > WORST_RATIO]:
        means = {c: moments[c][0] for c in inexact}
        again = _scalars(source, names, inexact, means)
        moments |= {c: _moments(again, i, n_complete) for i, c in enumerate(inexact)}
    whole = complete_rows(source, names) if n_complete < n_rows else source.frame
    levels = {c: _levels(source, whole, c) for c in dict.fromkeys(factors)}
    facts = {}
    for c in names:
        mean, sd, low, high, infinite = np.nan, np.nan, np.nan, np.nan, 0
        if c in moments:
            i = measured.index(c)
            low, high = float(found[f"low{i}"]), float(found[f"high{i}"])
            mean, sd = (low, 0.0) if low == high else moments[c][:2]
            infinite = int(found[f"infinite{i}"])
        facts[c] = ColumnFacts(
            name=c,
            kind=kinds[c],
            n=n_complete,
            missing=missing[c],
            infinite=infinite,
            mean=mean,
            sd=sd if n_complete > 1 else np.nan,
            low=low,
            high=high,
            levels=levels.get(c),
        )
    return Facts(
        n_rows=n_rows,
        n_complete=n_complete,
        missing={c: n for c, n in missing.items() if n},
        columns=facts,
    )


def _first_means(source: Source, names: list[str], measured: list[str]) -> dict[str, float]:
    """Return the means of the first complete rows, where reading a few rows is cheap."""
    if source.engine not in {"duckdb", "polars"} or not measured:
        return {}
    head = complete_rows(source, names).head(HEAD_ROWS)
    values = [nw.col(c).cast(nw.Float64).alias(f"v{i}") for i, c in enumerate(measured)]
    first = collect(source, head.select(*values)).replace([np.inf, -np.inf], np.nan).mean()
    return {c: float(first.fillna(0.0)[f"v{i}"]) for i, c in enumerate(measured)}


def _scalars(
    source: Source, names: list[str], measured: list[str], shifts: Mapping[str, float]
) -> pd.Series:
    """Return counts, extremes and the sums of differences from `shifts` and of their squares."""
    there = where_present(source, names)
    complete = nw.all_horizontal(*there.values(), ignore_nulls=False)
    rows: dict[str, nw.Expr] = {"complete": complete}
    rows |= {f"missing{i}": ~there[c] for i, c in enumerate(names)}
    rows |= {f"v{i}": nw.col(c).cast(nw.Float64) for i, c in enumerate(measured)}
    frame = source.frame.select(*(e.alias(n) for n, e in rows.items()))
    frame = frame.with_columns(
        *(
            nw.when(nw.col("complete")).then(nw.col(f"v{i}")).alias(f"v{i}")
            for i in range(len(measured))
        )
    )
    steps: dict[str, nw.Expr] = {}
    for i, c in enumerate(measured):
        steps[f"d{i}"] = nw.col(f"v{i}") - shifts.get(c, 0.0)
        steps[f"infinite{i}"] = nw.col(f"v{i}").abs() > np.finfo(float).max
    frame = frame.with_columns(*(e.alias(n) for n, e in steps.items()))
    squares = {f"q{i}": nw.col(f"d{i}") * nw.col(f"d{i}") for i in range(len(measured))}
    frame = frame.with_columns(*(e.alias(n) for n, e in squares.items()))
    sums = [nw.len().alias("rows")]
    flags = ["complete", *(f"missing{i}" for i in range(len(names)))]
    flags += [f"infinite{i}" for i in range(len(measured))]
    sums += [nw.col(c).cast(nw.Int64).sum().alias(c) for c in flags]
    sums += [nw.col(f"{c}{i}").sum() for c in "dq" for i in range(len(measured))]
    for i in range(len(measured)):
        sums += [nw.col(f"v{i}").min().alias(f"low{i}"), nw.col(f"v{i}").max().alias(f"high{i}")]
    found: Any = collect(source, frame.select(*sums)).iloc[0]
    for i, c in enumerate(measured):
        found[f"shift{i}"] = shifts.get(c, 0.0)
    return found


def _moments(found: pd.Series, i: int, n: int) -> tuple[float, float, float]:
    """Return mean, standard deviation, and how far the shift was from the mean."""
    total, squares = float(found[f"d{i}"]), float(found[f"q{i}"])
    if not np.isfinite(squares):
        return float(found[f"shift{i}"]) + total / n, np.nan, 0.0
    about_mean = max(squares - total * total / n, 0.0)
    ratio = 0.0
    if total and found[f"low{i}"] < found[f"high{i}"]:
        ratio = total * total / n / about_mean if about_mean else np.inf
    sd = float(np.sqrt(about_mean / (n - 1))) if n > 1 else np.nan
    return float(found[f"shift{i}"]) + total / n, sd, ratio


def _levels(source: Source, rows: nw.LazyFrame[Any], name: str) -> pd.Index:
    """Return the levels of a factor: sorted, or in the order of its categories."""
    distinct = rows.select(*key_expressions(source, [name])).group_by("k0").agg(nw.len().alias("n"))
    found = collect(source, distinct.head(MOST_LEVELS + 1))["k0"]
    if len(found) > MOST_LEVELS:
        raise DataError(
            f"column '{name}' has more than {MOST_LEVELS:,} levels in {source.name}: group the "
            "rows by something coarser."
        )
    values = plain_keys(source, name, found)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return pd.Index(values.cat.remove_unused_categories().cat.categories)
    return pd.Index(values.sort_values())
