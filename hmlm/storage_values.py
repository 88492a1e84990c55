"""Plain values, priors, settings and tables, written as JSON and arrays and read again exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hmlm.errors import DataError, HmlmError, counted
from hmlm.priors import Prior

_INDEX = "(index)"


def pack_value(value: Any) -> Any:
    """Write a value as JSON can hold it: dataclasses by their name, nothing as code.

    Raises
    ------
    HmlmError
        If the value is of a kind that cannot be kept.

    Examples
    --------
    >>> pack_value((1, float("nan")))
    {'$tuple': [1, {'$float': 'nan'}]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, tuple):
        return {"$tuple": [pack_value(v) for v in value]}
    if isinstance(value, list):
        return [pack_value(v) for v in value]
    if isinstance(value, np.ndarray):
        items = [pack_value(v) for v in value.reshape(-1).tolist()]
        return {"$array": [value.dtype.str, list(value.shape), items]}
    if isinstance(value, Prior):
        return {"$Prior": [value.name, dict(value.parameters)]}
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {"$map": [[k, pack_value(v)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return {f"${type(value).__name__}": {n: pack_value(getattr(value, n)) for n in names}}
    raise HmlmError(f"{value!r:.60} ({type(value).__name__}) is of a kind that cannot be saved.")


def unpack_value(packed: Any, classes: Mapping[str, type]) -> Any:
    """Read a value that `pack_value` wrote; only the classes given are made.

    Raises
    ------
    HmlmError
        If a class is not among them.

    Examples
    --------
    >>> unpack_value({"$tuple": [1, {"$float": "inf"}]}, {})
    (1, inf)
    """
    if isinstance(packed, list):
        return [unpack_value(v, classes) for v in packed]
    if not isinstance(packed, dict):
        return packed
    (tag, inside), *_ = packed.items()
    if tag == "$float":
        return float(inside)
    if tag == "$tuple":
        return tuple(unpack_value(v, classes) for v in inside)
    if tag == "$map":
        return {k: unpack_value(v, classes) for k, v in inside}
    if tag == "$array":
        dtype, shape, items = inside
        values = np.array([unpack_value(v, classes) for v in items], dtype=dtype).reshape(shape)
        values.setflags(write=False)
        return values
    if tag == "$Prior":
        return Prior(inside[0], **inside[1])
    made = classes.get(tag.removeprefix("$"))
    if made is None:
        raise HmlmError(f"this hmlm has no {tag.removeprefix('$')}: update it.")
    return made(**{k: unpack_value(v, classes) for k, v in inside.items()})


def pack_frame(frame: pd.DataFrame) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Write the columns of a table as arrays of numbers, and what else they are.

    Text becomes codes with a list of values, a factor codes with its levels in their order; an
    index of numbers is kept where it says more than the place of the row.

    Returns
    -------
    arrays : dict of str to ndarray
        One a column.
    columns : list of dict
        For each column its ``name``, ``kind``, ``dtype`` and, where it has such, its ``values``.
    """
    arrays: dict[str, np.ndarray] = {}
    columns: list[dict[str, Any]] = []
    for name, column in frame.items():
        dtype = column.dtype
        about: dict[str, Any] = {"name": name, "kind": "number", "dtype": str(dtype)}
        if isinstance(dtype, pd.CategoricalDtype):
            arrays[str(name)] = column.cat.codes.to_numpy().astype(np.int32)
            about |= {
                "kind": "factor",
                "dtype": str(dtype.categories.dtype),
                "values": pack_value(dtype.categories.tolist()),
                "ordered": bool(dtype.ordered),
            }
        elif isinstance(dtype, np.dtype) and dtype.kind in "biuf":
            arrays[str(name)] = column.to_numpy()
        else:
            codes, values = pd.factorize(column)
            arrays[str(name)] = codes.astype(np.int32)
            about |= {"kind": "text", "values": pack_value(list(values))}
        columns.append(about)
    if frame.index.name is not None or not frame.index.equals(pd.RangeIndex(len(frame))):
        arrays[_INDEX] = frame.index.to_numpy()
        columns.append({"name": _INDEX, "kind": "index", "label": frame.index.name})
    return arrays, columns


def unpack_frame(arrays: Mapping[str, np.ndarray], columns: list[dict[str, Any]]) -> pd.DataFrame:
    """Make the table again that `pack_frame` wrote."""
    made: dict[str, pd.Series] = {}
    index = None
    for about in columns:
        name, kind = about["name"], about["kind"]
        codes = arrays[name]
        if kind == "index":
            index = pd.Index(codes, name=about["label"])
            continue
        if kind == "number":
            made[name] = pd.Series(codes, name=name)
            continue
        values = unpack_value(about["values"], {})
        if kind == "factor":
            levels = pd.Index(values, dtype=about["dtype"])
            column = pd.Categorical.from_codes(codes, categories=levels, ordered=about["ordered"])
            made[name] = pd.Series(column, name=name)
            continue
        words = np.array([*values, None], dtype=object)[codes]  # -1: no value
        made[name] = pd.Series(words, name=name, dtype=about["dtype"])
    frame = pd.DataFrame(made)
    return frame if index is None else frame.set_index(index)


def check_same_data(kept: pd.DataFrame, given: pd.DataFrame, path: object) -> None:
    """Refuse a table whose rows are not those of a fit.

    Raises
    ------
    DataError
        With the first column that differs, and in how many rows.
    """
    if len(kept) != len(given):
        raise DataError(
            f"the data are not those of '{path}': {counted(len(given), 'complete row')}, and the "
            f"fit has {len(kept):,}. Load it without data=, or use fit.update(data=...)."
        )
    for name in kept.columns:
        old, new = kept[name], given[name]
        levels = [_levels(c) for c in (old, new)]
        if None not in levels and levels[0] != levels[1]:
            raise DataError(
                f"the data are not those of '{path}': the levels of '{name}' are others, or in "
                "another order. Load it without data=, or use fit.update(data=...)."
            )
        numbers = [pd.api.types.is_numeric_dtype(c) for c in (old, new)]
        if numbers[0] != numbers[1]:
            raise DataError(
                f"the data are not those of '{path}': '{name}' is of type {new.dtype} in "
                f"{counted(len(new), 'row')}, and was {old.dtype}. Convert it, or load without "
                "data=."
            )
        if all(numbers):
            differ = np.asarray(old, dtype=float) != np.asarray(new, dtype=float)
        else:
            differ = np.asarray(old.astype(str)) != np.asarray(new.astype(str))
        if differ.any():
            raise DataError(
                f"the data are not those of '{path}': '{name}' differs in "
                f"{counted(int(differ.sum()), 'row')}, the first being row "
                f"{int(np.flatnonzero(differ)[0])} of the complete rows. Load it without data=, or "
                "use fit.update(data=...)."
            )


def _levels(column: pd.Series) -> list[str] | None:
    """Return the levels of a factor as text; None where a column is none."""
    dtype = column.dtype
    return list(map(str, dtype.categories)) if isinstance(dtype, pd.CategoricalDtype) else None
