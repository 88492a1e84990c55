"""Sums of products per cell of a large table: one group-by, and only its result in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from hmlm.cell_frames import cell_extremes, cell_sums, grouped, sums_about_cells
from hmlm.errors import DataError, counted, listed
from hmlm.lazy_rows import (
    check_columns,
    collect,
    complete_rows,
    count_all,
    key_expressions,
    plain_keys,
)
from hmlm.source_files import engine_errors
from hmlm.sources import Source

MAX_BYTES = 2 * 2**30  # of an aggregate in memory
# Sum of squares of the cells' means over that within cells, from which rounding would show: the
# sums about the common centre then keep less than about eleven digits of the spread within.
WORST_RATIO = 1e5
NOISE = 1e-9  # what rounding leaves, at most, of squares within cells of equal values


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CellSums:
    """Weights, means and products about the mean of every cell, in the units of the table.

    Attributes
    ----------
    keys : pandas.DataFrame
        The keys of every cell, (cells, keys), sorted: integers, booleans, text, or categories in
        their order.
    names : tuple of str
        Names of the k values.
    n : ndarray of int
        Rows of every cell, (cells,).
    weight : ndarray
        Sum of the weights of every cell, (cells,); the number of rows without weights.
    log_weight : float
        Sum of the logarithms of the weights of all rows; 0 without weights.
    means : ndarray
        Weighted means, (cells, k).
    products : ndarray
        Sums over a cell's rows of w (v - mean) (v - mean)', (cells, k, k).
    """

    keys: pd.DataFrame
    names: tuple[str, ...]
    n: np.ndarray
    weight: np.ndarray
    log_weight: float
    means: np.ndarray
    products: np.ndarray


def sum_products(
    source: Source,
    columns: Sequence[str],
    keys: Sequence[str],
    values: Mapping[str, nw.Expr],
    centres: Mapping[str, float],
    scales: Mapping[str, float],
    weights: nw.Expr | None = None,
    max_bytes: int = MAX_BYTES,
) -> CellSums:
    """Sum the products of values per cell of a table, in one group-by of its engine.

    The engine sums (v - centre) / scale and its products; means and products about the cells' own
    means follow from these (Chan, Golub and LeVeque 1983, The American Statistician 37: 242-247).
    Where a value differs so much more between cells than within them that this would cost digits
    (squared means of cells more than 1e5 times the squares within), its smallest and largest value
    per cell are read: a value that is constant in every cell has products of exactly zero. If it
    varies, the rows are joined with the means of their cells and summed once more about them.
    Engines add in parallel and in no fixed order, so that the last digits may change between runs.

    Parameters
    ----------
    source : Source
        The table.
    columns : sequence of str
        Columns that must be present: other rows are left out.
    keys : sequence of str
        Columns whose combinations are the cells; none for one cell of all rows.
    values : mapping of str to narwhals.Expr
        For each value, its expression of the table's columns; true counts as 1.
    centres, scales : mapping of str to float
        About the mean and standard deviation of each value: they only keep numbers small. 0 and 1
        for values that are not named.
    weights : narwhals.Expr, optional
        Positive weights of the rows.
    max_bytes : int
        How much memory the aggregate may take.

    Returns
    -------
    CellSums
        Sums of every cell, sorted by the keys.

    Raises
    ------
    DataError
        If a column is not there, no row is complete, a value cannot be computed, a weight is not
        positive, or the aggregate would be too large.

    Examples
    --------
    >>> import narwhals as nw
    >>> import polars as pl
    >>> from hmlm.aggregation import sum_products
    >>> from hmlm.sources import open_source
    >>> table = pl.LazyFrame({"g": ["b", "a", "b"], "y": [1.0, 2.0, 3.0]})
    >>> y = {"y": nw.col("y")}
    >>> sums = sum_products(open_source(table), ["y"], ["g"], y, {"y": 2.0}, {"y": 1.0})
    >>> sums.keys["g"].tolist(), sums.n.tolist(), sums.means.ravel().tolist()
    (['a', 'b'], [1, 2], [2.0, 2.0])
    >>> sums.products.ravel().tolist()
    [0.0, 2.0]
    """
    names, k, keys = tuple(values), len(values), list(dict.fromkeys(keys))
    needed = list(dict.fromkeys([*columns, *keys]))
    check_columns(source, needed)
    _check_size(source, keys, 8 * (2 * k * k + 3 * k + 8), max_bytes)
    centre = np.array([float(centres.get(v, 0.0)) for v in names])
    scale = np.array([_power_of_two(float(scales.get(v, 1.0))) for v in names])
    small = [
        ((value.cast(nw.Float64) - float(centre[i])) * float(1 / scale[i])).alias(f"v{i}")
        for i, value in enumerate(values.values())
    ]
    weighted = weights is not None
    if weights is not None:
        small.append(weights.cast(nw.Float64).alias("w"))
    rows = complete_rows(source, needed).select(*key_expressions(source, keys), *small)
    cells, found = _read(source, keys, cell_sums(source, rows, len(keys), k, weighted))
    n = found["n"].to_numpy().astype(np.int64)
    if not n.sum():
        raise DataError(
            f"no row of {source.name} has a value in all of {listed(needed)}: fill them in or "
            "leave the emptiest column out of the formula."
        )
    _check_sums(source, found, names, weighted)
    weight = found["w"].to_numpy(dtype=float) if weighted else n.astype(float)
    means, products = _about_means(found, weight, n, k)
    within, between = _spreads(means, products, weight, n)
    doubtful = between > WORST_RATIO * within
    constant = np.zeros((len(n), k), dtype=bool)
    if noise := np.flatnonzero(doubtful & (within < NOISE * between)).tolist():
        _, extremes = _read(source, keys, cell_extremes(rows, len(keys), noise))
        for i in noise:
            constant[:, i] = extremes[f"low{i}"] == extremes[f"high{i}"]
    if (doubtful & ~constant.all(axis=0)).any():
        about = sums_about_cells(source, rows, len(keys), k, weighted)
        shift, products = _about_means(_read(source, keys, about)[1], weight, n, k)
        means = means + shift
    products[constant] = 0.0
    np.swapaxes(products, 1, 2)[constant] = 0.0
    return CellSums(
        keys=cells,
        names=names,
        n=n,
        weight=weight,
        log_weight=float(found["log_w"].sum()) if weighted else 0.0,
        means=centre + means * scale,
        products=products * (scale[:, None] * scale),
    )


def count_rows(
    source: Source, columns: Sequence[str], keys: Sequence[str], max_bytes: int = MAX_BYTES
) -> pd.DataFrame:
    """Count how often every combination of keys occurs: equal rows, merged.

    Parameters
    ----------
    source : Source
        The table.
    columns : sequence of str
        Columns that must be present: other rows are left out.
    keys : sequence of str
        Columns whose combinations are counted.
    max_bytes : int
        How much memory the combinations may take.

    Returns
    -------
    pandas.DataFrame
        A row per combination, sorted: the keys, and last the number of rows, named ``n`` (or
        ``n_`` where a key has that name).

    Raises
    ------
    DataError
        If a column is not there, or there would be too many combinations.

    Examples
    --------
    >>> import polars as pl
    >>> from hmlm.aggregation import count_rows
    >>> from hmlm.sources import open_source
    >>> table = pl.LazyFrame({"y": [1, 0, 1, 1], "g": ["a", "a", "a", "b"]})
    >>> count_rows(open_source(table), ["y"], ["g", "y"])
       g  y  n
    0  a  0  1
    1  a  1  2
    2  b  1  1
    """
    keys = list(dict.fromkeys(keys))
    needed = list(dict.fromkeys([*columns, *keys]))
    kinds = check_columns(source, needed)
    width = 16 + sum(64 if kinds[c] == "text" else 8 for c in keys)
    _check_size(source, keys, width, max_bytes)
    rows = complete_rows(source, needed).select(*key_expressions(source, keys))
    cells, found = _read(source, keys, grouped(rows, len(keys), [nw.len().alias("n")]))
    name = "n"
    while name in keys:
        name += "_"
    return cells.assign(**{name: found["n"].to_numpy().astype(np.int64)})


def estimate_cells(source: Source, keys: Sequence[str]) -> int:
    """Estimate how many different combinations of keys a table has.

    DuckDB, Spark, Dask and polars count by HyperLogLog, to about ten per cent (Flajolet and others
    2007, Discrete Mathematics and Theoretical Computer Science AH: 137-156); others exactly.

    Parameters
    ----------
    source : Source
        The table.
    keys : sequence of str
        Columns.

    Returns
    -------
    int
        About the number of combinations.

    Examples
    --------
    >>> import polars as pl
    >>> from hmlm.aggregation import estimate_cells
    >>> from hmlm.sources import open_source
    >>> estimate_cells(open_source(pl.LazyFrame({"g": ["a", "b", "a"]})), ["g"])
    2
    """
    keys = list(dict.fromkeys(keys))
    if not keys:
        return 1
    rows = complete_rows(source, keys).select(*key_expressions(source, keys))
    native = nw.to_native(rows)
    mixed: Any
    with engine_errors(source.name):
        if source.engine == "duckdb":
            from duckdb import ColumnExpression, FunctionExpression

            mixed = FunctionExpression("hash", *map(ColumnExpression, native.columns))
            sketch = native.aggregate([FunctionExpression("approx_count_distinct", mixed)])
            return int(sketch.fetchall()[0][0])
        if source.engine == "polars":
            import polars as pl

            mixed = pl.struct(pl.all()).hash().approx_n_unique()
            return int(native.select(mixed).collect(engine="streaming").item())
        if source.engine.startswith("pyspark"):
            from pyspark.sql import functions

            mixed = functions.approx_count_distinct(functions.xxhash64(*native.columns))
            return int(native.agg(mixed).collect()[0][0])
        if source.engine == "dask":
            return int(native.nunique_approx().compute())
    distinct = rows.group_by(rows.columns).agg(nw.len().alias("n")).select(nw.len().alias("n"))
    return int(collect(source, distinct)["n"].iloc[0])


def _check_size(source: Source, keys: Sequence[str], width: int, max_bytes: int) -> None:
    """Refuse an aggregate of `width` bytes per cell that would not fit into `max_bytes`."""
    if not keys or count_all(source) * width <= max_bytes:
        return
    cells = estimate_cells(source, keys)
    if cells * width > max_bytes:
        raise DataError(
            f"{source.name} has about {cells:,} different combinations of {listed(keys)}: their "
            f"sums would take {cells * width / 2**30:.2g} GiB of memory, more than the "
            f"{max_bytes / 2**30:.2g} GiB allowed. Leave out or round the columns with the most "
            "different values."
        )


def _power_of_two(scale: float) -> float:
    """Return the power of two next to a scale: dividing by it loses no digit."""
    if not np.isfinite(scale) or scale <= 0:
        return 1.0
    return float(2.0 ** np.clip(np.round(np.log2(scale)), -500, 500))


def _read(
    source: Source, keys: Sequence[str], aggregate: nw.LazyFrame[Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the keys of the cells and their sums, both sorted by the keys."""
    found = collect(source, aggregate)
    labels = [f"k{i}" for i in range(len(keys))]
    plain = {c: plain_keys(source, name, found[c]) for c, name in zip(labels, keys, strict=True)}
    cells = pd.DataFrame(plain, index=found.index, copy=False)
    if labels:
        cells = cells.sort_values(labels)
        found = found.loc[cells.index].reset_index(drop=True)
    return cells.reset_index(drop=True).set_axis(list(keys), axis=1), found


def _about_means(
    found: pd.DataFrame, weight: np.ndarray, n: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return means, and products about them, from plain sums."""
    sums = np.column_stack([found[f"s{i}"] for i in range(k)]) if k else np.empty((len(n), 0))
    means = sums / weight[:, None]
    products = np.empty((len(n), k, k))
    for i, j in combinations_with_replacement(range(k), 2):
        about = found[f"p{i}_{j}"].to_numpy() - sums[:, i] * means[:, j]
        products[:, i, j] = products[:, j, i] = about
    products[n == 1] = 0.0
    diagonal = np.arange(k)
    products[:, diagonal, diagonal] = np.maximum(products[:, diagonal, diagonal], 0.0)
    return means, products


def _check_sums(
    source: Source, found: pd.DataFrame, names: tuple[str, ...], weighted: bool
) -> None:
    """Refuse weights that are not positive and values that are no finite numbers."""
    if weighted and (wrong := int(found["not_positive"].sum())):
        raise DataError(
            f"the weights are zero or negative in {counted(wrong, 'row')} of {source.name}: "
            "weights must be positive; leave these rows out if they should not count."
        )
    finite = [bool(np.isfinite(found[f"p{i}_{i}"]).all()) for i in range(len(names))]
    blank = int(found["blank"].sum()) if names else 0
    if blank or not all(finite):
        wrong_names = listed(
            [v for v, fine in zip(names, finite, strict=True) if not fine] or names
        )
        rows = f"{counted(blank, 'row')}" if blank else "some rows"
        raise DataError(
            f"{wrong_names} cannot be computed or is infinite in {rows} of {source.name}: look for "
            "logarithms of what is not positive, divisions by zero and infinite values."
        )


def _spreads(
    means: np.ndarray, products: np.ndarray, weight: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each value's sum of squares within cells, and that of the cells' means."""
    several = n > 1
    within = np.einsum("cii->i", products)
    return within, weight[several] @ means[several] ** 2
