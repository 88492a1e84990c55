"""Power by simulation against closed forms, and what becomes of simulations that fail."""

from concurrent.futures import ThreadPoolExecutor

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.power_curves import plot_power
from hmlm.power_study import plan_power
from hmlm.study import make_study

mpl.use("Agg")
QUIET = {"progressbar": False, "random_seed": 1}


def t_power(effect, error, df, alpha=0.05):
    """Power of a two-sided t test: the noncentral t distribution."""
    critical = stats.t.ppf(1 - alpha / 2, df)
    nct = stats.nct(df, effect / error)
    return nct.sf(critical) + nct.cdf(-critical)


def close(row, column, value, errors=4.0):
    """Whether a share is within some Monte Carlo standard errors of its value."""
    n = row["n_simulations"]
    return abs(row[column] - value) < errors * np.sqrt(value * (1 - value) / n)


@pytest.fixture(scope="module")
def two_samples():
    """Two groups of 30 under complete independence."""
    study = make_study(per_group=60, predictors={"x": "binary"})
    return plan_power(
        "y ~ x",
        study,
        {"Intercept": 1, "x": 0.6, "sigma": 1},
        "x",
        n_simulations=1500,
        vary={"x": [0.0, 0.6]},
        **QUIET,
    )


@pytest.fixture(scope="module")
def between_schools():
    """A treatment of whole schools, whose test is the t test of school means."""
    study = make_study(groups={"school": 20}, per_group=5, predictors={"t": "binary by school"})
    return plan_power(
        "y ~ t + (1 | school)",
        study,
        {"Intercept": 0, "t": 1.0, "sd_school": 1.0, "sigma": 1},
        "t",
        n_simulations=600,
        vary={"t": [0.0, 1.0], "school": [10, 20]},
        **QUIET,
    )


def test_two_sample_t_test(two_samples):
    null, effect = (row for _, row in two_samples.table.iterrows())
    assert close(null, "power", 0.05)
    assert close(effect, "power", t_power(0.6, np.sqrt(4 / 60), 58))
    assert effect["power_mcse"] == pytest.approx(0.0125, abs=0.002)


def test_figures_of_an_unbiased_estimate(two_samples):
    for _, row in two_samples.table.iterrows():
        assert close(row, "coverage", 0.95)
        assert abs(row["bias"]) < 4 * row["bias_mcse"]
        assert row["sd_estimate"] == pytest.approx(np.sqrt(4 / 60), rel=0.08)
        assert row["std_error"] == pytest.approx(np.sqrt(4 / 60), rel=0.03)
        assert row["failed"] == row["with_problems"] == 0
    width = 2 * stats.t.ppf(0.975, 58) * np.sqrt(4 / 60)
    assert two_samples.table["interval_width"].to_numpy() == pytest.approx(width, rel=0.03)


def test_errors_of_sign_and_size(two_samples):
    """Against Gelman and Carlin (2014): the estimate's distribution beyond the critical value."""
    null, effect = (row for _, row in two_samples.table.iterrows())
    assert np.isnan(null["type_s"])
    assert np.isnan(null["type_m"])
    error = np.sqrt(4 / 60)
    draws = 0.6 + error * np.random.default_rng(3).standard_normal(400_000)
    found = draws[np.abs(draws) > stats.t.ppf(0.975, 58) * error]
    assert effect["type_m"] == pytest.approx(np.abs(found).mean() / 0.6, rel=0.03)
    assert effect["type_s"] < 0.005


def test_random_intercepts_between_groups(between_schools):
    table = between_schools.table
    assert list(between_schools.varied) == ["t", "school"]
    for _, row in table.iterrows():
        J = row["school"]
        error = np.sqrt(4 / J * (1 + 1 / 5))
        expected = t_power(row["t"], error, J - 2) if row["t"] else 0.05
        assert close(row, "power", expected)
        assert close(row, "coverage", 0.95)


def test_results_do_not_depend_on_the_executor():
    study = make_study(groups={"g": 6}, per_group=4, predictors={"x": "normal"})
    settings = {
        "formula": "y ~ x + (1 | g)",
        "study_or_frame": study,
        "parameters": {"Intercept": 0, "x": 0.3, "sd_g": 0.5, "sigma": 1},
        "test": ["x", "Intercept"],
        "n_simulations": 45,
        **QUIET,
    }
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(3) as three:
        first = plan_power(**settings, executor=one)
        second = plan_power(**settings, executor=three)
    pd.testing.assert_frame_equal(first.simulations, second.simulations)
    assert list(first.table["test"]) == ["x", "Intercept"]


def test_bernoulli_by_laplace_with_failures_counted():
    """Few rare outcomes: some data sets have no success, and are counted with that reason."""
    study = make_study(groups={"g": 4}, per_group=4, predictors={"x": "binary"})
    found = plan_power(
        "y ~ x + (1 | g)",
        study,
        {"Intercept": -3, "x": 0, "sd_g": 0.3},
        "x",
        n_simulations=60,
        family="bernoulli",
        **QUIET,
    )
    row = found.table.iloc[0]
    assert row["failed"] + row["n_simulations"] == 60
    assert found.failures["count"].sum() == row["failed"] > 5
    assert "same in all rows" in found.failures["reason"].iloc[0]
    assert "failed: the simulated outcome is the same in all rows" in str(found)


def test_a_study_that_always_fails_is_refused():
    study = make_study(groups={"g": 4}, per_group=4, predictors={"x": "binary"})
    with pytest.raises(HmlmError, match=r"all 3 simulations failed.*same in all rows"):
        plan_power(
            "y ~ x + (1 | g)",
            study,
            {"Intercept": -30, "x": 0, "sd_g": 0.3},
            "x",
            n_simulations=3,
            family="bernoulli",
            **QUIET,
        )


def test_power_of_a_posterior():
    study = make_study(groups={"g": 6}, per_group=10, predictors={"x": "binary"})
    found = plan_power(
        "y ~ x + (1 | g)",
        study,
        {"Intercept": 0, "x": 3, "sd_g": 0.5, "sigma": 1},
        "x",
        n_simulations=4,
        method=hmlm.NUTS(draws=150, tune=150, chains=2, cores=1),
        **QUIET,
    )
    assert found.table["power"].iloc[0] == 1
    assert found.simulations["p_value"].isna().all()


def test_a_table_with_an_outcome_can_be_planned_with(sleepstudy):
    found = plan_power(
        "Reaction ~ Days + (1 | Subject)",
        sleepstudy,
        {"Intercept": 250, "Days": 10, "sd_Subject": 35, "sigma": 30},
        "Days",
        n_simulations=5,
        **QUIET,
    )
    assert found.table["power"].iloc[0] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test": "z"}, "no population coefficient 'z'"),
        ({"alpha": 0}, "alpha must lie"),
        ({"n_simulations": 1}, "n_simulations must be"),
        ({"vary": {"h": [1, 2]}}, "neither a size of the study nor one of the parameters"),
        ({"vary": {"g": []}}, "must be a sequence of values"),
        ({"parameters": {"x": 1}}, "parameters lacks"),
    ],
)
def test_wrong_requests_are_refused(change, words):
    settings = {
        "formula": "y ~ x + (1 | g)",
        "study_or_frame": make_study(groups={"g": 4}, per_group=4, predictors={"x": "binary"}),
        "parameters": {"Intercept": 0, "x": 1, "sd_g": 1, "sigma": 1},
        "test": "x",
        **QUIET,
    }
    with pytest.raises(HmlmError, match=words):
        plan_power(**{**settings, **change})


def test_figure_of_power(between_schools, two_samples):
    ax = plot_power(between_schools, x="school")
    assert ax.get_xlabel() == "number of levels of school"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["t = 0", "t = 1"]
    mpl.pyplot.close(ax.figure)
    ax = plot_power(two_samples, target=None)
    assert ax.get_xlabel() == "x"
    assert ax.get_legend() is None
    mpl.pyplot.close(ax.figure)
    with pytest.raises(HmlmError, match="'y' was not varied"):
        plot_power(two_samples, x="y")
