"""One table, given by every engine that hmlm reads large tables from."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

QUOTED = """it's a "dose"; drop"""
PLACE = "größe ort"
ENGINES = (
    *("pandas", "polars", "polars lazy", "arrow", "duckdb", "parquet", "glob", "folder", "csv"),
    *("dask", pytest.param("pyspark", marks=pytest.mark.slow)),
)
TEXTS = ["Zürich", "Ålesund", "O'Brien", 'say "x"', "a;b", "東京", "a", "B"]


def make_table(rows: int = 800, seed: int = 3) -> pd.DataFrame:
    """Make a table with missing values, quotes, letters of many scripts and bad scales."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "y": 1e6 + rng.normal(0, 1, rows),
            QUOTED: rng.normal(0, 1, rows) * 1e-8,
            "year": rng.integers(2000, 2010, rows),
            "flag": rng.random(rows) < 0.4,
            "g": rng.integers(-3, 12, rows),
            PLACE: rng.choice(TEXTS, rows),
            "w": rng.uniform(0.5, 2.0, rows),
        }
    )
    table.loc[rng.choice(rows, 20, replace=False), "y"] = np.nan
    table.loc[rng.choice(rows, 30, replace=False), PLACE] = None
    table.loc[rng.choice(rows, 10, replace=False), QUOTED] = np.nan
    return table


def give_by(engine: str, table: pd.DataFrame, folder: Path, request: Any) -> Any:
    """Return the table as data of one engine."""
    if engine == "pandas":
        return table
    if engine == "polars":
        return pl.from_pandas(table)  # NULL
    if engine == "polars lazy":
        return pl.from_pandas(table, nan_to_null=False).lazy()  # NaN
    if engine == "arrow":
        return pa.Table.from_pandas(table, preserve_index=False)
    if engine == "duckdb":
        return duckdb.connect().from_df(table)
    if engine == "csv":
        path = folder / "O'Brien's table.csv"
        table.to_csv(path, index=False)
        return str(path)
    if engine == "parquet":
        path = folder / """a [1] 'b'); drop.parquet"""
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)
        return path
    cut = len(table) // 3
    for i, piece in enumerate((table[:cut], table[cut:])):
        pq.write_table(
            pa.Table.from_pandas(piece, preserve_index=False), folder / f"part{i}.parquet"
        )
    if engine == "glob":
        return str(folder / "*.parquet")
    if engine == "folder":
        return folder
    if engine == "dask":
        request.getfixturevalue("dask_cluster")
        import dask.dataframe as dd

        return dd.read_parquet(folder)
    spark = request.getfixturevalue("spark")
    return spark.read.parquet(str(folder))


@contextmanager
def start_dask() -> Iterator[Any]:
    """Start two worker processes on this machine alone."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def start_spark() -> Iterator[Any]:
    """Start Spark in this process's own Java, or skip the test where there is no Java."""
    if not shutil.which("java"):
        pytest.skip("PySpark needs Java")
    from pyspark.sql import SparkSession

    with warnings.catch_warnings():
        session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
        yield session
        session.stop()
