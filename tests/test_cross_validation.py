"""Leaving rows, groups and folds out, and the table that ranks fits."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, special, stats

import hmlm
from hmlm import NUTS, Model, folds
from hmlm.errors import HmlmError
from hmlm.group_likelihood import STEP, _steps, integrate_groups
from hmlm.held_out import known_effects, refit_design, refit_rows, whole_design
from hmlm.predictive_density import CrossValidation, stack_weights


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    n = 72
    g = np.repeat(np.arange(6), 12)
    c = np.arange(n) // 4
    x = rng.normal(size=n)
    eta = 0.3 + 0.5 * x + 0.7 * rng.normal(size=6)[g] + 0.4 * rng.normal(size=18)[c]
    return pd.DataFrame(
        {
            "g": g,
            "c": c,
            "h": np.arange(n) % 3,
            "x": x,
            "y": eta + 0.6 * rng.normal(size=n),
            "yes": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
            "count": rng.poisson(np.exp(eta)),
        }
    )


def draws_at(design, rng, S=3):
    """Return some parameter values, as draws."""
    found = {}
    for variable in design.variables:
        shape = (S, *(len(design.coords[d]) for d in variable.dims))
        if variable.kind == "sd" or variable.kind == "parameter":
            found[variable.name] = rng.uniform(0.4, 1.1, size=shape)
        elif variable.kind == "cor":
            R = np.tile(np.eye(shape[-1]), (S, 1, 1))
            R[:, 0, 1] = R[:, 1, 0] = rng.uniform(-0.5, 0.5, size=S)
            found[variable.name] = R
        else:
            found[variable.name] = 0.3 * rng.normal(size=shape)
    return found


@pytest.mark.parametrize(
    "formula", ["y ~ x + (x | g)", "y ~ x + (1 | g/c)", "y ~ x + (1 | g) + (1 | h)"]
)
def test_gaussian_groups_have_their_dense_density(table, formula):
    design = Model(formula, table).design
    at = draws_at(design, np.random.default_rng(1))
    found = integrate_groups(design, at, "g")
    for s in range(3):
        mean = design.X @ at["beta"][s]
        V = np.eye(len(design.y)) * at["sigma"][s] ** 2
        for block in design.blocks:
            if block.group == "h":  # crossed: given
                mean = mean + at["b_h"][s][block.index, 0]
                continue
            sd = at[f"sd_{block.group}"][s]
            D = (
                np.outer(sd, sd)
                * at.get(f"cor_{block.group}", np.eye(len(sd))[None].repeat(3, 0))[s]
            )
            same = block.index[:, None] == block.index
            V += same * (block.Z @ D @ block.Z.T)
        for j in range(6):
            own = table["g"] == j
            exact = stats.multivariate_normal(mean[own], V[np.ix_(own, own)]).logpdf(design.y[own])
            assert found[s, j] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("outcome", "family"), [("yes", "bernoulli"), ("count", "poisson")])
def test_other_groups_have_their_quadrature(table, outcome, family):
    design = Model(f"{outcome} ~ x + (1 | g)", table, family=family).design
    at = draws_at(design, np.random.default_rng(2), S=2)
    found = integrate_groups(design, at, "g")
    for s in range(2):
        for j in range(6):
            own = (table["g"] == j).to_numpy()
            eta = design.X[own] @ at["beta"][s]
            y = design.y[own]

            def density(b, eta=eta, y=y, sd=at["sd_g"][s, 0]):
                if family == "poisson":
                    rows = stats.poisson.pmf(y, np.exp(eta + b))
                else:
                    rows = stats.bernoulli.pmf(y, 1 / (1 + np.exp(-eta - b)))
                return rows.prod() * stats.norm.pdf(b, 0, sd)

            exact = np.log(integrate.quad(density, -8, 8, epsabs=0, limit=200)[0])
            assert found[s, j] == pytest.approx(exact, abs=1e-6)


def nodes(sd, count=60):
    """Return points and logarithms of weights of N(0, sd^2)."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    return sd * x, np.log(w / w.sum())


def test_two_effects_have_their_quadrature(table):
    design = Model("count ~ x + (x | g)", table, family="poisson").design
    at = draws_at(design, np.random.default_rng(3), S=2)
    found = integrate_groups(design, at, "g")
    (a, log_a), (b, log_b) = nodes(1.0), nodes(1.0)
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), axis=-1).reshape(-1, 2)
    weights = (log_a[:, None] + log_b).reshape(-1)
    for s in range(2):
        sd = at["sd_g"][s]
        effects = grid @ np.linalg.cholesky(np.outer(sd, sd) * at["cor_g"][s]).T
        for j in range(6):
            own = (table["g"] == j).to_numpy()
            X = design.X[own]
            rows = stats.poisson.logpmf(
                design.y[own], np.exp(X @ at["beta"][s] + effects @ X.T)
            ).sum(axis=1)
            assert found[s, j] == pytest.approx(special.logsumexp(rows + weights), abs=1e-4)


def test_nested_effects_are_integrated_with_their_group(table):
    """By importance draws; beside nodes for the group and, at each of them, for its classes."""
    design = Model("yes ~ x + (1 | g/c)", table, family="bernoulli").design
    at = draws_at(design, np.random.default_rng(4), S=2)
    found = integrate_groups(design, at, "g")
    for s in range(2):
        outer, log_outer = nodes(at["sd_g"][s, 0])
        inner, log_inner = nodes(at["sd_g:c"][s, 0])
        for j in range(6):
            total = log_outer.copy()
            for c in np.unique(table["c"][table["g"] == j]):
                own = (table["c"] == c).to_numpy()
                eta = design.X[own] @ at["beta"][s] + outer[:, None, None] + inner[:, None]
                rows = stats.bernoulli.logpmf(design.y[own], special.expit(eta)).sum(axis=-1)
                total += special.logsumexp(rows + log_inner, axis=1)
            assert found[s, j] == pytest.approx(special.logsumexp(total), abs=0.01)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_quadrature_knows_the_unit_of_the_outcome(table, unit):
    """A sigma with a formula is integrated by quadrature; here it is one number after all."""
    scaled = table.assign(y=table["y"] * unit)
    plain = Model("y ~ x + (x | g)", scaled).design
    at = draws_at(plain, np.random.default_rng(6), S=2)
    at = {k: v if k == "cor_g" else v * unit for k, v in at.items()}
    written = Model("y ~ x + (x | g); sigma ~ x", scaled).design
    sigma_beta = np.stack([np.log(at["sigma"]), np.zeros(2)], axis=1)
    more = {k: v for k, v in at.items() if k != "sigma"} | {"sigma_beta": sigma_beta}
    found = integrate_groups(written, more, "g")
    np.testing.assert_allclose(found, integrate_groups(plain, at, "g"), atol=1e-6)


def test_effects_of_a_scale_are_integrated_too(table):
    design = Model("y ~ x; sigma ~ 1 + (1 | g)", table).design
    with pytest.raises(HmlmError, match="of the mean"):
        hmlm.k_fold(Model("y ~ x", table).fit(hmlm.OLS()))
    assert design.distributional[0].blocks[0].group == "g"
    both = Model("y ~ x + (1 | g); sigma ~ 1 + (1 | g)", table).design
    at = draws_at(both, np.random.default_rng(7), S=1)
    found = integrate_groups(both, at, "g")
    a, log_a = nodes(at["sd_g"][0, 0])
    b, log_b = nodes(at["sigma_sd_g"][0, 0])
    for j in range(6):
        own = (table["g"] == j).to_numpy()
        mu = both.X[own] @ at["beta"][0] + a[:, None, None]
        rows = stats.norm.logpdf(both.y[own], mu, np.exp(at["sigma_beta"][0, 0] + b[:, None]))
        exact = special.logsumexp(rows.sum(axis=-1) + log_a[:, None] + log_b)
        assert found[0, j] == pytest.approx(exact, abs=5e-3)


def test_means_that_a_family_cannot_have_count_nothing(table):
    design = Model("count ~ 1 + (1 | g)", table, family="poisson(identity)").design
    at = {
        "beta": np.array([[1.5]]),
        "sd_g": np.array([[0.6]]),
        "b_g": np.zeros((1, 6, 1)),
    }
    found = integrate_groups(design, at, "g")
    for j in range(6):
        y = design.y[table["g"] == j]
        exact, _ = integrate.quad(
            lambda b, y=y: stats.poisson.pmf(y, 1.5 + b).prod() * stats.norm.pdf(b, 0, 0.6),
            -1.5,
            5,
            epsabs=0,
        )
        assert found[0, j] == pytest.approx(np.log(exact), abs=0.01)


def test_leave_one_out_of_the_eight_schools(eight):
    found = hmlm.leave_one_out(eight)
    # Vehtari, Gelman & Gabry (2017) and every package since: about -30.8
    assert found.elpd == pytest.approx(-30.8, abs=0.5)
    assert 0.3 < found.p < 2.5
    assert len(found.pointwise) == 8
    assert "elpd" in str(found)


@pytest.fixture(scope="module")
def eight():
    model = Model("y ~ 1 + (1 | school)", hmlm.load_dataset("eight_schools"), se="sigma")
    return model.fit(random_seed=1, progressbar=False)


def test_a_group_left_out_by_weights_and_in_earnest(eight):
    weighted = hmlm.leave_one_group_out(eight, exact=False)
    folds = hmlm.k_fold(eight, k=8, random_seed=1)
    low = weighted.pareto_k < 0.7
    assert low.sum() >= 7
    np.testing.assert_allclose(weighted.pointwise[low], folds.pointwise[low], atol=0.15)
    # Where each group is one row, a new group is harder to predict than a known one.
    assert weighted.elpd < hmlm.leave_one_out(eight).elpd + 0.2


def test_groups_with_high_k_are_fitted_anew(table, monkeypatch):
    from hmlm import cross_validation

    fit = Model("y ~ x + (1 | g)", table).fit(
        NUTS(draws=400, tune=400, chains=2), random_seed=1, progressbar=False
    )
    monkeypatch.setattr(cross_validation, "HIGH_K", -10.0)
    exact = hmlm.leave_one_group_out(fit)
    assert exact.refitted == tuple(map(str, range(6)))
    assert np.isnan(exact.pareto_k).all()
    monkeypatch.setattr(cross_validation, "HIGH_K", 0.7)
    weighted = hmlm.leave_one_group_out(fit, exact=False)
    np.testing.assert_allclose(exact.pointwise, weighted.pointwise, atol=0.4)
    assert "Fitted anew without 6 groups" in str(exact)


def test_folds_of_rows_of_a_classical_fit(table):
    fit = Model("yes ~ x + (1 | g)", table, family="bernoulli").fit(hmlm.Laplace())
    found = hmlm.k_fold(fit, k=4, by="row", random_seed=2)
    assert len(found.pointwise) == 72
    assert -60 < found.elpd < -35
    assert np.isnan(found.p)


def test_effects_of_lost_levels_come_from_the_population(table):
    fit = Model("y ~ x + (1 | g)", table).fit(hmlm.REML())
    again = refit_rows(fit, table["g"].to_numpy() != 2)
    posterior = {k: np.asarray(v)[None] for k, v in again.estimates.items()}
    whole = known_effects(fit.design, again.design, posterior)
    assert whole["b_g"].shape == (1, 6, 1)
    kept = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(whole["b_g"][0, kept], again.estimates["b_g"])


def test_columns_that_depend_on_the_rows_are_made_as_in_the_fit(table):
    """A scaled column has another mean without a group, and the prediction is the same."""
    plain = hmlm.k_fold(Model("y ~ x + (x | g)", table).fit(hmlm.ML()), k=3, random_seed=1)
    model = Model("y ~ scale(x) + (1 + x | g)", table)
    scaled = hmlm.k_fold(model.fit(hmlm.ML()), k=3, random_seed=1)
    np.testing.assert_allclose(scaled.pointwise, plain.pointwise, rtol=1e-4)
    fit = model.fit(hmlm.ML())
    again = refit_rows(fit, table["x"].to_numpy() < 0.5)
    whole = whole_design(fit.design, again.design)
    kept = table["x"].to_numpy() < 0.5
    np.testing.assert_allclose(whole.X[kept], again.design.X)
    assert not np.allclose(whole.X, fit.design.X)


def test_folds_that_cannot_be_left_out(table):
    odd = table.assign(f=np.where(table["g"] == 0, "only here", "elsewhere"))
    fit = Model("y ~ f + (1 | g)", odd).fit(hmlm.REML())
    with pytest.raises(HmlmError, match=r"fold \d of 6 cannot be left out: .* use more folds"):
        hmlm.k_fold(fit, k=6, random_seed=1)
    fit = Model("scale(y) ~ x + (1 | g)", table).fit(hmlm.REML())
    with pytest.raises(HmlmError, match="make the column before fitting"):
        hmlm.k_fold(fit, k=6, random_seed=1)
    rare = table.assign(score=np.where(table["g"] == 0, "high", np.where(table["x"] > 0, "a", "b")))
    rare["score"] = pd.Categorical(rare["score"], ["a", "b", "high"], ordered=True)
    design = Model("score ~ x + (1 | g)", rare, family="ordinal").design
    with pytest.raises(HmlmError, match="the outcome is never high"):
        refit_design(design, NUTS(), rare["g"].to_numpy() != 0, 1)


def test_folds_run_elsewhere(table):
    fit = Model("y ~ x + (1 | g)", table).fit(hmlm.REML())
    here = hmlm.k_fold(fit, k=3, random_seed=3)
    with ThreadPoolExecutor(2) as pool:
        there = hmlm.k_fold(fit, k=3, random_seed=3, executor=pool)
    np.testing.assert_array_equal(here.pointwise, there.pointwise)
    task = (fit.design, fit.method, table["g"].to_numpy() != 1, "fold 1 of 6", "g", 1)
    sent = pickle.loads(pickle.dumps(task))
    np.testing.assert_array_equal(folds._predict_fold(sent), folds._predict_fold(task))


def test_a_row_of_a_lost_group_is_predicted_from_the_population():
    """Each school has one row, so that rows left out are groups left out."""
    schools = hmlm.load_dataset("eight_schools")
    fit = Model("y ~ 1 + (1 | school)", schools, se="sigma").fit(hmlm.ML())
    by_row = hmlm.k_fold(fit, k=8, by="row", random_seed=1)
    by_group = hmlm.k_fold(fit, k=8, random_seed=1)
    np.testing.assert_allclose(by_row.pointwise, by_group.pointwise, atol=0.05)
    few = pd.DataFrame({"y": np.sin(np.arange(9.0)), "x": np.arange(9), "g": list("aaaabbbbc")})
    alone = Model("y ~ x + (1 | g)", few)
    with pytest.raises(HmlmError, match="without pooling nothing is known"):
        hmlm.k_fold(alone.with_pooling("none").fit(hmlm.OLS()), k=9, by="row")


def test_rows_with_high_k_are_fitted_anew():
    model = Model(
        "p(incidence, size) ~ period + (1 | herd)", hmlm.load_dataset("cbpp"), family="binomial"
    )
    fit = model.fit(NUTS(draws=500, tune=500), random_seed=1, progressbar=False)
    weighted = hmlm.leave_one_out(fit)
    assert weighted.high_k > 0
    assert "fit the model anew without these rows" in str(weighted)
    exact = hmlm.leave_one_out(fit, exact=True)
    assert len(exact.refitted) == weighted.high_k
    assert exact.high_k == 0
    assert exact.table["refitted"].sum() == weighted.high_k
    assert exact.elpd == pytest.approx(weighted.elpd, abs=2)
    assert exact.p == pytest.approx(weighted.p + weighted.elpd - exact.elpd)


def test_what_is_given_is_said(table):
    fit = Model("y ~ x + (1 | g) + (1 | h)", table).fit(
        NUTS(draws=200, tune=300, chains=2), random_seed=1, progressbar=False
    )
    assert "effects of h counts as known" in str(hmlm.leave_one_group_out(fit, exact=False))
    with pytest.raises(HmlmError, match="no grouping factor of the mean"):
        hmlm.leave_one_group_out(fit, "gg")


def test_results_go_to_arviz(eight):
    from arviz_stats.loo import compare

    found = hmlm.leave_one_out(eight)
    theirs = found.to_arviz()
    assert theirs.elpd == found.elpd
    assert len(compare({"a": theirs, "b": theirs})) == 2
    assert hmlm.k_fold(eight, k=2, random_seed=1).to_arviz().kind is None


def test_weights_of_the_best_mixture():
    rng = np.random.default_rng(1)
    y = rng.normal(size=200) + 3 * (rng.random(200) < 0.3)

    def predicted(density):
        return CrossValidation(
            kind="leave one out",
            label="",
            units=tuple(map(str, range(200))),
            pointwise=density - 900.0,  # too small for their exponentials
            pareto_k=np.zeros(200),
            p=1.0,
            n_draws=100,
        )

    parts = [predicted(stats.norm.logpdf(y, m, 1.0)) for m in (0.0, 3.0, -4.0)]
    np.testing.assert_allclose(stack_weights(parts), [0.7, 0.3, 0.0], atol=0.07)


def test_fits_that_cannot_be_left_out(table):
    other = Model("y ~ x + (1 | g)", table).fit(hmlm.ML())
    with pytest.raises(HmlmError, match="has no draws to weigh"):
        hmlm.leave_one_out(other)
    with pytest.raises(HmlmError, match="k lies between 2 and 6"):
        hmlm.k_fold(other, k=7)
    with pytest.raises(HmlmError, match="by is 'group' or 'row'"):
        hmlm.k_fold(other, by="column")
    pooled = Model("y ~ x + (1 | g)", table).with_pooling("complete").fit(hmlm.OLS())
    with pytest.raises(HmlmError, match="partial pooling"):
        hmlm.k_fold(pooled)


@pytest.mark.parametrize(
    ("family", "scale"), [("gamma(inverse)", 1 / 50), ("gamma", 1.0), ("gamma(identity)", 10.0)]
)
def test_steps_of_differences_follow_the_scale_of_the_predictor(family, scale):
    frame = {"y": [40.0, 60.0] * 6, "g": list("aabbcc") * 2}
    design = hmlm.Model("y ~ 1 + (1 | g)", frame, family).design
    assert _steps(design) == pytest.approx([STEP * scale])
