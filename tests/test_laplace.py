"""Laplace approximation and quadrature, against lme4, dense algebra and brute force."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from support import our_group, our_modes, recorded, recorded_fixed, recorded_modes, recorded_spread

import hmlm
from hmlm.errors import HmlmError
from hmlm.families import FAMILIES, get_family
from hmlm.fitting.irls import GLM
from hmlm.fitting.laplace import Laplace
from hmlm.fitting.maximum_likelihood import ML
from hmlm.likelihoods.exponential import SUPPORTED, row_likelihood
from hmlm.likelihoods.laplace import Memory, laplace, mixed_problem
from hmlm.links import from_link

PARAMETER = 3.0


def simulate(family, link=None, J=12, K=5, n=150, seed=0, spread=0.5):
    """Return rows with a predictor, two crossed factors with effects, and an outcome."""
    rng = np.random.default_rng(seed)
    known = get_family(family, link)
    g, h = rng.permutation(np.arange(n) % J), rng.integers(0, K, n)
    x = rng.normal(size=n)
    own = rng.normal(0, spread, (J, 2))
    eta = 0.2 + 0.4 * x + own[g, 0] + 0.5 * x * own[g, 1] + rng.normal(0, spread / 2, K)[h]
    if known.link in ("identity", "inverse"):
        eta = 2.5 + 0.3 * np.tanh(eta)
    mu = from_link(known.link, eta)
    size = rng.integers(2, 6, n)
    a = PARAMETER
    y = {
        "bernoulli": lambda: rng.binomial(1, mu),
        "binomial": lambda: rng.binomial(size, mu),
        "poisson": lambda: rng.poisson(mu),
        "negative-binomial": lambda: rng.negative_binomial(a, a / (a + mu)),
        "gamma": lambda: rng.gamma(a, mu / a),
        "beta": lambda: np.clip(rng.beta(a * mu, a * (1 - mu) + 1e-9), 1e-4, 1 - 1e-4),
    }[family]()
    labels = {"g": [f"g{j:03d}" for j in g], "h": [f"h{k}" for k in h]}
    return pd.DataFrame({"y": y, "x": x, "size": size, **labels})


def problem_of(family, link, right, nodes=1, **settings):
    """Return a design, the problem that is optimised, and a point near the optimum."""
    left = "p(y, size)" if family == "binomial" else "y"
    frame = simulate(family, link, **settings)
    design = hmlm.Model(f"{left} ~ {right}", frame, family=family, link=link).design
    rows = row_likelihood(design.spec.family, design.y, design.trials, PARAMETER)
    level = 2.5 if design.spec.family.link in ("identity", "inverse") else 0.2
    weight = rows.terms(np.full(len(design.y), level)).weight
    problem = mixed_problem(rows, design.X, design.offset, design.blocks, weight, nodes)
    k = problem.n_theta
    psi = np.zeros(problem.size)
    psi[:k] = np.where(problem.effects.is_diagonal, 0.3, 0.1)
    psi[k : k + 2] = problem.R @ np.array([level, 0.05])
    if rows.has_parameter:
        psi[-1] = np.log(PARAMETER)
    return design, problem, psi


def dense(design, problem, psi):
    """Return the Laplace approximation from one dense matrix, its mode found by plain scoring."""
    k, p = problem.n_theta, design.X.shape[1]
    eta = design.X @ np.linalg.solve(problem.R, psi[k : k + p])
    Lambdas = {
        f.block.group: f.T @ L
        for f, L in zip(problem.effects.factors, problem.effects.split(psi[:k]), strict=True)
    }
    columns = []
    for block in design.blocks:
        Z = block.Z @ Lambdas[block.group]
        for j in range(len(block.levels)):
            columns.append(Z * (block.index == j)[:, None])
    ZL = np.hstack(columns)
    parameter = np.exp(psi[-1]) if problem.rows.has_parameter else 1.0
    rows = row_likelihood(design.spec.family, design.y, design.trials, parameter)
    u = np.zeros(ZL.shape[1])
    for _ in range(300):
        at = rows.terms(eta + ZL @ u)
        H = np.eye(len(u)) + ZL.T @ (at.weight[:, None] * ZL)
        u = u + 0.7 * np.linalg.solve(H, ZL.T @ at.score - u)
    at = rows.terms(eta + ZL @ u)
    H = np.eye(len(u)) + ZL.T @ (at.weight[:, None] * ZL)
    return at.log_likelihood.sum() - 0.5 * u @ u - 0.5 * np.linalg.slogdet(H)[1]


CASES = [(name, link) for name in SUPPORTED for link in FAMILIES[name].links]
RIGHTS = ["x + (x | g)", "x + (x || g) + (1 | h)"]


@pytest.mark.parametrize(("family", "link"), CASES)
@pytest.mark.parametrize("right", RIGHTS)
def test_value_is_that_of_dense_algebra(family, link, right):
    design, problem, psi = problem_of(family, link, right)
    value = laplace(psi, problem, Memory()).log_likelihood
    assert value == pytest.approx(dense(design, problem, psi), abs=1e-7)


@pytest.mark.parametrize(("family", "link"), CASES)
@pytest.mark.parametrize(("right", "nodes"), [*((r, 1) for r in RIGHTS), ("x + (1 | g)", 7)])
def test_gradient_is_that_of_differences(family, link, right, nodes):
    _, problem, psi = problem_of(family, link, right, nodes)
    slope = laplace(psi, problem, Memory()).gradient
    step = 1e-4
    for k in range(len(psi)):
        up, down = (
            laplace(psi + np.eye(len(psi))[k] * d, problem, Memory()) for d in (step, -step)
        )
        difference = (up.log_likelihood - down.log_likelihood) / (2 * step)
        assert slope[k] == pytest.approx(difference, rel=1e-5, abs=2e-5)


def test_sparse_and_dense_parts_between_factors_agree(monkeypatch):
    _, problem, psi = problem_of("poisson", "log", "x + (x | g) + (1 | h)", J=40, K=12)
    values = []
    for share in (0.0, 2.0):
        monkeypatch.setattr("hmlm.likelihoods.penalised.DENSE_SHARE", share)
        values.append(laplace(psi, problem, Memory()))
    first, second = values
    assert first.log_likelihood == pytest.approx(second.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(first.gradient, second.gradient, rtol=1e-7, atol=1e-7)
    for one, other in zip(first.H.own_blocks(), second.H.own_blocks(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("right", RIGHTS)
def test_conditional_covariances_are_blocks_of_the_inverse(right):
    _, problem, psi = problem_of("poisson", "log", right)
    at = laplace(psi, problem, Memory())
    size = problem.effects.size
    inverse = at.H.solve(np.eye(size))
    eta = at.scaled
    ZL = np.column_stack([eta.times(e) for e in np.eye(size)])
    exact = np.linalg.inv(np.eye(size) + ZL.T @ (at.at_mode.weight[:, None] * ZL))
    np.testing.assert_allclose(inverse, exact, atol=1e-10)
    for factor, blocks in zip(problem.effects.factors, at.H.own_blocks(), strict=True):
        places = np.arange(factor.place.start, factor.place.stop).reshape(factor.J, -1)
        np.testing.assert_allclose(blocks, exact[places[:, :, None], places[:, None, :]])


def test_one_node_is_the_laplace_approximation(monkeypatch):
    _, problem, psi = problem_of("negative-binomial", "log", "x + (1 | g)")
    plain = laplace(psi, problem, Memory())
    one = np.polynomial.hermite.hermgauss(1)
    monkeypatch.setattr(np.polynomial.hermite, "hermgauss", lambda _: one)
    _, same, _ = problem_of("negative-binomial", "log", "x + (1 | g)", nodes=2)
    quadrature = laplace(psi, same, Memory())
    assert quadrature.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(quadrature.gradient, plain.gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("family", "link"), [("bernoulli", "probit"), ("gamma", "log")])
def test_many_nodes_are_the_integral(family, link):
    design, problem, psi = problem_of(family, link, "x + (1 | g)", nodes=25)
    value = laplace(psi, problem, Memory()).log_likelihood
    base = design.X @ np.linalg.solve(problem.R, psi[1:3])
    block = design.blocks[0]
    parameter = np.exp(psi[-1]) if problem.rows.has_parameter else 1.0
    total = 0.0
    for j in range(len(block.levels)):
        mine = block.index == j
        rows = row_likelihood(design.spec.family, design.y[mine], None, parameter)

        def density(u, rows=rows, mine=mine):
            terms = rows.terms(base[mine] + psi[0] * u)
            return np.exp(terms.log_likelihood.sum()) * stats.norm.pdf(u)

        total += np.log(integrate.quad(density, -10, 10, epsabs=0, epsrel=1e-10)[0])
    assert value == pytest.approx(total, abs=1e-6)


@cache
def cbpp(link="logit", nodes=1):
    frame = hmlm.load_dataset("cbpp")
    formula = "p(incidence, size) ~ period + (1 | herd)"
    return hmlm.Model(formula, frame, family="binomial", link=link).fit(Laplace(nodes=nodes))


def check_against(fit, record, rtol, modes=1e-4, error=1e-3):
    fixed = recorded_fixed(record)
    np.testing.assert_allclose(fit.estimates["beta"], fixed["estimate"], rtol=rtol)
    np.testing.assert_allclose(fit.std_errors["beta"], fixed["std_error"], rtol=error)
    sds, correlations = recorded_spread(record)
    blocks = {b.group: b for b in fit.design.blocks}
    for number, ((group, _), sd) in enumerate(sds.items()):
        place = number - next(i for i, (g, _) in enumerate(sds) if g == group)
        assert fit.estimates[f"sd_{group}"][place] == pytest.approx(sd, rel=rtol)
    for (group, _, _), r in correlations.items():
        assert fit.estimates[f"cor_{group}"][0, 1] == pytest.approx(r, abs=1e-4)
    for name in record["conditional_modes"]:
        group = our_group(name)
        theirs, ours = recorded_modes(record, group), our_modes(fit, group)
        np.testing.assert_allclose(ours.loc[theirs.index], theirs, atol=modes)
        assert len(ours) == len(blocks[group].levels)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_counts_out_of_trials_are_glmers(link):
    record = recorded("cbpp_laplace_links")[link]
    fit = cbpp(link)
    check_against(fit, record, rtol=1e-4)
    assert fit.log_likelihood == pytest.approx(record["logLik"], abs=1e-7)
    assert fit.criterion == -2 * fit.log_likelihood
    assert fit.aic == pytest.approx(record["AIC"], abs=1e-6)
    assert fit.bic == pytest.approx(record["BIC"], abs=1e-6)
    np.testing.assert_allclose(fit.vcov, record["vcov"], rtol=2e-3)
    assert fit.status.converged


def test_the_maximum_is_above_that_of_glmers_defaults():
    # glmer's default tolerance of the inner iterations stops short: -92.02657 for -92.02628.
    record = recorded("cbpp_laplace")
    check_against(cbpp(), record, rtol=1e-3, modes=2e-3, error=0.015)
    assert cbpp().log_likelihood == pytest.approx(-92.02628187, abs=1e-7)
    assert cbpp().log_likelihood > record["logLik"]


def test_quadrature_has_glmers_estimates():
    record = recorded("cbpp_agq9")
    fit = cbpp(nodes=9)
    check_against(fit, record, rtol=1e-4)
    assert str(fit.method) == "AGQ (9 nodes)"
    assert fit.log_likelihood > cbpp().log_likelihood


def test_correlated_slopes_are_glmers_without_a_warning():
    frame = hmlm.load_dataset("contraception")
    record = recorded("contraception_laplace")
    fit = hmlm.Model(record["formula"], frame, family="bernoulli").fit(Laplace())
    fixed = recorded_fixed(record)
    np.testing.assert_allclose(fit.estimates["beta"], fixed["estimate"], rtol=1e-3)
    np.testing.assert_allclose(fit.std_errors["beta"], fixed["std_error"], rtol=1e-3)
    np.testing.assert_allclose(fit.estimates["sd_district"], [0.620415, 0.735664], rtol=1e-4)
    assert fit.estimates["cor_district"][0, 1] == pytest.approx(-0.792903, abs=1e-4)
    assert fit.log_likelihood >= record["logLik"] - 1e-7
    assert fit.log_likelihood == pytest.approx(record["logLik"], abs=1e-5)
    assert fit.status.converged
    assert not fit.status.problems
    assert not [note for note in fit.status.notes if "ingular" in note]


def test_nested_and_crossed_factors_are_glmers():
    record = recorded("ticks_laplace")
    fit = hmlm.Model(record["formula"], pd.DataFrame(record["frame"]), family="poisson").fit(
        Laplace()
    )
    check_against(fit, record, rtol=2e-4, modes=2e-4)
    assert fit.log_likelihood == pytest.approx(record["logLik"], abs=1e-6)
    np.testing.assert_allclose(fit.vcov, record["vcov"], rtol=5e-3, atol=1e-6)


def test_gain_is_how_modes_fall_as_beta_rises():
    design, problem, _ = problem_of("poisson", "log", "x + (x | g) + (1 | h)")
    fit = Laplace().run(design)
    k, p = problem.n_theta, 2
    theta = []
    for factor in problem.effects.factors:
        group = factor.block.group
        D = np.outer(fit.estimates[f"sd_{group}"], fit.estimates[f"sd_{group}"])
        D = D * fit.estimates.get(f"cor_{group}", np.eye(len(D)))
        inside = np.linalg.solve(factor.T, np.linalg.cholesky(D))
        half = np.linalg.cholesky(inside @ inside.T)
        theta.append(factor.shape.pack(half))
    psi = np.concatenate([*theta, problem.R @ fit.estimates["beta"]])
    Lambdas = problem.effects.split(psi[:k])

    def modes(beta):
        at = psi.copy()
        at[k : k + p] = problem.R @ beta
        u = laplace(at, problem, Memory()).u
        return {
            f.block.group: u[f.place].reshape(f.J, -1) @ (f.T @ L).T
            for f, L in zip(problem.effects.factors, Lambdas, strict=True)
        }

    beta, step = fit.estimates["beta"], 1e-4
    for group, effects in fit.effects.items():
        np.testing.assert_allclose(modes(beta)[group], effects.modes, atol=1e-6)
        for c in range(p):
            move = step * np.eye(p)[c]
            slope = (modes(beta + move)[group] - modes(beta - move)[group]) / (2 * step)
            np.testing.assert_allclose(effects.gain[:, :, c], -slope, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "link"),
    [
        ("bernoulli", "logit"),
        ("poisson", "log"),
        ("negative-binomial", "log"),
        ("gamma", "log"),
        ("beta", "logit"),
    ],
)
def test_known_parameters_are_recovered(family, link):
    frame = simulate(family, link, J=150, K=2, n=6000, seed=11)
    fit = hmlm.Model("y ~ x + (x | g)", frame, family=family, link=link).fit(Laplace())
    np.testing.assert_allclose(fit.estimates["sd_g"], [0.5, 0.25], atol=0.09)
    distance = (fit.estimates["beta"][1] - 0.4) / fit.std_errors["beta"][1]
    assert abs(distance) < 3
    for name in fit.design.parameters:
        assert float(fit.estimates[name]) == pytest.approx(PARAMETER, rel=0.15)
    assert fit.status.converged
    assert set(fit.estimates) == set(fit.design.dims)
    table = fit.summary()
    assert "z-value" in str(table)
    assert "Residual" not in str(table)


def test_no_spread_between_groups_is_a_note():
    frame = simulate("poisson", spread=0.0, seed=2)
    model = hmlm.Model("y ~ x + (1 | g)", frame, family="poisson")
    fit, alone = model.fit(Laplace()), model.with_pooling("complete").fit(GLM())
    assert fit.estimates["sd_g"][0] < 1e-4
    assert any("Singular" in note for note in fit.status.notes)
    assert fit.status.converged
    np.testing.assert_allclose(fit.estimates["beta"], alone.estimates["beta"], atol=1e-5)
    np.testing.assert_allclose(fit.vcov, alone.vcov, rtol=1e-3)
    assert fit.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-6)


def test_a_predictor_that_separates_is_a_problem():
    frame = simulate("bernoulli")
    frame["y"] = np.where(frame["h"] == "h1", 1, frame["y"])
    fit = hmlm.Model("y ~ x + h + (1 | g)", frame, family="bernoulli").fit(Laplace())
    assert not fit.status.converged
    assert "the coefficients of h[h1] go to infinity" in fit.status.problems[0]


def test_a_model_may_have_no_population_columns():
    frame = simulate("poisson")
    fit = hmlm.Model("y ~ 0 + (1 | g)", frame, family="poisson").fit(Laplace())
    assert fit.estimates["sd_g"][0] > 0
    assert fit.status.converged
    assert len(str(fit.summary()))


def test_fitted_values_and_residuals_are_on_the_outcomes_scale():
    fit = cbpp()
    design = fit.design
    p = 1 / (1 + np.exp(-fit.linear_predictor))
    np.testing.assert_allclose(fit.fitted, p)
    expected = (design.y - design.trials * p) / np.sqrt(design.trials * p * (1 - p))
    np.testing.assert_allclose(fit.standardized_residuals, expected)
    described = fit.describe("beta", 0.95)
    z = fit.estimates["beta"] / fit.std_errors["beta"]
    np.testing.assert_allclose(described.p_value, 2 * stats.norm.sf(np.abs(z)))
    np.testing.assert_allclose(
        described.upper, fit.estimates["beta"] + 1.959964 * fit.std_errors["beta"], rtol=1e-6
    )


def test_ratios_and_group_means_follow_from_the_fit():
    fit = cbpp()
    plain, ratio = fit.describe("beta", 0.9), fit.describe("beta", 0.9, ratio=True)
    for part in ("estimate", "lower", "upper"):
        np.testing.assert_allclose(getattr(ratio, part), np.exp(getattr(plain, part)))
    np.testing.assert_allclose(ratio.std_error, np.exp(plain.estimate) * plain.std_error)
    np.testing.assert_allclose(ratio.p_value, plain.p_value)
    means = fit.describe("mean_herd", 0.95)
    average = pd.Series(fit.fitted).groupby(fit.design.blocks[0].index).mean()
    np.testing.assert_allclose(means.estimate, average)
    assert np.isfinite(means.std_error).all()


@pytest.mark.parametrize("pooling", ["complete", "none"])
def test_standard_errors_of_group_means_are_those_of_the_delta_method(pooling):
    frame = simulate("poisson", J=4)
    model = hmlm.Model("y ~ x + (1 | g)", frame, family="poisson").with_pooling(pooling)
    fit = model.fit(GLM())
    own = pd.get_dummies(frame["g"]).to_numpy(float)
    first = np.ones((len(frame), 1)) if pooling == "complete" else own
    X = np.column_stack([first, frame["x"]])
    mu = fit.fitted
    vcov = np.linalg.inv(X.T @ (mu[:, None] * X))
    slopes = (own / own.sum(axis=0)).T @ (mu[:, None] * X)
    exact = np.sqrt(np.einsum("jp,pr,jr->j", slopes, vcov, slopes))
    np.testing.assert_allclose(fit.describe("mean_g", 0.95).std_error, exact, rtol=1e-6)


def test_what_does_not_fit_is_refused_with_what_does():
    frame = simulate("poisson")
    model = hmlm.Model("y ~ x + (x | g)", frame, family="poisson")
    with pytest.raises(HmlmError, match=r"nodes=1"):
        model.fit(Laplace(nodes=5))
    with pytest.raises(HmlmError, match=r"hmlm\.GLM\(\)"):
        model.with_pooling("none").fit(Laplace())
    with pytest.raises(HmlmError, match=r"hmlm\.Laplace\(\)"):
        model.fit(ML())
    with pytest.raises(HmlmError, match=r"hmlm\.REML\(\)"):
        hmlm.Model("y ~ x + (x | g)", frame).fit(Laplace())
    with pytest.raises(HmlmError, match="at most 25"):
        Laplace(nodes=26)
    with pytest.raises(HmlmError, match="nodes"):
        Laplace(nodes=0)
