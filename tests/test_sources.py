"""Tables larger than memory: every engine gives the same facts, and files are read safely."""

import gc
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from large_table_engines import give_by, make_table

from hmlm.column_facts import read_facts
from hmlm.data import read_columns
from hmlm.errors import DataError
from hmlm.sources import is_source, open_source

TABLE = make_table()


def test_lazy_tables_and_paths_are_sources_and_eager_ones_are_not():
    lazy = pl.LazyFrame({"y": [1.0]})
    for data in ("a.csv", Path("a.parquet"), lazy, duckdb.sql("select 1 as y"), open_source(lazy)):
        assert is_source(data)
    for data in (TABLE, {"y": [1.0]}, pl.from_pandas(TABLE), TABLE["y"], 3, None):
        assert not is_source(data)
    with pytest.raises(DataError, match="not int"):
        open_source(3)


def test_names_say_what_the_table_is(tmp_path):
    TABLE.to_parquet(tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet").name == f"the Parquet file {tmp_path}/a.parquet"
    assert open_source(f"{tmp_path}/*.parquet").name == f"the Parquet files {tmp_path}/*.parquet"
    assert open_source(duckdb.sql("select 1 as y")).name == "the DuckDB relation"
    assert open_source(TABLE).name == "the pandas data frame"


def test_a_file_with_a_pattern_in_its_name_is_that_file_alone(tmp_path):
    pd.DataFrame({"y": [1.0, 2.0]}).to_csv(tmp_path / "a[12]*.csv", index=False)
    pd.DataFrame({"y": [9.0]}).to_csv(tmp_path / "a1.csv", index=False)
    assert read_facts(open_source(tmp_path / "a[12]*.csv"), ["y"]).n_rows == 2
    assert read_facts(open_source(f"{tmp_path}/a[12].csv"), ["y"]).n_rows == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none.parquet", "there is no file '.*none.parquet': check the path"),
        ("x*.csv", r"there is no file '.*x\*.csv'"),
        ("empty", "there is no Parquet or CSV file in the folder"),
        ("table.xlsx", "table.xlsx' is neither Parquet nor CSV by its name"),
        ("bad.parquet", "the Parquet file .*bad.parquet cannot be read"),
        ("bad.*", "bad.feather' is neither"),
        ("[ab]*.[cp]*", "both Parquet and CSV files"),
        ("a'; drop table x; --.csv", "there is no file"),
    ],
)
def test_files_that_cannot_be_read_are_named(path, words, tmp_path):
    for name in ("bad.parquet", "bad.feather", "table.xlsx"):
        (tmp_path / name).write_text("no table")
    (tmp_path / "a.csv").write_text("y\n1\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=words):
        open_source(f"{tmp_path}/{path}")


def test_an_address_and_a_wrong_memory_limit_are_refused(tmp_path):
    with pytest.raises(DataError, match="is an address, not a path"):
        open_source("s3://bucket/*.parquet")
    (tmp_path / "a.csv").write_text("y\n1\n")
    with pytest.raises(DataError, match="memory_limit='much' is no size"):
        open_source(tmp_path / "a.csv", memory_limit="much")
    with pytest.raises(DataError, match="is no size"):
        open_source(tmp_path / "a.csv", memory_limit="1GB'; drop table x; --")


def test_a_late_text_among_the_numbers_of_a_csv_file_is_said_in_words(tmp_path):
    lines = ["y", *["1"] * 300_000, "one"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"the CSV file .*a\.csv cannot be read: .*one"):
        read_facts(open_source(tmp_path / "a.csv"), ["y"])


def test_missing_words_of_a_csv_file_are_those_of_pandas(tmp_path):
    (tmp_path / "a.csv").write_text("y,g\n1,a\nNA,b\n3,NA\nnan,a\n,b\n6,\n7,b\n")
    facts = read_facts(open_source(tmp_path / "a.csv"), ["y"], ["g"])
    table = pd.read_csv(tmp_path / "a.csv")
    assert facts.missing == dict(table.isna().sum()) == {"y": 3, "g": 2}
    assert facts.n_complete == len(table.dropna()) == 2


def test_columns_that_a_model_cannot_use_are_refused_as_in_memory():
    table = pd.DataFrame({"y": [1.0, 2.0], "day": pd.to_datetime(["2001-01-01", "2001-01-02"])})
    for columns in (["y", "day"], ["yy"]):
        with pytest.raises(DataError) as eager:
            read_columns(table, columns)
        with pytest.raises(DataError) as lazy:
            read_facts(open_source(pl.from_pandas(table).lazy()), columns)
        assert str(lazy.value) == str(eager.value)
    lists = pl.LazyFrame({"y": [[1.0], [2.0]]})
    with pytest.raises(DataError, match=r"'y' holds List\(Float64\) in 2 rows"):
        read_facts(open_source(lists), ["y"])
    assert read_facts(open_source(pl.from_pandas(table).lazy()), ["y"]).n_rows == 2


def test_no_rows_and_no_complete_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        read_facts(open_source(pl.LazyFrame({"y": [1.0]}).filter(pl.col("y") > 2)), ["y"])
    with pytest.raises(DataError, match=r"no row is complete: 2 rows .* y \(1\), x \(1\)"):
        read_facts(open_source(pl.LazyFrame({"y": [1.0, None], "x": [None, 1.0]})), ["y", "x"])


@pytest.mark.parametrize("engine", ["pandas", "polars lazy", "duckdb", "csv"])
def test_infinite_values_are_counted_in_complete_rows(engine, tmp_path, request):
    table = pd.DataFrame({"y": [1.0, np.inf, -np.inf, np.inf, 2.0], "x": [1.0, 2.0, 3.0, None, 4]})
    facts = read_facts(open_source(give_by(engine, table, tmp_path, request)), ["y", "x"])
    assert (facts.n_complete, facts.columns["y"].infinite, facts.columns["x"].infinite) == (4, 2, 0)
    assert facts.columns["y"].high == np.inf
    assert facts.columns["x"].sd == pytest.approx(np.std([1, 2, 3, 4], ddof=1))


def test_whole_numbers_of_a_grouping_column_with_gaps_stay_integers():
    facts = read_facts(open_source(pl.LazyFrame({"g": [2.0, 1.0, None, 10.0]})), [], ["g"])
    assert facts.columns["g"].levels.dtype == "int64"
    assert facts.columns["g"].levels.tolist() == [1, 2, 10]


def test_the_spread_is_exact_where_the_first_rows_are_far_from_the_mean():
    y = np.concatenate([np.zeros(1_000), 1e8 + np.random.default_rng(1).normal(0, 1e-3, 10)])
    late = np.concatenate([np.full(1_000, 5e9), np.random.default_rng(2).normal(0, 1, 10**6)])
    for column in (y, late, 1e9 + late[1_000:]):
        found = read_facts(open_source(pl.LazyFrame({"y": column})), ["y"]).columns["y"]
        assert found.sd == pytest.approx(column.astype(np.longdouble).std(ddof=1), rel=1e-11)
    same = read_facts(open_source(pl.LazyFrame({"y": [0.1] * 3})), ["y"]).columns["y"]
    assert (same.mean, same.sd) == (0.1, 0.0)


def test_the_folder_for_spilling_goes_with_the_source(tmp_path):
    (tmp_path / "a.csv").write_text("y\n1\n")
    source = open_source(tmp_path / "a.csv")
    folder = Path(source.held[1].name)
    assert folder.is_dir()
    del source
    gc.collect()
    assert not folder.exists()
