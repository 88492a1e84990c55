"""Sensitivity of a posterior to its prior, and the likelihood that it needs."""

import numpy as np
import pandas as pd
import pytest
from support import dense_log_likelihood

import hmlm
from hmlm import NUTS, Prior
from hmlm.errors import HmlmError
from hmlm.integrated_likelihood import integrate_likelihood
from hmlm.sensitivity import VERDICTS, measure_sensitivity

DRAWS = NUTS(draws=500, chains=4)


def sample(model, method=DRAWS):
    return model.fit(method, random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def sleep_model(sleepstudy):
    return hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)


@pytest.fixture(scope="module")
def sleep_fit(sleep_model):
    return sample(sleep_model)


def verdicts(table):
    return {(r.component, r.term): r.verdict for r in table.itertuples()}


@pytest.mark.parametrize(
    ("formula", "data"),
    [
        ("Yield ~ 1 + (1 | Batch)", "dyestuff"),
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
        ("Reaction ~ Days + (Days || Subject)", "sleepstudy"),
        ("strength ~ 1 + (1 | batch/cask)", "pastes"),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin"),
    ],
)
def test_integrated_likelihood_of_gaussian_models_is_exact(formula, data):
    model = hmlm.Model(formula, hmlm.load_dataset(data))
    draws = sample(model, NUTS(draws=10, tune=100, chains=1))._flat_draws("include")
    found = integrate_likelihood(model.design, draws)
    for k in range(10):
        at = {name: v[k] for name, v in draws.items() if not name.startswith("b_")}
        assert found[k] == pytest.approx(dense_log_likelihood(model.design, at), abs=1e-4)


def test_integrated_likelihood_of_binomial_models_is_laplaces():
    model = hmlm.Model(
        "p(incidence, size) ~ period + (1 | herd)", hmlm.load_dataset("cbpp"), family="binomial"
    )
    fit = model.fit(hmlm.Laplace())
    at = {name: np.asarray(value)[None] for name, value in fit.estimates.items()}
    found = integrate_likelihood(model.design, at)
    assert found[0] == pytest.approx(fit.log_likelihood, abs=1e-4)
    # A Newton step from elsewhere ends near it.
    rng = np.random.default_rng(1)
    away = at["b_herd"] + 0.2 * rng.standard_normal(at["b_herd"].shape)
    assert integrate_likelihood(model.design, at | {"b_herd": away})[0] == pytest.approx(
        fit.log_likelihood, abs=0.15
    )


def test_many_overlapping_effects_are_integrated_factor_by_factor(monkeypatch):
    import hmlm.integrated_likelihood as module

    model = hmlm.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", hmlm.load_dataset("penicillin"))
    draws = sample(model, NUTS(draws=100, tune=200, chains=1))._flat_draws("include")
    exact = integrate_likelihood(model.design, draws)
    monkeypatch.setattr(module, "MOST_TOGETHER", 0)
    found = integrate_likelihood(model.design, draws)
    assert np.isfinite(found).all()
    assert not np.allclose(found, exact)


def test_without_groups_the_likelihood_is_that_of_the_rows(sleep_model):
    fit = sample(sleep_model.with_pooling("complete"), NUTS(draws=5, tune=100, chains=1))
    draws = fit._flat_draws("include")
    found = integrate_likelihood(fit.design, draws)
    at = {name: v[0] for name, v in draws.items()}
    assert found[0] == pytest.approx(dense_log_likelihood(fit.design, at))


def test_default_priors_leave_it_to_the_data(sleep_fit):
    table = measure_sensitivity(sleep_fit)
    assert list(table) == [
        "component",
        "group",
        "level",
        "term",
        "prior",
        "likelihood",
        "verdict",
        "driver",
        "advice",
    ]
    assert set(table["verdict"]) == {VERDICTS["data"]}
    assert list(table["term"]) == [
        "Intercept",
        "Days",
        "Intercept",
        "Days",
        "Intercept, Days",
        "sigma",
    ]
    assert (table["driver"] == "").all()
    assert (table["advice"] == "").all()


def test_prior_against_the_data_is_named(sleep_model):
    fit = sample(sleep_model.with_priors(Days=Prior("normal", mu=0, sigma=1)))
    table = measure_sensitivity(fit)
    row = table[(table["component"] == "population") & (table["term"] == "Days")].iloc[0]
    assert row["verdict"] == VERDICTS["conflict"]
    assert row["driver"] == "Days"
    assert "normal(mu=0, sigma=1), moves it as the data do" in row["advice"]
    assert "priors={'Days': ...}" in row["advice"]
    assert verdicts(table)["population", "Intercept"] == VERDICTS["data"]


def test_prior_that_is_stronger_than_the_data_is_named(sleep_model):
    fit = sample(sleep_model.with_priors(cor=Prior("lkj", eta=50)))
    table = measure_sensitivity(fit)
    row = table[table["component"] == "cor"].iloc[0]
    assert row["verdict"] == VERDICTS["prior"]
    assert row["driver"] == "cor_Subject"
    assert "defend that prior" in row["advice"]
    assert "priors={'cor_Subject': ...}" in row["advice"]


def test_sensitivity_to_a_normal_prior_is_that_of_the_exact_posterior():
    # y ~ N(mu, 1) with mu ~ N(0, s^2): raising the prior to a power moves the posterior's mean.
    y = np.random.default_rng(1).normal(1.0, 1.0, 20)
    frame = pd.DataFrame({"y": y - y.mean() + 1.0, "one": 1.0})
    tight = {"Intercept": Prior("normal", mu=0, sigma=0.3)}
    strong, weak = (
        measure_sensitivity(sample(hmlm.Model("se(y, one) ~ 1", frame, priors=p)))["prior"][0]
        for p in (tight, {"Intercept": Prior("normal", mu=0, sigma=30)})
    )
    # Shift of the mean for a doubled power, in posterior sds, is of the size of the sensitivity.
    precision = 20 + 1 / 0.09
    shift = 20 / precision * (1 / 0.09) / precision * np.sqrt(precision) * np.log(2)
    assert strong == pytest.approx(shift * 0.35, rel=0.5)
    assert weak < 0.01


def test_flat_priors_move_nothing(sleepstudy):
    model = hmlm.Model("Reaction ~ Days", sleepstudy)
    fit = sample(
        model.with_priors(Intercept=Prior("flat"), Days=Prior("flat"), sigma=Prior("half-flat"))
    )
    assert (measure_sensitivity(fit)["prior"] == 0).all()


def test_groups_on_request(sleep_fit, sleep_model):
    table = measure_sensitivity(sleep_fit, groups=True)
    own = table[table["component"] == "group"]
    assert len(own) == 36
    assert list(own["level"][:2]) == ["308", "308"]
    alone = sample(sleep_model.with_pooling("none"))
    table = measure_sensitivity(alone, groups=True)
    assert set(table[table["component"] == "group"]["term"]) == {"Intercept", "Days"}


@pytest.mark.parametrize(
    ("family", "formula"),
    [
        ("ordinal", "o ~ x + (1 | g)"),
        ("categorical", "o ~ x + (1 | g)"),
        ("student-t", "y ~ x + (1 | g); sigma ~ x"),
        ("negative-binomial", "n ~ x + (x | g) + (1 | h)"),
        ("zero-inflated-poisson", "n ~ x + (1 | g); zi ~ 1 + (1 | g)"),
    ],
)
def test_other_families(family, formula):
    rng = np.random.default_rng(2)
    n = 160
    g = np.repeat(np.arange(8), 20)
    x = rng.normal(size=n)
    y = 0.5 * x + rng.normal(size=8)[g] + rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "x": x,
            "g": g,
            "h": np.tile(np.arange(5), 32),
            "y": y,
            "n": rng.poisson(np.exp(0.5 + 0.3 * y)),
            "o": np.digitize(y, [-0.5, 0.7]),
        }
    )
    fit = sample(hmlm.Model(formula, frame, family=family), NUTS(draws=250, tune=300, chains=2))
    table = measure_sensitivity(fit)
    assert np.isfinite(table["prior"]).all()
    assert np.isfinite(table["likelihood"]).all()
    slope = table[(table["component"] == "population") & table["term"].str.endswith("x")].iloc[0]
    assert slope["verdict"] == VERDICTS["data"]


def test_many_rows_thin_the_draws(sleep_fit, monkeypatch):
    import hmlm.sensitivity as module

    monkeypatch.setattr(module, "_MOST_NUMBERS", 180 * 1000)
    assert set(measure_sensitivity(sleep_fit)["verdict"]) == {VERDICTS["data"]}


def test_bad_requests(sleepstudy_reml, sleep_fit):
    with pytest.raises(HmlmError, match=r"has no prior to be sensitive to.*hmlm.NUTS"):
        measure_sensitivity(sleepstudy_reml)
    with pytest.raises(HmlmError, match="threshold must be positive"):
        measure_sensitivity(sleep_fit, threshold=0)
