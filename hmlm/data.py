"""The table, checked once: complete rows, and an integer index for every grouping factor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from hmlm.cells import Cells
from hmlm.errors import DataError, counted, listed, suggest
from hmlm.value_checks import check_size, check_text

RESERVED_GROUPS = frozenset(
    "chain draw term row beta sigma nu alpha phi zi hu cutpoint cutpoints".split()
)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GroupedData:
    """Rows that belong to groups.

    Attributes
    ----------
    frame : pandas.DataFrame
        The columns that the model names, complete rows only, in the order of the table.
    groups : tuple of str
        Names of the grouping factors; an interaction reads ``a:b``.
    levels : mapping of str to pandas.Index
        The levels of each factor: sorted, or in the order of a categorical.
    index : mapping of str to ndarray of int
        For each factor, the position of every row's level.
    n_rows : int
        Rows of the table before incomplete rows were left out.
    missing : mapping of str to int
        For each column with missing values, in how many rows they are.
    held : pandas.DataFrame or None
        Rows whose outcome alone is missing, kept aside to be predicted; their index is the number
        of the row in the table, from 0. None where such rows are left out like others.
    cells : Cells or None
        What the rows stand for where they are not the rows of the table.
    origin : str
        Where the rows came from, in a sentence, if that is not plain.
    typical : mapping of str to value
        The mean, or most frequent level, of predictors over the rows of the table, where `frame`
        does not hold these rows.
    """

    frame: pd.DataFrame
    groups: tuple[str, ...]
    levels: Mapping[str, pd.Index]
    index: Mapping[str, np.ndarray]
    n_rows: int
    missing: Mapping[str, int]
    held: pd.DataFrame | None = None
    cells: Cells | None = None
    origin: str = ""
    typical: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_used(self) -> int:
        """Number of rows of the table that are used."""
        return len(self.frame) if self.cells is None else self.cells.n

    @property
    def n_dropped(self) -> int:
        """Number of rows left out because a value was missing."""
        return self.n_rows - self.n_used - self.n_held

    @property
    def n_held(self) -> int:
        """Number of rows kept aside because their outcome alone was missing."""
        return 0 if self.held is None else len(self.held)

    @property
    def missing_note(self) -> str:
        """What became of incomplete rows, in one or two sentences; empty where there are none."""
        kept = (
            f"{self.n_held:,} of {counted(self.n_rows, 'row')} kept aside to be predicted because "
            "their outcome alone is missing."
        )
        if not self.n_dropped:
            return kept if self.n_held else ""
        where = listed(f"{column} ({n})" for column, n in self.missing.items())
        left_out = (
            f"{self.n_dropped:,} of {counted(self.n_rows, 'row')} left out because of missing "
            f"values in {where}."
        )
        return f"{left_out} {kept}" if self.n_held else left_out


def read_columns(data: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Return the named columns of a pandas or polars table as a pandas frame.

    Parameters
    ----------
    data : data frame
        Anything eager that narwhals can read (pandas, polars, pyarrow, modin).
    columns : sequence of str
        Names of the columns.

    Raises
    ------
    DataError
        If `data` is no table, has no rows, lacks a column or has it twice, or holds dates.
    """
    return pd.DataFrame(_read(data, columns))


def check_there(columns: Iterable[str], names: Collection[str]) -> None:
    """Refuse columns that a table, whose columns are `names`, does not have."""
    if absent := [c for c in columns if c not in names]:
        raise DataError(
            f"there is no column '{absent[0]}' in the data.{suggest(absent[0], names)} "
            f"Columns: {listed(names, 20)}."
        )


def _read(data: Any, columns: Sequence[str]) -> dict[str, pd.Series]:
    if isinstance(data, Mapping):
        try:
            data = pd.DataFrame(data)
        except (TypeError, ValueError) as error:
            raise DataError(f"the mapping is no table of equally long columns: {error}") from error
    table: Any = data
    if not isinstance(data, pd.DataFrame):
        try:
            table = nw.from_native(data, eager_only=True)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"data must be a pandas or polars data frame, not {type(data).__name__}."
            ) from error
    names = list(table.columns)
    check_text("the name of a column", columns)
    if twice := [c for c in columns if names.count(c) > 1]:
        raise DataError(f"column '{twice[0]}' is there {names.count(twice[0])} times: rename one.")
    check_there(columns, names)
    if len(table) == 0:
        raise DataError("the data have no rows (0 rows): check the file or the filter before.")
    if isinstance(data, pd.DataFrame):
        series = {c: data[c].reset_index(drop=True) for c in columns}
    else:
        series = {c: _to_pandas(table[c]) for c in columns}
    return {c: plain_column(s) for c, s in series.items()}


def _to_pandas(column: nw.Series[Any]) -> pd.Series:
    if isinstance(column.dtype, nw.Enum):
        values = pd.Categorical(column.to_list(), categories=list(column.dtype.categories))
        return pd.Series(values, name=column.name)
    exact = isinstance(column.dtype, (nw.Decimal, nw.Int128, nw.UInt128))
    if column.dtype.is_numeric() and not exact:
        return pd.Series(column.to_numpy(), name=column.name)
    return pd.Series(column.to_list(), name=column.name)


def plain_column(column: pd.Series) -> pd.Series:
    """Turn nullable and object columns into plain numbers, booleans, text or ordered factors."""
    name, dtype = column.name, column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        if isinstance(dtype.categories, (pd.IntervalIndex, pd.DatetimeIndex, pd.PeriodIndex)):
            column = column.cat.rename_categories(str)
        check_text(f"a level of column '{name}'", dtype.categories)
        return column.cat.as_ordered()
    if pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
        raise dates_refused(name, len(column))
    if isinstance(dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        return column.astype(str).where(column.notna())
    if pd.api.types.is_complex_dtype(dtype):
        raise _complex_refused(name)
    if pd.api.types.is_bool_dtype(dtype):
        return column.astype(bool) if not column.isna().any() else column.astype("Float64")
    if pd.api.types.is_numeric_dtype(dtype):
        if pd.api.types.is_extension_array_dtype(dtype):
            whole = pd.api.types.is_integer_dtype(dtype) and not column.isna().any()
            return column.astype("int64" if whole else "float64")
        return column
    if pd.api.types.is_object_dtype(dtype):
        try:
            present = column.dropna()
        except ArithmeticError as error:  # a signalling NaN of the decimal module
            raise DataError(f"column '{name}' holds a decimal that is no number (sNaN).") from error
        if all(isinstance(v, (bool, np.bool_)) for v in present):
            return column if column.isna().any() else column.astype(bool)
        numbers = None
        try:
            if not any(isinstance(v, str) for v in present):
                numbers = pd.Series(pd.to_numeric(column), name=name)
        except (TypeError, ValueError):
            pass
        if numbers is not None:
            if any(isinstance(v, (complex, np.complexfloating)) for v in present):
                raise _complex_refused(name)
            return numbers
        if any(isinstance(v, (date, time, timedelta)) for v in present):
            raise dates_refused(name, len(column))
        if not all(isinstance(v, str) for v in present):
            kinds = sorted({type(v).__name__ for v in present})
            raise DataError(
                f"column '{name}' {'mixes' if len(kinds) > 1 else 'holds'} {listed(kinds)} in "
                f"{counted(len(present), 'row')}: make it all numbers or all text."
            )
        check_text(f"a level of column '{name}'", present.unique())
    return column


def _complex_refused(name: object) -> DataError:
    return DataError(f"column '{name}' holds complex numbers: use real ones.")


def dates_refused(name: object, rows: int) -> DataError:
    """Return the error that says what to do with a column of dates."""
    return DataError(
        f"column '{name}' holds dates or durations in {counted(rows, 'row')}: turn them into a "
        "number first, such as days since the start, or into text if they name groups."
    )


def make_grouped_data(
    data: Any,
    columns: Iterable[str],
    groups: Iterable[str] = (),
    numeric: Iterable[str] = (),
    hold: Iterable[str] = (),
    rows: int | None = None,
) -> GroupedData:
    """Check a table once and index its groups.

    Parameters
    ----------
    data : data frame
        pandas, polars or another eager table that narwhals reads.
    columns : iterable of str
        Columns that the model names.
    groups : iterable of str
        Grouping factors; ``a:b`` is the interaction of two columns.
    numeric : iterable of str
        Columns that must hold numbers: those of the outcome.
    hold : iterable of str
        Columns of the outcome: rows in which only these are missing are kept aside.
    rows : int, optional
        How many rows of a table the rows stand for, for messages.

    Returns
    -------
    GroupedData
        Complete rows with the levels and the index of every factor.

    Raises
    ------
    DataError
        If a column is missing, repeated, infinite or of a wrong kind, if no row is complete, or
        if a factor has fewer than two levels.

    Examples
    --------
    >>> import pandas as pd
    >>> from hmlm.data import make_grouped_data
    >>> table = pd.DataFrame({"y": [1.0, 2.0, None, 4.0], "g": ["b", "a", "a", "b"]})
    >>> data = make_grouped_data(table, ["y"], ["g"])
    >>> data.levels["g"].tolist(), data.index["g"].tolist(), dict(data.missing)
    (['a', 'b'], [1, 0, 1], {'y': 1})
    """
    groups = tuple(dict.fromkeys(groups))
    factors = [f for g in groups for f in g.split(":")]
    table = _read(data, tuple(dict.fromkeys([*columns, *factors])))
    n_rows = len(next(iter(table.values())))
    check_group_names(groups)
    for name in numeric:
        if not pd.api.types.is_numeric_dtype(table[name]):
            first = table[name].dropna().iloc[:1].tolist()
            raise DataError(
                f"the outcome '{name}' must hold numbers, but its {counted(n_rows, 'row')} "
                f"are of type {table[name].dtype}, the first {first}: convert it, for example "
                f"with pandas.to_numeric."
            )
    absent = {c: column.isna().to_numpy() for c, column in table.items()}
    kept_aside = _outcome_alone(absent, tuple(hold), n_rows)
    held = None
    if kept_aside.any():
        held = pd.DataFrame({c: plain_column(column[kept_aside]) for c, column in table.items()})
    missing = {c: int((where & ~kept_aside).sum()) for c, where in absent.items()}
    missing = {c: n for c, n in missing.items() if n}
    if missing or held is not None:
        complete = ~np.any(list(absent.values()), axis=0)
        if not complete.any():
            where = listed(f"{c} ({int(w.sum())})" for c, w in absent.items() if w.any())
            raise DataError(
                f"no row is complete: {counted(n_rows, 'row')} have missing values, in {where}. "
                "Fill them in or leave the emptiest column out of the formula."
            )
        table = {
            c: plain_column(column[complete].reset_index(drop=True)) for c, column in table.items()
        }
    for name, column in table.items():
        if pd.api.types.is_float_dtype(column):
            infinite = int(np.isinf(column.to_numpy(dtype=float)).sum())
            if infinite:
                raise DataError(
                    f"column '{name}' is infinite in {counted(infinite, 'row')}: correct them, or "
                    "make them missing to leave them out."
                )
            check_size(name, column.to_numpy(dtype=float))
        if isinstance(column.dtype, pd.CategoricalDtype):
            if (np.bincount(column.cat.codes, minlength=len(column.cat.categories)) == 0).any():
                table[name] = column.cat.remove_unused_categories()
    levels: dict[str, pd.Index] = {}
    index: dict[str, np.ndarray] = {}
    for name in groups:
        index[name], levels[name] = index_levels(table, name)
        if len(levels[name]) < 2:
            raise DataError(
                f"column '{name}' has one level in {counted(rows or len(index[name]), 'row')}, so "
                "there is nothing to pool: use a grouping column with two or more levels, or leave "
                f"the term (... | {name}) out."
            )
    return GroupedData(
        frame=pd.DataFrame(table, copy=False),
        groups=groups,
        levels=levels,
        index=index,
        n_rows=n_rows,
        missing=missing,
        held=held,
    )


def check_group_names(groups: Sequence[str]) -> None:
    """Refuse grouping factors whose names the results use themselves.

    Raises
    ------
    DataError
        For the first of them.
    """
    made = {f"{g}_term" for g in groups} | {f"{k}_{g}" for k in ("sd", "cor", "b") for g in groups}
    for name in groups:
        if name in RESERVED_GROUPS | made:
            raise DataError(
                f"a grouping column cannot be called '{name}', a name that the results use "
                f"themselves: rename it, for example to '{name}_id'."
            )


def _outcome_alone(
    absent: Mapping[str, np.ndarray], outcome: tuple[str, ...], n_rows: int
) -> np.ndarray:
    """Say which rows lack nothing but their outcome."""
    if not outcome:
        return np.zeros(n_rows, dtype=bool)
    others = [where for c, where in absent.items() if c not in outcome]
    lacks = np.any([absent[c] for c in outcome], axis=0)
    return np.asarray(lacks & ~np.any(others, axis=0) if others else lacks)


def index_levels(
    frame: pd.DataFrame | Mapping[str, pd.Series], group: str
) -> tuple[np.ndarray, pd.Index]:
    """Return each row's level as an integer, and the levels, of a factor or an interaction."""
    parts = [_factorize(frame[f]) for f in group.split(":")]
    if len(parts) == 1:
        index, levels = parts[0]
        return read_only(index), levels
    code = np.zeros(len(parts[0][0]), dtype=np.int64)
    for part_index, part_levels in parts:
        code = code * len(part_levels) + part_index
    distinct, index = np.unique(code, return_inverse=True)
    labels = []
    for value in distinct.tolist():
        pieces: list[str] = []
        for _, part_levels in reversed(parts):
            value, position = divmod(value, len(part_levels))
            pieces.append(str(part_levels[position]))
        labels.append(":".join(reversed(pieces)))
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise DataError(
            f"two levels of '{group}' both read '{twice}', because ':' stands in a level: replace "
            "it by another sign in the columns."
        )
    return read_only(index.astype(np.int64)), pd.Index(labels)


def _factorize(column: pd.Series) -> tuple[np.ndarray, pd.Index]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.array.codes.astype(np.int64), pd.Index(column.dtype.categories)
    if pd.api.types.is_float_dtype(column) and (column % 1 == 0).all():
        column = column.astype(np.int64)  # whole numbers that a missing value had made floats
    index, levels = pd.factorize(column, sort=True)
    return index.astype(np.int64), pd.Index(levels)


def read_only(array: np.ndarray) -> np.ndarray:
    """Return the array, made read-only."""
    array.setflags(write=False)
    return array
