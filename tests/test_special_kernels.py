"""Links, special functions and vector code of the kernels: beside scipy's, to the last digits."""

import math

import numpy as np
import pytest
from scipy import special, stats

from hmlm.likelihoods import special_kernel as kernel
from hmlm.likelihoods.prior_kernel import scale_from
from hmlm.likelihoods.scales import Scale
from hmlm.likelihoods.vector_kernel import fill_exp, fill_odds
from hmlm.priors import Prior

LONG = np.longdouble
INVERSE = {
    "logit": special.expit,
    "probit": special.ndtr,
    "cloglog": lambda eta: -np.expm1(-np.exp(eta)),
}


def slope(function, at, step=1e-4):
    """Return a derivative by central differences of the fourth order."""
    near, far = (function(at + k * step) - function(at - k * step) for k in (1, 2))
    return (8 * near - far) / (12 * step)


def test_exponentials_are_right_to_the_last_place():
    x = np.concatenate([np.linspace(-708, 709, 20001), np.linspace(-1, 1, 2001), [0.0]])
    found = np.empty_like(x)
    fill_exp(x, found)
    exact = np.exp(x.astype(LONG))
    assert np.max(np.abs(found - exact) / exact) < 4.5e-16


def test_exponentials_beyond_the_range_stay_finite():
    found = np.empty(2)
    fill_exp(np.array([-1e5, 1e5]), found)
    np.testing.assert_allclose(found, np.exp([-708.0, 709.0]), rtol=1e-15)


def test_odds_are_right_to_the_last_place():
    x = np.concatenate([np.linspace(-40, 40, 20001), [-800.0, 800.0, 0.0]])
    t, logs = np.empty_like(x), np.empty_like(x)
    fill_odds(x, t, logs)
    exact = np.exp(-np.abs(np.clip(x, -708, 708)).astype(LONG))
    assert np.max(np.abs(t - exact) / exact) < 4.5e-16
    wanted = np.log1p(exact)
    assert np.max(np.abs(logs - wanted) / wanted) < 6e-16


@pytest.mark.parametrize("x", [1e-3, 0.3, 1.0, 2.5, 7.9, 8.0, 31.0, 1e6])
def test_digamma(x):
    assert kernel.digamma(x) == pytest.approx(special.digamma(x), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("x", [0.2, 3.0, 15.9, 16.0, 40.0, 1e4])
@pytest.mark.parametrize("k", [0.0, 1.0, 7.0, 300.0])
def test_log_rising(x, k):
    value, derivative = kernel.log_rising(x, k)
    wanted = special.gammaln(x + k) - special.gammaln(x)
    assert value == pytest.approx(wanted, rel=1e-11, abs=1e-11)
    wanted = special.digamma(x + k) - special.digamma(x)
    assert derivative == pytest.approx(wanted, rel=1e-10, abs=1e-12)


def test_log_rising_of_huge_numbers_keeps_its_digits():
    # log (x (x + 1) (x + 2)), which differences of log gammas of 1e12 have only three digits of.
    value, derivative = kernel.log_rising(1e12, 3.0)
    assert value == pytest.approx(math.fsum(math.log(1e12 + k) for k in range(3)), rel=1e-14)
    assert derivative == pytest.approx(sum(1 / (1e12 + k) for k in range(3)), rel=1e-6)


@pytest.mark.parametrize("x", [-200.0, -45.0, -30.1, -29.9, -8.0, -0.5, 0.0, 0.7, 4.9, 5.1, 9.0])
def test_log_of_the_normal_distribution_function(x):
    value, derivative = kernel.log_ndtr(x)
    assert value == pytest.approx(special.log_ndtr(x), rel=1e-12, abs=2e-16)
    wanted = math.exp(stats.norm.logpdf(x) - special.log_ndtr(x))
    assert derivative == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("link", INVERSE)
@pytest.mark.parametrize("eta", [-6.0, -1.3, -0.2, 0.0, 0.4, 1.1, 2.5])
def test_log_probabilities_and_their_slopes(link, eta):
    code = kernel.LINKS[link]
    yes, no, d_yes, d_no = kernel.log_odds_parts(code, eta)
    p = INVERSE[link](eta)
    assert yes == pytest.approx(math.log(p), rel=1e-11)
    assert no == pytest.approx(math.log1p(-p), rel=1e-11)
    assert d_yes == pytest.approx(slope(lambda v: kernel.log_odds_parts(code, v)[0], eta), rel=1e-8)
    assert d_no == pytest.approx(slope(lambda v: kernel.log_odds_parts(code, v)[1], eta), rel=1e-8)


@pytest.mark.parametrize("link", INVERSE)
def test_log_probabilities_of_the_far_tails(link):
    code = kernel.LINKS[link]
    yes, no, d_yes, d_no = kernel.log_odds_parts(code, -800.0)
    assert yes == pytest.approx(-800.0 if link != "probit" else special.log_ndtr(-800.0), rel=1e-12)
    assert no == pytest.approx(0.0, abs=1e-300)
    assert d_yes == pytest.approx(1.0 if link != "probit" else 800.0, rel=1e-5)
    assert d_no == pytest.approx(0.0, abs=1e-300)
    yes, no, _, _ = kernel.log_odds_parts(code, 900.0)
    assert yes == pytest.approx(0.0, abs=1e-300)
    assert no < -800.0


@pytest.mark.parametrize("link", INVERSE)
@pytest.mark.parametrize(("upper", "lower"), [(0.3, -0.9), (-1.0, -1.4), (2.5, 1.9), (1.2, 1.1)])
def test_log_probability_of_an_interval(link, upper, lower):
    code = kernel.LINKS[link]
    value, d_upper, d_lower = kernel.log_interval(code, upper, lower)
    wanted = math.log(INVERSE[link](upper) - INVERSE[link](lower))
    assert value == pytest.approx(wanted, rel=1e-10)
    numeric = slope(lambda v: kernel.log_interval(code, v, lower)[0], upper)
    assert d_upper == pytest.approx(numeric, rel=1e-7)
    numeric = slope(lambda v: kernel.log_interval(code, upper, v)[0], lower)
    assert d_lower == pytest.approx(numeric, rel=1e-7)


@pytest.mark.parametrize(("link", "mean"), [("log", 1.5), ("inverse", 0.4), ("identity", 2.2)])
def test_means(link, mean):
    eta = {"log": math.log(mean), "inverse": 1 / mean, "identity": mean}[link]
    code = kernel.LINKS[link]
    mu, log_mu, derivative = kernel.mean_of(code, eta)
    assert (mu, log_mu) == pytest.approx((mean, math.log(mean)), rel=1e-14)
    assert derivative == pytest.approx(slope(lambda v: kernel.mean_of(code, v)[0], eta), rel=1e-9)


@pytest.mark.parametrize(
    "prior",
    [
        Prior("half-normal", sigma=0.7),
        Prior("half-student-t", nu=3, sigma=0.7),
        Prior("uniform", lower=0.5, upper=3),
        Prior("lognormal", mu=0.2, sigma=0.5),
    ],
    ids=lambda p: p.name,
)
@pytest.mark.parametrize("x", [-1.7, 0.3, 2.1])
def test_scales_and_their_jacobians(prior, x):
    turn = 0.4 if prior.name in ("half-normal", "half-student-t") else 0.0
    scale = Scale(prior=prior, turn=turn)
    code, a, b, _, turn = scale.encode()
    value, d_value, log_jacobian, d_log_jacobian = scale_from(code, a, b, turn, x)

    def at(k):
        return lambda v: scale_from(code, a, b, turn, v)[k]

    assert value == pytest.approx(float(scale.value(x)), rel=1e-13)
    assert d_value == pytest.approx(slope(at(0), x), rel=1e-8)
    constant = log_jacobian - math.log(abs(d_value))
    other = scale_from(code, a, b, turn, x + 0.5)
    assert other[2] - math.log(abs(other[1])) == pytest.approx(constant, abs=1e-12)
    assert d_log_jacobian == pytest.approx(slope(at(2), x), rel=1e-8, abs=1e-10)
    if value > 0:
        assert float(scale.value(scale.coordinate(value))) == pytest.approx(value, rel=1e-10)
