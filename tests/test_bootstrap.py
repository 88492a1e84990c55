"""The parametric bootstrap: its draws, its refits, its seeds and its executors."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support import make, outcome_covariance, simulate

import hmlm
from hmlm.errors import HmlmError
from hmlm.fitting import bootstrap as module
from hmlm.fitting.bootstrap import bootstrap_fit
from hmlm.fitting.maximum_likelihood import ML, REML
from hmlm.fitting.ols import OLS


@pytest.fixture(scope="module")
def refits(sleepstudy_reml):
    return bootstrap_fit(sleepstudy_reml, n=300, random_seed=3, progressbar=False)


def test_refits_of_the_sleep_study_spread_as_theory_says(refits, sleepstudy_reml):
    # The coefficients by their standard errors (300 draws: 4% of each); the sds about unbiased.
    error = sleepstudy_reml.std_errors["beta"]
    np.testing.assert_allclose(refits[["Intercept", "Days"]].std(), error, rtol=0.12)
    np.testing.assert_allclose(
        refits[["Intercept", "Days"]].mean(), sleepstudy_reml.estimates["beta"], atol=error[0] / 5
    )
    assert refits["sigma"].mean() == pytest.approx(25.59, rel=0.02)
    assert refits["sd_Subject[Days]"].mean() == pytest.approx(5.92, rel=0.04)
    assert refits["cor_Subject[Intercept, Days]"].between(-1, 1).all()


def test_intervals_are_percentiles(sleepstudy_reml):
    refits = bootstrap_fit(sleepstudy_reml, n=40, random_seed=3, progressbar=False)
    table = sleepstudy_reml.confint("bootstrap", prob=0.8, n=40, random_seed=3, progressbar=False)
    tidy = hmlm.tidy(sleepstudy_reml, groups=False)
    assert table[["component", "group", "term"]].equals(tidy[["component", "group", "term"]])
    np.testing.assert_allclose(table["lower"], refits.quantile(0.1))
    np.testing.assert_allclose(table["upper"], refits.quantile(0.9))
    np.testing.assert_allclose(table["estimate"], tidy["estimate"])
    assert set(table["interval"]) == {"bootstrap"}
    one = sleepstudy_reml.confint(
        "bootstrap", 0.8, parameters="sigma", n=40, random_seed=3, progressbar=False
    )
    pd.testing.assert_frame_equal(one, table.tail(1).reset_index(drop=True))


@pytest.mark.parametrize(
    ("formula", "weights"),
    [("y ~ x + offset(o) + (x | g)", "w"), ("y ~ x + (x || g) + (1 | h)", None)],
)
def test_outcomes_have_the_mean_and_covariance_of_the_fit(formula, weights):
    frame, _ = simulate(5, groups=4, size=3)
    rng = np.random.default_rng(1)
    frame["o"], frame["w"] = rng.normal(size=12), rng.uniform(0.5, 2, 12)
    frame["h"] = rng.integers(0, 3, 12)
    fit = REML().run(make(formula, frame, weights=weights))
    work = module._Bootstrap.of(fit)
    rng = np.random.default_rng(2)
    draws = np.array([work.outcome(rng) for _ in range(20_000)])
    V = outcome_covariance(fit.design, fit.estimates)
    mean = fit.design.X @ fit.estimates["beta"]
    mean = mean if fit.design.offset is None else mean + fit.design.offset
    error = np.sqrt(np.diagonal(V) / 20_000)
    assert (np.abs(draws.mean(axis=0) - mean) < 4.5 * error).all()
    scale = np.sqrt(np.outer(np.diagonal(V), np.diagonal(V)))
    assert (np.abs(np.cov(draws.T) - V) / scale).max() < 0.06


@pytest.mark.parametrize("method", [ML(), REML()], ids=str)
def test_a_refit_is_the_fit_of_that_outcome(method):
    frame, _ = simulate(6, groups=10, size=5)
    fit = method.run(make("y ~ x + (x | g)", frame))
    work = module._Bootstrap.of(fit)
    seed = np.random.SeedSequence(1)
    (row,) = work([seed])
    y = work.outcome(np.random.default_rng(seed))
    again = method.run(replace(fit.design, y=y))
    own = [*again.estimates["beta"], *again.estimates["sd_g"], again.estimates["cor_g"][0, 1]]
    np.testing.assert_allclose(row, [*own, float(again.estimates["sigma"])], atol=2e-4)


def test_a_seed_gives_the_same_refits_wherever_they_are_made(sleepstudy_reml):
    here = bootstrap_fit(sleepstudy_reml, n=60, random_seed=7, progressbar=False)
    with ThreadPoolExecutor(2) as threads:
        there = bootstrap_fit(
            sleepstudy_reml, n=60, random_seed=7, progressbar=False, executor=threads
        )
    pd.testing.assert_frame_equal(here, there)
    other = bootstrap_fit(sleepstudy_reml, n=60, random_seed=8, progressbar=False)
    assert not np.allclose(here["sigma"], other["sigma"])


def test_processes_work_too(dyestuff2_reml):
    here = bootstrap_fit(dyestuff2_reml, n=30, random_seed=7, progressbar=False)
    with ProcessPoolExecutor(1) as processes:
        there = bootstrap_fit(
            dyestuff2_reml, n=30, random_seed=7, progressbar=False, executor=processes
        )
    pd.testing.assert_frame_equal(here, there)


def test_a_variance_of_zero_stays_possible(dyestuff2_reml):
    refits = bootstrap_fit(dyestuff2_reml, n=100, random_seed=1, progressbar=False)
    sd = refits["sd_Batch[Intercept]"]
    assert (sd >= 0).all()
    assert 0.35 < (sd < 1e-3).mean() < 0.8  # a half, and more with few groups
    assert sd.max() > 1.0


def test_correlations_with_nothing_are_left_out(monkeypatch):
    frame, _ = simulate(4, groups=8, size=4, sd=(0.5, 0.0), cor=0.0)
    fit = REML().run(make("y ~ x + (x | g)", frame))
    blank = pd.DataFrame({p: [np.nan] * 5 + [0.1, 0.2] for p in ["cor_g[Intercept, x]"]})
    monkeypatch.setattr(module, "bootstrap_fit", lambda *a: blank)
    table = module.bootstrap_intervals(fit, 0.5, "cor_g[Intercept, x]")
    assert table["lower"].item() == pytest.approx(0.125)
    monkeypatch.setattr(module, "bootstrap_fit", lambda *a: blank * np.nan)
    assert module.bootstrap_intervals(fit, 0.5, "cor_g[Intercept, x]")["lower"].isna().all()


def test_least_squares_too(sleepstudy_pooled, sleepstudy_alone):
    refits = bootstrap_fit(sleepstudy_pooled, n=200, random_seed=1, progressbar=False)
    np.testing.assert_allclose(
        refits[["Intercept", "Days"]].std(), sleepstudy_pooled.std_errors["beta"], rtol=0.15
    )
    alone = bootstrap_fit(sleepstudy_alone, n=50, random_seed=1, progressbar=False)
    # 144 residual degrees of freedom: a coefficient of variation of 1 / sqrt(2 * 144)
    assert alone["sigma"].mean() == pytest.approx(25.59, rel=0.03)
    assert 0.03 < alone["sigma"].std() / 25.59 < 0.09
    assert isinstance(sleepstudy_alone.method, OLS)


def test_progress_is_shown(dyestuff2_reml, capsys):
    bootstrap_fit(dyestuff2_reml, n=20, random_seed=1)
    shown = capsys.readouterr()
    quiet = bootstrap_fit(dyestuff2_reml, n=20, random_seed=1, progressbar=False)
    assert capsys.readouterr().out == ""
    assert len(quiet) == 20
    assert shown.err == ""


@pytest.mark.parametrize("n", [0, 5, 100.0, "many"])
def test_a_number_of_refits_that_makes_no_sense_is_refused(n, dyestuff2_reml):
    with pytest.raises(HmlmError, match="whole number of refits, at least 20"):
        dyestuff2_reml.confint("bootstrap", n=n)


def test_it_is_public():
    assert hmlm.bootstrap_fit is bootstrap_fit
