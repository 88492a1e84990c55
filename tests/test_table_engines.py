"""The same table by every engine gives the same facts, sums and counts."""

import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
from large_table_engines import (
    ENGINES,
    PLACE,
    QUOTED,
    give_by,
    make_table,
    start_dask,
    start_spark,
)

from hmlm.aggregation import count_rows, estimate_cells, sum_products
from hmlm.column_facts import read_facts
from hmlm.data import index_levels
from hmlm.errors import DataError
from hmlm.sources import open_source, schema

# narwhals announces that Dask's part of it will become a package of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Dask support is moving out:FutureWarning")

TABLE = make_table()
COLUMNS = ["y", QUOTED, "year", "flag"]
FACTORS = ["g", PLACE, "flag"]
COMPLETE = TABLE[[*COLUMNS, "g", PLACE, "w"]].dropna().reset_index(drop=True)
VALUES = {
    "y": nw.col("y"),
    "x": nw.col(QUOTED),
    "year": nw.col("year"),
    "flag": nw.col("flag"),
    "late": nw.col("year") > 2004,
}
CENTRES = {"y": 1e6, "year": 2004.5}
SCALES = {"y": 1.0, "x": 1e-8, "year": 3.0}


@pytest.fixture(scope="module")
def dask_cluster():
    with start_dask() as client:
        yield client


@pytest.fixture(scope="module")
def spark():
    with start_spark() as session:
        yield session


@pytest.fixture(scope="module", params=ENGINES)
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return open_source(give_by(request.param, TABLE, folder, request))


def exact_sums(keys, weights):
    """Sum in long doubles, about the mean of every cell."""
    columns = [COMPLETE["y"], COMPLETE[QUOTED], COMPLETE["year"], COMPLETE["flag"]]
    columns.append(COMPLETE["year"] > 2004)
    v = np.column_stack([c.to_numpy().astype(np.longdouble) for c in columns])
    means, products = [], []
    for rows in COMPLETE.groupby(keys).indices.values():
        w = weights[rows]
        mean = w @ v[rows] / w.sum()
        means.append(mean)
        products.append((v[rows] - mean).T @ ((v[rows] - mean) * w[:, None]))
    return np.array(means), np.array(products)


def test_facts_are_the_same(source):
    assert schema(source) == {
        **{"y": "number", QUOTED: "number", "year": "integer", "flag": "boolean"},
        **{"g": "integer", PLACE: "text", "w": "number"},
    }
    facts = read_facts(source, COLUMNS, FACTORS)
    assert (facts.n_rows, facts.n_complete) == (len(TABLE), len(COMPLETE))
    assert facts.missing == {"y": 20, QUOTED: 10, PLACE: 30}
    assert list(facts.columns) == [*COLUMNS, "g", PLACE]
    for name in [*COLUMNS, "g"]:
        column, found = COMPLETE[name].astype(float), facts.columns[name]
        assert found.mean == pytest.approx(column.mean(), rel=1e-13, abs=1e-20)
        assert found.sd == pytest.approx(column.std(), rel=1e-10)
        assert (found.low, found.high) == (column.min(), column.max())
        assert (found.n, found.infinite) == (len(COMPLETE), 0)
    assert np.isnan(facts.columns[PLACE].mean)
    for name in FACTORS:
        levels = facts.columns[name].levels
        pd.testing.assert_index_equal(levels, index_levels(COMPLETE, name)[1], check_names=False)
    assert facts.columns["y"].levels is None


def test_sums_are_the_same_and_exact(source):
    columns, keys = [*COLUMNS, "w"], [PLACE, "g"]
    sums = sum_products(source, columns, keys, VALUES, CENTRES, SCALES, weights=nw.col("w"))
    means, products = exact_sums(keys, COMPLETE["w"].to_numpy())
    cells = COMPLETE.groupby(keys, as_index=False).agg(n=("y", "size"), w=("w", "sum"))
    pd.testing.assert_frame_equal(sums.keys, cells[keys])
    assert sums.names == tuple(VALUES)
    np.testing.assert_array_equal(sums.n, cells["n"])
    np.testing.assert_allclose(sums.weight, cells["w"], rtol=1e-13)
    assert sums.log_weight == pytest.approx(np.log(COMPLETE["w"]).sum(), rel=1e-10)
    spread = np.sqrt(np.einsum("cii->i", products) / len(COMPLETE)).astype(float)
    np.testing.assert_allclose(sums.means / spread, means / spread, rtol=1e-13, atol=1e-14)
    scale = spread[:, None] * spread
    np.testing.assert_allclose(sums.products / scale, products / scale, rtol=0, atol=1e-11)


def test_counts_are_the_same(source):
    keys = ["flag", PLACE, "g"]
    counts = count_rows(source, ["y"], keys)
    here = TABLE.dropna(subset=["y", PLACE])
    pd.testing.assert_frame_equal(
        counts, here.groupby(keys, as_index=False).size().set_axis([*keys, "n"], axis=1)
    )
    assert estimate_cells(source, keys) == pytest.approx(len(counts), rel=0.15)


def ordered(order, engine):
    values = ["mid", "small", None, "large", "mid"]
    table = pd.DataFrame({"size": pd.Categorical(values, order, ordered=True), "y": 1.0})
    if engine == "pandas":
        return table
    if engine == "polars lazy":
        return pl.LazyFrame({"size": pl.Series(values, dtype=pl.Enum(order)), "y": [1.0] * 5})
    if engine == "duckdb":
        return duckdb.connect().from_df(table)
    import dask.dataframe as dd

    return dd.from_pandas(table, npartitions=2)


@pytest.mark.parametrize("engine", ["pandas", "polars lazy", "duckdb", "dask"])
def test_the_order_of_categories_is_kept(engine, request):
    if engine == "dask":
        request.getfixturevalue("dask_cluster")
    source = open_source(ordered(["small", "mid", "huge", "large"], engine))
    assert schema(source)["size"] == "category"
    facts = read_facts(source, ["y"], ["size"])
    assert facts.columns["size"].levels.tolist() == ["small", "mid", "large"]
    assert facts.missing == {"size": 1}
    counts = count_rows(source, ["y"], ["size"])
    assert counts.astype({"size": str}).to_numpy().tolist() == [
        *(["small", 1], ["mid", 2], ["large", 1])
    ]
    assert counts["size"].cat.ordered


@pytest.mark.slow
def test_a_point_in_a_name_is_refused_with_spark(spark):
    source = open_source(spark.createDataFrame([(1.0,)], "`a.b` double"))
    with pytest.raises(DataError, match=r"in the name of column 'a\.b'"):
        read_facts(source, ["a.b"])
