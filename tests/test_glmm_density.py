"""The compiled density of rows: gradient, and agreement with the PyMC model, for every family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hmlm import Model, Prior
from hmlm.default_priors import resolve_priors
from hmlm.likelihoods.family_kernel import beta_binomial_row, negative_binomial_row
from hmlm.likelihoods.glmm_pack import pack_rows, rows_cover
from hmlm.likelihoods.preliminary import preliminary
from hmlm.likelihoods.rows import make_rows

GROUPS = 5


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(20)
    n = 40
    g = np.repeat(np.arange(GROUPS), n // GROUPS)
    h = np.tile(np.arange(4), n // 4)
    x = rng.normal(size=n).round(1)
    eta = 0.3 + 0.5 * x + rng.normal(size=GROUPS)[g] * 0.6
    counts = rng.poisson(np.exp(eta))
    counts[::7] = 0
    return pd.DataFrame(
        {
            "g": [f"g{v}" for v in g],
            "h": [f"h{v}" for v in h],
            "c": [f"c{v}" for v in g * 2 + (np.arange(n) % 8) // 4],
            "x": x,
            "f": np.where(np.arange(n) % 3 == 0, "a", "b"),
            "y": eta + rng.normal(size=n),
            "yes": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
            "hits": rng.binomial(5, 1 / (1 + np.exp(-eta))),
            "n": 5,
            "count": counts,
            "positive": np.exp(eta + rng.normal(size=n) * 0.4),
            "share": rng.beta(2, 3, size=n),
            "grade": np.clip(np.digitize(eta + rng.logistic(size=n), [-1, 0, 1.5]), 0, 3),
            "kind": rng.choice(["p", "q", "r"], size=n),
            "w": rng.uniform(0.5, 2, size=n).round(1),
            "z": rng.uniform(-0.3, 0.3, size=n).round(1),
        }
    )


MODELS = {
    "bernoulli": ("yes ~ x + (x | g)", "bernoulli", {}),
    "bernoulli probit": ("yes ~ x + (1 | g)", "bernoulli(probit)", {}),
    "bernoulli cloglog": ("yes ~ x + (1 | g)", "bernoulli(cloglog)", {}),
    "binomial merged": ("p(hits, n) ~ f + (1 | g)", "binomial", {}),
    "binomial, sd half-normal": ("p(hits, n) ~ (x | g)", "binomial", {"sd": ("half-normal", 0.4)}),
    "binomial nested": ("p(hits, n) ~ f + x + (1 | g/c)", "binomial", {}),
    "beta-binomial": ("p(hits, n) ~ x + (1 | g)", "beta-binomial", {}),
    "poisson": ("count ~ x + offset(z) + (x || g)", "poisson", {}),
    "poisson merged": ("count ~ f + (1 | g)", "poisson", {}),
    "poisson crossed": ("count ~ f + (1 | g) + (1 | h)", "poisson", {}),
    "negative-binomial": ("count ~ x + (1 | g)", "negative-binomial", {}),
    "gamma": ("positive ~ x + (1 | g)", "gamma", {}),
    "gamma inverse": ("positive ~ 1 + (1 | g)", "gamma(inverse)", {"sd": ("exponential", 20.0)}),
    "lognormal": ("positive ~ x + (1 | g)", "lognormal", {}),
    "beta": ("share ~ x + (1 | g)", "beta", {}),
    "student-t": ("y ~ x + (1 | g)", "student-t", {}),
    "ordinal": ("grade ~ x + (1 | g)", "ordinal", {}),
    "ordinal probit": ("grade ~ x + (x | g)", "ordinal(probit)", {"cutpoints": ("normal", 1.5)}),
    "ordinal cloglog": ("grade ~ f + (1 | g)", "ordinal(cloglog)", {}),
    "categorical": ("kind ~ x + (1 | g)", "categorical", {}),
    "zero-inflated-poisson": ("count ~ x + (1 | g)", "zero-inflated-poisson", {}),
    "zinb": ("count ~ x + (1 | g)", "zero-inflated-negative-binomial", {}),
    "hurdle-poisson": ("count ~ x + (1 | g)", "hurdle-poisson", {}),
    "hurdle nb": ("count ~ x + (1 | g)", "hurdle-negative-binomial", {}),
    "gaussian sigma": ("y ~ x + (x | g); sigma ~ x + (1 | h)", "gaussian", {}),
    "gaussian log": ("positive ~ x + (1 | g)", "gaussian(log)", {}),
    "zip with zi": ("count ~ x + (1 | g); zi ~ x", "zero-inflated-poisson", {}),
    "nb with alpha": ("count ~ x; alpha ~ 1 + (1 | g)", "negative-binomial", {}),
}


def posterior(table, name, centred=None, pooling="partial", **settings):
    formula, family, given = MODELS[name]
    priors = {}
    for key, (kind, value) in given.items():
        priors[key] = Prior(kind, **{"exponential": {"lam": value}}.get(kind, {"sigma": value}))
    model = Model(formula, table, family=family, priors=priors, **settings).with_pooling(pooling)
    design = model.design
    resolved = resolve_priors(design)
    assert rows_cover(design, resolved) == ""
    rows = make_rows(design)
    at = preliminary(design, rows, resolved)
    by_name = None if centred is None else dict.fromkeys(design.spec.all_groups, centred)
    return model, pack_rows(design, rows, resolved, at, by_name)


def numeric_gradient(posterior, x, step=1e-5):
    out = np.empty(len(x))
    for i in range(len(x)):
        e = np.zeros(len(x))
        e[i] = step
        out[i] = (posterior.log_density(x + e)[0] - posterior.log_density(x - e)[0]) / (2 * step)
    return out


@pytest.mark.parametrize("centred", [None, True, False])
@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_that_of_the_density(table, name, centred):
    _, post = posterior(table, name, centred)
    rng = np.random.default_rng(1)
    for _ in range(2):
        x = post.start + 0.2 * rng.normal(size=post.dim)
        value, gradient = post.log_density(x)
        assert np.isfinite(value)
        expected = numeric_gradient(post, x)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


def flat(design, found):
    """Return parameters and effects as one vector, of correlation matrices the lower triangle."""
    pieces = []
    for variable in design.variables:
        value = np.asarray(found[variable.name])
        if variable.kind == "cor":
            value = value[np.tril_indices(len(value), -1)]
        pieces.append(value.reshape(-1))
    return np.concatenate(pieces)


def log_jacobian(function, x, step=1e-5):
    """Log of |d function / d x|, by central differences."""
    columns = [(function(x + e) - function(x - e)) / (2 * step) for e in step * np.eye(len(x))]
    return np.linalg.slogdet(np.array(columns))[1]


@pytest.mark.parametrize("name", MODELS)
def test_density_is_that_of_the_pymc_model(table, name):
    """Both are densities of the same parameters, each in coordinates of its own."""
    from scipy.optimize import root

    model, post = posterior(table, name)
    design = model.design
    pm_model = model.build(centered=True)
    wanted = pm_model.replace_rvs_by_values([pm_model[v.name] for v in design.variables])
    outputs = [*pm_model.logp(sum=False), *wanted]
    function = pm_model.compile_fn(outputs, inputs=pm_model.value_vars, mode="FAST_COMPILE")
    first = pm_model.initial_point()
    sizes = [np.size(v) for v in first.values()]

    def at(u):
        parts = np.split(u, np.cumsum(sizes)[:-1])
        pairs = zip(first.items(), parts, strict=True)
        point = {k: part.reshape(np.shape(v)) for (k, v), part in pairs}
        found = function(point)
        n = len(found) - len(wanted)
        return sum(float(np.sum(v)) for v in found[:n]), dict(
            zip(design.dims, found[n:], strict=True)
        )

    def natural(x):
        found = {**post.parameters(x[None]), **post.effects(x[None])}
        return flat(design, {k: v[0] for k, v in found.items()})

    rng = np.random.default_rng(3)
    centre = np.concatenate([np.ravel(v) for v in first.values()])
    differences = []
    for _ in range(3):
        u = centre + 0.15 * rng.normal(size=len(centre))
        log_density, values = at(u)
        target = flat(design, values)
        x, here = post.start, natural(post.start)
        for share in np.linspace(0, 1, 17)[1:] ** 2:
            goal = here + share * (target - here)
            x = root(lambda x, goal=goal: natural(x) - goal, x, tol=1e-12).x
        assert np.abs(natural(x) - target).max() < 1e-7
        theirs = log_density - log_jacobian(lambda v: flat(design, at(v)[1]), u)
        ours = post.log_density(x)[0] - log_jacobian(natural, x)
        differences.append(ours - theirs)
    assert np.ptp(differences) < 2e-5 * max(1.0, abs(log_density))


@pytest.mark.parametrize("pooling", ["none", "complete"])
@pytest.mark.parametrize("name", ["bernoulli", "binomial nested", "ordinal", "gaussian sigma"])
def test_other_poolings(table, name, pooling):
    model, post = posterior(table, name, pooling=pooling)
    x = post.start + 0.1 * np.random.default_rng(2).normal(size=post.dim)
    value, gradient = post.log_density(x)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, numeric_gradient(post, x), rtol=1e-5, atol=1e-5)
    found = {**post.parameters(x[None]), **post.effects(x[None])}
    assert list(found) == [v.name for v in model.design.variables]


@pytest.mark.parametrize("y", [0.0, 7.0, 45.0])
@pytest.mark.parametrize("large", [1e2, 1e6, 1e10, 1e17])
def test_counts_without_overdispersion_have_the_simpler_density(large, y):
    """As the parameter grows the density goes to the binomial and the Poisson one like 1 / large.

    Differences of log gammas of such numbers would be noise, and a mode that is not there.
    """
    value, by_p, by_phi = beta_binomial_row(y, 45.0, 0.3, 0.7, large)
    assert abs(value - stats.binom.logpmf(y, 45, 0.3)) < 3000 / large + 1e-9
    assert abs(by_p - (y / 0.3 - (45 - y) / 0.7)) < 20000 / large + 1e-9
    assert abs(by_phi) < 3000 / large**2
    value, by_log, by_alpha = negative_binomial_row(y, 3.0, np.log(3.0), large)
    assert abs(value - stats.poisson.logpmf(y, 3)) < 1500 / large + 1e-9
    assert abs(by_log - (y - 3.0)) < 200 / large + 1e-9
    assert abs(by_alpha) < 1500 / large**2


@pytest.mark.parametrize("phi", [0.5, 15.9, 16.1, 40.0, 3e3])
def test_overdispersed_counts_have_the_density_of_scipy(phi):
    y = np.array([0.0, 1.0, 7.0, 45.0])
    found = [beta_binomial_row(v, 45.0, 0.3, 0.7, phi)[0] for v in y]
    np.testing.assert_allclose(
        found, stats.betabinom.logpmf(y, 45, 0.3 * phi, 0.7 * phi), rtol=1e-9
    )
    found = [negative_binomial_row(v, 3.0, np.log(3.0), phi)[0] for v in y]
    np.testing.assert_allclose(found, stats.nbinom.logpmf(y, phi, phi / (phi + 3)), rtol=1e-9)
