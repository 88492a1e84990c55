"""Sums of products per cell: exact on bad scales, bounded in size and in memory."""

import os
import subprocess
import sys

import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hmlm import aggregation
from hmlm.aggregation import count_rows, estimate_cells, sum_products
from hmlm.errors import DataError
from hmlm.sources import open_source


def long_sums(table, key, columns, weights=None):
    """Sum in long doubles, about the mean of every cell."""
    v = table[columns].to_numpy().astype(np.longdouble)
    weights = np.ones(len(table)) if weights is None else weights
    means, products = [], []
    for rows in table.groupby(key).indices.values():
        w = weights[rows]
        mean = w @ v[rows] / w.sum()
        means.append(mean)
        products.append((v[rows] - mean).T @ ((v[rows] - mean) * w[:, None]))
    return np.array(means), np.array(products)


def by(engine, table):
    frame = pl.from_pandas(table)
    return open_source(frame.lazy() if engine == "polars" else duckdb.connect().from_df(table))


def identity(columns):
    return {c: nw.col(c) for c in columns}


def assert_exact(sums, table, key, columns, weights=None, rtol=1e-10):
    means, products = long_sums(table, key, columns, weights)
    scale = np.sqrt(np.einsum("cii->i", products))
    scale = np.where(scale > 1e-7 * means.std(axis=0), scale, 1).astype(float)  # else constant
    np.testing.assert_allclose(
        sums.products / (scale[:, None] * scale),
        (products / (scale[:, None] * scale)).astype(float),
        rtol=0,
        atol=rtol,
    )
    np.testing.assert_allclose(sums.means, means.astype(float), rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("weighted", [False, True])
def test_badly_scaled_columns_keep_their_digits(engine, weighted):
    rng = np.random.default_rng(0)
    n = 20_000
    table = pd.DataFrame({"g": rng.integers(0, 50, n), "year": rng.integers(2000, 2010, n)})
    table["y"] = 1e6 + rng.normal(0, 1e-2, n)
    table["x"] = rng.normal(3, 1, n) * 1e-8
    table["w"] = rng.uniform(0.1, 10, n)
    columns = ["year", "y", "x"]
    centres, scales = table[columns].mean().to_dict(), table[columns].std().to_dict()
    weights = nw.col("w") if weighted else None
    sums = sum_products(
        by(engine, table), [*columns, "w"], ["g"], identity(columns), centres, scales, weights
    )
    assert_exact(sums, table, "g", columns, table["w"].to_numpy() if weighted else None)
    np.testing.assert_array_equal(sums.products, np.swapaxes(sums.products, 1, 2))


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cells_far_from_the_common_centre_are_summed_about_their_own_means(engine, weighted):
    rng = np.random.default_rng(1)
    n = 5_000
    table = pd.DataFrame({"g": rng.integers(0, 40, n), "w": rng.uniform(0.1, 10, n)})
    table["y"] = rng.normal(0, 1e6, 40)[table["g"]] + rng.normal(0, 1e-2, n)
    table["x"] = rng.normal(0, 1, n)
    table["z"] = rng.normal(0, 1, 40)[table["g"]]
    columns = ["y", "x", "z"]
    weights = nw.col("w") if weighted else None
    sums = sum_products(
        by(engine, table), columns, ["g"], identity(columns), {}, {"y": 1e6}, weights
    )
    assert_exact(sums, table, "g", columns, table["w"].to_numpy() if weighted else None, rtol=1e-12)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_value_that_is_constant_in_every_cell_has_products_of_exactly_zero(engine, monkeypatch):
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"g": rng.integers(0, 40, 5_000), "x": rng.normal(size=5_000)})
    table["z"] = rng.normal(0.3, 1.7, 40)[table["g"]]
    monkeypatch.setattr(aggregation, "sums_about_cells", None)  # no second pass over the rows
    sums = sum_products(by(engine, table), [], ["g"], identity(["x", "z"]), {"z": 0.3}, {"z": 1.7})
    assert not sums.products[:, 1, :].any()
    assert not sums.products[:, :, 1].any()
    assert (sums.products[:, 0, 0] > 0).all()
    assert_exact(sums, table, "g", ["x", "z"])


def test_a_cell_of_one_row_has_no_products_and_no_keys_make_one_cell():
    table = pd.DataFrame({"g": [1, 2, 3], "y": [0.1, 1e9, -7.3]})
    values = {"y": nw.col("y")}
    sums = sum_products(by("polars", table), ["y"], ["g"], values, {}, {})
    assert not sums.products.any()
    for engine in ("polars", "duckdb"):
        sums = sum_products(by(engine, table), ["y"], [], values, {"y": 1e9}, {"y": 1e9})
        assert sums.keys.shape == (1, 0)
        assert sums.n.tolist() == [3]
        assert sums.means[0, 0] == pytest.approx(table["y"].mean())
        assert sums.products[0, 0, 0] == pytest.approx(table["y"].var() * 2)
    table["y"] = [5.0, 5.0 + 1e-9, 5.0]
    sums = sum_products(by("duckdb", table), ["y"], [], values, {"y": 1e9}, {"y": 1.0})
    assert sums.products[0, 0, 0] == pytest.approx(np.var(table["y"] - 5) * 3, rel=1e-9)


def test_values_are_expressions_and_incomplete_rows_are_left_out():
    table = pl.LazyFrame(
        {
            "y": [1.0, 2.0, float("nan"), 4.0, 5.0],
            "g": ["a", "b", "a", None, "a"],
            "x": [1, None, 3, 4, 5],
        }
    )
    values = {"xy": nw.col("x") * nw.col("y"), "x is 5": nw.col("x") == 5}
    sums = sum_products(open_source(table), ["y", "x"], ["g"], values, {}, {})
    assert sums.keys["g"].tolist() == ["a"]
    assert (sums.n.tolist(), sums.means.tolist()) == ([2], [[13.0, 0.5]])
    assert sums.products.tolist() == [[[288.0, 12.0], [12.0, 0.5]]]
    with pytest.raises(DataError, match="no column 'z'"):
        sum_products(open_source(table), ["z"], ["g"], values, {}, {})
    empty = table.with_columns(y=pl.lit(None, dtype=pl.Float64))
    with pytest.raises(DataError, match="no row of the polars LazyFrame has a value in all of y"):
        sum_products(open_source(empty), ["y"], ["g"], values, {}, {})


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_values_that_cannot_be_computed_and_weights_of_zero_are_refused(engine):
    table = pd.DataFrame({"g": [1, 1, 2], "y": [1.0, 2.0, 3.0], "x": [1.0, 0.0, 2.0]})
    source, y = by(engine, table), nw.col("y")
    blank = nw.when(nw.col("x") > 0).then(y)
    with pytest.raises(DataError, match="cannot be computed or is infinite in 1 row of"):
        sum_products(source, ["y"], ["g"], {"y": y, "blank": blank}, {}, {})
    with pytest.raises(DataError, match=r"^ratio cannot be computed or is infinite in"):
        sum_products(source, ["y"], ["g"], {"y": y, "ratio": y * 1e308 * 1e308}, {}, {})
    with pytest.raises(DataError, match="weights are zero or negative in 1 row of"):
        sum_products(source, ["y"], ["g"], {"y": y}, {}, {}, nw.col("x"))


def test_aggregates_that_would_not_fit_are_refused_before_they_are_made():
    frame = pl.LazyFrame({"y": np.arange(20_000.0), "g": np.arange(20_000) % 10})
    sources = [
        open_source(frame),
        open_source(duckdb.connect().from_arrow(frame.collect().to_arrow())),
    ]
    values = {"y": nw.col("y")}
    for source in sources:
        assert len(count_rows(source, [], ["g"], max_bytes=1_000)) == 10
        sums = sum_products(source, ["y"], ["g"], values, {}, {}, max_bytes=2_000)
        assert len(sums.n) == 10
        assert estimate_cells(source, ["y", "g"]) == pytest.approx(20_000, rel=0.2)
        for make in (
            lambda s: count_rows(s, [], ["g", "y"], max_bytes=100_000),
            lambda s: sum_products(s, [], ["y"], values, {}, {}, max_bytes=100_000),
        ):
            with pytest.raises(DataError, match=r"different combinations of .*y.* GiB allowed"):
                make(source)


def test_the_column_of_counts_is_not_a_key():
    counts = count_rows(open_source(pl.LazyFrame({"n": [5, 5, 2]})), [], ["n"])
    assert counts.to_dict("list") == {"n": [2, 5], "n_": [1, 2]}


def write_shuffled(path, rows=400_000, groups=20_000):
    rng = np.random.default_rng(5)
    g = rng.integers(0, groups, rows)
    table = pa.table({"g": g, "a": rng.normal(size=rows), "y": rng.normal(size=rows)})
    pq.write_table(table, path, row_group_size=50_000)
    return table.to_pandas()


def test_the_same_table_gives_the_same_sums_again(tmp_path):
    write_shuffled(tmp_path / "t.parquet")
    columns = ["a", "y"]
    found = [
        sum_products(open_source(tmp_path / "t.parquet"), columns, ["g"], identity(columns), {}, {})
        for _ in range(2)
    ]
    pd.testing.assert_frame_equal(found[0].keys, found[1].keys)
    assert found[0].keys["g"].is_monotonic_increasing
    np.testing.assert_array_equal(found[0].n, found[1].n)
    np.testing.assert_allclose(found[0].products, found[1].products, rtol=1e-9, atol=1e-13)


SPILLING = """
import glob, sys, threading, time
import narwhals as nw
from hmlm.aggregation import sum_products
from hmlm.sources import open_source

source = open_source(sys.argv[1], memory_limit="90MB")
columns = [f"x{i}" for i in range(3)]
spilled, done = [0], threading.Event()
def watch():
    while not done.wait(0.01):
        spilled[0] = max(spilled[0], len(glob.glob(source.held[1].name + "/*")))
thread = threading.Thread(target=watch, daemon=True)
thread.start()
sums = sum_products(source, columns, ["g"], {c: nw.col(c) for c in columns}, {}, {})
done.set()
thread.join()
print(len(sums.n), int(sums.n.sum()), spilled[0])
"""


def test_a_file_larger_than_the_memory_limit_spills_and_is_summed(tmp_path):
    rng = np.random.default_rng(6)
    rows, groups = 3_000_000, 1_000_000
    schema = pa.schema([("g", pa.int64()), *((f"x{i}", pa.float64()) for i in range(3))])
    path = tmp_path / "large.parquet"
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for _ in range(30):
            g = rng.integers(0, groups, rows // 30)
            x = [rng.normal(size=rows // 30) for _ in range(3)]
            writer.write_table(pa.table([g, *x], schema=schema))
    assert path.stat().st_size > 94e6
    done = subprocess.run(
        [sys.executable, "-c", SPILLING, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
        timeout=100,
    )
    assert not done.returncode, done.stderr
    cells, counted, spilled = map(int, done.stdout.split())
    assert counted == rows
    assert cells > 900_000
    assert spilled > 0
    assert not list(tmp_path.glob("hmlm_*"))
