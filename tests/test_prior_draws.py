"""Draws from the prior, and outcomes that follow from them."""

import dataclasses

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats

import hmlm
from hmlm import Prior
from hmlm.default_priors import resolve_priors
from hmlm.errors import HmlmError, PriorError
from hmlm.families import FAMILIES
from hmlm.models.build import build_model
from hmlm.prior_densities import log_priors
from hmlm.prior_distributions import (
    draw_correlations,
    draw_prior,
    log_lkj_density,
    log_prior_density,
    prior_quantile,
)
from hmlm.prior_draws import draw_prior_predictive, draw_priors
from hmlm.priors import PRIOR_KINDS

N = 20_000
KINDS = [
    Prior("normal", mu=1, sigma=2),
    Prior("student-t", nu=5, mu=1, sigma=2),
    Prior("cauchy", alpha=1, beta=2),
    Prior("uniform", lower=-1, upper=3),
    Prior("half-normal", sigma=2),
    Prior("half-student-t", nu=4, sigma=2),
    Prior("half-cauchy", beta=2),
    Prior("exponential", lam=0.5),
    Prior("gamma", alpha=2, beta=0.5),
    Prior("inverse-gamma", alpha=3, beta=2),
    Prior("lognormal", mu=0.5, sigma=0.7),
    Prior("beta", alpha=2, beta=3),
]
OUTCOMES = {
    "real": "real",
    "positive": "positive",
    "unit": "unit",
    "count": "count",
    "binary": "binary",
    "trials": "p(trials, n)",
    "ordered": "ordered",
    "category": "category",
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(11)
    n = 60
    count = rng.poisson(2, n)
    return pd.DataFrame(
        {
            "x": rng.normal(2, 1, n),
            "g": np.repeat(list("abcdef"), 10),
            "h": np.tile(list("pqrst"), 12),
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


def model_of(rows, name, link=None, terms="x + (x | g)", **options):
    left = OUTCOMES[FAMILIES[name].outcome]
    return hmlm.Model(f"{left} ~ {terms}", rows, family=name, link=link, **options)


def drawn(model, draws=N, seed=1):
    return draw_priors(model.design, model._resolved(), draws, seed)


def same_distribution(a, b):
    """Assert by a Kolmogorov-Smirnov test that two samples are of one distribution."""
    assert stats.ks_2samp(np.round(a, 9), np.round(b, 9)).pvalue > 1e-4


def test_every_kind_of_prior_is_tested():
    flat = {"flat", "half-flat", "lkj"}
    assert {p.name for p in KINDS} == set(PRIOR_KINDS) - flat


@pytest.mark.parametrize("prior", KINDS, ids=lambda p: p.name)
def test_draws_quantiles_and_densities_agree(prior):
    q = np.linspace(0.01, 0.99, 99)
    at = prior_quantile(prior, q)
    draws = draw_prior(prior, np.random.default_rng(3), (40_000,))
    share = (draws[:, None] < at).mean(axis=0)
    assert np.abs(share - q).max() < 0.012
    x = np.linspace(at[0], at[-1], 200_001)
    assert np.trapezoid(np.exp(log_prior_density(prior, x)), x) == pytest.approx(0.98, abs=1e-4)


@pytest.mark.parametrize("prior", KINDS, ids=lambda p: p.name)
def test_density_is_that_of_pymc(prior):
    from hmlm.models.distributions import DISTRIBUTIONS

    x = prior_quantile(prior, [0.2, 0.5, 0.9])
    own = getattr(pm, DISTRIBUTIONS[prior.name]).dist(
        **{k: np.array(v) for k, v in prior.parameters.items()}
    )
    assert log_prior_density(prior, x) == pytest.approx(pm.logp(own, x).eval(), rel=1e-7)


@pytest.mark.parametrize(("eta", "q"), [(1.0, 2), (2.0, 3), (0.7, 4), (5.0, 6)])
def test_correlations_have_the_margins_of_lkj(eta, q):
    L = draw_correlations(eta, q, np.random.default_rng(2), (N,))
    R = L @ L.swapaxes(1, 2)
    assert np.allclose(np.diagonal(R, axis1=1, axis2=2), 1)
    a = eta - 1 + q / 2
    margin = stats.beta(a, a, loc=-1, scale=2)
    for i in range(q):
        for j in range(i):
            assert stats.kstest(R[:, i, j], margin.cdf).pvalue > 1e-4
    # E log det R, by Lewandowski et al.: each row adds that of one minus a beta.
    rows = [stats.beta(eta + (q - 1 - k) / 2, k / 2) for k in range(1, q)]
    expected = sum(np.mean(np.log(r.rvs(200_000, random_state=1))) for r in rows)
    assert np.linalg.slogdet(R)[1].mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("eta", "q"), [(1.0, 2), (2.0, 3), (0.7, 3)])
def test_lkj_density_integrates_to_one(eta, q):
    rng = np.random.default_rng(4)
    n = 400_000
    r = rng.uniform(-1, 1, (n, q * (q - 1) // 2))
    R = np.broadcast_to(np.eye(q), (n, q, q)).copy()
    lower = np.tril_indices(q, -1)
    R[:, lower[0], lower[1]] = r
    R[:, lower[1], lower[0]] = r
    good = np.linalg.eigvalsh(R)[:, 0] > 0
    mass = np.exp(log_lkj_density(eta, R[good])).sum() / n * 2 ** r.shape[1]
    assert mass == pytest.approx(1.0, abs=0.03)


def test_shapes_and_order_are_the_designs(rows):
    model = model_of(rows, "gaussian", terms="x + (x | g) + (1 | h); sigma ~ x + (x || g)")
    found = drawn(model, 50)
    assert list(found) == list(model.design.dims)
    for name, dims in model.design.dims.items():
        assert found[name].shape == (50, *(len(model.design.coords[d]) for d in dims))
    assert np.isfinite(np.concatenate([v.ravel() for v in found.values()])).all()


def test_seed_gives_the_same_draws(rows):
    model = model_of(rows, "gaussian")
    first, second = (drawn(model, 20, seed=4) for _ in range(2))
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert not np.array_equal(first["beta"], drawn(model, 20, seed=5)["beta"])


def test_centred_intercept_is_on_the_outcome_at_average_predictors(rows):
    model = model_of(rows, "gaussian")
    prior, slope = model._resolved().beta
    beta = drawn(model)["beta"]
    x_mean = rows["x"].mean()
    centred = beta[:, 0] + x_mean * beta[:, 1]
    assert stats.kstest(centred, stats.norm(*prior.parameters.values()).cdf).pvalue > 1e-4
    assert stats.kstest(beta[:, 1], stats.norm(*slope.parameters.values()).cdf).pvalue > 1e-4
    own = model.with_priors(Intercept=Prior("normal", mu=1, sigma=0.1))
    assert stats.kstest(drawn(own)["beta"][:, 0], stats.norm(1, 0.1).cdf).pvalue > 1e-4


def test_level_means_are_centred(rows):
    model = hmlm.Model("real ~ 0 + g + x", rows)
    priors = model._resolved()
    beta = drawn(model)["beta"]
    centred = beta[:, :6] + (beta @ priors.x_means)[:, None]
    for k in range(6):
        own = stats.norm(*priors.beta[k].parameters.values())
        assert stats.kstest(centred[:, k], own.cdf).pvalue > 1e-4


def test_effects_have_the_covariance_of_their_draw(rows):
    model = model_of(rows, "gaussian")
    found = drawn(model)
    sd, cor, b = (found[f"{k}_g"] for k in ("sd", "cor", "b"))
    z = b / sd[:, None, :]
    assert z.std(axis=(0, 1)) == pytest.approx([1, 1], abs=0.01)
    product = (z[:, :, 0] * z[:, :, 1]).mean(axis=1)
    slope = np.polyfit(cor[:, 0, 1], product, 1)
    assert slope == pytest.approx([1, 0], abs=0.03)


def test_correlated_parts_stand_apart(rows):
    terms = "x + (x | g) + (0 + n | g)"
    model = hmlm.Model(f"real ~ {terms}", rows)
    cor = drawn(model, 300)["cor_g"]
    (a, b) = model.design.blocks[0].slices
    assert np.all(cor[:, a, b] == 0)
    assert np.ptp(cor[:, 0, 1]) > 1
    assert np.allclose(np.diagonal(cor, axis1=1, axis2=2), 1)


def test_no_pooling_draws_own_coefficients(rows):
    model = model_of(rows, "gaussian").with_pooling("none")
    prior = model._resolved().b["g"]
    b = drawn(model, 5_000)["b_g"]
    assert b.shape == (5_000, 6, 2)
    for k, own in enumerate(prior):
        assert stats.kstest(b[:, 2, k], stats.norm(*own.parameters.values()).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(b[:, 0, 0], b[:, 1, 0])[0, 1]) < 0.05


def test_cutpoints_are_sorted_and_centred(rows):
    model = model_of(rows, "ordinal")
    found = drawn(model)
    cut, shift = found["cutpoints"], found["beta"] @ model._resolved().x_means
    assert (np.diff(cut, axis=1) > 0).all()
    middle = stats.norm(0, 2.5)
    for k in range(3):
        order = stats.beta(k + 1, 3 - k)
        centred = middle.cdf(cut[:, k] - shift)
        assert stats.kstest(centred, order.cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("gaussian", "x + (x | g)"),
        ("negative-binomial", "x + (1 | g); alpha ~ x"),
        ("ordinal", "x + (1 | g)"),
        ("categorical", "x + (1 | g)"),
    ],
)
def test_moments_are_those_of_pymc(rows, name, terms):
    model = model_of(rows, name, terms=terms)
    names = list(model.design.dims)
    with build_model(model.design, model._resolved(), centered=False):
        prior = pm.sample_prior_predictive(4000, var_names=names, random_seed=1).prior
    found = drawn(model, 4000)
    for variable in names:
        theirs = prior[variable].to_numpy()[0].reshape(4000, -1)
        ours = found[variable].reshape(4000, -1)
        for k in range(min(theirs.shape[1], 4)):
            same_distribution(ours[:, k], theirs[:, k])


def test_flat_priors_are_refused(rows):
    model = model_of(rows, "gaussian", priors={"x": Prior("flat")})
    with pytest.raises(PriorError, match=r"prior of 'x' is flat.*Prior\('normal', sigma=100\)"):
        drawn(model, 10)
    model = model_of(rows, "gaussian", priors={"sd": Prior("half-flat")})
    with pytest.raises(PriorError, match=r"'sd_g\[Intercept\]' is half-flat.*half-normal"):
        drawn(model, 10)


@pytest.mark.parametrize("draws", [0, -1, 2.5, True, "many"])
def test_impossible_numbers_of_draws(rows, draws):
    with pytest.raises(HmlmError, match="draws must be a positive whole number"):
        drawn(model_of(rows, "gaussian"), draws)


def test_too_many_draws_are_refused(rows):
    with pytest.raises(HmlmError, match="would take"):
        drawn(model_of(rows, "gaussian"), 10**9)


@pytest.mark.parametrize(
    ("name", "link"), [(f.name, link) for f in FAMILIES.values() for link in f.links]
)
def test_outcomes_of_every_family_are_possible(rows, name, link):
    model = model_of(rows, name, link)
    tree = draw_prior_predictive(model, 200, random_seed=1)
    y = tree["prior_predictive"]["y"].to_numpy()
    assert y.shape == (1, 200, 60)
    assert tree["prior_predictive"].attrs["impossible"] == np.isnan(y).mean()
    may = name in ("poisson", "negative-binomial", "gamma") and link != "log"
    assert may == bool(np.isnan(y).any())
    y = y[~np.isnan(y)]
    outcome = FAMILIES[name].outcome
    if FAMILIES[name].discrete:
        assert (y == np.round(y)).all()
    if outcome not in ("real",):
        assert y.min() >= 0
    if outcome in ("binary", "unit"):
        assert y.max() <= 1
    if outcome in ("ordered", "category"):
        assert set(y) == {0, 1, 2, 3}


def test_outcomes_are_of_their_own_parameters(rows):
    model = model_of(rows, "gaussian", terms="x + (1 | g)", weights="w")
    tree = draw_prior_predictive(model, 2_000, random_seed=1)
    prior = {k: v.to_numpy()[0] for k, v in tree["prior"].data_vars.items()}
    same = drawn(model, 2_000)
    assert all(np.array_equal(prior[k], same[k]) for k in same)
    design = model.design
    eta = prior["beta"] @ design.X.T + prior["b_g"][:, design.blocks[0].index, 0]
    z = (tree["prior_predictive"]["y"].to_numpy()[0] - eta) / prior["sigma"][:, None]
    assert (z * np.sqrt(rows["w"].to_numpy())).std() == pytest.approx(1, abs=0.01)


def test_tree_has_the_groups_and_coords_that_arviz_takes(rows):
    model = model_of(rows, "gaussian", se="se", terms="1 + (1 | g)")
    tree = draw_prior_predictive(model, 10, random_seed=1)
    assert set(tree.children) == {"prior", "prior_predictive", "observed_data"}
    assert tree["prior"]["b_g"].dims == ("chain", "draw", "g", "g_term")
    assert list(tree["prior"]["g"].to_numpy()) == list("abcdef")
    assert np.array_equal(tree["observed_data"]["y"], rows["real"])


def test_log_prior_is_that_of_pymc(rows):
    model = model_of(rows, "gaussian", terms="x + (x | g) + (1 | h); sigma ~ x")
    values = drawn(model, 3)
    found = log_priors(model.design, model._resolved(), values)
    centred = (
        values["beta"]
        + model._resolved().constant * (values["beta"] @ model._resolved().x_means)[:, None]
    )
    assert set(found) == {"beta", "sigma_beta", "sd_g", "cor_g", "sd_h"}
    built = build_model(model.design, model._resolved(), centered=True)
    logp = built.compile_fn(pm.logp(built["beta_centered"], centred[0]).sum(), inputs=[])
    assert found["beta"][0].sum() == pytest.approx(float(logp({})), rel=1e-9)
    half = stats.t(4, 0, model._resolved().sd["h"][0].parameters["sigma"])
    expected = half.logpdf(values["sd_h"][:, 0]) + np.log(2)
    assert found["sd_h"][:, 0] == pytest.approx(expected, rel=1e-9)
    assert found["cor_g"] == pytest.approx(log_lkj_density(2.0, values["cor_g"]))


def test_log_prior_of_cutpoints_and_own_coefficients(rows):
    model = model_of(rows, "ordinal")
    values, priors = drawn(model, 4), model._resolved()
    found = log_priors(model.design, priors, values)["cutpoints"]
    centred = values["cutpoints"] - (values["beta"] @ priors.x_means)[:, None]
    assert found == pytest.approx(stats.norm(0, 2.5).logpdf(centred).sum(axis=1))
    alone = model_of(rows, "gaussian").with_pooling("none")
    values = drawn(alone, 4)
    assert log_priors(alone.design, alone._resolved(), values)["b_g"].shape == (4, 6, 2)
    with pytest.raises(PriorError, match="needs draws of 'b_g'"):
        log_priors(alone.design, alone._resolved(), {"sigma": values["sigma"]})


def test_flat_priors_have_a_constant_density(rows):
    model = model_of(rows, "gaussian", priors={"x": Prior("flat"), "sd": Prior("half-flat")})
    design, proper = model.design, model_of(rows, "gaussian")
    values = drawn(proper, 5)
    found = log_priors(design, resolve_priors(dataclasses.replace(design)), values)
    assert np.all(found["beta"][:, 1] == 0)
    assert np.all(found["sd_g"] == 0)
