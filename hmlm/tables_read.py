"""A table of any kind, read for a model: its rows, or sums over them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pandas as pd

from hmlm.aggregated_data import read_aggregated
from hmlm.data import GroupedData
from hmlm.errors import HmlmError, counted
from hmlm.lazy_rows import check_columns, collect, plain_keys
from hmlm.sources import Source, is_source, open_source
from hmlm.spec import ModelSpec
from hmlm.table_columns import read_data, used_columns

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "t": 1_000_000_000_000}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def read_table(
    spec: ModelSpec,
    data: Any,
    missing: str = "drop",
    aggregate: bool | str = "auto",
    memory_limit: str | None = None,
) -> GroupedData:
    """Read what a model needs of a table.

    Parameters
    ----------
    spec : ModelSpec
        What to fit.
    data : data frame, lazy frame, relation or path
        The table.
    missing : {"drop", "impute"}
        What becomes of rows whose outcome alone is missing.
    aggregate : {"auto", True, False}
        Whether to read sums over the rows in place of the rows; "auto" for tables that are read
        lazily.
    memory_limit : str, optional
        How much memory DuckDB and merged rows may take.

    Raises
    ------
    HmlmError
        If an argument is none of those.
    DataError
        If the data cannot be used.
    """
    if aggregate not in ("auto", True, False):
        raise HmlmError(f"aggregate is 'auto', True or False, not {aggregate!r:.60}.")
    memory = None if memory_limit is None else memory_bytes(memory_limit)
    lazy = is_source(data)
    if not lazy and aggregate is not True:
        return read_data(spec, data, missing)
    source = open_source(data, memory_limit)
    if aggregate is False:
        found = read_data(spec, collect_columns(source, used_columns(spec)), missing)
        note = f"{counted(found.n_rows, 'row')} of {source.name} read into memory."
        return replace(found, origin=note)
    if missing != "drop":
        raise HmlmError(
            "missing outcomes are predicted row by row, and sums over rows have none: use "
            "missing='drop', or aggregate=False to read the rows into memory."
        )
    return read_aggregated(spec, source, memory)


def collect_columns(source: Source, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read some columns of a table into memory.

    Examples
    --------
    >>> import polars as pl
    >>> collect_columns(open_source(pl.LazyFrame({"y": [1.0, 2.0], "g": ["a", "b"]})), ("g",))
       g
    0  a
    1  b
    """
    check_columns(source, columns)
    found = collect(source, source.frame.select(*columns))
    ordered = {c: plain_keys(source, c, found[c]) for c in columns if c in source.orders}
    return found.assign(**ordered)


def memory_bytes(text: str) -> int:
    """Return a size such as '1GiB' or '500 MB' in bytes.

    Raises
    ------
    HmlmError
        If it is no size.

    Examples
    --------
    >>> memory_bytes("1GiB"), memory_bytes("500 MB")
    (1073741824, 500000000)
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]i?|)b?\s*", str(text).lower())
    try:
        size = float(found[1]) if found else 0.0
    except ValueError:
        size = 0.0
    if not found or size <= 0:
        raise HmlmError(f"memory_limit is a size such as '1GiB' or '500MB', not {text!r:.60}.")
    return int(size * {**_UNITS, **_BINARY}[found[2]])
