"""The PyMC model is the specification: its density is the documented one, its names are fixed."""

import dataclasses

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import integrate, stats
from scipy.special import gammaln
from support import make, simulate

import hmlm
from hmlm import Prior
from hmlm.default_priors import resolve_priors
from hmlm.errors import HmlmError
from hmlm.families import Family
from hmlm.models.build import build_model, resolve_centered
from hmlm.models.centering import choose_centered
from hmlm.models.distributions import DISTRIBUTIONS
from hmlm.priors import PRIOR_KINDS

FAST = {"mode": "FAST_COMPILE"}
SINGLE = 1e-7  # PyMC holds some constants, such as log(2), in single precision

SCIPY = {
    "normal": lambda mu, sigma: stats.norm(mu, sigma),
    "student-t": lambda nu, mu, sigma: stats.t(nu, mu, sigma),
    "cauchy": lambda alpha, beta: stats.cauchy(alpha, beta),
    "uniform": lambda lower, upper: stats.uniform(lower, upper - lower),
    "half-normal": lambda sigma: stats.halfnorm(0, sigma),
    "half-cauchy": lambda beta: stats.halfcauchy(0, beta),
    "exponential": lambda lam: stats.expon(0, 1 / lam),
    "gamma": lambda alpha, beta: stats.gamma(alpha, scale=1 / beta),
    "inverse-gamma": lambda alpha, beta: stats.invgamma(alpha, scale=beta),
    "lognormal": lambda mu, sigma: stats.lognorm(sigma, scale=np.exp(mu)),
}
REAL = [
    Prior("normal", mu=1, sigma=2),
    Prior("student-t", nu=5, mu=1, sigma=2),
    Prior("cauchy", alpha=1, beta=2),
    Prior("flat"),
    Prior("uniform", lower=-5, upper=7),
]
POSITIVE = [
    Prior("half-normal", sigma=2),
    Prior("half-student-t", nu=4, sigma=2),
    Prior("half-cauchy", beta=2),
    Prior("half-flat"),
    Prior("exponential", lam=0.7),
    Prior("gamma", alpha=2, beta=0.5),
    Prior("inverse-gamma", alpha=3, beta=2),
    Prior("lognormal", mu=0.3, sigma=1.2),
    Prior("uniform", lower=0, upper=7),
]


def log_prior(prior, value):
    """Return the log density of a prior, by scipy."""
    p = prior.parameters
    if prior.name in ("flat", "half-flat"):
        return 0.0
    if prior.name == "half-student-t":
        return np.log(2) + stats.t(p["nu"], 0, p["sigma"]).logpdf(value)
    return SCIPY[prior.name](**p).logpdf(value)


def log_lkj(R, eta):
    """Return the log density of LKJ(eta) at a correlation matrix (Stan's reference manual)."""
    n = len(R)
    k = np.arange(1, n)
    constant = (n - 1) * gammaln(eta + (n - 1) / 2) - np.sum(
        k / 2 * np.log(np.pi) + gammaln(eta + (n - 1 - k) / 2)
    )
    return constant + (eta - 1) * np.linalg.slogdet(R)[1]


@pytest.fixture(scope="session")
def small():
    """Forty rows with a predictor of every use, and weights."""
    rng = np.random.default_rng(3)
    n = 40
    return pd.DataFrame(
        {
            "y": rng.normal(3, 2, n),
            "x": rng.normal(5, 1, n),
            "z": rng.normal(size=n),
            "o": rng.normal(size=n),
            "w": rng.uniform(0.5, 2.0, n),
            "f": rng.choice(["u", "v"], n),
            "g": np.repeat(list("abcdefgh"), 5),
            "h": np.tile([10, 20, 30, 40], 10),
        }
    )


CASES = {
    "alcohol-like": ("y ~ x + f + (z | g)", "partial", None, {}),
    "uncorrelated": ("y ~ x + (z || g)", "partial", None, {}),
    "three correlated": ("y ~ x + (x + z | g)", "partial", None, {}),
    "two parts": ("y ~ x + (x | g) + (0 + z + o || g)", "partial", None, {}),
    "crossed, weights, offset": ("y ~ x + offset(o) + (x | g) + (1 | h)", "partial", "w", {}),
    "level means": ("y ~ 0 + f + x + (1 | g)", "partial", None, {}),
    "complete": ("y ~ x + f + (z | g)", "complete", "w", {}),
    "none": ("y ~ x + f + (z | g)", "none", "w", {}),
    "no population": ("y ~ 0 + (1 | g)", "partial", None, {}),
    "user's priors": (
        "y ~ x + f + (z | g)",
        "partial",
        None,
        {
            "Intercept": Prior("normal", mu=2, sigma=3),
            "x": Prior("student-t", nu=3, sigma=2),
            "sd": Prior("exponential", lam=0.5),
            "cor": Prior("lkj", eta=4),
            "sigma": Prior("gamma", alpha=2, beta=1),
        },
    ),
}


def design_of(name, frame):
    formula, pooling, weights, priors = CASES[name]
    model = hmlm.Model(formula, frame, priors=priors, weights=weights)
    return model.with_pooling(pooling).design


def random_values(design, rng):
    """Draw a value of every variable, and the Cholesky factors of correlated parts."""
    values, factors = {"sigma": rng.uniform(0.5, 3)}, {}
    if design.terms:
        values["beta"] = rng.normal(size=len(design.terms))
    for block in design.blocks:
        q, J = len(block.columns), len(block.levels)
        values[f"b_{block.group}"] = rng.normal(size=(J, q))
        if design.spec.pooling == "none":
            continue
        values[f"sd_{block.group}"] = rng.uniform(0.5, 2, q)
        R = np.eye(q)
        factors[block.group] = []
        for part in block.slices:
            size = part.stop - part.start
            A = rng.normal(size=(size, 2 * size))
            S = A @ A.T
            R[part, part] = S / np.sqrt(np.outer(np.diag(S), np.diag(S)))
            factors[block.group].append(np.linalg.cholesky(R[part, part]))
        values[f"cor_{block.group}"] = R
    return values, factors


def unconstrained(model, design, priors, values, factors):
    """Return the point of the PyMC model at which its variables have these values."""
    point = {"sigma_log__": np.log(values["sigma"])}
    if design.terms:
        centred = values["beta"] + priors.constant * (priors.x_means @ values["beta"])
        name = "beta_centered" if priors.centered_intercept else "beta"
        if name in model.initial_point():
            point[name] = centred
        else:
            for term, value in zip(design.terms, centred, strict=True):
                point[f"{name}[{term}]"] = value
    for block in design.blocks:
        group, b = block.group, values[f"b_{block.group}"]
        if f"b_{group}" in model.initial_point():
            point[f"b_{group}"] = b
        else:
            half = values[f"sd_{group}"][:, None] * np.linalg.cholesky(values[f"cor_{group}"])
            point[f"z_{group}"] = np.linalg.solve(half, b.T).T
        if design.spec.pooling == "none":
            continue
        point[f"sd_{group}_log__"] = np.log(values[f"sd_{group}"])
        for k, L in enumerate(factors[group]):
            if len(L) > 1:
                name = f"chol_{group}" if len(factors[group]) == 1 else f"chol_{group}[{k}]"
                transform = model.rvs_to_transforms[model[name]]
                point[f"{name}_cholesky_corr__"] = transform.forward(L).eval(**FAST)
    return point


def documented_density(design, priors, values, factors, centered):
    """Return the log density of the model as it is documented, with the Jacobians, by scipy."""
    total, eta = 0.0, np.zeros(len(design.y))
    if design.terms:
        centred = values["beta"] + priors.constant * (priors.x_means @ values["beta"])
        total += sum(log_prior(p, v) for p, v in zip(priors.beta, centred, strict=True))
        eta += design.X @ values["beta"]
    if design.offset is not None:
        eta += design.offset
    for block in design.blocks:
        group, b = block.group, values[f"b_{block.group}"]
        eta += np.sum(block.Z * b[block.index], axis=1)
        if design.spec.pooling == "none":
            for k, prior in enumerate(priors.b[group]):
                total += log_prior(prior, b[:, k]).sum()
            continue
        sd, R = values[f"sd_{group}"], values[f"cor_{group}"]
        for prior, s in zip(priors.sd[group], sd, strict=True):
            total += log_prior(prior, s) + np.log(s)
        for L in factors[group]:
            n = len(L)
            if n > 1:
                total += log_lkj(L @ L.T, priors.cor[group].parameters["eta"])
                # From R to its Cholesky factor, and on to the factor's rows over their diagonal.
                i = np.arange(1, n + 1)
                total += ((n - i) * np.log(np.diag(L))).sum()
                total += ((i + 1) * np.log(np.diag(L)))[1:].sum()
        D = np.outer(sd, sd) * R
        total += stats.multivariate_normal(np.zeros(len(sd)), D).logpdf(b).sum()
        if not centered:  # b = z L'
            total += len(b) * np.linalg.slogdet(D)[1] / 2
    sigma = values["sigma"]
    total += log_prior(priors.sigma, sigma) + np.log(sigma)
    scale = sigma if design.weights is None else sigma / np.sqrt(design.weights)
    return total + stats.norm(eta, scale).logpdf(design.y).sum()


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_log_density_is_the_documented_one(small, name, centered):
    design = design_of(name, small)
    priors = resolve_priors(design)
    model = build_model(design, priors, centered)
    log_density = model.compile_logp(**FAST)
    rng = np.random.default_rng(8)
    for _ in range(3):
        values, factors = random_values(design, rng)
        point = unconstrained(model, design, priors, values, factors)
        expected = documented_density(design, priors, values, factors, centered)
        assert log_density(point) == pytest.approx(expected, rel=1e-10)


def test_deterministics_are_what_their_names_say(small):
    design = design_of("two parts", small)
    priors = resolve_priors(design)
    model = build_model(design, priors, centered=False)
    values, factors = random_values(design, np.random.default_rng(4))
    point = unconstrained(model, design, priors, values, factors)
    names = ["beta", "sd_g", "cor_g", "b_g"]
    needed = {k: v for k, v in point.items() if k != "sigma_log__"}
    found = model.compile_fn(model.replace_rvs_by_values([model[n] for n in names]), **FAST)(needed)
    for name, value in zip(names, found, strict=True):
        assert value == pytest.approx(values[name], abs=1e-12), name


@pytest.mark.parametrize("prior", POSITIVE, ids=lambda p: p.name)
def test_every_prior_of_a_scale(small, prior):
    model = hmlm.Model("y ~ x + (1 | g)", small, priors={"sigma": prior, "sd": prior})
    other = hmlm.Model("y ~ x + (1 | g)", small, priors={"sigma": prior})
    for variable, m in ((model, "sd_g"), (other, "sigma")):
        pymc_model = variable.build(centered=True)
        logp = pymc_model.compile_logp(pymc_model[m], jacobian=False, **FAST)
        point = pymc_model.initial_point()
        name = next(k for k in point if k.startswith(m))
        point[name] = np.full_like(point[name], 0.4)
        value = 7 / (1 + np.exp(-0.4)) if prior.name == "uniform" else np.exp(0.4)
        assert logp(point) == pytest.approx(log_prior(prior, value), abs=SINGLE)


@pytest.mark.parametrize("prior", REAL, ids=lambda p: p.name)
def test_every_prior_of_a_coefficient(small, prior):
    model = hmlm.Model("y ~ 0 + x + (1 | g)", small, priors={"x": prior}).build(centered=True)
    logp = model.compile_logp(model["beta"], jacobian=False, **FAST)
    point = model.initial_point()
    name = next(k for k in point if k.startswith("beta"))
    point[name] = np.array([0.4])
    value = -5 + 12 / (1 + np.exp(-0.4)) if prior.name == "uniform" else 0.4
    assert logp(point) == pytest.approx(log_prior(prior, value), abs=SINGLE)


def test_every_kind_of_prior_has_a_distribution():
    assert {*DISTRIBUTIONS, "lkj"} == set(PRIOR_KINDS)
    assert {p.name for p in REAL + POSITIVE} | {"beta", "lkj"} == set(PRIOR_KINDS)


@pytest.mark.parametrize("eta", [1.0, 2.0, 5.0])
def test_lkj_of_two_is_a_scaled_beta(small, eta):
    """Integrates to one over the sampler's coordinate, and r has Beta(eta, eta) on (-1, 1)."""
    model = hmlm.Model("y ~ x + (x | g)", small, priors={"cor": Prior("lkj", eta=eta)}).build()
    logp = model.compile_logp(model["chol_g"], **FAST)
    point = model.initial_point()

    def density(u):
        return np.exp(logp({**point, "chol_g_cholesky_corr__": np.array([u])}))

    assert integrate.quad(density, -np.inf, np.inf)[0] == pytest.approx(1, abs=1e-6)
    # u = r / sqrt(1 - r^2)
    below, _ = integrate.quad(density, -np.inf, 0.3 / np.sqrt(1 - 0.09))
    assert below == pytest.approx(stats.beta(eta, eta).cdf(0.65), abs=1e-6)


def test_lkjcorr_that_is_not_a_cholesky_factor_is_refused(small, monkeypatch):
    """Until PyMC 6.3 the same call gave the correlation matrix itself."""
    from pymc.distributions.transforms import CholeskyCorrTransform

    factor = CholeskyCorrTransform.backward

    def matrix(self, value, *inputs):
        L = factor(self, value, *inputs)
        return L @ L.T

    monkeypatch.setattr(CholeskyCorrTransform, "backward", matrix)
    with pytest.raises(HmlmError, match=r"install PyMC 6\.4"):
        hmlm.Model("y ~ x + (x | g)", small).build()


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_names_dims_and_coords_are_those_of_the_design(small, name, centered):
    design = design_of(name, small)
    model = build_model(design, centered=centered)
    for variable, dims in design.dims.items():
        assert tuple(model.named_vars_to_dims.get(variable, ())) == dims
        for dim in dims:
            assert list(model.coords[dim]) == list(design.coords[dim])
    assert [v.name for v in model.observed_RVs] == ["y"]
    assert model.named_vars_to_dims["y"] == ("row",)


def test_sd_and_sigma_are_free_whatever_their_priors(small):
    mixed = {"sd": Prior("half-normal", sigma=1), "x": Prior("cauchy", beta=1)}
    for priors in ({}, mixed):
        model = hmlm.Model("y ~ x + (x | g)", small, priors=priors).build(centered=True)
        assert {"sd_g", "b_g", "sigma"} <= {v.name for v in model.free_RVs}
        assert {"beta", "cor_g"} <= {v.name for v in model.deterministics}


def test_own_coefficients_of_different_kinds(small):
    priors = {"z": Prior("student-t", nu=3, sigma=1)}
    model = hmlm.Model("y ~ z + (z | g)", small, priors=priors).with_pooling("none").build()
    assert {v.name for v in model.free_RVs} == {"b_g[Intercept]", "b_g[z]", "sigma"}
    assert model.named_vars_to_dims["b_g"] == ("g", "g_term")
    assert model.initial_point()["b_g[z]"].shape == (8,)


def test_data_can_be_replaced(small):
    design = design_of("alcohol-like", small)
    model = build_model(design, centered=True)
    point = model.initial_point()
    at = model.compile_logp(model["y"], **FAST)
    before = at(point)
    with model:
        pm.set_data({"y_observed": design.y + 1})
    assert at(point) != pytest.approx(before)
    assert {"X", "Z_g", "index_g", "y_observed"} <= set(model.named_vars)


def test_model_is_open_to_extension(small):
    model = hmlm.Model("y ~ x + (1 | g)", small).build()
    with model:
        pm.Deterministic("share", model["sd_g"][0] ** 2 / model["sigma"] ** 2)
        pm.Potential("no_more", -model["sigma"])
    assert np.isfinite(model.compile_logp(**FAST)(model.initial_point()))


@pytest.mark.parametrize(
    ("size", "sd", "expected"),
    [(30, (2.0, 2.0), True), (3, (0.3, 0.3), False), (30, (2.0, 0.0), False)],
    ids=["much data", "little data", "one effect without variance"],
)
def test_groups_are_centred_where_their_own_rows_say_enough(size, sd, expected):
    frame, _ = simulate(1, groups=30, size=size, sd=sd)
    assert choose_centered(make("y ~ x + (x | g)", frame)) == {"g": expected}


def test_factor_over_nested_factors_counts_them_not_rows():
    """Ten rows in each of two inner groups say no more of the outer one than two means do."""
    rng = np.random.default_rng(5)
    outer = np.repeat(np.arange(30), 20)
    inner = np.repeat(np.arange(60), 10)
    y = 0.7 * rng.normal(size=30)[outer] + rng.normal(size=60)[inner] + 0.2 * rng.normal(size=600)
    frame = pd.DataFrame({"y": y, "g": outer, "h": inner})
    assert choose_centered(make("y ~ 1 + (1 | g / h)", frame)) == {"g": False, "g:h": True}
    assert choose_centered(make("y ~ 1 + (1 | g)", frame)) == {"g": True}


def test_nothing_to_choose_without_partial_pooling(small):
    for pooling in ("none", "complete"):
        assert choose_centered(make("y ~ x + (x | g)", small, pooling)) == {}


def test_centered_by_name(small):
    design = make("y ~ x + (x | g) + (1 | h)", small)
    assert resolve_centered(design, {"g": True, "h": False}) == {"g": True, "h": False}
    assert resolve_centered(design, True) == {"g": True, "h": True}
    chosen = choose_centered(design)
    assert resolve_centered(design, {"h": True}) == {**chosen, "h": True}
    names = {v.name for v in build_model(design, centered={"g": True, "h": False}).free_RVs}
    assert {"b_g", "z_h"} <= names


@pytest.mark.parametrize(
    ("centered", "words"),
    [({"gg": True}, "'gg', which is no grouping factor.*Did you mean 'g'"), ({"g": 1}, "True or")],
)
def test_centered_that_cannot_be(small, centered, words):
    with pytest.raises(HmlmError, match=words):
        build_model(make("y ~ x + (x | g)", small), centered=centered)


def test_unknown_family_is_refused(small):
    design = make("y ~ x + (1 | g)", small)
    spec = dataclasses.replace(
        design.spec, family=Family(name="weibull", link="log", links=("log",))
    )
    with pytest.raises(HmlmError, match="no PyMC likelihood for the family 'weibull'"):
        build_model(dataclasses.replace(design, spec=spec))
