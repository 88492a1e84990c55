"""Rows of generalised linear models, against scipy's densities and differences."""

import numpy as np
import pytest
from scipy import stats

from hmlm.errors import HmlmError
from hmlm.families import FAMILIES, get_family
from hmlm.likelihoods.exponential import (
    SUPPORTED,
    row_likelihood,
)
from hmlm.likelihoods.precision import precision_information
from hmlm.links import from_link

PARAMETER = 2.7
CASES = [(name, link) for name in SUPPORTED for link in FAMILIES[name].links]
BOUNDED = [(name, link) for name, link in CASES if link not in ("identity", "inverse")]


def simulate(name, link, n=60, seed=1):
    """Return a row likelihood, linear predictors, and scipy's distribution of every row."""
    rng = np.random.default_rng(seed)
    family = get_family(name, link)
    positive = link in ("identity", "inverse")
    eta = rng.uniform(0.3, 4, n) if positive else rng.normal(0, 1.2, n)
    mu = from_link(link, eta)
    trials = rng.integers(1, 9, n).astype(float)
    a = PARAMETER
    rows = {
        "bernoulli": lambda: stats.bernoulli(mu),
        "binomial": lambda: stats.binom(trials.astype(int), mu),
        "poisson": lambda: stats.poisson(mu),
        "negative-binomial": lambda: stats.nbinom(a, a / (mu + a)),
        "gamma": lambda: stats.gamma(a, scale=mu / a),
        "beta": lambda: stats.beta(mu * a, (1 - mu) * a),
    }[name]()
    y = rows.rvs(random_state=rng).astype(float)
    if name == "beta":
        y = np.clip(y, 1e-6, 1 - 1e-6)
    return row_likelihood(family, y, trials if name == "binomial" else None, a), eta, rows


@pytest.mark.parametrize(("name", "link"), CASES)
def test_log_likelihood_is_scipys(name, link):
    rows, eta, scipy_rows = simulate(name, link)
    log_density = getattr(scipy_rows, "logpmf", None) or scipy_rows.logpdf
    if hasattr(scipy_rows.dist, "logpdf"):
        log_density = scipy_rows.logpdf
    np.testing.assert_allclose(
        rows.terms(eta).log_likelihood, log_density(rows.y), rtol=1e-7, atol=1e-8
    )


@pytest.mark.parametrize(("name", "link"), CASES)
def test_derivatives_are_those_of_differences(name, link):
    rows, eta, _ = simulate(name, link)
    step = 1e-5
    at, up, down = rows.terms(eta), rows.terms(eta + step), rows.terms(eta - step)

    def slope(part):
        return (getattr(up, part) - getattr(down, part)) / (2 * step)

    np.testing.assert_allclose(at.score, slope("log_likelihood"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(at.observed, -slope("score"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(at.weight_slope, slope("weight"), rtol=1e-5, atol=1e-6)
    if rows.canonical:
        np.testing.assert_array_equal(at.observed, at.weight)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_weight_is_the_expected_information(name, link):
    family = get_family(name, link)
    eta = 0.7
    n = 200_000
    rng = np.random.default_rng(3)
    mu = float(from_link(link, eta))
    a = PARAMETER
    y = {
        "bernoulli": lambda: rng.binomial(1, mu, n),
        "binomial": lambda: rng.binomial(4, mu, n),
        "poisson": lambda: rng.poisson(mu, n),
        "negative-binomial": lambda: rng.negative_binomial(a, a / (a + mu), n),
        "gamma": lambda: rng.gamma(a, mu / a, n),
        "beta": lambda: np.clip(rng.beta(a * mu, a * (1 - mu), n), 1e-12, 1 - 1e-12),
    }[name]()
    rows = row_likelihood(family, y, np.full(n, 4.0) if name == "binomial" else None, a)
    at = rows.terms(np.full(n, eta))
    assert at.weight[0] == pytest.approx((at.score**2).mean(), rel=0.03)
    assert at.weight[0] == pytest.approx(at.observed.mean(), rel=0.03)
    assert rows.variance(np.full(n, eta))[0] == pytest.approx(np.var(y), rel=0.03)


@pytest.mark.parametrize(("name", "link"), BOUNDED)
@pytest.mark.parametrize("eta", [-1e4, -200.0, -35.0, 35.0, 200.0, 1e4])
def test_tails_are_finite(name, link, eta):
    rows, usual, _ = simulate(name, link)
    at = rows.terms(np.full(len(usual), eta))
    for part in ("log_likelihood", "score", "observed", "weight", "weight_slope"):
        assert np.isfinite(getattr(at, part)).all(), part


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_a_certain_success_costs_nothing_and_a_missed_one_its_true_price(link):
    family = get_family("bernoulli", link)
    eta = np.array([-30.0, 3.0])
    exact = {
        "logit": stats.logistic.logcdf,
        "probit": stats.norm.logcdf,
        "cloglog": lambda x: np.log(-np.expm1(-np.exp(x))),
    }[link](eta)
    rows = row_likelihood(family, np.ones(2))
    np.testing.assert_allclose(rows.terms(eta).log_likelihood, exact, rtol=1e-12)
    none = row_likelihood(family, np.zeros(1)).terms(np.array([-40.0]))
    assert 0 >= none.log_likelihood[0] > -1e-15


@pytest.mark.parametrize("name", ["poisson", "negative-binomial", "gamma"])
def test_impossible_means_have_no_likelihood(name):
    rows = row_likelihood(get_family(name, "identity"), np.array([1.0, 2.0]))
    value = rows.terms(np.array([-1.0, 2.0])).log_likelihood
    assert value[0] == -np.inf
    assert np.isfinite(value[1])


@pytest.mark.parametrize(("name", "link"), CASES)
def test_scoring_starts_at_a_possible_predictor(name, link):
    rows, _, _ = simulate(name, link)
    assert np.isfinite(rows.start()[rows.y > 0]).all()


@pytest.mark.parametrize(("name", "link"), CASES)
def test_pearson_residuals_are_outcome_less_mean_over_sd(name, link):
    rows, eta, _ = simulate(name, link)
    expected = (rows.y - rows.trials * rows.mean(eta)) / np.sqrt(rows.variance(eta))
    np.testing.assert_allclose(rows.pearson(eta), expected, rtol=1e-7, atol=1e-12)


def test_negative_binomial_of_a_huge_shape_is_poisson():
    y = np.arange(6.0)
    eta = np.linspace(-1, 2, 6)
    poisson = row_likelihood(get_family("poisson"), y).terms(eta)
    near = row_likelihood(get_family("negative-binomial"), y, None, 1e10).terms(eta)
    np.testing.assert_allclose(near.log_likelihood, poisson.log_likelihood, atol=1e-7)
    np.testing.assert_allclose(near.score, poisson.score, atol=1e-7)


def test_information_about_a_precision_is_minus_the_second_derivative():
    rows, eta, _ = simulate("beta", "logit", n=4)
    cross, own = precision_information(rows, eta)
    rng = np.random.default_rng(4)
    n = 200_000
    phi, step = PARAMETER, 1e-4
    total = 0.0
    for k in range(4):
        mu = float(from_link("logit", eta[k]))
        y = np.clip(rng.beta(mu * phi, (1 - mu) * phi, n), 1e-12, 1 - 1e-12)
        here = row_likelihood(rows.family, y, None, phi)
        at = np.full(n, eta[k])
        up, down = (here.given(phi + d).terms(at) for d in (step, -step))
        by_phi = (up.log_likelihood - down.log_likelihood) / (2 * step)
        assert cross[k] == pytest.approx(np.cov(by_phi, here.terms(at).score)[0, 1], abs=0.02)
        total += by_phi.var()
    assert own == pytest.approx(total, rel=0.03)


def test_other_families_are_refused():
    with pytest.raises(HmlmError, match="gaussian"):
        row_likelihood(get_family("gaussian"), np.zeros(2))
