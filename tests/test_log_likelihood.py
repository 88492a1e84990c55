"""Pointwise log likelihoods: equal to scipy's, and to the compiled density's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from hmlm import Model
from hmlm.families import get_family
from hmlm.links import from_link
from hmlm.log_likelihood import log_density, log_likelihood_rows

ETA = np.array([[-1.2, 0.3, 0.8, 1.4], [0.1, 0.4, -0.5, 2.0]])
COUNTS = np.array([0.0, 2.0, 5.0, 1.0])
REAL = np.array([-1.0, 0.2, 3.0, 1.0])
VALUES = {
    "sigma": np.full((2, 1), 0.7),
    "nu": np.full((2, 1), 4.0),
    "alpha": np.full((2, 1), 2.5),
    "phi": np.full((2, 1), 6.0),
    "zi": np.full((2, 1), 0.2),
    "hu": np.full((2, 1), 0.3),
}
LINKED = [(f"bernoulli({link})", link) for link in ("logit", "probit", "cloglog")]


def value(family, y, eta=ETA, **more):
    return log_density(get_family(family), y, [eta], VALUES, **more)


@pytest.mark.parametrize(("family", "link"), LINKED)
def test_yes_and_no(family, link):
    y = np.array([0.0, 1.0, 1.0, 0.0])
    expected = stats.bernoulli.logpmf(y, from_link(link, ETA))
    np.testing.assert_allclose(value(family, y), expected, rtol=1e-10)
    n = np.array([3.0, 4.0, 5.0, 6.0])
    hits = np.array([0.0, 4.0, 2.0, 3.0])
    expected = stats.binom.logpmf(hits, n, from_link(link, ETA))
    found = value(family.replace("bernoulli", "binomial"), hits, trials=n)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_tails_are_exact(link):
    far = np.array([[-30.0, 30.0, -3.0, 3.0]])
    found = value(f"bernoulli({link})", np.array([1.0, 0.0, 1.0, 0.0]), far)
    exact = {
        "logit": [-30.0, -30.0],
        "probit": [stats.norm.logcdf(-30.0)] * 2,
        "cloglog": [-30.0, -np.exp(30.0)],
    }[link]
    np.testing.assert_allclose(found[0, :2], exact, rtol=1e-10)


def test_numbers():
    mu, sigma = ETA, 0.7
    np.testing.assert_allclose(value("gaussian", REAL), stats.norm.logpdf(REAL, mu, sigma))
    w = np.array([1.0, 2.0, 0.5, 4.0])
    np.testing.assert_allclose(
        value("gaussian", REAL, weights=w), stats.norm.logpdf(REAL, mu, sigma / np.sqrt(w))
    )
    np.testing.assert_allclose(value("student-t", REAL), stats.t.logpdf(REAL, 4.0, mu, sigma))
    y = np.exp(REAL)
    np.testing.assert_allclose(
        value("lognormal", y), stats.lognorm.logpdf(y, sigma, scale=np.exp(mu))
    )
    np.testing.assert_allclose(
        value("gamma", y), stats.gamma.logpdf(y, 2.5, scale=np.exp(mu) / 2.5)
    )
    p, share = special.expit(mu), np.array([0.1, 0.5, 0.9, 0.3])
    np.testing.assert_allclose(value("beta", share), stats.beta.logpdf(share, 6 * p, 6 * (1 - p)))


def test_counts():
    mu, y = np.exp(ETA), COUNTS
    poisson = stats.poisson.logpmf(y, mu)
    shaped = stats.nbinom.logpmf(y, 2.5, 2.5 / (2.5 + mu))
    np.testing.assert_allclose(value("poisson", y), poisson)
    np.testing.assert_allclose(value("negative-binomial", y), shaped)
    n, p = np.full(4, 7.0), special.expit(ETA)
    np.testing.assert_allclose(
        value("beta-binomial", y, trials=n), stats.betabinom.logpmf(y, 7, 6 * p, 6 * (1 - p))
    )
    for name, plain, zero in (
        ("poisson", poisson, np.exp(-mu)),
        ("negative-binomial", shaped, (2.5 / (2.5 + mu)) ** 2.5),
    ):
        inflated = np.where(y == 0, np.log(0.2 + 0.8 * zero), np.log(0.8) + plain)
        np.testing.assert_allclose(value(f"zero-inflated-{name}", y), inflated)
        above = np.log(0.7) + plain - np.log(1 - zero)
        hurdle = np.where(y == 0, np.log(0.3), above)
        np.testing.assert_allclose(value(f"hurdle-{name}", y), hurdle)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_categories(link):
    cuts = np.array([[-0.5, 0.4, 1.1], [-1.0, 0.0, 2.0]])
    y = np.array([0.0, 1.0, 2.0, 3.0])
    below = from_link(link, cuts[:, None] - ETA[..., None])
    edges = np.concatenate([np.zeros((2, 4, 1)), below, np.ones((2, 4, 1))], axis=-1)
    expected = np.log(np.diff(edges, axis=-1)[:, np.arange(4), y.astype(int)])
    found = value(f"ordinal({link})", y, cutpoints=cuts)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    etas = [ETA, -ETA, 0.3 * ETA]
    whole = np.stack([np.zeros_like(ETA), *etas], axis=-1)
    expected = special.log_softmax(whole, axis=-1)[:, np.arange(4), y.astype(int)]
    np.testing.assert_allclose(log_density(get_family("categorical"), y, etas, {}), expected)


def test_rows_of_a_model_with_two_predictors():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.normal(size=12), "x": rng.normal(size=12), "g": [1, 2, 3] * 4})
    design = Model("y ~ x + (1 | g); sigma ~ x", frame).design
    at = {
        "beta": np.array([[0.1, 0.2]]),
        "sigma_beta": np.array([[-0.3, 0.5]]),
        "sd_g": np.array([[0.4]]),
        "b_g": np.array([[[0.3], [-0.2], [0.1]]]),
    }
    mu = 0.1 + 0.2 * frame["x"] + at["b_g"][0, design.blocks[0].index, 0]
    sigma = np.exp(-0.3 + 0.5 * frame["x"])
    expected = stats.norm.logpdf(frame["y"], mu, sigma)
    np.testing.assert_allclose(log_likelihood_rows(design, at)[0], expected)
