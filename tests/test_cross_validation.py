"""Leaving rows, groups and folds out, and the table that ranks fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import hmlm
from hmlm import NUTS, Model
from hmlm.errors import HmlmError
from hmlm.group_likelihood import integrate_groups
from hmlm.held_out import known_effects, refit_rows
from hmlm.information import conditional_aic, corrected_aic, effective_parameters


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


def test_several_effects_by_quadrature_and_by_draws_agree(table):
    """Two effects by a grid of nodes; the same with a nested factor of no variance by draws."""
    small = Model("yes ~ x + (x | g)", table, family="bernoulli").design
    large = Model("yes ~ x + (x | g) + (1 | c)", table, family="bernoulli").design
    at = draws_at(small, np.random.default_rng(3), S=2)
    more = {**at, "sd_c": np.full((2, 1), 1e-9), "b_c": np.zeros((2, 18, 1))}
    a, b = integrate_groups(small, at, "g"), integrate_groups(large, more, "g")
    np.testing.assert_allclose(a, b, atol=0.1)


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


def test_effective_parameters_are_the_trace_of_the_hat_matrix():
    sleep = hmlm.load_dataset("sleepstudy")
    fit = Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    design, block = fit.design, fit.design.blocks[0]
    sd = fit.estimates["sd_Subject"]
    D = np.outer(sd, sd) * fit.estimates["cor_Subject"]
    sigma2 = float(fit.estimates["sigma"]) ** 2
    Z = np.zeros((180, 18, 2))
    Z[np.arange(180), block.index] = block.Z
    M = np.column_stack([design.X, Z.reshape(180, 36)])
    P = np.zeros((38, 38))
    P[2:, 2:] = np.kron(np.eye(18), sigma2 * np.linalg.inv(D))
    trace = np.trace(np.linalg.solve(M.T @ M + P, M.T @ M))
    assert effective_parameters(fit) == pytest.approx(trace, rel=1e-6)
    resid = design.y - fit.fitted
    plain = -2 * stats.norm.logpdf(resid, 0, np.sqrt(sigma2)).sum() + 2 * (trace + 1)
    assert conditional_aic(fit) == pytest.approx(plain, rel=1e-9)
    assert corrected_aic(fit) > fit.aic


def test_effective_parameters_lie_between_the_poolings(table):
    model = Model("y ~ x + (1 | g)", table)
    least = effective_parameters(model.with_pooling("complete").fit(hmlm.OLS()))
    most = effective_parameters(model.with_pooling("none").fit(hmlm.OLS()))
    assert least == 2
    assert most == 7
    assert least < effective_parameters(model.fit(hmlm.REML())) < most


def test_fits_are_ranked_in_one_table():
    radon = hmlm.load_dataset("radon")
    formulas = (
        "log_radon ~ floor + (1 | county)",
        "log_radon ~ floor + log_uranium + (1 | county)",
    )
    quick = NUTS(draws=500, tune=500)
    bayes = [Model(f, radon).fit(quick, random_seed=1, progressbar=False) for f in formulas]
    classical = [Model(f, radon).fit(hmlm.ML()) for f in formulas]
    ranked = hmlm.rank_fits(*bayes, *classical)
    assert len(ranked) == 4
    assert ranked["formula"].iloc[0] == formulas[1]
    # Uranium is of the county: it helps to predict a county that was not seen.
    logo = ranked.dropna(subset=["elpd_logo"]).set_index("formula")["elpd_logo"]
    assert logo[formulas[1]] > logo[formulas[0]] + 5
    assert ranked["difference"].iloc[0] == 0
    assert ranked["weight"].sum() == pytest.approx(1)
    p = ranked["lrt_p"].dropna()
    assert len(p) == 1
    assert p.iloc[0] < 1e-6


def test_what_does_not_compare(table, eight):
    other = Model("y ~ x + (1 | g)", table).fit(hmlm.ML())
    with pytest.raises(HmlmError, match="different outcomes or rows"):
        hmlm.rank_fits(eight, other)
    with pytest.raises(HmlmError, match="two fits or more"):
        hmlm.rank_fits(eight)
    with pytest.raises(HmlmError, match="has no draws to weigh"):
        hmlm.leave_one_out(other)
    with pytest.raises(HmlmError, match="k lies between 2 and 6"):
        hmlm.k_fold(other, k=7)
    pooled = Model("y ~ x + (1 | g)", table).with_pooling("complete").fit(hmlm.OLS())
    with pytest.raises(HmlmError, match="partial pooling"):
        hmlm.k_fold(pooled)
