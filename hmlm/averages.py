"""Averages of predictions by cell, and functions of two of them, with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse, special

from hmlm.cells import needs_rows
from hmlm.classical_prediction import JointErrors, joint_errors, linear_rows
from hmlm.contrasts import RESULTS, Setting
from hmlm.data import read_columns
from hmlm.data_grid import known_columns
from hmlm.design import Design
from hmlm.errors import DataError, counted, listed, suggest
from hmlm.new_rows import Groups, NewRows, new_rows
from hmlm.prediction import category_labels, chosen_draws, expected_rows, new_groups

Comparing = Literal["difference", "ratio", "log odds ratio"]
Scale = Literal["mean", "linear"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Cells:
    """Rows to be averaged over, in cells.

    Attributes
    ----------
    frame : pandas.DataFrame or None
        The rows; None for those of the fit.
    code : ndarray of int, shape (rows,)
        The cell of each.
    table : pandas.DataFrame
        What the cells are: a row for each.
    """

    frame: pd.DataFrame | None
    code: np.ndarray
    table: pd.DataFrame

    def averages(self, weights: np.ndarray | float = 1.0) -> Any:
        """Return the sparse matrix that averages rows by cell, shape (cells, rows)."""
        n, count = len(self.code), len(self.table)
        share = weights / np.bincount(self.code, minlength=count)[self.code]
        return sparse.csr_array((share, (self.code, np.arange(n))), shape=(count, n))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Averages:
    """Averages by cell, or a function of two of them.

    Attributes
    ----------
    values : ndarray
        Draws, shape (draws, cells, K); of a classical fit estimates, shape (cells,).
    X : ndarray of shape (cells, p) or None
        Derivative by beta; None for draws.
    Z : tuple of sparse arrays, shape (cells, J q)
        Derivative by the effects of each factor.
    """

    values: np.ndarray
    X: np.ndarray | None = None
    Z: tuple[Any, ...] = ()


def make_cells(design: Design, by: str | Sequence[str] | None, new_data: Any) -> Cells:
    """Put rows into cells by the values of columns.

    Raises
    ------
    DataError
        If a column is not there, has missing values, or has the name of a column of results.
    """
    columns = [by] if isinstance(by, str) else list(by or ())
    if taken := RESULTS.intersection(columns):
        raise DataError(
            f"the results have a column '{min(taken)}' of their own: rename that of the data."
        )
    if new_data is None:
        needs_rows(design.cells, "An average over the rows of the fit", *design.spec.groups[:1])
        frame, available = None, list(design.data.frame)
    else:
        names = list(new_data) if isinstance(new_data, Mapping) else list(new_data.columns)
        available = [str(n) for n in names]
        used = [c for c in dict.fromkeys([*known_columns(design), *columns]) if c in available]
        frame = read_columns(new_data, used or names[:1])
    if absent := [c for c in columns if c not in available]:
        raise DataError(
            f"there is no column '{absent[0]}' to average by.{suggest(absent[0], available)} "
            f"Columns: {listed(available, 20)}."
        )
    whole = design.data.frame if frame is None else frame
    if not columns:
        return Cells(
            frame=frame,
            code=np.zeros(len(whole), dtype=np.int64),
            table=pd.DataFrame(index=pd.RangeIndex(1)),
        )
    for column in columns:
        if missing := int(whole[column].isna().sum()):
            raise DataError(
                f"column '{column}' to average by is missing in {counted(missing, 'row')}: fill "
                "them in or leave the rows out."
            )
    code = whole.groupby(columns, sort=True, observed=True).ngroup().to_numpy()
    first = np.unique(code, return_index=True)[1]
    table = whole[columns].iloc[first].reset_index(drop=True)
    return Cells(frame=frame, code=code, table=table)


def whole_frame(design: Design, cells: Cells) -> pd.DataFrame:
    """Return the rows of the cells, with all columns that predictions depend on."""
    return design.data.frame if cells.frame is None else cells.frame


def average_settings(
    fit: Any,
    cells: Cells,
    settings: Sequence[Setting],
    kind: Scale,
    groups: Groups,
    random_seed: int | None,
) -> tuple[list[Averages], JointErrors | None]:
    """Average predictions under every setting; new groups have the same effects in all."""
    design: Design = fit.design
    every = [
        new_rows(design, s.applied(whole_frame(design, cells), cells.frame), groups)
        for s in settings
    ]
    members = [cells.averages(s.weights) for s in settings]
    if hasattr(type(fit), "draws"):
        posterior = chosen_draws(fit, every[0].modes)
        fresh = new_groups(design, posterior, every[0], np.random.default_rng(random_seed))
        linear = kind == "linear"
        K = max(1, len(category_labels(design, linear)))
        found = []
        for rows, member in zip(every, members, strict=True):
            n_draws = len(next(iter(posterior.values())))
            total = np.zeros((n_draws, member.shape[0], K))
            by_row = sparse.csr_array(member.T)
            for part, mu in expected_rows(design, posterior, rows, fresh, linear=linear):
                mu = mu.reshape(*mu.shape[:2], K)
                for k in range(K):
                    total[:, :, k] += mu[:, :, k] @ by_row[part]
            found.append(Averages(values=total))
        return found, None
    pairs = zip(every, members, strict=True)
    return [_classical(fit, rows, member, kind) for rows, member in pairs], joint_errors(
        fit, *every
    )


def _classical(fit: Any, rows: NewRows, member: Any, kind: Scale) -> Averages:
    linear = linear_rows(fit, rows)
    if kind == "linear":
        value, slope = linear.eta, np.where(np.isnan(linear.eta), np.nan, 1.0)
    else:
        value, slope = linear.mean(), linear.slope() + 0.0 * linear.eta
    moved = sparse.csr_array(member * slope[None, :])
    return Averages(
        values=member @ value,
        X=moved @ linear.X,
        Z=tuple(sparse.csr_array(moved @ z) for z in linear.Z),
    )


def compared(high: Averages, low: Averages, comparison: Comparing) -> Averages:
    """Compare averages under two settings, draw by draw or with derivatives by the chain rule."""
    a, b = high.values, low.values
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if comparison == "difference":
            value, by_high, by_low = a - b, np.ones_like(a), -np.ones_like(b)
        elif comparison == "ratio":
            value, by_high, by_low = a / b, 1.0 / b, -a / b**2
        else:
            value = special.logit(a) - special.logit(b)
            by_high, by_low = 1.0 / (a * (1.0 - a)), -1.0 / (b * (1.0 - b))
    if high.X is None or low.X is None:
        return Averages(values=value)
    Z = tuple(
        sparse.csr_array(
            _same_width(u, v.shape[1]) * by_high[:, None]
            + _same_width(v, u.shape[1]) * by_low[:, None]
        )
        for u, v in zip(high.Z, low.Z, strict=True)
    )
    X = by_high[:, None] * high.X + by_low[:, None] * low.X
    return Averages(values=value, X=X, Z=Z)


def _same_width(matrix: Any, width: int) -> Any:
    if matrix.shape[1] >= width:
        return matrix
    return sparse.csr_array(
        (matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], width)
    )


def result_table(
    fit: Any,
    cells: Cells,
    labels: Mapping[str, str],
    found: Averages,
    errors: JointErrors | None,
    prob: float,
    kind: Scale,
    log: bool = False,
) -> pd.DataFrame:
    """Return the table of averages or comparisons: a row for each cell and category."""
    categories = category_labels(fit.design, kind == "linear")
    count, K = len(cells.table), max(1, len(categories))
    value = found.values
    if found.X is None or errors is None:
        tails = np.quantile(value, [0.5 - prob / 2, 0.5 + prob / 2], axis=0)
        estimate, error = value.mean(axis=0), value.std(axis=0, ddof=1)
        lower, upper = tails
    else:
        estimate, error = value, np.sqrt(errors.variance(found.X, found.Z))
        half = special.ndtri(0.5 + prob / 2) * error
        lower, upper = value - half, value + half
        if log:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                factor = np.exp(half / value)
                positive = value > 0
                lower = np.where(positive, value / factor, lower)
                upper = np.where(positive, value * factor, upper)
    table = cells.table.loc[np.repeat(np.arange(count), K)].reset_index(drop=True)
    for place, (name, label) in enumerate(labels.items()):
        table.insert(place, name, label)
    if categories:
        table["category"] = np.tile(np.asarray(categories), count)
    columns = {"estimate": estimate, "std_error": error, "lower": lower, "upper": upper}
    for name, numbers in columns.items():
        table[name] = np.asarray(numbers).reshape(-1)
    table["prob"] = prob
    return table
