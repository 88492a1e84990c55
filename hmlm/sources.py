"""Tables larger than memory: lazy frames, relations and files, opened through narwhals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike, fspath
from typing import Any, cast

import narwhals as nw
import pandas as pd

from hmlm.data import plain_column
from hmlm.errors import DataError
from hmlm.source_files import engine_errors, read_files

_TITLES = {
    "polars": "polars LazyFrame",
    "duckdb": "DuckDB relation",
    "dask": "Dask data frame",
    "pyspark": "PySpark data frame",
    "pyspark[connect]": "PySpark data frame",
    "ibis": "Ibis table",
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Source:
    """A table that an engine reads; only aggregates of it come into memory.

    Attributes
    ----------
    frame : narwhals.LazyFrame
        The table.
    name : str
        What the table is, for messages: 'the Parquet files data/*.parquet'.
    engine : str
        Who computes: 'duckdb', 'polars', 'dask', 'pyspark', ...
    orders : mapping of str to pandas.Index
        For each categorical column whose order is known, its categories.
    held : tuple
        What must live as long as the table: a connection and the folder that it spills to.
    """

    frame: nw.LazyFrame[Any]
    name: str
    engine: str
    orders: Mapping[str, pd.Index] = field(default_factory=dict)
    held: tuple[Any, ...] = ()


def is_source(data: Any) -> bool:
    """Say whether a table is read lazily: a path, a lazy frame or a relation.

    Parameters
    ----------
    data : object
        What was given as data.

    Returns
    -------
    bool
        True for a path or glob, a polars LazyFrame, a DuckDB relation, a Dask or PySpark data
        frame, a lazy frame of narwhals and a `Source`; False for a table in memory.

    Examples
    --------
    >>> import pandas as pd
    >>> from hmlm.sources import is_source
    >>> is_source("waves/*.parquet"), is_source(pd.DataFrame({"y": [1.0]}))
    (True, False)
    """
    if isinstance(data, (Source, str, PathLike)):
        return True
    if isinstance(data, (Mapping, pd.DataFrame)):
        return False
    return isinstance(nw.from_native(data, pass_through=True), nw.LazyFrame)


def open_source(data: Any, memory_limit: str | None = None) -> Source:
    """Open a table that may be larger than memory; nothing of it is read yet.

    Parameters
    ----------
    data : path, lazy frame, relation or data frame
        The path of a Parquet or CSV file, a folder of them or a glob; a polars LazyFrame, a DuckDB
        relation, a Dask or PySpark data frame; or a table in memory, which polars or DuckDB then
        aggregates where one of them is installed.
    memory_limit : str, optional
        How much memory DuckDB may take to read files, such as '1GiB': what needs more is spilled
        to a folder for temporary files (the environment's TMPDIR says where). Other engines are
        configured by themselves.

    Returns
    -------
    Source
        The table. Files are read by a DuckDB connection of their own.

    Raises
    ------
    DataError
        If a file is missing, unreadable or neither Parquet nor CSV, or `data` is no table.
    HmlmError
        If DuckDB is needed and not installed.

    Examples
    --------
    >>> import polars as pl
    >>> from hmlm.sources import open_source
    >>> source = open_source(pl.LazyFrame({"y": [1.0, 2.0], "g": ["a", "b"]}))
    >>> source.name, source.engine
    ('the polars LazyFrame', 'polars')
    """
    if isinstance(data, Source):
        return data
    frame: Any
    if isinstance(data, (str, PathLike)):
        relation, name, held = read_files(str(fspath(data)), memory_limit)
        frame = nw.from_native(relation)
        orders = _orders(frame)
        return Source(frame=frame, name=name, engine="duckdb", orders=orders, held=held)
    if isinstance(data, Mapping):
        data = pd.DataFrame(data)
    frame = nw.from_native(data, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        engine = frame.implementation.value
        name = f"the {_TITLES.get(engine, engine + ' table')}"
        return Source(frame=frame, name=name, engine=engine, orders=_orders(frame))
    if not isinstance(frame, nw.DataFrame):
        raise DataError(
            "data must be a data frame, a lazy frame of polars, DuckDB, Dask or PySpark, or the "
            f"path of Parquet or CSV files, not {type(data).__name__}."
        )
    return _open_eager(frame)


def schema(source: Source) -> dict[str, str]:
    """Return what every column holds.

    Parameters
    ----------
    source : Source
        The table.

    Returns
    -------
    dict of str to str
        For each column 'number', 'integer', 'boolean', 'text', 'category' (its order is known),
        'date' (dates, times and durations) or 'other' (lists and what else a model cannot use).

    Examples
    --------
    >>> import polars as pl
    >>> from hmlm.sources import open_source, schema
    >>> schema(open_source(pl.LazyFrame({"y": [1.0, 2.0], "g": ["a", "b"], "n": [1, 2]})))
    {'y': 'number', 'g': 'text', 'n': 'integer'}
    """
    with engine_errors(source.name):
        types = source.frame.collect_schema()
    return {c: "category" if c in source.orders else _kind(types[c]) for c in types}


def _open_eager(frame: nw.DataFrame[Any]) -> Source:
    engine = frame.implementation.value
    name = f"the {engine} data frame"
    orders: dict[str, pd.Index] = {}
    if frame.implementation.is_pandas():
        table = nw.to_native(frame)
        if twice := table.columns[table.columns.duplicated()].tolist():
            raise DataError(f"column '{twice[0]}' is there twice or more: rename one.")
        table, orders = _plain_columns(table)
        frame = nw.from_native(table, eager_only=True)
    if engine == "polars":
        lazy = frame.lazy()
    else:
        backend = next((b for b in ("polars", "duckdb") if find_spec(b)), None)
        lazy = frame.lazy(backend=cast(Any, backend)) if backend else frame.lazy()
    return Source(
        frame=lazy,
        name=name,
        engine=lazy.implementation.value,
        orders=orders or _orders(lazy),
        held=(frame,),
    )


def _plain_columns(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.Index]]:
    """Return objects and categories as plain columns, and the order of the categories."""
    orders: dict[str, pd.Index] = {}
    changed: dict[str, pd.Series] = {}
    for name in table.columns:
        column = table[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = plain_column(column)
            orders[name] = pd.Index(column.cat.categories)
            changed[name] = column.astype(column.cat.categories.dtype)
        elif pd.api.types.is_object_dtype(column):
            try:
                changed[name] = plain_column(column).infer_objects()
            except DataError:
                continue  # refused by its kind if a model names it
    return table.assign(**changed) if changed else table, orders


def _orders(frame: nw.LazyFrame[Any]) -> dict[str, pd.Index]:
    """Return the categories of the columns whose engine knows their order."""
    orders: dict[str, pd.Index] = {}
    native = nw.to_native(frame)
    for name, dtype in frame.collect_schema().items():
        if isinstance(dtype, nw.Enum):
            orders[name] = pd.Index(list(dtype.categories))
        elif isinstance(dtype, nw.Categorical) and frame.implementation.is_dask():
            kind = native.dtypes[name]
            if native[name].cat.known:
                orders[name] = pd.Index(kind.categories)
    return orders


def _kind(dtype: Any) -> str:
    if dtype == nw.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, (nw.String, nw.Categorical, nw.Enum)):
        return "text"
    if dtype.is_temporal():
        return "date"
    return "other"
