"""Many models at once: each slice as if it were fitted alone."""

import os
import resource
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import hmlm
from hmlm.errors import HmlmError

FORMULA = "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    n = 400
    frame = pd.DataFrame(
        {
            "region": rng.choice(["north", "south", "east"], n),
            "year": rng.choice([2001, 2002], n),
            "g": rng.integers(0, 12, n),
            "x": rng.normal(size=n),
        }
    )
    effects = rng.normal(0, 0.7, 12)
    return frame.assign(y=1 + 0.5 * frame["x"] + effects[frame["g"]] + rng.normal(size=n))


def many(table, **arguments):
    settings = {"by": "region", "method": hmlm.REML(), "progressbar": False} | arguments
    return hmlm.fit_many(FORMULA, table, **settings)


def test_each_slice_is_as_if_fitted_alone(table):
    found = many(table, by=["region", "year"])
    assert list(found.columns[:3]) == ["region", "year", "component"]
    assert found[["region", "year"]].drop_duplicates().to_numpy().tolist() == [
        [region, year] for region in ("east", "north", "south") for year in (2001, 2002)
    ]
    for (region, year), mine in found.groupby(["region", "year"]):
        rows = table[(table["region"] == region) & (table["year"] == year)]
        alone = hmlm.tidy(hmlm.Model(FORMULA, rows).fit(hmlm.REML()), groups=False)
        columns = ["component", "group", "term", "estimate", "std_error", "lower", "upper"]
        assert_frame_equal(mine[columns].reset_index(drop=True), alone[columns])
        assert set(mine["n"]) == {len(rows)}
    assert set(found["reason"]) == {""}


def test_executors_and_seeds_give_the_same_draws(table):
    method = hmlm.NUTS(draws=50, tune=100, chains=2, cores=1)
    kinds = {"own": None, "threads": ThreadPoolExecutor(3)}
    found = [
        many(table, method=method, executor=executor, random_seed=5).drop(columns="seconds")
        for executor in kinds.values()
    ]
    assert_frame_equal(*found)
    other = many(table, method=method, random_seed=6)
    assert not np.allclose(other["estimate"], found[0]["estimate"])
    # No two slices share their random numbers.
    assert found[0].groupby("region")["estimate"].first().nunique() == 3


def test_estimates_of_groups_come_on_request(table):
    assert set(many(table)["component"]) == {"population", "sd", "residual"}
    with_groups = many(table, groups=True)
    assert (with_groups["component"] == "total").sum() == 36


def test_failed_slice_is_a_row_with_its_reason(table):
    broken = table.copy()
    broken.loc[broken["region"] == "south", "x"] = 1.0
    broken.loc[broken["region"] == "east", "y"] = np.nan
    found = many(broken)
    failed = found[found["reason"] != ""].set_index("region")
    assert list(failed.index) == ["east", "south"]
    assert "no row is complete" in failed.loc["east", "reason"]
    assert "'x' has the same value" in failed.loc["south", "reason"]
    assert failed["estimate"].isna().all()
    assert found.loc[found["region"] == "north", "estimate"].notna().all()


def test_missing_value_of_by_is_a_slice(table):
    found = many(table.assign(region=table["region"].where(table["region"] != "east")))
    assert found["region"].isna().sum() == 4
    assert found["region"].dropna().unique().tolist() == ["north", "south"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"by": "regio"}, "Did you mean 'region'"),
        ({"by": []}, "by names no column"),
        ({"by": "g"}, "'g' is a part of the model"),
        ({"weights": "w"}, "no column 'w'"),
    ],
)
def test_what_no_slice_could_bear_is_refused_at_once(table, change, words):
    with pytest.raises(HmlmError, match=words):
        many(table, **change)


@dataclass(frozen=True)
class Deadly:
    """A method that ends badly when it meets a certain slice."""

    n: int
    how: str = "killed"
    seconds: float = 0.0

    def run(self, design, **settings):
        time.sleep(self.seconds)
        if len(design.y) == self.n and self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(design.y) == self.n:
            np.ones(2**46)  # half a petabyte
        return hmlm.REML().run(design, **settings)


def limit_memory():
    size = 64 * 2**30  # of addresses, of which Numba reserves many
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def check_one_slice_lost(found, table, words, what):
    """The slice of the north in 2001 has a reason, and all others are as if fitted alone."""
    lost = found["reason"] != ""
    assert found.loc[lost, ["region", "year"]].to_numpy().tolist() == [["north", 2001]]
    assert words in found.loc[lost, "reason"].item()
    alone = many(table, by=["region", "year"])
    kept = (alone["region"] != "north") | (alone["year"] != 2001)
    columns = ["region", "year", "component", "term", "estimate", "std_error"]
    one, other = (f[columns].reset_index(drop=True) for f in (found[~lost], alone[kept]))
    assert_frame_equal(one, other)
    n = len(one[["region", "year"]].drop_duplicates())
    return {"what": what, "slices lost": int(lost.sum()), "slices as if fitted alone": n}


@pytest.fixture(scope="module")
def deadly_rows(table):
    sizes = table.groupby(["region", "year"]).size()
    assert (sizes == sizes["north", 2001]).sum() == 1
    return int(sizes["north", 2001])


@pytest.mark.slow
def test_worker_that_dies_costs_its_slice_alone(table, deadly_rows, record_property):
    """Though others are at work, whose slices are lost with the pool."""
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        method = Deadly(deadly_rows, seconds=0.5)
        found = many(table, by=["region", "year"], method=method, executor=pool)
    figures = check_one_slice_lost(found, table, "died", "a worker killed")
    record_property("trust", figures)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_slice_that_needs_too_much_memory_is_lost_alone(table, deadly_rows, record_property):
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=limit_memory) as pool:
        method = Deadly(deadly_rows, how="memory")
        found = many(table, by=["region", "year"], method=method, executor=pool)
    words, what = "there was not enough memory", "a worker out of memory"
    record_property("trust", check_one_slice_lost(found, table, words, what))


@pytest.mark.slow
def test_workers_of_dask_may_die(table, deadly_rows, record_property):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        settings = {"by": ["region", "year"], "executor": executor}
        whole = many(table, **settings)
        assert set(whole["reason"]) == {""}
        found = many(table, method=Deadly(deadly_rows), **settings)
    figures = check_one_slice_lost(found, table, "died", "a worker of a Dask cluster killed")
    record_property("trust", figures)


def test_slices_of_a_file_are_those_of_the_table(table, tmp_path):
    path = tmp_path / "table.parquet"
    table.to_parquet(path)
    found, rows = (
        many(data, by=["region", "year"]).drop(columns="seconds") for data in (str(path), table)
    )
    assert_frame_equal(found, rows, rtol=1e-5, atol=1e-6, check_dtype=False)
    with pytest.raises(HmlmError, match=r"no column 'regio'.*Did you mean 'region'"):
        many(str(path), by="regio")
