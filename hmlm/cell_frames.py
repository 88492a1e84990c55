"""Lazy frames of what is summed per cell: values, products, extremes, and values about means.

The rows hold keys k0, k1, ..., values v0, v1, ... and, where there are weights, w.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import narwhals as nw

from hmlm.sources import Source


def grouped(rows: nw.LazyFrame[Any], n_keys: int, sums: list[nw.Expr]) -> nw.LazyFrame[Any]:
    """Aggregate the rows per cell, or all of them where there are no keys."""
    labels = [f"k{i}" for i in range(n_keys)]
    return rows.group_by(labels).agg(*sums) if labels else rows.select(*sums)


def cell_sums(
    source: Source, rows: nw.LazyFrame[Any], n_keys: int, k: int, weighted: bool
) -> nw.LazyFrame[Any]:
    """Sum values v0, v1, ... and their products per cell."""
    factors = [nw.col(f"{'u' if weighted else 'v'}{i}") for i in range(k)]
    blank = [nw.col(c).is_null() for c in (*(f"v{i}" for i in range(k)), *["w"][:weighted])]
    if blank:
        gap = nw.any_horizontal(*blank, ignore_nulls=False)
        rows = rows.with_columns(gap.cast(nw.Int64).alias("blank"))
    if weighted:
        rows = rows.with_columns(
            nw.when(nw.col("w") > 0).then(nw.col("w").log()).alias("log_w"),
            (~(nw.col("w") > 0)).cast(nw.Int64).alias("not_positive"),
            *((nw.col(f"v{i}") * nw.col("w")).alias(f"u{i}") for i in range(k)),
        )
    products = {
        f"p{i}_{j}": factors[i] * nw.col(f"v{j}")
        for i, j in combinations_with_replacement(range(k), 2)
    }
    if source.engine != "polars":  # polars multiplies faster within the group-by, others before it
        rows = rows.with_columns(*(e.alias(c) for c, e in products.items()))
        products = {c: nw.col(c) for c in products}
    sums = [nw.len().alias("n")]
    flags = ["blank"][: len(blank)] + ["not_positive"][:weighted]
    sums += [nw.col(c).sum() for c in flags]
    sums += [nw.col(c).sum() for c in ("w", "log_w") if weighted]
    sums += [factor.sum().alias(f"s{i}") for i, factor in enumerate(factors)]
    sums += [e.sum().alias(c) for c, e in products.items()]
    return grouped(rows, n_keys, sums)


def cell_extremes(rows: nw.LazyFrame[Any], n_keys: int, which: list[int]) -> nw.LazyFrame[Any]:
    """Find the smallest and largest of some values per cell."""
    low = [nw.col(f"v{i}").min().alias(f"low{i}") for i in which]
    high = [nw.col(f"v{i}").max().alias(f"high{i}") for i in which]
    return grouped(rows, n_keys, low + high)


def sums_about_cells(
    source: Source, rows: nw.LazyFrame[Any], n_keys: int, k: int, weighted: bool
) -> nw.LazyFrame[Any]:
    """Sum the products once more, of values about the mean of their cell."""
    total = "w" if weighted else "n"
    factors = [nw.col(f"v{i}") * nw.col("w") if weighted else nw.col(f"v{i}") for i in range(k)]
    terms = rows.with_columns(*(e.alias(f"m{i}") for i, e in enumerate(factors)))
    sums = [nw.len().alias("n"), *([nw.col("w").sum()] if weighted else [])]
    cells = grouped(terms, n_keys, [*sums, *(nw.col(f"m{i}").sum() for i in range(k))])
    cells = cells.with_columns(*(nw.col(f"m{i}") / nw.col(total) for i in range(k)))
    labels = [f"k{i}" for i in range(n_keys)]
    cells = cells.select(*labels, *(f"m{i}" for i in range(k)))
    joined = rows.join(cells, on=labels) if labels else rows.join(cells, how="cross")
    about = joined.with_columns(*(nw.col(f"v{i}") - nw.col(f"m{i}") for i in range(k)))
    return cell_sums(source, about, n_keys, k, weighted)
