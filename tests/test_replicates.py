"""Replicates come from the fitted model: their moments, their groups, and ArviZ's plots of them."""

import numpy as np
import pandas as pd
import pytest
from support import make, outcome_covariance

import hmlm
from hmlm.errors import HmlmError
from hmlm.expectation import draw_outcomes
from hmlm.families import FAMILIES, get_family
from hmlm.fitting.maximum_likelihood import REML
from hmlm.outcome_distribution import normal_residuals, outcome_moments, tail_areas
from hmlm.replicates import draw_replicates, posterior_predictive_tree, replicated_parameters

SLEEP = "Reaction ~ Days + (Days | Subject)"
VALUES = {"sigma": 0.7, "nu": 5.0, "alpha": 1.7, "phi": 3.0, "zi": 0.3, "hu": 0.4}
PLAIN = [f for f in FAMILIES.values() if f.outcome not in ("ordered", "category")]


@pytest.fixture(scope="module")
def cbpp_fit():
    data = hmlm.load_dataset("cbpp")
    model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", data, "binomial")
    return model.fit(hmlm.Laplace())


@pytest.fixture(scope="module")
def sleep_draws(sleepstudy):
    model = hmlm.Model(SLEEP, sleepstudy)
    return model.fit(hmlm.NUTS(draws=300, chains=2), random_seed=2, progressbar=False)


# --- the distribution of an outcome


@pytest.mark.parametrize("family", PLAIN, ids=lambda f: f.name)
def test_moments_and_tail_areas_are_those_of_draws(family):
    rng = np.random.default_rng(4)
    eta = np.repeat([[0.4, -0.5]], 40_000, axis=0)
    values = {k: np.array([[v]]) for k, v in VALUES.items() if k in family.parameters}
    trials = np.array([7.0, 1.0]) if family.outcome == "trials" else None
    y = draw_outcomes(family, eta, values, rng, trials)
    mean, sd = outcome_moments(family, eta[:1], values, trials)
    assert np.allclose((y.mean(axis=0) - mean[0]) / sd[0], 0, atol=0.02)
    assert np.allclose(y.std(axis=0) / sd[0], 1, atol=0.05)
    below, above = tail_areas(family, y, eta, values, trials)
    r = normal_residuals(below, above, rng)
    assert np.isfinite(r).all()
    assert np.allclose(r.mean(axis=0), 0, atol=0.03)
    assert np.allclose(
        np.quantile(r, [0.025, 0.16, 0.84, 0.975], axis=0).T, [-1.96, -1, 1, 1.96], atol=0.07
    )


def test_tail_areas_leave_the_probability_of_the_outcome_itself():
    y = np.arange(6.0)
    eta = np.zeros((1, 6))
    below, above = tail_areas(get_family("poisson"), y, eta, {})
    expected = np.exp(-1) / np.array([1, 1, 2, 6, 24, 120])
    assert np.allclose(1 - below - above, expected)
    p = np.array([[[0.2, 0.5, 0.3]] * 3])
    below, above = tail_areas(get_family("ordinal"), np.arange(3), p[..., 0], {}, probabilities=p)
    assert np.allclose(below, [[0.0, 0.2, 0.7]])
    assert np.allclose(above, [[0.8, 0.3, 0.0]])


def test_residuals_keep_both_far_tails():
    z = np.array([-30.0, -9.0, 9.0, 30.0])
    tails = tail_areas(get_family("gaussian"), z, np.zeros((1, 4)), {"sigma": np.ones((1, 1))})
    assert np.allclose(normal_residuals(*tails, np.random.default_rng(1)), z)


# --- replicates


def test_replicates_have_a_row_for_each_draw_and_come_again(sleepstudy_reml):
    first = draw_replicates(sleepstudy_reml, 40, random_seed=1)
    assert first.shape == (40, 180)
    assert (first == draw_replicates(sleepstudy_reml, 40, random_seed=1)).all()
    assert (first != draw_replicates(sleepstudy_reml, 40, random_seed=2)).any()


def test_new_groups_have_the_marginal_covariance(sleepstudy_reml):
    fit = sleepstudy_reml
    drawn = draw_replicates(fit, 4000, "new", random_seed=1)
    V = outcome_covariance(fit.design, fit.estimates)
    assert np.allclose(
        np.cov(drawn.T)[:10, :10] / np.sqrt(np.outer(*2 * [np.diag(V)[:10]])),
        (V / np.sqrt(np.outer(np.diag(V), np.diag(V))))[:10, :10],
        atol=0.1,
    )
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 15])[0, 1]) < 0.06


def test_effects_of_a_classical_fit_have_their_conditional_moments(sleepstudy_reml):
    fit = sleepstudy_reml
    found = replicated_parameters(fit, 6000, "include", np.random.default_rng(1))
    effects, b = fit.effects["Subject"], found["b_Subject"]
    assert np.allclose(b.mean(axis=0), effects.modes, atol=0.6)
    ratio = b.var(axis=0) / np.diagonal(effects.covariance, axis1=1, axis2=2)
    assert np.allclose(ratio, 1, atol=0.12)


def test_effects_of_crossed_factors_are_drawn_together():
    fit = REML().run(
        make("diameter ~ 1 + (1 | plate) + (1 | sample)", hmlm.load_dataset("penicillin"))
    )
    found = replicated_parameters(fit, 6000, "include", np.random.default_rng(1))
    both = np.concatenate([found["b_plate"][:, :, 0], found["b_sample"][:, :, 0]], axis=1)
    design = fit.design
    Z = np.zeros((len(design.y), 30))
    for block, start in zip(design.blocks, (0, 24), strict=True):
        Z[np.arange(len(Z)), start + block.index] = 1.0
    prior = np.r_[
        np.full(24, fit.estimates["sd_plate"][0]), np.full(6, fit.estimates["sd_sample"][0])
    ]
    exact = np.linalg.inv(Z.T @ Z / float(fit.estimates["sigma"]) ** 2 + np.diag(prior**-2.0))
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.allclose(np.cov(both.T) / scale, exact / scale, atol=0.1)


def test_effects_of_a_glmm_have_laplace_variances(cbpp_fit):
    found = replicated_parameters(cbpp_fit, 6000, "include", np.random.default_rng(1))
    ratio = found["b_herd"].var(axis=0)[:, 0] / cbpp_fit.effects["herd"].covariance[:, 0, 0]
    assert np.allclose(ratio, 1, atol=0.12)


def test_replicates_of_trials_stay_within_them(cbpp_fit):
    for groups in ("include", "new"):
        y = draw_replicates(cbpp_fit, 50, groups, random_seed=1)
        assert (y % 1 == 0).all()
        assert (y >= 0).all()
        assert (y <= cbpp_fit.design.trials).all()


def test_posterior_replicates_vary_as_predictions_do(sleep_draws):
    y = draw_replicates(sleep_draws, 600, random_seed=1)
    said = sleep_draws.predict(kind="response", random_seed=1)
    assert np.allclose(y.mean(axis=0), said["estimate"], atol=8)
    assert np.allclose(y.std(axis=0) / said["std_error"], 1, atol=0.2)


def test_more_replicates_than_draws_use_parameters_again(sleep_draws):
    y = draw_replicates(sleep_draws, 900, random_seed=1)
    assert len(np.unique(y[:, 0])) == 900


def test_ordinal_replicates_are_codes_in_their_shares():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(12), 15)
    x = rng.normal(size=180)
    y = np.digitize(x + rng.logistic(size=180), [-1.0, 0.5, 1.5])
    model = hmlm.Model("y ~ x + (1 | g)", pd.DataFrame({"y": y, "x": x, "g": g}), "ordinal")
    fit = model.fit(hmlm.NUTS(draws=200, chains=2), random_seed=1, progressbar=False)
    drawn = draw_replicates(fit, 200, random_seed=1)
    assert set(np.unique(drawn)) == {0, 1, 2, 3}
    shares = np.bincount(drawn.ravel().astype(int)) / drawn.size
    assert np.allclose(shares, np.bincount(y) / 180, atol=0.05)


def test_without_groups_and_without_pooling(sleepstudy_pooled, sleepstudy_alone):
    pooled = draw_replicates(sleepstudy_pooled, 200, "new", random_seed=1)
    assert np.allclose(pooled.mean(axis=0), sleepstudy_pooled.fitted, atol=15)
    alone = draw_replicates(sleepstudy_alone, 400, random_seed=1)
    assert np.allclose(alone.mean(axis=0), sleepstudy_alone.fitted, atol=7)
    with pytest.raises(HmlmError, match="without pooling there is no population"):
        draw_replicates(sleepstudy_alone, 10, "new")


def test_known_standard_errors_are_those_of_replicates():
    schools = hmlm.load_dataset("eight_schools")
    error = next(c for c in schools if schools[c].dtype.kind in "fi" and (schools[c] > 8).all())
    outcome = next(c for c in schools if schools[c].dtype.kind in "fi" and c != error)
    name = next(c for c in schools if c not in (error, outcome))
    fit = hmlm.Model(f"{outcome} ~ 1 + (1 | {name})", schools, se=error).fit(hmlm.REML())
    sd = draw_replicates(fit, 4000, random_seed=1).std(axis=0)
    assert (sd > 0.95 * schools[error]).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"draws": 0}, "draws is a whole number from 1 on, not 0"),
        ({"draws": 2.5}, "draws is a whole number"),
        ({"groups": "population"}, "groups is 'include' or 'new', not 'population'"),
        ({"draws": 10**7}, "would take 13 GiB: draw at most"),
    ],
)
def test_requests_that_cannot_be_met(sleepstudy_reml, arguments, said):
    with pytest.raises(HmlmError, match=said):
        draw_replicates(sleepstudy_reml, **arguments)


def test_rows_without_an_estimate_are_counted():
    data = pd.DataFrame(
        {"y": [1.0, 2, 3, 4, 6, 5, 9], "x": [0.0, 1, 2, 0, 1, 2, 1], "g": list("aaabbbc")}
    )
    fit = hmlm.Model("y ~ x + (x | g)", data, collinear="drop").with_pooling("none").fit(hmlm.OLS())
    if np.isnan(fit.linear_predictor).any():
        with pytest.raises(HmlmError, match="cannot be estimated without pooling"):
            draw_replicates(fit, 10)


# --- the tree for ArviZ


def test_tree_holds_replicates_and_data(sleep_draws):
    tree = posterior_predictive_tree(sleep_draws, 60, random_seed=1)
    y = draw_replicates(sleep_draws, 60, random_seed=1)
    assert (tree["posterior_predictive"]["y"].to_numpy()[0] == y).all()
    assert (tree["observed_data"]["y"].to_numpy() == sleep_draws.design.y).all()
    assert tree["posterior_predictive"].attrs["groups"] == "include"


def test_arviz_draws_the_tree(sleep_draws, cbpp_fit):
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    import arviz_plots as azp

    with mpl.rc_context():
        azp.plot_ppc_dist(
            posterior_predictive_tree(sleep_draws, 100, random_seed=1), backend="matplotlib"
        )
        counts = posterior_predictive_tree(cbpp_fit, 100, random_seed=1)
        assert counts["posterior_predictive"]["y"].dtype.kind == "i"
        azp.plot_ppc_rootogram(counts, backend="matplotlib")
        data = hmlm.load_dataset("contraception").iloc[:400]
        fit = hmlm.Model("use ~ age + (1 | district)", data, "bernoulli").fit(hmlm.Laplace())
        azp.plot_ppc_pava(posterior_predictive_tree(fit, 100, random_seed=1), backend="matplotlib")
        plt.close("all")
