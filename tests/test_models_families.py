"""The PyMC model of every family has the density that the family is documented to have."""

import dataclasses

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from pytensor.compile.mode import Mode
from scipy import special, stats

import hmlm
from hmlm import Prior
from hmlm.default_priors import resolve_priors
from hmlm.errors import HmlmError
from hmlm.families import FAMILIES
from hmlm.models.build import build_model
from hmlm.models.centering import choose_centered, working_response
from hmlm.models.counts import add_hurdle, add_zero_inflated
from hmlm.models.likelihood import LIKELIHOODS
from hmlm.models.links import log_category_probabilities, logit_at

FAST = {"mode": "FAST_COMPILE"}
# As sampled, with the rewrites that keep tails exact, but in plain Python.
REWRITTEN = {"mode": Mode(linker="py", optimizer="fast_run")}
INVERSE = {
    "identity": lambda eta: eta,
    "log": np.exp,
    "inverse": lambda eta: 1 / eta,
    "logit": special.expit,
    "probit": stats.norm.cdf,
    "cloglog": lambda eta: -np.expm1(-np.exp(eta)),
}


@pytest.fixture(scope="module")
def rows():
    """Sixty rows in six groups, with an outcome for every family."""
    rng = np.random.default_rng(11)
    n = 60
    count = rng.poisson(2, n)
    return pd.DataFrame(
        {
            "x": rng.normal(2, 1, n),
            "g": np.repeat(list("abcdef"), 10),
            "o": 0.1 * rng.normal(size=n),
            "n": rng.integers(4, 9, n),
            "w": rng.uniform(0.5, 2, n),
            "se": rng.uniform(0.5, 2, n),
            "real": rng.normal(3, 1, n),
            "positive": rng.gamma(4, 0.5, n),
            "unit": rng.beta(2, 3, n),
            "count": count,
            "binary": count % 2,
            "trials": np.minimum(count, 4),
            "ordered": np.minimum(count, 3),
            "category": np.array(list("uvwz"))[np.minimum(count, 3)],
        }
    )


def model_of(rows, name, link=None, terms="x + offset(o) + (1 | g)", **options):
    family = FAMILIES[name]
    left = "p(trials, n)" if family.outcome == "trials" else family.outcome
    return hmlm.Model(f"{left} ~ {terms}", rows, family=name, link=link, **options)


def values_at_random(model, design):
    """Return the log density of every row and the value of every variable at a random point."""
    wanted = [model[v.name] for v in design.variables]
    log_density = model.logp(vars=model["y"], sum=False)[0]
    outputs = [log_density, *model.replace_rvs_by_values(wanted)]
    function = model.compile_fn(outputs, inputs=model.value_vars, on_unused_input="ignore", **FAST)
    rng = np.random.default_rng(5)
    scale = 0.02 if design.spec.family.link == "inverse" else 0.3  # the mean stays positive
    point = {k: v + scale * rng.normal(size=v.shape) for k, v in model.initial_point().items()}
    log_density, *values = function(point)
    return log_density, dict(zip(design.dims, values, strict=True))


def eta_of(predictor, values):
    """Return a linear predictor from the values of its variables."""
    eta = np.zeros(len(predictor.X))
    if predictor.terms:
        eta = eta + predictor.X @ values[predictor.named("beta")]
    if predictor.offset is not None:
        eta = eta + predictor.offset
    for block in predictor.blocks:
        effects = values[predictor.named(f"b_{block.group}")][block.index]
        eta = eta + (block.Z * effects).sum(axis=1)
    return eta


def negative_binomial(mu, alpha):
    return stats.nbinom(alpha, alpha / (alpha + mu))


def documented(design, values):
    """Return the log density of every row, as the family is documented, by scipy."""
    family, y = design.spec.family, design.y
    mean, *further = design.predictors
    eta = eta_of(mean, values)
    if family.name == "categorical":
        etas = np.column_stack([0 * eta, eta, *(eta_of(p, values) for p in further)])
        return special.log_softmax(etas, axis=1)[np.arange(len(y)), y.astype(int)]
    mu = INVERSE[family.link](eta)
    if family.name == "ordinal":
        below = INVERSE[family.link](values["cutpoints"] - eta[:, None])
        edges = np.column_stack([0 * eta, below, 1 + 0 * eta])
        return np.log(np.diff(edges, axis=1)[np.arange(len(y)), y.astype(int)])
    p = {k: values[k] for k in design.parameters}
    for predictor in further:
        inverse = special.expit if predictor.name in ("zi", "hu") else np.exp
        p[predictor.name] = inverse(eta_of(predictor, values))
    if "sigma" in family.parameters:
        root = 1.0 if design.weights is None else np.sqrt(design.weights)
        sigma = p.get("sigma", 1.0) / root
    name = family.name.removeprefix("zero-inflated-").removeprefix("hurdle-")
    distribution = {
        "gaussian": lambda: stats.norm(mu, sigma),
        "student-t": lambda: stats.t(p["nu"], mu, sigma),
        "lognormal": lambda: stats.lognorm(sigma, scale=np.exp(eta)),
        "gamma": lambda: stats.gamma(p["alpha"], scale=mu / p["alpha"]),
        "beta": lambda: stats.beta(mu * p["phi"], (1 - mu) * p["phi"]),
        "bernoulli": lambda: stats.bernoulli(mu),
        "binomial": lambda: stats.binom(design.trials, mu),
        "beta-binomial": lambda: stats.betabinom(design.trials, mu * p["phi"], (1 - mu) * p["phi"]),
        "poisson": lambda: stats.poisson(mu),
        "negative-binomial": lambda: negative_binomial(mu, p["alpha"]),
    }[name]()
    if not family.discrete:
        return distribution.logpdf(y)
    if "zi" in p:
        return np.log(p["zi"] * (y == 0) + (1 - p["zi"]) * distribution.pmf(y))
    if "hu" in p:
        above = (1 - p["hu"]) * distribution.pmf(y) / (1 - distribution.pmf(0))
        return np.log(np.where(y == 0, p["hu"], above))
    return distribution.logpmf(y)


def check(model_or_design):
    """Assert that names, dims and coords are the design's, and densities the documented ones."""
    design = getattr(model_or_design, "design", model_or_design)
    model = build_model(design)
    for variable in design.variables:
        dims = tuple(model.named_vars_to_dims.get(variable.name, ()))
        assert dims == variable.dims, variable.name
        for dim in dims:
            assert list(model.coords[dim]) == list(design.coords[dim])
    assert [v.name for v in model.observed_RVs] == ["y"]
    found, values = values_at_random(model, design)
    expected = documented(design, values)
    assert np.isfinite(expected).all()
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)
    return model, values


@pytest.mark.parametrize(
    ("name", "link"), [(f.name, link) for f in FAMILIES.values() for link in f.links]
)
def test_density_of_every_family_and_link(rows, name, link):
    check(model_of(rows, name, link))


def test_every_family_has_a_likelihood():
    assert {*LIKELIHOODS, "ordinal", "categorical"} == set(FAMILIES)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("gaussian", "sigma"),
        ("student-t", "nu"),
        ("gamma", "alpha"),
        ("beta-binomial", "phi"),
        ("zero-inflated-poisson", "zi"),
        ("hurdle-negative-binomial", "hu"),
    ],
)
def test_parameter_with_its_own_formula(rows, name, parameter):
    model = model_of(rows, name, terms=f"x + (1 | g); {parameter} ~ x + (x | g)")
    built, _ = check(model)
    names = {v.name for v in built.free_RVs}
    assert {f"{parameter}_sd_g", f"{parameter}_z_g", f"{parameter}_chol_g"} <= names
    assert parameter not in built.named_vars


@pytest.mark.parametrize("options", [{"weights": "w"}, {"se": "se"}], ids=str)
def test_weights_and_known_standard_errors(rows, options):
    built, _ = check(model_of(rows, "gaussian", **options))
    assert ("sigma" in built.named_vars) == ("weights" in options)


@pytest.mark.parametrize("pooling", ["complete", "none"])
@pytest.mark.parametrize("name", ["categorical", "ordinal", "poisson"])
def test_other_pooling(rows, name, pooling):
    check(model_of(rows, name, terms="x + (x | g)").with_pooling(pooling))


def test_cutpoints_are_at_the_average_of_the_predictors(rows):
    model = model_of(rows, "ordinal")
    built, values = check(model)
    assert "cutpoints_centered" in {v.name for v in built.free_RVs}
    prior = resolve_priors(model.design).cutpoints.parameters
    point = built.initial_point()
    point["beta"] = values["beta"]
    centered = built["cutpoints_centered"]
    logp = built.compile_logp(centered, jacobian=False, **FAST)
    both = built.replace_rvs_by_values([built["cutpoints"], centered])
    function = built.compile_fn(both, inputs=built.value_vars, on_unused_input="ignore", **FAST)
    at, given = function(point)
    assert at - model.design.X.mean(axis=0) @ values["beta"] == pytest.approx(given)
    assert (np.diff(given) > 0).all()
    assert logp(point) == pytest.approx(stats.norm(prior["mu"], prior["sigma"]).logpdf(given).sum())
    # Starts at the shares of the categories, and draws from the prior are in order.
    share = np.bincount(model.design.y.astype(int)) / len(rows)
    assert special.expit(given) == pytest.approx(np.cumsum(share)[:-1], abs=0.02)
    assert (np.diff(pm.draw(built["cutpoints"], 20, random_seed=1), axis=1) > 0).all()


def test_cutpoints_without_predictors_and_their_priors(rows):
    for prior in (Prior("student-t", nu=3, sigma=2), Prior("flat")):
        model = model_of(rows, "ordinal", terms="1 + (1 | g)", priors={"cutpoints": prior})
        built, _ = check(model)
        assert "cutpoints" in {v.name for v in built.free_RVs}
    positive = dataclasses.replace(
        resolve_priors(model.design), cutpoints=Prior("half-normal", sigma=1)
    )
    with pytest.raises(HmlmError, match="must cover all numbers"):
        build_model(model.design, positive)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_tails_of_probabilities(rows, link):
    """Both log p and log(1 - p), and all categories, are right where p is 0 or 1 to 16 digits."""
    eta = np.array([-38.0, -20.0, -1.0, 0.5, 4.0])
    left = {
        "logit": -np.logaddexp(0, -eta),
        "probit": stats.norm.logcdf(eta),
        "cloglog": np.where(eta < -30, eta, np.log(-np.expm1(-np.exp(eta)))),
    }[link]
    right = {
        "logit": -np.logaddexp(0, eta),
        "probit": stats.norm.logsf(eta),
        "cloglog": -np.exp(eta),
    }[link]
    with pm.Model() as model:
        e = pm.Flat("e", shape=len(eta))
        for name, y in (("one", 1), ("zero", 0)):
            observed = np.full(len(eta), y)
            pm.Bernoulli(name, logit_p=logit_at(link, e), observed=observed)
        logs = log_category_probabilities(link, np.array([0.0, 1.5]), -e)
        for k in range(3):
            pm.Categorical(f"k{k}", logit_p=logs, observed=np.full(len(eta), k))
    outputs = model.logp(vars=model.observed_RVs, sum=False)
    one, zero, *k = model.compile_fn(outputs, **REWRITTEN)({"e": eta})
    assert one == pytest.approx(left, rel=1e-12)
    assert zero == pytest.approx(right, rel=1e-12)
    assert k[0] == pytest.approx(left, rel=1e-12)
    assert np.isfinite(model.compile_dlogp(**REWRITTEN)({"e": eta})).all()
    total = special.logsumexp(k, axis=0)
    assert total == pytest.approx(np.zeros(len(eta)), abs=1e-12)
    # A middle category between two others that are far: from the density, by quadrature.
    middle = {
        "logit": lambda t: -np.abs(t) - 2 * np.log1p(np.exp(-np.abs(t))),
        "probit": lambda t: stats.norm.logpdf(t),
        "cloglog": lambda t: t - np.exp(t),
    }[link]
    nodes, weights = np.polynomial.legendre.leggauss(60)
    at = middle(eta[:, None] + 0.75 * (nodes + 1))
    assert k[1] == pytest.approx(special.logsumexp(at, b=0.75 * weights, axis=1), rel=1e-9)


def test_tails_of_counts(rows):
    """A hurdle's counts are one where the mean is nothing, and an extra zero costs its log."""
    eta, y = np.array([-800.0, -50.0, -10.0, 5.0]), np.ones(4, dtype=int)
    for alpha in (None, np.float64(2.0)):
        with pm.Model(coords={"row": range(4)}) as model:
            e = pm.Flat("e", shape=4)
            add_hurdle(40.0, pm.math.exp(e), alpha, y)
        found = model.compile_fn(model.logp(sum=False)[-1], **REWRITTEN)
        f = (
            stats.poisson(np.exp(eta[2:]))
            if alpha is None
            else negative_binomial(np.exp(eta[2:]), alpha)
        )
        expected = [0.0, 0.0, *(f.logpmf(1) - f.logsf(0))]
        assert found({"e": eta}) == pytest.approx(np.array(expected) - 40, abs=1e-9)
        assert np.isfinite(model.compile_dlogp(**REWRITTEN)({"e": eta})).all()
        with pm.Model(coords={"row": range(4)}) as model:
            add_zero_inflated(pm.Flat("z", shape=4), np.float64(2.0), alpha, np.array([0, 1, 0, 1]))
        f = stats.poisson(2.0) if alpha is None else negative_binomial(2.0, alpha)
        z = np.array([-40.0, -40.0, 40.0, 40.0])
        expected = [f.logpmf(0), f.logpmf(1), 0.0, f.logpmf(1) - 40]
        found = model.compile_fn(model.logp(sum=False)[-1], **REWRITTEN)({"z": z})
        assert found == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize("kind", ["zero-inflated", "hurdle"])
@pytest.mark.parametrize("alpha", [None, 1.5])
def test_draws_of_counts(kind, alpha):
    """Draws have the probabilities of the density, row by row with their own zeros."""
    add, share, mu = add_hurdle if kind == "hurdle" else add_zero_inflated, 0.3, 1.7
    n = 20_000
    with pm.Model(coords={"row": range(n)}):
        y = add(special.logit(share), np.full(n, mu), alpha, np.zeros(n, dtype=int))
    draws = pm.draw(y, random_seed=2)
    f = stats.poisson(mu) if alpha is None else negative_binomial(mu, alpha)
    k = np.arange(6)
    p = share * (k == 0) + (1 - share) * f.pmf(k)
    if kind == "hurdle":
        p = np.where(k == 0, share, (1 - share) * f.pmf(k) / f.sf(0))
    found = np.bincount(draws, minlength=6)[:6] / n
    assert np.abs(found - p).max() < 5 * np.sqrt(0.25 / n)


@pytest.mark.parametrize("name", ["ordinal", "hurdle-poisson"])
def test_prior_draws_and_gradient(rows, name):
    built = model_of(rows, name).build()
    with built:
        names = [v.name for v in built.basic_RVs]
        prior = pm.sample_prior_predictive(
            5, var_names=names, random_seed=1, compile_kwargs=REWRITTEN
        )
    assert prior.prior_predictive["y"].shape == (1, 5, len(rows))
    assert (prior.prior_predictive["y"] >= 0).all()
    assert np.isfinite(built.compile_dlogp(**REWRITTEN)(built.initial_point())).all()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [2, 100])
def test_group_effects_are_centred_where_rows_say_enough(name, size):
    """Groups that differ much with many rows are centred; groups of two rows alike are not."""
    rng = np.random.default_rng(7)
    groups = 60
    g = np.repeat(np.arange(groups), size)
    effect = (1.0 if size > 2 else 0.02) * rng.normal(size=groups)[g]
    p, n = special.expit(effect), len(g)
    latent = effect + rng.logistic(size=n)
    count = rng.poisson(np.exp(1 + effect))
    frame = pd.DataFrame(
        {
            "g": g,
            "n": 10,
            "real": 5 + effect + rng.normal(size=n),
            "positive": rng.gamma(2, np.exp(effect)),
            "unit": np.clip(rng.beta(4 * p, 4 * (1 - p)), 1e-3, 1 - 1e-3),
            "count": count,
            "binary": rng.binomial(1, p),
            "trials": rng.binomial(10, p),
            "ordered": np.digitize(latent, [-1, 0, 1]),
            "category": np.array(list("uvwz"))[np.digitize(latent, [-1, 0, 1])],
        }
    )
    if name == "categorical":  # the first predictor is that of the second category
        frame["category"] = np.select([latent < -3, latent < 0], ["w", "u"], "v")
    design = model_of(frame, name, terms="1 + (1 | g)").design
    assert choose_centered(design) == {"g": size > 2}


@pytest.mark.parametrize(
    ("name", "link"), [(f.name, link) for f in FAMILIES.values() for link in f.links]
)
def test_choice_never_fails(rows, name, link):
    design = model_of(rows, name, link, terms="x + offset(o) + (x | g)").design
    working = working_response(design)
    assert np.isfinite(working.response).all()
    assert (working.weights >= 0).all()
    assert set(choose_centered(design)) == {"g"}


@pytest.mark.filterwarnings("error")
def test_choice_where_the_mean_is_outside_the_link(rows):
    frame = rows.assign(real=-rows["real"].abs())
    assert choose_centered(model_of(frame, "gaussian", "log").design) == {"g": False}


@pytest.mark.parametrize(
    "prior", [Prior("beta", alpha=2, beta=5), Prior("uniform", lower=0, upper=1)], ids=str
)
def test_prior_of_a_probability(rows, prior):
    built = model_of(rows, "zero-inflated-poisson", priors={"zi": prior}).build()
    logp = built.compile_logp(built["zi"], jacobian=False, **FAST)
    point = built.initial_point()
    name = next(k for k in point if k.startswith("zi"))
    point[name] = np.array(0.4)
    p = prior.parameters
    expected = stats.beta(p.get("alpha", 1), p["beta"] if "alpha" in p else 1)
    assert logp(point) == pytest.approx(expected.logpdf(special.expit(0.4)), abs=1e-7)
