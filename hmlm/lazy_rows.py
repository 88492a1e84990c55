"""Rows and columns of a source: which are complete, which are refused, and what is collected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import pandas as pd

from hmlm.data import check_there, dates_refused
from hmlm.errors import DataError, counted
from hmlm.source_files import engine_errors
from hmlm.sources import Source, schema


def check_columns(source: Source, columns: Sequence[str]) -> dict[str, str]:
    """Return the kinds of the named columns, or refuse those that no model can use.

    Parameters
    ----------
    source : Source
        The table.
    columns : sequence of str
        Columns that the model names.

    Returns
    -------
    dict of str to str
        The kind of every column, as in `schema`.

    Raises
    ------
    DataError
        If a column is not there, or holds dates or lists.
    """
    kinds = schema(source)
    check_there(columns, kinds)
    dotted = [c for c in columns if "." in c or "`" in c]
    if dotted and source.engine.startswith("pyspark"):
        raise DataError(
            f"Spark takes the '.' or '`' in the name of column '{dotted[0]}' for the field of a "
            "structure: rename it, for example with withColumnRenamed."
        )
    kinds = {c: kinds[c] for c in columns}
    for name, kind in kinds.items():
        if kind in {"date", "other"}:
            rows = count_all(source)
            if kind == "date":
                raise dates_refused(name, rows)
            found = source.frame.collect_schema()[name]
            raise DataError(
                f"column '{name}' holds {found} in {counted(rows, 'row')}: make it all numbers or "
                "all text."
            )
    return kinds


def count_all(source: Source) -> int:
    """Return the number of rows of a table."""
    return int(collect(source, source.frame.select(nw.len().alias("n")))["n"].iloc[0])


def present(source: Source, columns: Sequence[str]) -> dict[str, nw.Expr]:
    """Return, for each column, the expression that says where a value is there (no NULL, no NaN).

    Parameters
    ----------
    source : Source
        The table.
    columns : sequence of str
        Names of columns.

    Returns
    -------
    dict of str to narwhals.Expr
        For each column, true where it has a value.
    """
    types = source.frame.collect_schema()
    there = {}
    for name in dict.fromkeys(columns):
        absent = nw.col(name).is_null()
        there[name] = ~(absent | nw.col(name).is_nan()) if types[name].is_float() else ~absent
    return there


def complete_rows(source: Source, columns: Sequence[str]) -> nw.LazyFrame[Any]:
    """Return the rows in which all the named columns have a value, lazily."""
    there = list(present(source, columns).values())
    return source.frame.filter(*there) if there else source.frame


def key_expressions(source: Source, keys: Sequence[str]) -> list[nw.Expr]:
    """Return the columns of keys, named k0, k1, ..., in types that every engine groups by."""
    types = source.frame.collect_schema()
    columns = []
    for i, name in enumerate(keys):
        column, kind = nw.col(name), types[name]
        if isinstance(kind, nw.Decimal):
            column = column.cast(nw.Float64)
        elif isinstance(kind, (nw.Int128, nw.UInt128)):
            column = column.cast(nw.Int64)
        elif isinstance(kind, (nw.Categorical, nw.Enum)) and source.engine != "polars":
            column = column.cast(nw.String)
        columns.append(column.alias(f"k{i}"))
    return columns


def plain_keys(source: Source, name: str, values: pd.Series) -> pd.Series:
    """Return collected keys as plain integers, numbers, booleans, text or ordered categories."""
    values = values.rename(name).reset_index(drop=True)
    if name in source.orders:
        known = source.orders[name]
        if pd.api.types.is_numeric_dtype(known) != pd.api.types.is_numeric_dtype(values):
            known = known.astype(values.dtype)
        return pd.Series(pd.Categorical(values, known, ordered=True), name=name)
    if pd.api.types.is_float_dtype(values) and (values % 1 == 0).all():
        return values.astype("int64")  # as hmlm/data.py does with whole numbers
    if pd.api.types.is_bool_dtype(values):
        return values.astype(bool)
    if pd.api.types.is_integer_dtype(values):
        return values.astype("uint64" if values.dtype == "uint64" else "int64")
    return values


def collect(source: Source, frame: nw.LazyFrame[Any]) -> pd.DataFrame:
    """Let the engine compute a lazy frame, and return it as a plain pandas frame."""
    with engine_errors(source.name):
        if source.engine == "polars":
            table: Any = frame.collect("polars", engine="streaming")
        elif source.engine in {"dask", "pandas", "modin", "cudf"}:
            table = frame.collect("pandas")
        else:
            table = frame.collect("pyarrow")
    columns = {}
    for name in table.columns:
        column = table[name]
        if column.dtype.is_numeric() or column.dtype == nw.Boolean:
            columns[name] = pd.Series(column.to_numpy())
        else:
            columns[name] = pd.Series(column.to_list())
    return pd.DataFrame(columns, copy=False)
