"""The Gibbs sampler: the same posterior as NUTS, and as exact integration, by another road."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base.array import array_stats
from scipy import stats
from support import make, recorded

import hmlm
from hmlm import NUTS, Gibbs, Prior
from hmlm.errors import HmlmError
from hmlm.families import get_family
from hmlm.likelihoods.gibbs_steps import log_prior

SHORT = Gibbs(draws=50, tune=20, chains=2)
MODELS = {
    "sleepstudy": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "sleepstudy_uncorrelated": ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    "dyestuff": ("dyestuff", "Yield ~ 1 + (1 | Batch)"),
    "dyestuff2": ("dyestuff2", "Yield ~ 1 + (1 | Batch)"),
    "pastes": ("pastes", "strength ~ 1 + (1 | batch/cask)"),
    "penicillin": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
}


def table():
    """A table with two nested and one crossed factor, and predictors that are not centred."""
    rng = np.random.default_rng(5)
    n = 240
    frame = pd.DataFrame(
        {
            "x": rng.normal(3, 1, n),
            "z": rng.uniform(1, 2, n),
            "g": np.repeat(np.arange(24), 10),
            "h": np.tile(np.arange(8), 30),
            "s": np.repeat(np.arange(6), 40),
            "w": rng.uniform(0.5, 2, n),
        }
    )
    slopes = rng.normal(0, 0.3, 24)
    frame["y"] = (
        1
        + (0.5 + slopes[frame["g"]]) * frame["x"]
        + rng.normal(0, 0.6, 24)[frame["g"]]
        + rng.normal(0, 0.4, 8)[frame["h"]]
        + rng.normal(0, 0.5, 6)[frame["s"]] * frame["z"]
        + rng.normal(0, 0.8, n)
    )
    return frame


# Every structure of the covariances and kind of prior: formula, priors, weights.
OTHERS = {
    "three correlated effects": (
        "y ~ x + (x + z | h) + (1 | g)",
        {"cor": Prior("lkj", eta=1)},
        None,
    ),
    "nested slopes": (
        "y ~ x + (x | s/g) + (1 | h)",
        {
            "sd": Prior("exponential", lam=2),
            "x": Prior("student-t", nu=3, mu=1, sigma=0.05),
            "sigma": Prior("lognormal", mu=0, sigma=0.1),
        },
        None,
    ),
    "weights": ("y ~ x + z + (x | s) + (x | g)", {}, "w"),
    "priors with edges": (
        "y ~ 0 + x + (0 + x | g)",
        {
            "sd": Prior("uniform", lower=0.2, upper=0.5),
            "x": Prior("cauchy", alpha=0, beta=0.02),
            "sigma": Prior("uniform", lower=0, upper=1.6),
        },
        None,
    ),
    "two terms of one factor": (
        "y ~ x + (1 | g) + (0 + x | g)",
        {
            "sd": Prior("gamma", alpha=2, beta=3),
            "Intercept": Prior("flat"),
            "sigma": Prior("half-cauchy", beta=1),
        },
        None,
    ),
    "inverse gamma": (
        "y ~ x + (1 | s) + offset(z)",
        {
            "sd": Prior("inverse-gamma", alpha=2, beta=0.3),
            "Intercept": Prior("normal", mu=3, sigma=0.1),
            "sigma": Prior("half-flat"),
        },
        None,
    ),
}


def assert_one_posterior(ours, theirs, names=None):
    """Means and sds agree within four Monte Carlo errors."""
    for name in names or ours.design.dims:
        first, second = ours.variable(name), theirs.variable(name)
        first, second = (v.reshape(*v.shape[:2], -1) for v in (first, second))
        for k in range(first.shape[2]):
            a, b = first[:, :, k], second[:, :, k]
            if np.ptp(b) < 1e-12:  # the diagonal of a correlation matrix, or a structural zero
                assert np.ptp(a) < 1e-12
                assert a[0, 0] == pytest.approx(b[0, 0], abs=1e-12)
                continue
            for kind in ("mean", "std"):
                gap = getattr(a, kind)() - getattr(b, kind)()
                error = np.hypot(*(monte_carlo_error(v, kind) for v in (a, b)))
                assert abs(gap) < 4 * error, f"{kind} of {name}, element {k}"


def monte_carlo_error(draws, kind):
    """Return the Monte Carlo error of the mean or the standard deviation of a scalar's draws."""
    method = {"mean": "mean", "std": "sd"}[kind]
    return float(array_stats.mcse(draws, method=method, chain_axis=0, draw_axis=1))


@pytest.fixture(scope="module")
def sleep_gibbs(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    return model.fit(Gibbs(), random_seed=1, progressbar=False)


@pytest.mark.parametrize("name", MODELS)
def test_gibbs_and_nuts_agree(name):
    data, formula = MODELS[name]
    model = hmlm.Model(formula, hmlm.load_dataset(data))
    ours = model.fit(Gibbs(), random_seed=3, progressbar=False)
    theirs = model.fit(NUTS(draws=4000, engine="kernel"), random_seed=4, progressbar=False)
    assert ours.status.converged, ours.status
    assert_one_posterior(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_gibbs_and_nuts_agree_on_every_structure_and_prior(name):
    formula, priors, weights = OTHERS[name]
    model = hmlm.Model(formula, table(), priors=priors, weights=weights)
    ours = model.fit(Gibbs(draws=3000), random_seed=5, progressbar=False)
    theirs = model.fit(NUTS(engine="kernel"), random_seed=6, progressbar=False)
    assert ours.status.numbers["min_ess_bulk"] > 400
    assert_one_posterior(ours, theirs, [n for n in ours.design.dims if not n.startswith("b_")])


def test_gibbs_agrees_with_exact_integration(radon):
    exact = recorded("radon_variable_intercept_exact")["summary"]
    priors = {
        "Intercept": Prior("normal", sigma=10),
        "floor": Prior("normal", sigma=10),
        "sd": Prior("half-normal", sigma=1),
        "sigma": Prior("half-normal", sigma=1),
    }
    model = hmlm.Model("log_radon ~ floor + (1 | county)", radon, priors=priors)
    fit = model.fit(Gibbs(), random_seed=8, progressbar=False)
    beta = fit.variable("beta")
    names = {
        "sigma_y": fit.variable("sigma"),
        "sigma_alpha": fit.variable("sd_county")[..., 0],
        "mu_alpha": beta[..., 0],
        "beta": beta[..., 1],
    }
    for name, draws in names.items():
        for kind, key in (("mean", "mean"), ("std", "sd")):
            gap = getattr(draws, kind)() - exact[name][key]
            assert abs(gap) < 4 * monte_carlo_error(draws, kind), f"{kind} of {name}"


@pytest.mark.parametrize(
    ("prior", "distribution"),
    [
        (Prior("half-flat"), None),
        (Prior("half-normal", sigma=2), stats.halfnorm(scale=2)),
        (Prior("half-student-t", nu=4, sigma=2), stats.t(4, scale=2)),
        (Prior("half-cauchy", beta=2), stats.halfcauchy(scale=2)),
        (Prior("exponential", lam=3), stats.expon(scale=1 / 3)),
        (Prior("gamma", alpha=2.5, beta=3), stats.gamma(2.5, scale=1 / 3)),
        (Prior("inverse-gamma", alpha=2.5, beta=3), stats.invgamma(2.5, scale=3)),
        (Prior("lognormal", mu=0.3, sigma=0.7), stats.lognorm(0.7, scale=np.exp(0.3))),
        (Prior("uniform", lower=0.1, upper=5), stats.uniform(0.1, 4.9)),
    ],
)
def test_log_priors_are_those_of_scipy(prior, distribution):
    x = np.array([0.2, 0.9, 1.7, 4.0])
    ours = log_prior(prior, x)
    theirs = np.zeros(4) if distribution is None else distribution.logpdf(x)
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=1e-12)


def test_variables_dims_and_coords_are_those_of_nuts(sleep_gibbs):
    posterior = sleep_gibbs.draws["posterior"]
    assert list(posterior.data_vars) == ["beta", "sd_Subject", "cor_Subject", "sigma", "b_Subject"]
    assert posterior["b_Subject"].dims == ("chain", "draw", "Subject", "Subject_term")
    assert posterior["b_Subject"].shape == (4, 2000, 18, 2)
    assert posterior["beta"].coords["term"].to_numpy().tolist() == ["Intercept", "Days"]
    assert sleep_gibbs.draws["sample_stats"]["acceptance_rate"].shape == (4, 2000)
    assert sleep_gibbs.label == "Gibbs"
    assert "Days" in str(sleep_gibbs.summary())


def test_correlations_are_correlation_matrices(sleep_gibbs):
    cor = sleep_gibbs.variable("cor_Subject")
    assert (np.diagonal(cor, axis1=2, axis2=3) == 1).all()
    assert (np.linalg.eigvalsh(cor) > 0).all()


def test_status_says_how_it_was_sampled(sleep_gibbs):
    assert sleep_gibbs.status.converged
    (note,) = sleep_gibbs.status.notes
    assert note.startswith("Sampled by Gibbs steps, with Metropolis-Hastings steps")
    assert note.endswith("% accepted).")
    assert sleep_gibbs.status.numbers["min_ess_bulk"] > 2000


def test_advice_is_about_gibbs(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    fit = model.fit(SHORT, random_seed=1, progressbar=False)
    assert not fit.status.converged
    assert "NUTS" not in str(fit.status)


def test_same_seed_gives_the_same_draws(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    first, again, other = (
        model.fit(SHORT, random_seed=seed, progressbar=False) for seed in (1, 1, 2)
    )
    for name in first.design.dims:
        np.testing.assert_array_equal(first.variable(name), again.variable(name))
    assert (first.variable("sigma") != other.variable("sigma")).all()
    assert SHORT.run(model.design, progressbar=False).random_seed is not None


def test_progress_bar_is_shown_when_asked_for(sleepstudy, capsys):
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy)
    model.fit(SHORT, random_seed=1, progressbar=False)
    assert not capsys.readouterr().out
    model.fit(SHORT, random_seed=1, progressbar=True)
    assert "Gibbs" in capsys.readouterr().out


def test_scale_of_a_predictor_scales_the_draws():
    frame = table()
    priors = {"Intercept": Prior("flat"), "x": Prior("flat"), "sd": Prior("half-flat")}
    first, scaled = (
        hmlm.Model("y ~ x + (x | g)", frame.assign(x=frame["x"] * scale), priors=priors).fit(
            SHORT, random_seed=1, progressbar=False
        )
        for scale in (1, 1e6)
    )
    factors = np.array([1, 1e6])
    for name in ("beta", "sd_g", "b_g"):
        np.testing.assert_allclose(
            scaled.variable(name) * factors, first.variable(name), rtol=1e-5, atol=1e-8
        )
    np.testing.assert_allclose(scaled.variable("cor_g"), first.variable("cor_g"), atol=1e-5)


def test_predictors_far_from_zero():
    frame = table()
    model = hmlm.Model("y ~ x + (x | g)", frame.assign(x=2000 + frame["x"]))
    fit = model.fit(Gibbs(draws=500), random_seed=1, progressbar=False)
    near = hmlm.Model("y ~ x + (x | g)", frame).fit(
        Gibbs(draws=500), random_seed=1, progressbar=False
    )
    assert fit.variable("beta")[..., 1].mean() == pytest.approx(
        near.variable("beta")[..., 1].mean(), abs=0.05
    )
    assert np.isfinite(fit.variable("cor_g")).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": Prior("uniform", lower=0, upper=1)}, "that of x is uniform.*use hmlm.NUTS"),
        ({"sd": Prior("uniform", lower=1e6, upper=2e6)}, "no point that the priors .* allow"),
    ],
)
def test_priors_that_it_cannot_take_are_refused(change, message):
    model = hmlm.Model("y ~ x + (1 | g)", table(), priors=change)
    with pytest.raises(HmlmError, match=message):
        model.fit(SHORT, random_seed=1, progressbar=False)


def test_what_cannot_be_sampled_is_refused():
    frame = table()
    model = hmlm.Model("y ~ x + (1 | g)", frame)
    for other in (model.with_pooling("complete"), model.with_pooling("none")):
        with pytest.raises(HmlmError, match="samples models that pool partially"):
            other.fit(SHORT, progressbar=False)
    counts = replace(model.spec, family=get_family("poisson"))
    with pytest.raises(HmlmError, match="samples gaussian models; the family is poisson"):
        SHORT.run(replace(model.design, spec=counts))
    few = frame.assign(k=frame["g"] % 3)
    with pytest.raises(HmlmError, match=r"'k' has 3 levels with 3 effects.*\|\| k"):
        hmlm.Model("y ~ x + (x + z | k)", few).fit(SHORT, progressbar=False)
    with pytest.raises(HmlmError, match="keeps every draw of the group effects"):
        model.fit(Gibbs(draws=10_000_000), progressbar=False)


def test_priors_that_no_start_reaches_are_said(sleepstudy):
    priors = {"sd": Prior("uniform", lower=1e7, upper=2e7)}
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy, priors=priors)
    with pytest.raises(HmlmError, match="found no point that the priors of the sds allow"):
        model.fit(Gibbs(draws=1, tune=2, chains=1), random_seed=1, progressbar=False)


def test_too_many_crossed_effects_are_refused():
    rng = np.random.default_rng(1)
    n = 5000
    frame = pd.DataFrame({"y": rng.normal(size=n), "g": rng.integers(0, 1500, n)})
    frame["h"] = rng.integers(0, 1200, n)
    with pytest.raises(HmlmError, match="draws the effects of all factors but 'g' together"):
        Gibbs().run(make("y ~ 1 + (1 | g) + (1 | h)", frame))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "draws must be a whole number, at least 1, not 0"),
        ({"tune": -1}, "tune must be a whole number, at least 0, not -1"),
        ({"chains": True}, "chains must be a whole number, at least 1, not True"),
        ({"draws": 10.5}, "whole number"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(HmlmError, match=message):
        Gibbs(**settings)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_seeds_are_checked(sleepstudy, seed):
    design = make("Reaction ~ Days + (1 | Subject)", sleepstudy)
    with pytest.raises(HmlmError, match="random_seed must"):
        SHORT.run(design, random_seed=seed)
