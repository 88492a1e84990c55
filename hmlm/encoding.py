"""From a sum of terms to columns of numbers, and again for new data with the training meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmlm.errors import DataError, FormulaError, counted
from hmlm.value_checks import check_size

_SIMPLE = re.compile(r"(?P<intercept>[01])(?: \+ (?P<names>\w+(?: \+ \w+)*))?")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Encoding:
    """Columns made from a sum of terms, able to be made again from new rows.

    Attributes
    ----------
    text : str
        The sum of terms.
    names : tuple of str
        Names of the columns: ``Intercept``, ``x``, ``factor[level]``, ``a:b``.
    values : ndarray, shape (rows, columns)
        The columns.
    offset : ndarray of shape (rows,) or None
        Sum of the offsets, if there are any.
    source : object
        What makes the columns from new rows: formulae's matrix, or None for plain columns.
    """

    text: str
    names: tuple[str, ...]
    values: np.ndarray
    offset: np.ndarray | None
    source: Any

    def again(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray | None]:
        """Make the columns, and the offset, from new rows.

        Raises
        ------
        DataError
            If a factor has a level that it did not have in the data of the fit, or a column
            cannot be made.
        """
        if self.source is None:
            plain = _plain_columns(self.names, frame)
            check_finite(dict(zip(self.names, plain.T, strict=True)))
            return plain, None
        try:
            with np.errstate(all="ignore"):
                values = [np.asarray(t.eval_new_data(frame)) for t in self.source.terms.values()]
        except Exception as error:  # formulae raises errors of many kinds
            raise DataError(f"cannot make '{self.text}' from the new rows: {error}") from error
        columns = np.column_stack([_tall(v, len(frame)) for v in values]).astype(float)
        made, offset = _split_offset(self.source, columns)
        check_finite(dict(zip(self.names, made.T, strict=True)))
        if offset is not None:
            check_finite({"the offset": offset})
        return made, offset


def _tall(values: np.ndarray, rows: int) -> np.ndarray:
    return np.broadcast_to(values, (rows,)) if values.ndim == 0 else values


def _plain_columns(names: tuple[str, ...], frame: pd.DataFrame) -> np.ndarray:
    values = np.empty((len(frame), len(names)))
    for k, name in enumerate(names):
        values[:, k] = 1.0 if name == "Intercept" else frame[name].to_numpy(dtype=float)
    return values


def _split_offset(source: Any, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    is_offset = np.concatenate(
        [[term.kind == "offset"] * len(term.labels) for term in source.terms.values()]
    ).astype(bool)
    if not is_offset.any():
        return columns, None
    return columns[:, ~is_offset], columns[:, is_offset].sum(axis=1)


def encode(text: str, frame: pd.DataFrame, counts: np.ndarray | None = None) -> Encoding:
    """Make the columns of a sum of terms.

    Parameters
    ----------
    text : str
        Terms that `hmlm.formula.parse_formula` has checked, with the intercept first.
    frame : pandas.DataFrame
        Complete rows.
    counts : ndarray of int, shape (R,), optional
        How many rows of the table each row stands for; one when None.

    Raises
    ------
    FormulaError
        If the terms cannot be evaluated.
    DataError
        If a term is not finite in some row.

    Examples
    --------
    >>> import pandas as pd
    >>> from hmlm.encoding import encode
    >>> encode("1 + x:g", pd.DataFrame({"x": [1.0, 2.0], "g": ["a", "b"]})).names
    ('Intercept', 'x:g[a]', 'x:g[b]')
    """
    if text == "0":
        return _no_columns(text, len(frame))
    names = plain_names(text, frame)
    if names is not None:
        return Encoding(
            text=text,
            names=names,
            values=_plain_columns(names, frame),
            offset=None,
            source=None,
        )
    source = evaluate(text, frame).common
    if source is None:
        return _no_columns(text, len(frame))
    made = {name: np.asarray(term.data) for name, term in source.terms.items()}
    if constant := [name for name, values in made.items() if values.shape[-1:] == (0,)]:
        raise DataError(
            f"predictor '{constant[0]}' has the same level in all "
            f"{counted(len(frame) if counts is None else int(counts.sum()), 'row')}: "
            "leave it out of the formula."
        )
    columns = np.column_stack([_tall(values, len(frame)) for values in made.values()])
    values, offset = _split_offset(source, columns.astype(float))
    names = tuple(
        label for term in source.terms.values() if term.kind != "offset" for label in term.labels
    )
    check_finite(dict(zip(names, values.T, strict=True)), counts)
    if offset is not None:
        check_finite({"the offset": offset}, counts)
    return Encoding(text=text, names=names, values=values, offset=offset, source=source)


def plain_names(text: str, frame: pd.DataFrame) -> tuple[str, ...] | None:
    """Return the names of the columns where they are an intercept and columns of numbers."""
    simple = _SIMPLE.fullmatch(text)
    if not simple:
        return None
    plain = (simple["names"] or "").split(" + ") if simple["names"] else []
    if not all(n in frame and pd.api.types.is_numeric_dtype(frame[n]) for n in plain):
        return None
    return tuple(dict.fromkeys(["Intercept"] * (simple["intercept"] == "1") + plain))


def _no_columns(text: str, rows: int) -> Encoding:
    return Encoding(text=text, names=(), values=np.empty((rows, 0)), offset=None, source=None)


def evaluate(text: str, frame: pd.DataFrame) -> Any:
    """Evaluate a checked formula with formulae, in an environment that holds only functions.

    Raises
    ------
    FormulaError
        If formulae cannot evaluate it.
    """
    import contextlib
    import io

    from hmlm.resolving import resolve

    try:
        with np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()):
            matrices, names = resolve(text, frame)
    except Exception as error:  # formulae raises errors of many kinds, its own among them
        raise FormulaError(f"cannot evaluate '{text}': {error}") from error
    if matrices.common and len(matrices.common.terms) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise FormulaError(f"two different terms of '{text}' read '{twice}': make a column of one.")
    return matrices


def check_finite(columns: Mapping[str, np.ndarray], counts: np.ndarray | None = None) -> None:
    """Raise a DataError for the first column that is not finite in some rows, or far too large."""
    for name, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            rows = len(bad) if counts is None else int(counts[bad].sum())
            first = f", the first being row {bad[0]} of the complete rows"
            raise DataError(
                f"'{name}' is not finite in {counted(rows, 'row')}{first * (counts is None)}: "
                "change the values or the function (log of zero?)."
            )
        check_size(name, values)
