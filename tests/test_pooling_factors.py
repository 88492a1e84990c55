"""Pooling factors: hand computations, and Bayesian ones beside classical ones."""

import numpy as np
import pytest
from scipy import integrate
from support import effect_covariance, outcome_covariance, recorded_fit

import hmlm
from hmlm.errors import HmlmError
from hmlm.families import get_family
from hmlm.log_likelihood import log_density
from hmlm.new_rows import new_rows
from hmlm.pooling_factors import _information, _ordinal_information, measure_pooling

FAST = hmlm.NUTS(draws=400, chains=2)


def sample(formula, data, family="gaussian", method=FAST):
    return hmlm.Model(formula, data, family).fit(method, random_seed=3, progressbar=False)


@pytest.fixture(scope="module")
def cbpp():
    return hmlm.load_dataset("cbpp")


@pytest.fixture(scope="module")
def radon_draws(radon):
    return sample("log_radon ~ floor + (1 | county)", radon)


def groups_of(table):
    return table[table["component"] == "group"]


def test_intercepts_of_a_balanced_table():
    fit = recorded_fit("dyestuff_reml")
    table = measure_pooling(fit)
    tau2, s2 = float(fit.estimates["sd_Batch"][0]) ** 2, float(fit.estimates["sigma"]) ** 2
    expected = 1 - tau2 / (tau2 + s2 / 5)
    own = groups_of(table)
    assert own["pooling"].to_numpy() == pytest.approx([expected] * 6)
    assert own["weight"].to_numpy() == pytest.approx([1 - expected] * 6)
    assert own["level"].tolist() == list("ABCDEF")
    assert table[["lower", "upper"]].isna().all(axis=None)
    assert table["rows"].tolist() == [30] + [5] * 6


def test_draws_of_intercepts_by_hand(radon_draws):
    block = radon_draws.design.blocks[0]
    tau2 = radon_draws.variable("sd_county").reshape(-1, 1) ** 2
    s2 = radon_draws.variable("sigma").reshape(-1, 1) ** 2
    factors = 1 - tau2 / (tau2 + s2 / block.sizes)
    table = measure_pooling(radon_draws, prob=0.8)
    own = groups_of(table)
    assert own["pooling"].to_numpy() == pytest.approx(factors.mean(axis=0))
    low, high = np.quantile(factors, [0.1, 0.9], axis=0)
    assert own["lower"].to_numpy() == pytest.approx(low)
    assert own["upper"].to_numpy() == pytest.approx(high)
    b = radon_draws.variable("b_county").reshape(len(tau2), -1)
    level = table[(table["component"] == "level") & (table["group"] == "county")].iloc[0]
    expected = 1 - b.mean(axis=0).var(ddof=1) / b.var(axis=1, ddof=1).mean()
    assert level["pooling"] == pytest.approx(expected)


def test_rows_are_a_level_too(radon_draws):
    draws, design = radon_draws._flat_draws("include"), radon_draws.design
    error = design.y - draws["beta"] @ design.X.T
    error -= draws["b_county"][:, design.blocks[0].index, 0]
    expected = 1 - error.mean(axis=0).var(ddof=1) / error.var(axis=1, ddof=1).mean()
    first = measure_pooling(radon_draws).iloc[0]
    assert (first["component"], first["group"], first["term"]) == ("level", "", "residual")
    assert first["pooling"] == pytest.approx(expected)


def test_slopes_by_the_conditional_variance(sleepstudy_reml):
    fit = sleepstudy_reml
    D, Z = effect_covariance(fit.estimates, "Subject"), fit.design.blocks[0].Z[:10]
    C = np.linalg.inv(Z.T @ Z / float(fit.estimates["sigma"]) ** 2 + np.linalg.inv(D))
    own = groups_of(measure_pooling(fit)).iloc[:2]
    assert own["pooling"].to_numpy() == pytest.approx(np.diag(C) / np.diag(D), rel=1e-6)


def test_draws_of_slopes_at_one_draw(sleepstudy):
    fit = sample("Reaction ~ Days + (Days | Subject)", sleepstudy)
    from hmlm.pooling_factors import _conditional

    found = _conditional(fit)["Subject"]
    Z = fit.design.blocks[0].Z[:10]
    for s in (0, 77):
        sd = fit.variable("sd_Subject").reshape(-1, 2)[s]
        cor = fit.variable("cor_Subject").reshape(-1, 2, 2)[s]
        D = np.outer(sd, sd) * cor
        C = np.linalg.inv(Z.T @ Z / fit.variable("sigma").ravel()[s] ** 2 + np.linalg.inv(D))
        assert found[s, 0] == pytest.approx(np.diag(C) / np.diag(D))


def test_crossed_factors_are_taken_together():
    penicillin = hmlm.load_dataset("penicillin")
    fit = sample("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin)
    from hmlm.pooling_factors import _conditional

    found = _conditional(fit)
    values = {k: v[0] for k, v in fit._flat_draws("include").items()}
    V = outcome_covariance(fit.design, values)
    plate, _ = fit.design.blocks
    member = (plate.index[:, None] == np.arange(len(plate.levels))).astype(float)
    tau2 = float(values["sd_plate"][0]) ** 2
    own = 1 - tau2 * np.diag(member.T @ np.linalg.solve(V, member))
    assert found["plate"][0, :, 0] == pytest.approx(own, rel=1e-6)
    classical = groups_of(measure_pooling(recorded_fit("penicillin_reml")))
    ours = groups_of(measure_pooling(fit))
    gap = ours["pooling"].to_numpy() - classical["pooling"].to_numpy()
    assert np.abs(gap).max() < 0.02


def test_crossed_levels_of_a_classical_fit_are_blank():
    table = measure_pooling(recorded_fit("penicillin_reml"))
    assert table.loc[table["component"] == "level", "pooling"].isna().all()


def test_classical_level_is_near_the_bayesian_one(radon, radon_draws):
    reml = hmlm.Model("log_radon ~ floor + (1 | county)", radon).fit(hmlm.REML())
    ours = measure_pooling(radon_draws).iloc[1]["pooling"]
    assert measure_pooling(reml).iloc[0]["pooling"] == pytest.approx(ours, abs=0.05)


def test_information_of_binomial_rows(cbpp):
    formula = "p(incidence, size) ~ period + (1 | herd)"
    laplace = hmlm.Model(formula, cbpp, "binomial").fit(hmlm.Laplace())
    draws = sample(formula, cbpp, "binomial")
    theirs, ours = groups_of(measure_pooling(laplace)), groups_of(measure_pooling(draws))
    gap = theirs["pooling"].to_numpy() - ours["pooling"].to_numpy()
    assert np.abs(gap).max() < 0.08
    # At one draw: 1 / (1 + tau^2 sum n p (1 - p)).
    from hmlm.pooling_factors import _conditional

    values, design = draws._flat_draws("include"), draws.design
    index = design.blocks[0].index
    eta = design.X @ values["beta"][0] + values["b_herd"][0, index, 0]
    p = 1 / (1 + np.exp(-eta))
    information = np.bincount(index, design.trials * p * (1 - p))
    expected = 1 / (1 + values["sd_herd"][0, 0] ** 2 * information)
    assert _conditional(draws)["herd"][0, :, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("family", "method"),
    [("ordinal", "conditional"), ("categorical", "posterior"), ("hurdle-poisson", "posterior")],
)
def test_families_without_a_closed_form_say_so(family, method):
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(25), 8)
    y = np.minimum(rng.poisson(np.exp(0.3 + 0.8 * rng.normal(size=25)[g])), 3)
    # Factors from the draws of the effects are noisy: 800 draws are too few to judge them by.
    long = hmlm.NUTS(draws=1000, tune=500)
    table = measure_pooling(sample("y ~ 1 + (1 | g)", {"y": y, "g": g}, family, long))
    own = groups_of(table)
    assert set(own["method"]) == {method}
    assert own["pooling"].between(0, 1.3).all()
    assert own["lower"].isna().all() == (method == "posterior")


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_information_of_ordinal_rows_is_the_expected_curvature(link):
    """Minus the mean of the second derivatives of log p, over the categories."""
    family = get_family(f"ordinal({link})")
    cutpoints, eta = np.array([[-1.0, 0.2, 1.4]]), np.array([[-0.7, 0.0, 0.9]])
    step, y = 1e-3, np.arange(4.0)

    def log_p(at):
        rows = [np.full((1, 4), v) for v in at[0]]
        return np.array([log_density(family, y, [r], {}, cutpoints=cutpoints)[0] for r in rows])

    here, up, down = log_p(eta), log_p(eta + step), log_p(eta - step)
    curvature = -(up - 2 * here + down) / step**2
    wanted = (np.exp(here) * curvature).sum(axis=1)
    found = _ordinal_information(link, eta, cutpoints)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5)


def test_rows_that_are_sure_have_no_information():
    cutpoints, eta = np.array([[-1.0, 0.2]]), np.array([[800.0, -800.0]])
    np.testing.assert_array_equal(_ordinal_information("logit", eta, cutpoints), [[0.0, 0.0]])


@pytest.mark.parametrize(
    ("family", "outcomes", "values"),
    [
        ("beta", np.linspace(1e-6, 1 - 1e-6, 20001), {"phi": 5.0}),
        ("beta(probit)", np.linspace(1e-6, 1 - 1e-6, 20001), {"phi": 5.0}),
        ("gamma", np.linspace(1e-6, 60, 60001), {"alpha": 2.5}),
        ("lognormal", np.exp(np.linspace(-8, 8, 20001)), {"sigma": 0.7}),
        ("student-t", np.linspace(-900, 900, 400001), {"sigma": 0.7, "nu": 5.0}),
        ("gaussian(log)", np.linspace(-10, 12, 20001), {"sigma": 0.7}),
        ("bernoulli(cloglog)", np.array([0.0, 1.0]), {}),
        ("poisson", np.arange(80.0), {}),
        ("negative-binomial", np.arange(900.0), {"alpha": 2.5}),
    ],
)
def test_information_is_the_expected_square_of_the_score(family, outcomes, values):
    """At a linear predictor of 0.4: the mean of (d log p / d eta)^2 over the outcomes."""
    kind = get_family(family)
    two = outcomes[[1, -2]] if kind.outcome != "binary" else outcomes
    frame = {"y": [*two] * 6, "g": list("aabbcc") * 2}
    design = hmlm.Model("y ~ 1 + (1 | g)", frame, family).design
    own = {"beta": np.array([[0.4]]), "b_g": np.zeros((1, 3, 1))}
    own |= {name: np.array([v]) for name, v in values.items()}
    plain = family in ("lognormal", "student-t")
    found = _information(design, own, new_rows(design, None, "include", cells=True), plain)

    def log_p(eta):
        wide = {name: np.full((1, 1), v) for name, v in values.items()}
        return log_density(kind, outcomes, [np.full((1, len(outcomes)), eta)], wide)[0]

    score = (log_p(0.4 + 1e-4) - log_p(0.4 - 1e-4)) / 2e-4
    square = np.exp(log_p(0.4)) * score**2
    wanted = square.sum() if kind.discrete else integrate.simpson(square, outcomes)
    np.testing.assert_allclose(found.ravel(), wanted, rtol=2e-4)


def test_rows_that_are_sure_of_yes_have_no_information():
    frame = {"y": [0, 1] * 6, "g": list("aabbcc") * 2}
    design = hmlm.Model("y ~ 1 + (1 | g)", frame, "bernoulli").design
    values = {"beta": np.array([[800.0]]), "b_g": np.zeros((1, 3, 1))}
    found = _information(design, values, new_rows(design, None, "include", cells=True), plain=False)
    np.testing.assert_array_equal(found, np.zeros((1, 12)))


def test_no_variance_is_complete_pooling(dyestuff2_reml):
    assert (measure_pooling(dyestuff2_reml)["pooling"] == 1.0).all()


def test_effects_on_sigma_have_factors(sleepstudy):
    fit = sample("Reaction ~ Days + (1 | Subject); sigma ~ 1 + (1 | Subject)", sleepstudy)
    own = groups_of(measure_pooling(fit))
    assert own.groupby("term")["method"].first().to_dict() == {
        "Intercept": "conditional",
        "sigma_Intercept": "posterior",
    }


def test_pooling_factors_need_partial_pooling(sleepstudy_pooled, sleepstudy_alone):
    for fit in (sleepstudy_pooled, sleepstudy_alone):
        with pytest.raises(HmlmError, match="under partial pooling"):
            measure_pooling(fit)
