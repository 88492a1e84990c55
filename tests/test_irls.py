"""Generalised linear models without pooling, against closed forms and a general optimiser."""

import numpy as np
import pandas as pd
import pytest
from scipy import special
from scipy.optimize import minimize

import hmlm
from hmlm.errors import HmlmError
from hmlm.families import get_family
from hmlm.fitting.irls import GLM
from hmlm.fitting.ols import OLS
from hmlm.likelihoods.exponential import row_likelihood
from hmlm.links import from_link, to_link

PARAMETER = 3.0


def simulate(family, link=None, J=6, n=40, seed=0, spread=0.4):
    """Return rows with a predictor, a group, a second group and an outcome."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(J), n)
    x = rng.normal(size=J * n)
    eta = 0.3 + 0.4 * x + rng.normal(0, spread, J)[index]
    known = get_family(family, link)
    if known.link in ("identity", "inverse"):
        eta = 2.5 + 0.3 * np.tanh(x) + rng.uniform(0, spread, J)[index]
    mu = from_link(known.link, eta)
    trials = rng.integers(2, 6, J * n)
    a = PARAMETER
    y = {
        "bernoulli": lambda: rng.binomial(1, mu),
        "binomial": lambda: rng.binomial(trials, mu),
        "poisson": lambda: rng.poisson(mu),
        "negative-binomial": lambda: rng.negative_binomial(a, a / (a + mu)),
        "gamma": lambda: rng.gamma(a, mu / a),
        "beta": lambda: np.clip(rng.beta(a * mu, a * (1 - mu)), 1e-6, 1 - 1e-6),
    }[family]()
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "size": trials,
            "g": [f"g{j}" for j in index],
            "h": [f"h{j}" for j in rng.integers(0, 4, J * n)],
        }
    )


def outcome(family):
    return "p(y, size)" if family == "binomial" else "y"


def by_optimiser(design, X, start):
    """Maximise the likelihood with a general optimiser; return coefficients and maximum."""
    family = design.spec.family
    k = X.shape[1]

    def minus(at):
        rows = row_likelihood(family, design.y, design.trials, np.exp(at[-1]))
        terms = rows.terms(X @ at[:k])
        return -terms.log_likelihood.sum() if np.isfinite(terms.log_likelihood).all() else 1e10

    found = minimize(minus, start, method="BFGS", options={"gtol": 1e-6})
    found = minimize(minus, found.x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11})
    return found.x, -found.fun


@pytest.mark.parametrize(
    ("family", "link"),
    [
        ("bernoulli", "logit"),
        ("binomial", "probit"),
        ("binomial", "cloglog"),
        ("poisson", "log"),
        ("poisson", "identity"),
        ("negative-binomial", "log"),
        ("gamma", "log"),
        ("gamma", "inverse"),
        ("beta", "logit"),
    ],
)
def test_complete_pooling_is_the_maximum(family, link):
    frame = simulate(family, link)
    formula = f"{outcome(family)} ~ x + (1 | g)"
    design = hmlm.Model(formula, frame, family=family, link=link).with_pooling("complete").design
    fit = GLM().run(design)
    mean = design.y.sum() / (frame["size"].sum() if family == "binomial" else len(frame))
    level = float(to_link(link, mean))
    best, maximum = by_optimiser(design, design.X, np.array([level, 0.0, 1.0]))
    np.testing.assert_allclose(fit.estimates["beta"], best[:2], rtol=1e-4, atol=1e-4)
    assert fit.log_likelihood == pytest.approx(maximum, abs=1e-6)
    for name in design.parameters:
        assert float(fit.estimates[name]) == pytest.approx(np.exp(best[2]), rel=1e-3)
    assert fit.status.converged
    assert np.isinf(fit.df).all()
    assert fit.aic == pytest.approx(-2 * maximum + 2 * (2 + len(design.parameters)))


def test_standard_errors_are_those_of_the_information():
    design = hmlm.Model("y ~ x + (1 | g)", simulate("poisson"), family="poisson")
    fit = design.with_pooling("complete").fit(GLM())
    X, mu = fit.design.X, fit.fitted
    np.testing.assert_allclose(fit.vcov, np.linalg.inv(X.T @ (mu[:, None] * X)), rtol=1e-7)


def test_standard_errors_of_a_beta_model_take_in_the_precision():
    fit = (
        hmlm.Model("y ~ x + (1 | g)", simulate("beta"), family="beta")
        .with_pooling("complete")
        .fit(GLM())
    )
    design = fit.design
    at = np.append(fit.estimates["beta"], np.log(float(fit.estimates["phi"])))
    step = 1e-4

    def value(at):
        rows = row_likelihood(design.spec.family, design.y, None, np.exp(at[-1]))
        return rows.terms(design.X @ at[:-1]).log_likelihood.sum()

    H = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            a, b = np.eye(3)[i] * step, np.eye(3)[j] * step
            H[i, j] = value(at + a + b) - value(at + a - b) - value(at - a + b) + value(at - a - b)
    observed = np.linalg.inv(-H / (4 * step**2))[:2, :2]
    np.testing.assert_allclose(np.diagonal(fit.vcov), np.diagonal(observed), rtol=0.05)


def test_own_intercepts_have_closed_forms():
    frame = simulate("poisson")
    fit = hmlm.Model("y ~ 1 + (1 | g)", frame, family="poisson").with_pooling("none").fit(GLM())
    grouped = frame.groupby("g")["y"]
    np.testing.assert_allclose(
        fit.estimates["b_g"][:, 0], np.log(grouped.mean().to_numpy()), atol=1e-9
    )
    np.testing.assert_allclose(
        fit.std_errors["b_g"][:, 0], grouped.sum().to_numpy() ** -0.5, rtol=1e-7
    )
    np.testing.assert_allclose(fit.fitted, grouped.transform("mean"), rtol=1e-9)
    residual = (frame["y"] - fit.fitted) / np.sqrt(fit.fitted)
    np.testing.assert_allclose(fit.standardized_residuals, residual, rtol=1e-9)


def test_own_slopes_are_the_fits_of_each_group_alone():
    frame = simulate("binomial")
    model = hmlm.Model("p(y, size) ~ x + (x | g)", frame, family="binomial")
    fit = model.with_pooling("none").fit(GLM())
    assert fit.design.terms == ()
    total = 0.0
    for j, (_, part) in enumerate(frame.groupby("g")):
        alone = hmlm.Model("p(y, size) ~ x + (1 | h)", part, family="binomial")
        one = alone.with_pooling("complete").fit(GLM())
        np.testing.assert_allclose(fit.estimates["b_g"][j], one.estimates["beta"], atol=1e-7)
        np.testing.assert_allclose(fit.effects["g"].covariance[j], one.vcov, rtol=1e-5)
        total += one.log_likelihood
    assert fit.log_likelihood == pytest.approx(total, abs=1e-8)


@pytest.mark.parametrize("family", ["bernoulli", "negative-binomial", "gamma"])
def test_no_pooling_is_the_maximum_over_all_columns(family):
    frame = simulate(family, seed=3)
    model = hmlm.Model("y ~ x + (1 | g) + (1 | h)", frame, family=family, link=None)
    fit = model.with_pooling("none").fit(GLM())
    groups = pd.get_dummies(frame["g"]).to_numpy(float)
    others = pd.get_dummies(frame["h"]).to_numpy(float)[:, 1:]
    X = np.column_stack([frame["x"], groups, others])
    best, maximum = by_optimiser(fit.design, X, np.zeros(X.shape[1] + 1))
    assert fit.log_likelihood == pytest.approx(maximum, abs=1e-5)
    assert fit.estimates["beta"][0] == pytest.approx(best[0], abs=1e-3)
    assert fit.n_parameters == 10 + len(fit.design.parameters)


def test_an_offset_moves_the_linear_predictor():
    frame = simulate("poisson")
    frame["time"] = np.random.default_rng(1).uniform(1, 5, len(frame))
    frame["y"] = np.random.default_rng(2).poisson(frame["time"] * 0.8)
    model = hmlm.Model("y ~ 1 + offset(log(time)) + (1 | g)", frame, family="poisson")
    fit = model.with_pooling("complete").fit(GLM())
    rate = frame["y"].sum() / frame["time"].sum()
    assert fit.estimates["beta"][0] == pytest.approx(np.log(rate), abs=1e-9)
    np.testing.assert_allclose(fit.fitted, rate * frame["time"], rtol=1e-9)


def test_groups_of_one_outcome_stay_blank_and_the_others_right():
    frame = simulate("bernoulli", seed=5)
    frame.loc[frame["g"] == "g1", "y"] = 0
    frame.loc[frame["g"] == "g4", "y"] = 1
    model = hmlm.Model("y ~ x + (1 | g)", frame, family="bernoulli")
    fit = model.with_pooling("none").fit(GLM())
    others = frame[~frame["g"].isin(["g1", "g4"])]
    rest = hmlm.Model("y ~ x + (1 | g)", others, family="bernoulli")
    alone = rest.with_pooling("none").fit(GLM())
    assert np.isnan(fit.estimates["b_g"][[1, 4], 0]).all()
    assert fit.effects["g"].estimable[:, 0].tolist() == [True, False, True, True, False, True]
    np.testing.assert_allclose(
        fit.estimates["b_g"][[0, 2, 3, 5]], alone.estimates["b_g"], atol=1e-8
    )
    np.testing.assert_allclose(fit.estimates["beta"], alone.estimates["beta"], atol=1e-8)
    assert fit.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-8)
    said = " ".join(fit.status.notes)
    assert "All 40 rows of g1 of 'g' have no success" in said
    assert "All 40 rows of g4 of 'g' have only successes" in said
    assert fit.status.converged
    assert np.isnan(fit.fitted[frame["g"] == "g1"]).all()
    assert "Pearson residuals" in str(fit)


def test_groups_without_a_count_stay_blank():
    frame = simulate("poisson", seed=5)
    frame.loc[frame["g"] == "g5", "y"] = 0
    fit = hmlm.Model("y ~ x + (x | g)", frame, family="poisson").with_pooling("none").fit(GLM())
    assert np.isnan(fit.estimates["b_g"][5]).all()
    assert np.isfinite(fit.estimates["b_g"][:5]).all()
    assert "All 40 rows of g5 of 'g' have zero" in " ".join(fit.status.notes)


def test_a_slope_that_separates_one_group_leaves_only_it_blank():
    frame = simulate("bernoulli", seed=6)
    inside = frame["g"] == "g2"
    frame.loc[inside, "y"] = (frame.loc[inside, "x"] > 0).astype(int)
    model = hmlm.Model("y ~ x + (x | g)", frame, family="bernoulli").with_pooling("none")
    fit = model.fit(GLM())
    assert np.isnan(fit.estimates["b_g"][2]).all()
    assert np.isfinite(np.delete(fit.estimates["b_g"], 2, axis=0)).all()
    assert fit.status.converged
    assert "Inside g2 of 'g'" in " ".join(fit.status.notes)


def test_a_predictor_that_separates_is_named():
    frame = simulate("bernoulli", seed=7)
    frame["y"] = (frame["x"] > 0.1).astype(int)
    model = hmlm.Model("y ~ x + (1 | g)", frame, family="bernoulli").with_pooling("complete")
    fit = model.fit(GLM())
    assert np.isnan(fit.estimates["beta"]).all()
    assert not fit.status.converged
    assert "240 rows can be predicted perfectly" in fit.status.problems[0]
    assert "Intercept, x" in fit.status.problems[0]
    assert fit.log_likelihood == 0


def test_a_level_that_separates_leaves_the_other_coefficients():
    frame = simulate("poisson", seed=8)
    frame["y"] = np.where(frame["h"] == "h3", 0, frame["y"])
    model = hmlm.Model("y ~ x + h + (1 | g)", frame, family="poisson").with_pooling("complete")
    fit = model.fit(GLM())
    beta = dict(zip(fit.design.terms, fit.estimates["beta"], strict=True))
    rest = hmlm.Model("y ~ x + h + (1 | g)", frame[frame["h"] != "h3"], family="poisson")
    alone = rest.with_pooling("complete").fit(GLM())
    assert np.isnan(beta["h[h3]"])
    for term, value in zip(alone.design.terms, alone.estimates["beta"], strict=True):
        assert beta[term] == pytest.approx(value, abs=1e-8)
    assert fit.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-8)


def test_a_strong_predictor_is_no_separation():
    rng = np.random.default_rng(1)
    x = np.linspace(-12, 12, 400)
    y = rng.binomial(1, special.expit(3 * x))
    frame = pd.DataFrame({"x": x, "y": y, "g": ["a", "b"] * 200})
    model = hmlm.Model("y ~ x + (1 | g)", frame, family="bernoulli").with_pooling("complete")
    fit = model.fit(GLM())
    assert fit.status.converged
    assert np.isfinite(fit.estimates["beta"]).all()


def test_counts_without_overdispersion_say_so():
    frame = pd.DataFrame({"y": [2, 3] * 20, "g": ["a", "a", "b", "b"] * 10})
    model = hmlm.Model("y ~ 1 + (1 | g)", frame, family="negative-binomial")
    fit = model.with_pooling("complete").fit(GLM())
    assert "infinity" in fit.status.problems[0]
    assert "poisson" in fit.status.problems[0]


def test_a_mean_of_zero_under_the_identity_link_is_a_problem():
    frame = simulate("poisson", "identity")
    frame.loc[frame["g"] == "g1", "y"] = 0
    model = hmlm.Model("y ~ 1 + (1 | g)", frame, family="poisson", link="identity")
    fit = model.with_pooling("none").fit(GLM())
    assert "40 rows is zero" in " ".join(fit.status.problems)
    others = frame[frame["g"] != "g1"].groupby("g")["y"].mean()
    np.testing.assert_allclose(np.delete(fit.estimates["b_g"][:, 0], 1), others, rtol=1e-4)


def test_what_does_not_fit_is_refused_with_what_does():
    frame = simulate("bernoulli")
    model = hmlm.Model("y ~ x + (1 | g)", frame, family="bernoulli")
    with pytest.raises(HmlmError, match=r"hmlm\.Laplace\(\)"):
        model.fit(GLM())
    with pytest.raises(HmlmError, match=r"hmlm\.GLM\(\)"):
        model.with_pooling("complete").fit(OLS())
    gaussian = hmlm.Model("x ~ 1 + (1 | g)", frame).with_pooling("complete")
    with pytest.raises(HmlmError, match=r"hmlm\.OLS\(\)"):
        gaussian.fit(GLM())
    student = hmlm.Model("x ~ 1 + (1 | g)", frame, family="student-t").with_pooling("complete")
    with pytest.raises(HmlmError, match=r"hmlm\.NUTS\(\)"):
        student.fit(GLM())
    assert str(GLM()) == "GLM"
