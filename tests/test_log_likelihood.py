"""Pointwise log likelihoods: equal to scipy's, and in sum to that of the PyMC model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import hmlm
from hmlm import Model, log_likelihood
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


@pytest.mark.parametrize(
    ("family", "link"),
    [
        (f"{name}({link})", link)
        for name, links in (
            ("gaussian", ("log", "inverse")),
            ("student-t", ("log", "inverse")),
            ("gamma", ("inverse", "identity")),
            ("poisson", ("identity",)),
            ("negative-binomial", ("identity",)),
            ("beta", ("probit", "cloglog")),
            ("beta-binomial", ("probit", "cloglog")),
        )
        for link in links
    ],
)
def test_other_links(family, link):
    eta = np.abs(ETA) + 0.1
    mu = from_link(link, eta)
    name = family.partition("(")[0]
    share, n = np.array([0.1, 0.5, 0.9, 0.3]), np.full(4, 7.0)
    y = {"beta": share, "gaussian": REAL, "student-t": REAL}.get(name, COUNTS)
    y = y + 0.5 if name == "gamma" else y
    expected = {
        "gaussian": lambda: stats.norm.logpdf(y, mu, 0.7),
        "student-t": lambda: stats.t.logpdf(y, 4.0, mu, 0.7),
        "gamma": lambda: stats.gamma.logpdf(y, 2.5, scale=mu / 2.5),
        "poisson": lambda: stats.poisson.logpmf(y, mu),
        "negative-binomial": lambda: stats.nbinom.logpmf(y, 2.5, 2.5 / (2.5 + mu)),
        "beta": lambda: stats.beta.logpdf(y, 6 * mu, 6 * (1 - mu)),
        "beta-binomial": lambda: stats.betabinom.logpmf(y, 7, 6 * mu, 6 * (1 - mu)),
    }[name]()
    trials = n if name == "beta-binomial" else None
    np.testing.assert_allclose(value(family, y, eta, trials=trials), expected, rtol=1e-8)


def test_far_away_counts_are_finite_or_impossible():
    far = np.array([[-800.0, 800.0]])
    found = log_density(get_family("poisson"), np.array([2.0, 2.0]), [far], {})
    assert found[0, 0] == pytest.approx(-1600 - np.log(2))
    assert found[0, 1] == -np.inf
    shaped = log_density(
        get_family("negative-binomial"), np.array([2.0, 2.0]), [far], {"alpha": np.ones((1, 1))}
    )
    # Geometric: 1 / (1 + mu) (mu / (1 + mu))^2.
    np.testing.assert_allclose(shaped, [[-1600.0, -800.0]])
    gamma = log_density(get_family("gamma(log)"), np.ones(2), [far], {"alpha": np.ones((1, 1))})
    np.testing.assert_allclose(gamma, [[-np.inf, -800.0]])


def test_a_large_shape_is_a_poisson_density():
    counts = [get_family("negative-binomial"), get_family("poisson")]
    values = {"alpha": np.full((2, 1), 1e12)}
    shaped, plain = (log_density(f, COUNTS, [ETA], values) for f in counts)
    np.testing.assert_allclose(shaped, plain, rtol=1e-9)


def test_ordinal_tails():
    cuts = np.array([[-0.5, 0.5]])
    eta = np.array([[40.0, -40.0, 40.0, -40.0]])
    y = np.array([0.0, 2.0, 1.0, 1.0])
    found = log_density(get_family("ordinal(probit)"), y, [eta], {}, cutpoints=cuts)
    below, above = stats.norm.logcdf([-40.5, -39.5])
    middle = above + np.log1p(-np.exp(below - above))
    np.testing.assert_allclose(found, [[below, below, middle, middle]], rtol=1e-12)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_narrow_categories_in_either_tail(link):
    cuts = np.array([[-2.0, -1.9, 1.5, 1.62]])
    y, eta = np.array([1.0, 3.0, 2.0, 4.0]), np.array([[0.1, -0.2, 0.3, 0.0]])
    found = log_density(get_family(f"ordinal({link})"), y, [eta], {}, cutpoints=cuts)
    inverse = {
        "logit": special.expit,
        "probit": special.ndtr,
        "cloglog": lambda x: -np.expm1(-np.exp(x)),
    }[link]
    ends = np.concatenate([[-np.inf], cuts[0], [np.inf]])
    high, low = (ends[y.astype(int) + k] - eta[0] for k in (1, 0))
    np.testing.assert_allclose(found[0], np.log(inverse(high) - inverse(low)), rtol=1e-11)


@pytest.mark.parametrize(
    ("formula", "data", "more"),
    [
        ("y ~ 1 + (1 | school)", "eight_schools", {"se": "sigma"}),
        ("p(incidence, size) ~ period + (1 | herd)", "cbpp", {"family": "beta-binomial"}),
    ],
)
def test_their_sum_is_that_of_the_pymc_model(formula, data, more):
    model = Model(formula, hmlm.load_dataset(data), **more)
    built = model.build()
    density = built.compile_logp(vars=[built["y"]])
    start = built.initial_point()
    rng = np.random.default_rng(3)
    names = [v.name for v in built.unobserved_value_vars]
    compute = built.compile_fn(built.unobserved_value_vars)
    for _ in range(2):
        point = {k: v + 0.2 * rng.normal(size=np.shape(v)) for k, v in start.items()}
        draws = {n: np.asarray(v)[None] for n, v in zip(names, compute(point), strict=True)}
        found = log_likelihood_rows(model.design, draws)
        assert found.sum() == pytest.approx(float(density(point)), rel=1e-5)


def test_without_effects_and_with_others():
    frame = pd.DataFrame({"y": np.arange(12.0), "g": [1, 2, 3] * 4})
    design = Model("y ~ 1 + (1 | g)", frame).design
    at = {
        "beta": np.array([[4.0], [5.0]]),
        "sd_g": np.ones((2, 1)),
        "sigma": np.array([2.0, 3.0]),
        "b_g": np.array([[[1.0], [0.0], [-1.0]]] * 2),
    }
    plain = log_likelihood_rows(design, at, population=True)
    np.testing.assert_allclose(plain, stats.norm.logpdf(design.y, [[4.0], [5.0]], [[2.0], [3.0]]))
    others = log_likelihood_rows(design, at, fresh={"b_g": -at["b_g"]})
    mean = at["beta"] - at["b_g"][:, design.blocks[0].index, 0]
    np.testing.assert_allclose(others, stats.norm.logpdf(design.y, mean, [[2.0], [3.0]]))


def test_many_rows_come_in_parts(monkeypatch):
    frame = pd.DataFrame({"y": np.arange(12.0), "g": [1, 2, 3] * 4})
    design = Model("y ~ 1 + (1 | g)", frame).with_pooling("complete").design
    at = {"beta": np.array([[4.0], [5.0]]), "sigma": np.array([2.0, 3.0])}
    whole = log_likelihood_rows(design, at)
    monkeypatch.setattr(log_likelihood, "NUMBERS_AT_ONCE", 10)
    np.testing.assert_array_equal(log_likelihood_rows(design, at), whole)
