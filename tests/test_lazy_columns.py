"""Terms of formulas made where the data are equal those made in memory, name by name."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hmlm
from hmlm.column_facts import read_facts
from hmlm.errors import DataError
from hmlm.lazy_columns import NotLazyError, lazy_terms, template_frame
from hmlm.sources import open_source

FORMULAS = (
    "y ~ x + I(x**2) + log(x) + (1 | g)",
    "y ~ f * x + (x | g)",
    "y ~ 0 + f + f:x + (1 | g)",
    "y ~ C(k) + o + (0 + f | g)",
    "y ~ C(f, Treatment('b')) + C(o, Sum) + (1 | g)",
    "y ~ center(x) + scale(z) + scale(log(x)) + (scale(z) || g)",
    "log(y) ~ sqrt(x) + abs(z) + exp(x) + offset(z) + (1 | g)",
    "y ~ b + I(x > 1.5) + I((x + z) / 2) + f:h + (b | g)",
    "scale(y) ~ `my col` + log1p(x) + log10(x) + (1 | g)",
    "y ~ poly(x, 3) + bs(z, df=5) + (1 | g)",
    "y ~ f/x + (1 | g:h)",
    "y ~ (x + z + f)**2 + (1 | g/h)",
    "y ~ I(f == 'a') + I(-x) - 1 + (1 | g)",
    "y ~ x",
)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    n = 600
    return pd.DataFrame(
        {
            "y": rng.normal(15, 1, n),
            "x": rng.uniform(0.5, 3, n),
            "z": rng.normal(100, 5, n),
            "k": rng.integers(1, 4, n),
            "f": rng.choice(list("abc"), n, p=[0.5, 0.3, 0.2]),
            "h": rng.choice(["u", "v"], n),
            "b": rng.random(n) < 0.4,
            "g": rng.integers(0, 25, n),
            "my col": rng.normal(size=n),
            "o": pd.Categorical(
                rng.choice(["lo", "mid", "hi"], n), ["lo", "mid", "hi"], ordered=True
            ),
        }
    )


@pytest.fixture(scope="module")
def lazy(rows):
    plain = pl.from_pandas(rows.assign(o=rows["o"].astype(str)))
    return plain.with_columns(pl.col("o").cast(pl.Enum(["lo", "mid", "hi"]))).lazy()


@pytest.mark.parametrize("formula", FORMULAS)
def test_terms_and_fit_are_those_in_memory(rows, lazy, formula):
    whole, sums = hmlm.Model(formula, rows), hmlm.Model(formula, lazy)
    assert sums.design.terms == whole.design.terms
    if "scale(y)" not in formula:  # whose mean is zero but for rounding
        assert sums.priors.equals(whole.priors)
    for own, other in zip(sums.design.blocks, whole.design.blocks, strict=True):
        assert own.columns == other.columns
        assert own.levels.map(str).equals(other.levels.map(str))
        np.testing.assert_array_equal(own.sizes, other.sizes)
    method = hmlm.REML() if whole.design.blocks else hmlm.OLS()
    a, b = sums.fit(method), whole.fit(method)
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(a.estimates["beta"], b.estimates["beta"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(a.df, b.df)
    new = rows.head(7)
    np.testing.assert_allclose(a.predict(new), b.predict(new), rtol=1e-8)


@pytest.mark.parametrize("formula", FORMULAS[:2])
def test_terms_by_duckdb(rows, formula):
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.register("rows_", rows.assign(o=rows["o"].astype(str)))
    sums = hmlm.Model(formula, connection.sql("select * from rows_"))
    whole = hmlm.Model(formula, rows)
    assert sums.design.terms == whole.design.terms
    a, b = sums.fit(hmlm.REML()), whole.fit(hmlm.REML())
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-10)


def test_typical_values_are_those_of_the_rows(rows, lazy):
    formula = "y ~ x + f + b + C(k) + o + (1 | g)"
    own = hmlm.Model(formula, lazy).fit(hmlm.REML())
    other = hmlm.Model(formula, rows).fit(hmlm.REML())
    from hmlm.data_grid import grid_of

    pd.testing.assert_frame_equal(grid_of(own), grid_of(other))


def test_splines_are_no_expressions(rows):
    facts = read_facts(open_source(rows), ["x"])
    with pytest.raises(NotLazyError):
        lazy_terms("1 + bs(x, df=4)", facts, template_frame(facts))


@pytest.mark.parametrize("term", ["log(x)", "sqrt(x)", "exp(I(-1000 * x))", "I(1 / (x + 1))"])
def test_values_that_are_not_finite_are_counted(rows, term):
    moved = rows.assign(x=rows["x"].where(np.arange(len(rows)) >= 3, -1.0)).drop(columns="o")
    for table in (moved, pl.from_pandas(moved).lazy()):
        with pytest.raises(DataError, match="is not finite in 3 rows"):
            hmlm.Model(f"y ~ {term} + (1 | g)", table)


REFUSED = {
    "no column": ("y ~ xx + (1 | g)", {}, "no column 'xx'"),
    "infinite": ("y ~ x + (1 | g)", {"x": np.inf}, "column 'x' is infinite in 600 rows"),
    "one level": ("y ~ x + (1 | g)", {"g": 1}, "column 'g' has one level in 600 rows"),
    "constant": ("y ~ x + (1 | g)", {"x": 2.5}, r"predictor 'x' has the same value \(2.5\)"),
    "constant outcome": ("y ~ x + (1 | g)", {"y": 2.5}, "the same value in all 600 rows"),
    "one-level factor": ("y ~ f + (1 | g)", {"f": "a"}, "same level in all"),
    "text": ("f ~ x + (1 | g)", {}, "must hold numbers"),
    "date": ("y ~ x + (1 | g)", {"x": pd.Timestamp("2020-01-01")}, "holds dates or durations"),
    "collinear": ("y ~ x + I(2 * x) + (1 | g)", {}, "is collinear"),
    "too many": ("y ~ x + (1 | g:k:f:h)", {"k": range(600)}, "every group of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_data_are_refused_in_the_same_words(rows, case):
    formula, changes, words = REFUSED[case]
    table = rows.drop(columns="o").assign(**changes)
    for settings in ({}, {"aggregate": True}):
        with pytest.raises(DataError, match=words):
            hmlm.Model(formula, table, **settings)


def test_missing_rows_are_counted(rows):
    table = rows.drop(columns="o").astype({"f": object})
    table.loc[:4, "y"] = np.nan
    table.loc[3:9, "f"] = None
    formula = "y ~ x + f + (1 | g)"
    whole, sums = hmlm.Model(formula, table), hmlm.Model(formula, pl.from_pandas(table).lazy())
    assert sums.data.missing_note == whole.data.missing_note != ""
    assert sums.design.n_rows == 590
    a, b = sums.fit(hmlm.REML()), whole.fit(hmlm.REML())
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-10)
    assert whole.data.missing_note in a.status.notes
