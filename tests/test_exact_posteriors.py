"""NUTS against exact posteriors: every mean and sd within its Monte Carlo error of quadrature."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from exact import adaptive_posterior, gaussian_posterior, half_normal, lkj, normal
from scipy import special
from support import recorded
from test_gibbs import monte_carlo_error
from trust_figures import z_figures

import hmlm
from hmlm import Prior

DRAWS = hmlm.NUTS(draws=2000, chains=4)
COEFFICIENT = 3.0
PRIORS = {
    "Intercept": Prior("normal", sigma=COEFFICIENT),
    "x": Prior("normal", sigma=COEFFICIENT),
    "sd": Prior("half-normal", sigma=1),
}


def z_values(draws, mean, sd):
    """Return how many Monte Carlo errors mean and sd of a scalar's draws are off."""
    return [
        (draws.mean() - mean) / monte_carlo_error(draws, "mean"),
        (draws.std() - sd) / monte_carlo_error(draws, "std"),
    ]


def assert_exact(z):
    """Every z below four, and all of them together of size one."""
    z = np.array(z)
    assert np.abs(z).max() < 4
    assert np.sqrt((z**2).mean()) < 1.3


def test_radon_has_its_exact_posterior(radon, record_property):
    """Variable intercepts of 85 counties: sds by quadrature, all else in closed form."""
    exact = recorded("radon_variable_intercept_exact")["summary"]
    priors = {
        "Intercept": Prior("normal", sigma=10),
        "floor": Prior("normal", sigma=10),
        "sd": Prior("half-normal", sigma=1),
        "sigma": Prior("half-normal", sigma=1),
    }
    fit = hmlm.Model("log_radon ~ floor + (1 | county)", radon, priors=priors).fit(
        DRAWS, random_seed=1, progressbar=False
    )
    beta, effects = fit.variable("beta"), fit.variable("b_county")[..., 0]
    # The reference counts the counties by their names, in which it writes ST LOUIS.
    levels = [str(level) for level in fit.design.blocks[0].levels]
    effects = effects[..., np.argsort([name.replace("STLOUIS", "ST LOUIS") for name in levels])]
    draws = {
        "sigma_y": fit.variable("sigma"),
        "sigma_alpha": fit.variable("sd_county")[..., 0],
        "mu_alpha": beta[..., 0],
        "beta": beta[..., 1],
        **{f"alpha[{j + 1}]": beta[..., 0] + effects[..., j] for j in range(85)},
    }
    assert draws.keys() == exact.keys()
    z = [z_values(v, exact[k]["mean"], exact[k]["sd"]) for k, v in draws.items()]
    assert_exact(z)
    record_property("trust", z_figures("radon, 85 counties", z))


def small_table(seed, groups, size, sizes=None):
    """Draw predictors, groups and effects of a small table."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    x = rng.normal(size=len(g)).round(2)
    eta = 0.4 + 0.6 * x + (0.8 * rng.normal(size=groups))[g]
    return rng, g, x, eta


def indicator(index):
    return (index[:, None] == np.arange(index.max() + 1)).astype(float)


def diagonal(*variances):
    """Return diagonal matrices from pairs of a variance of shape (G,) and how often it stands."""
    d = np.concatenate([np.tile(v[:, None], n) for v, n in variances], axis=1)
    return d[:, :, None] * np.eye(d.shape[1])


def sigma_squared(h, n):
    return np.tile(h["sigma"][:, None] ** 2, n)


def correlated_slope(k=0):
    rng, g, x, eta = small_table(1, 8, 4)
    y = eta + (0.5 * rng.normal(size=8))[g] * x + 0.5 * rng.normal(size=len(g))
    axes = {
        "sd_g[0]": half_normal(3.2, 17 + k),
        "sd_g[1]": half_normal(2.2, 17 + k),
        "cor_g": lkj(11 + k),
        "sigma": half_normal(1.05, 13 + k, low=0.22),
    }

    def covariances(h):
        D = np.zeros((len(h["sigma"]), 16, 16))
        both = h["cor_g"] * h["sd_g[0]"] * h["sd_g[1]"]
        for j in range(8):
            D[:, 2 * j, 2 * j], D[:, 2 * j + 1, 2 * j + 1] = h["sd_g[0]"] ** 2, h["sd_g[1]"] ** 2
            D[:, 2 * j, 2 * j + 1] = D[:, 2 * j + 1, 2 * j] = both
        return sigma_squared(h, len(y)), D

    Z = (indicator(g)[:, :, None] * np.column_stack([np.ones(len(g)), x])[:, None]).reshape(-1, 16)
    table = {"y": y, "x": x, "g": g}
    return "y ~ x + (x | g)", "gaussian", table, solve(y, x, axes, covariances, Z)


def nested(k=0):
    rng, g, x, eta = small_table(2, 6, 6)
    c = np.tile(np.repeat([0, 1], 3), 6)
    inner = 2 * g + c
    y = eta + (0.6 * rng.normal(size=12))[inner] + 0.5 * rng.normal(size=len(g))
    axes = {
        "sd_g[0]": half_normal(3.4, 26 + k),
        "sd_g:c[0]": half_normal(2.9, 24 + k),
        "sigma": half_normal(1.1, 16 + k, low=0.27),
    }

    def covariances(h):
        D = diagonal((h["sd_g[0]"] ** 2, 6), (h["sd_g:c[0]"] ** 2, 12))
        return sigma_squared(h, len(y)), D

    Z = np.column_stack([indicator(g), indicator(inner)])
    table = {"y": y, "x": x, "g": g, "c": c}
    return "y ~ x + (1 | g/c)", "gaussian", table, solve(y, x, axes, covariances, Z)


def crossed(k=0):
    rng, g, x, eta = small_table(3, 7, 5)
    h_index = np.tile(np.arange(5), 7)
    keep = rng.random(len(g)) < 0.85
    y = eta + (0.7 * rng.normal(size=5))[h_index] + 0.6 * rng.normal(size=len(g))
    y, x, g, h_index = y[keep], x[keep], g[keep], h_index[keep]
    axes = {
        "sd_g[0]": half_normal(3.6, 22 + k),
        "sd_h[0]": half_normal(3.6, 22 + k),
        "sigma": half_normal(1.7, 18 + k, low=0.36),
    }

    def covariances(h):
        D = diagonal((h["sd_g[0]"] ** 2, 7), (h["sd_h[0]"] ** 2, 5))
        return sigma_squared(h, len(y)), D

    Z = np.column_stack([indicator(g), indicator(h_index)])
    table = {"y": y, "x": x, "g": g, "h": h_index}
    return "y ~ x + (1 | g) + (1 | h)", "gaussian", table, solve(y, x, axes, covariances, Z)


def known_errors(k=0):
    rng, g, x, eta = small_table(4, 8, 3)
    s = rng.uniform(0.2, 0.9, len(g)).round(2)
    y = eta + 0.4 * rng.normal(size=len(g)) + s * rng.normal(size=len(g))
    c = np.arange(len(g)) % 3
    axes = {"sd_g[0]": half_normal(3.5, 24 + k), "sd_g:c[0]": half_normal(2.6, 24 + k)}

    def covariances(h):
        D = diagonal((h["sd_g[0]"] ** 2, 8), (h["sd_g:c[0]"] ** 2, 24))
        return np.tile(s**2, (len(D), 1)), D

    Z = np.column_stack([indicator(g), np.eye(24)])
    table = {"y": y, "x": x, "g": g, "c": c, "s": s}
    return "se(y, s) ~ x + (1 | g/c)", "gaussian", table, solve(y, x, axes, covariances, Z)


def solve(y, x, axes, covariances, Z):
    return gaussian_posterior(
        y, np.column_stack([np.ones(len(y)), x]), COEFFICIENT, axes, covariances, Z
    )


def bernoulli(k=0):
    rng, g, x, eta = small_table(5, 8, 7)
    y = (rng.random(len(g)) < special.expit(eta)).astype(int)
    sign = 1 - 2 * y
    axes = {
        "Intercept": normal(-3, 5, 24 + k, COEFFICIENT),
        "x": normal(-2, 4.5, 22 + k, COEFFICIENT),
        "sd": half_normal(4.2, 16 + k),
    }
    exact = adaptive_posterior(lambda e: -np.logaddexp(0, sign * e), g, x, axes)
    return "y ~ x + (1 | g)", "bernoulli", {"y": y, "x": x, "g": g}, exact


def poisson(k=0):
    rng, g, x, eta = small_table(6, 8, 5)
    y = rng.poisson(np.exp(eta))
    axes = {
        "Intercept": normal(-1.6, 2.8, 24 + k, COEFFICIENT),
        "x": normal(-0.15, 1.15, 20 + k, COEFFICIENT),
        "sd": half_normal(3.3, 22 + k),
    }
    exact = adaptive_posterior(lambda e: y * e - np.exp(e), g, x, axes)
    return "y ~ x + (1 | g)", "poisson", {"y": y, "x": x, "g": g}, exact


CASES = [correlated_slope, nested, crossed, known_errors, bernoulli, poisson]


def our_draws(fit, exact):
    """Pair the exact mean and sd of every scalar with its draws."""
    blocks = [fit.variable(f"b_{b.group}") for b in fit.design.blocks]
    effects = np.concatenate([b.reshape(*b.shape[:2], -1) for b in blocks], axis=2)
    for name, (mean, sd) in exact.items():
        if name in ("b", "beta"):
            draws = effects if name == "b" else fit.variable("beta")
            assert draws.shape[2] == len(mean)
            yield from ((draws[..., k], mean[k], sd[k]) for k in range(len(mean)))
        elif name in ("Intercept", "x"):
            yield fit.variable("beta")[..., int(name == "x")], mean, sd
        elif name == "cor_g":
            yield fit.variable(name)[..., 0, 1], mean, sd
        elif name == "sigma":
            yield fit.variable(name), mean, sd
        else:
            group, _, k = name.removesuffix("]").partition("[")
            draws = fit.variable("sd_g" if group == "sd" else group)
            yield draws[..., int(k or 0)], mean, sd


@cache
def compared(case):
    formula, family, table, (exact, cut) = case()
    frame = pd.DataFrame(
        {k: [f"{k}{i}" for i in v] if k in ("g", "c", "h") else v for k, v in table.items()}
    )
    priors = dict(PRIORS)
    if "sigma" in exact:
        priors["sigma"] = Prior("half-normal", sigma=1)
    if "cor_g" in exact:
        priors["cor"] = Prior("lkj", eta=2)
    fit = hmlm.Model(formula, frame, family=family, priors=priors).fit(
        DRAWS, random_seed=2, progressbar=False
    )
    return np.array([z_values(*each) for each in our_draws(fit, exact)]), cut


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nuts_draws_from_the_exact_posterior(case, record_property):
    z, cut = compared(case)
    assert cut < 1e-4
    assert np.abs(z).max() < 4
    record_property("trust", z_figures(case.__name__.replace("_", " "), z))


def test_all_together_are_off_by_their_monte_carlo_errors(record_property):
    z = np.concatenate([compared(case)[0].ravel() for case in CASES])
    assert len(z) > 200
    assert 0.7 < np.sqrt((z**2).mean()) < 1.3
    record_property("trust", z_figures("the small models together", z))


@pytest.mark.parametrize("case", [nested, poisson], ids=lambda case: case.__name__)
def test_finer_grids_change_nothing(case, record_property):
    """By less than a hundredth of a Monte Carlo error, which is about a hundredth of an sd."""
    coarse, fine = (case(k)[3][0] for k in (0, 7))
    largest = 0.0
    for name, (mean, sd) in coarse.items():
        off = np.abs([(mean - fine[name][0]) / fine[name][1], sd / fine[name][1] - 1]).max()
        assert off < 1e-4
        largest = max(largest, float(off))
    what = "quadrature beside one on a finer grid"
    record_property("trust", {"what": what, "models": 1, "largest change, in sds": largest})
