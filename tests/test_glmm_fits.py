"""Posteriors of every family: simulated truth is recovered, and results have their names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special

import hmlm
from hmlm import NUTS, Model

GROUPS, SIZE = 25, 24
QUICK = NUTS(draws=400, tune=400, chains=2)
TRUTH = {"Intercept": 0.4, "x": 0.6, "sd": 0.5}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(8)
    n = GROUPS * SIZE
    g = np.repeat(np.arange(GROUPS), SIZE)
    x = rng.normal(size=n)
    b = TRUTH["sd"] * rng.normal(size=GROUPS)
    eta = TRUTH["Intercept"] + TRUTH["x"] * x + b[g]
    mu, p = np.exp(eta), special.expit(eta)
    counts = rng.poisson(mu)
    shaped = rng.poisson(mu * rng.gamma(2.0, size=n) / 2.0)
    positive = np.maximum(rng.poisson(mu), 0)
    while (positive == 0).any():
        positive = np.where(positive == 0, rng.poisson(mu), positive)
    empty = rng.random(n) < 0.3
    latent = eta + rng.logistic(size=n)
    second = rng.normal(size=GROUPS)[g] * 0.5 - 0.3 * x
    odds = np.exp(np.stack([np.zeros(n), eta, second], axis=1))
    odds /= odds.sum(axis=1, keepdims=True)
    kinds = (rng.random(n)[:, None] > np.cumsum(odds, axis=1)).sum(axis=1)
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "n": 6,
            "normal": eta + 0.7 * rng.normal(size=n),
            "heavy": eta + 0.7 * rng.standard_t(4, size=n),
            "uneven": eta + np.exp(-0.5 + 0.4 * x) * rng.normal(size=n),
            "yes": (rng.random(n) < p).astype(int),
            "probit": (rng.random(n) < special.ndtr(eta)).astype(int),
            "cloglog": (rng.random(n) < -np.expm1(-np.exp(eta))).astype(int),
            "hits": rng.binomial(6, p),
            "clustered": rng.binomial(6, rng.beta(8 * p, 8 * (1 - p))),
            "count": counts,
            "shaped": shaped,
            "gamma": rng.gamma(5.0, mu / 5.0),
            "lognormal": np.exp(eta + 0.7 * rng.normal(size=n)),
            "share": rng.beta(10 * p, 10 * (1 - p)),
            "grade": np.digitize(latent, [-0.5, 0.8, 2.0]),
            "kind": np.array(list("abc"))[kinds],
            "inflated": np.where(empty, 0, counts),
            "inflated shaped": np.where(empty, 0, shaped),
            "hurdle": np.where(empty, 0, positive),
        }
    )


FAMILIES = {
    "student-t": ("heavy", {"sigma": 0.7}),
    "bernoulli": ("yes", {}),
    "bernoulli(probit)": ("probit", {}),
    "bernoulli(cloglog)": ("cloglog", {}),
    "binomial": ("p(hits, n)", {}),
    "beta-binomial": ("p(clustered, n)", {"phi": 8.0}),
    "poisson": ("count", {}),
    "negative-binomial": ("shaped", {"alpha": 2.0}),
    "gamma": ("gamma", {"alpha": 5.0}),
    "lognormal": ("lognormal", {"sigma": 0.7}),
    "beta": ("share", {"phi": 10.0}),
    "zero-inflated-poisson": ("inflated", {"zi": 0.3}),
    "zero-inflated-negative-binomial": ("`inflated shaped`", {"alpha": 2.0, "zi": 0.3}),
    "hurdle-poisson": ("hurdle", {"hu": 0.3}),
}


def inside(fit, name, truth, place=None):
    draws = fit.variable(name)
    draws = draws if place is None else draws[..., place]
    low, high = np.quantile(draws, [0.0005, 0.9995])
    assert low < truth < high, f"{name}: {truth} not in ({low:.3f}, {high:.3f})"


@pytest.mark.parametrize("family", FAMILIES)
def test_simulated_truth_is_recovered(table, family):
    outcome, parameters = FAMILIES[family]
    fit = Model(f"{outcome} ~ x + (1 | g)", table, family=family).fit(
        QUICK, random_seed=3, progressbar=False
    )
    assert fit.status.numbers["divergences"] == 0
    assert fit.status.numbers["max_r_hat"] < 1.03
    assert "compiled density" in fit.status.notes[0]
    inside(fit, "beta", TRUTH["Intercept"], 0)
    inside(fit, "beta", TRUTH["x"], 1)
    inside(fit, "sd_g", TRUTH["sd"], 0)
    for name, value in parameters.items():
        inside(fit, name, value)


def test_ordinal_cutpoints_and_slope(table):
    fit = Model("grade ~ x + (1 | g)", table, family="ordinal").fit(
        QUICK, random_seed=1, progressbar=False
    )
    for k, cut in enumerate([-0.5, 0.8, 2.0]):
        inside(fit, "cutpoints", cut - TRUTH["Intercept"], k)
    inside(fit, "beta", TRUTH["x"], 0)
    shown = hmlm.tidy(fit, groups=False)
    assert shown["term"].tolist()[:4] == ["0|1", "1|2", "2|3", "x"]
    assert shown["component"].tolist()[:4] == ["cutpoint"] * 3 + ["population"]


def test_categories(table):
    fit = Model("kind ~ x + (1 | g)", table, family="categorical").fit(
        QUICK, random_seed=1, progressbar=False
    )
    inside(fit, "beta", TRUTH["x"], 1)
    inside(fit, "mu_c_beta", -0.3, 1)
    inside(fit, "mu_c_sd_g", 0.5, 0)
    assert hmlm.tidy(fit, groups=False)["term"].tolist() == [
        "mu_b_Intercept",
        "mu_b_x",
        "mu_c_Intercept",
        "mu_c_x",
        "mu_b_Intercept",
        "mu_c_Intercept",
    ]


def test_sigma_with_a_formula(table):
    model = Model("uneven ~ x + (1 | g); sigma ~ x", table)
    fit = model.fit(QUICK, random_seed=1, progressbar=False)
    inside(fit, "sigma_beta", -0.5, 0)
    inside(fit, "sigma_beta", 0.4, 1)
    assert "sigma" not in fit.design.dims
    assert "sigma_x" in hmlm.tidy(fit, groups=False)["term"].tolist()


def test_the_kernel_agrees_with_the_integrated_gaussian(table):
    """The same Gaussian model, effects integrated out in one and sampled in the other."""
    model = Model("normal ~ x + (x | g)", table)
    integrated = model.fit(NUTS(draws=1000), random_seed=1, progressbar=False)
    sampled = Model("normal ~ x + (x | g); sigma ~ 1", table).fit(
        NUTS(draws=1000), random_seed=1, progressbar=False
    )
    for name in ("beta", "sd_g"):
        a, b = integrated.describe(name, 0.9), sampled.describe(name, 0.9)
        error = np.sqrt(a.std_error**2 / a.ess_bulk + b.std_error**2 / b.ess_bulk)
        assert (np.abs(a.estimate - b.estimate) < 4.5 * error).all()
        np.testing.assert_allclose(a.std_error, b.std_error, rtol=0.1)
    a, b = integrated.describe("b_g", 0.9), sampled.describe("b_g", 0.9)
    np.testing.assert_allclose(a.estimate, b.estimate, atol=0.05)


@pytest.mark.parametrize(
    ("centered", "sentence"),
    [
        (None, "each centred as far as its own rows determine it ("),
        (True, "'g': centred."),
        (False, "'g': not centred."),
    ],
)
def test_the_form_of_the_effects_is_said_and_can_be_chosen(table, centered, sentence):
    fit = Model("yes ~ x + (1 | g)", table, family="bernoulli").fit(
        NUTS(draws=300, tune=400, chains=2, centered=centered), random_seed=2, progressbar=False
    )
    assert any(sentence in note for note in fit.status.notes)
    inside(fit, "sd_g", TRUTH["sd"], 0)


def test_no_pooling_is_sampled_on_the_compiled_density(table):
    model = Model("p(hits, n) ~ x + (1 | g)", table, family="binomial").with_pooling("none")
    fit = model.fit(QUICK, random_seed=1, progressbar=False)
    alone = model.fit(hmlm.GLM())
    assert "compiled density" in fit.status.notes[0]
    wide = hmlm.compare(fit, alone)
    totals = wide.xs("total", level="component")
    own, their = (totals[label]["estimate"] for label in ("NUTS (no pooling)", "GLM (no pooling)"))
    np.testing.assert_allclose(own, their, atol=0.25)


def test_merged_rows_are_said(table):
    frame = table.assign(x=(table["x"] > 0).astype(int))
    fit = Model("count ~ x + (1 | g)", frame, family="poisson").fit(
        QUICK, random_seed=1, progressbar=False
    )
    assert fit.status.notes[0] == "Sampled on the compiled density, 600 rows merged into 50."


def test_ratios_and_expected_outcomes(cbpp_fits):
    bayes, laplace, pooled, alone = cbpp_fits
    for fit in cbpp_fits:
        plain, ratio = hmlm.tidy(fit, groups=False), hmlm.tidy(fit, groups=False, scale="ratio")
        rows = plain["component"] == "population"
        if fit is bayes:
            draws = np.exp(fit.variable("beta")[..., -3:])
            np.testing.assert_allclose(ratio[rows]["estimate"][-3:], draws.mean(axis=(0, 1)))
        else:
            np.testing.assert_allclose(ratio[rows]["estimate"], np.exp(plain[rows]["estimate"]))
            np.testing.assert_allclose(ratio[rows]["lower"], np.exp(plain[rows]["lower"]))
        sds = plain["component"] == "sd"
        np.testing.assert_array_equal(plain[sds]["estimate"], ratio[sds]["estimate"])
    means = hmlm.compare(*cbpp_fits, scale="response").xs("mean", level="component")
    counts = hmlm.load_dataset("cbpp").groupby("herd", observed=True)[["incidence", "size"]].sum()
    raw = (counts["incidence"] / counts["size"]).to_numpy()
    p = {fit.label: means[fit.label]["estimate"].to_numpy() for fit in cbpp_fits}
    known = np.isfinite(p[alone.label])
    # Partial pooling lies between the groups' own estimates and the common one.
    pulled = np.abs(p[laplace.label] - p[pooled.label])[known]
    own = np.abs(p[alone.label] - p[pooled.label])[known]
    assert (pulled < own + 0.02).all()
    assert np.corrcoef(p[alone.label][known], raw[known])[0, 1] > 0.95
    np.testing.assert_allclose(p[bayes.label], p[laplace.label], atol=0.02)
    assert "Groups: average expected outcome" in str(hmlm.compare(*cbpp_fits, scale="response"))
    assert "as odds ratios." in str(hmlm.compare(*cbpp_fits, scale="ratio"))


@pytest.fixture(scope="module")
def cbpp_fits():
    model = Model(
        "p(incidence, size) ~ period + (1 | herd)", hmlm.load_dataset("cbpp"), family="binomial"
    )
    return (
        model.fit(NUTS(draws=1000), random_seed=1, progressbar=False),
        model.fit(hmlm.Laplace()),
        model.with_pooling("complete").fit(hmlm.GLM()),
        model.with_pooling("none").fit(hmlm.GLM()),
    )


def test_side_by_side_of_other_families():
    table = hmlm.side_by_side(
        "p(incidence, size) ~ period + (1 | herd)",
        hmlm.load_dataset("cbpp"),
        family="binomial",
        random_seed=1,
        progressbar=False,
    )
    labels = list(dict.fromkeys(table.columns.get_level_values("fit")))
    assert labels == ["GLM (complete pooling)", "GLM (no pooling)", "Laplace", "NUTS"]


def test_ratios_need_a_link_that_has_them():
    fit = Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy")).fit(hmlm.REML())
    with pytest.raises(ValueError, match="identity link"):
        hmlm.tidy(fit, scale="ratio")
    with pytest.raises(ValueError, match="'link', 'ratio' or 'response'"):
        hmlm.tidy(fit, scale="odds")
    means = hmlm.tidy(fit, scale="response")
    assert (means["component"] == "mean").sum() == 18


def test_separated_groups_are_explained_and_the_posterior_stays_finite(table):
    frame = table.assign(yes=np.where(table["g"] < 2, 1, table["yes"]))
    model = Model("yes ~ x + (1 | g)", frame, family="bernoulli")
    alone = model.with_pooling("none").fit(hmlm.GLM())
    said = " ".join([*alone.status.problems, *alone.status.notes])
    assert "infinite" in said
    own = alone.describe("total_g", 0.9).estimate[:, 0]
    assert np.isnan(own[:2]).all()
    assert np.isfinite(own[2:]).all()
    fit = model.fit(QUICK, random_seed=1, progressbar=False)
    total = fit.describe("total_g", 0.9)
    assert np.isfinite(total.estimate).all()
    assert (np.abs(total.upper) < 10).all()
    assert fit.status.numbers["divergences"] == 0


def test_fits_of_other_families_print(cbpp_fits):
    bayes, laplace, *_ = cbpp_fits
    assert "binomial with the logit link" in str(laplace.summary())
    assert "sigma" not in str(laplace.summary())
    assert "period[4]" in str(bayes.summary())
