"""Checks are fine where the model holds, and name the remedy where something else was planted."""

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm.check_statistics import Discrepancy, bin_counts, count_bins, numeric_predictors
from hmlm.checks import COLUMNS, check_fit, verdict_of
from hmlm.errors import HmlmError
from hmlm.group_statistics import group_averages

METHODS = {"gaussian": hmlm.REML(), "bernoulli": hmlm.Laplace(), "poisson": hmlm.Laplace()}
J, SIZE = 30, 12


def logistic(eta):
    return 1 / (1 + np.exp(-eta))


def simulate(seed, effect=0.7):
    """Return rng, group of every row, table and linear predictor."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(J), SIZE)
    x, w = rng.normal(size=J * SIZE), rng.normal(size=J)[g]
    eta = 0.6 + 0.5 * x + 0.4 * w + rng.normal(0, effect, J)[g]
    return rng, g, pd.DataFrame({"g": [f"g{k:02d}" for k in g], "x": x, "w": w}), eta


def checked(data, family="gaussian", outcome="y", formula="x + w + (1 | g)", seed=1):
    fit = hmlm.Model(f"{outcome} ~ {formula}", data, family).fit(
        METHODS.get(family, hmlm.Laplace())
    )
    return check_fit(fit, random_seed=seed)


def row(checks, check, group="", term=""):
    t = checks.table
    found = t[(t["check"] == check) & (t["group"] == group) & (t["term"] == term)]
    assert len(found) == 1, f"{check}: {len(found)} rows"
    return found.iloc[0]


# --- data from the model


def outcome_of(family, rng, eta):
    if family == "gaussian":
        return eta + 0.8 * rng.normal(size=len(eta))
    if family == "poisson":
        return rng.poisson(np.exp(eta))
    if family == "bernoulli":
        return (rng.random(len(eta)) < logistic(eta)).astype(int)
    return rng.poisson(np.exp(eta) * rng.gamma(1.5, size=len(eta)) / 1.5)


@pytest.mark.parametrize("family", ["gaussian", "poisson", "bernoulli", "negative-binomial"])
def test_nearly_all_checks_are_fine_where_the_model_holds(family):
    verdicts = []
    for seed in range(6):
        rng, _, data, eta = simulate(seed)
        data["y"] = outcome_of(family, rng, eta)
        verdicts += checked(data, family, seed=seed).table["verdict"].tolist()
    assert len(verdicts) > 50
    assert np.mean([v == "fine" for v in verdicts]) > 0.93
    assert verdicts.count("misfit") <= 1


def test_all_is_fine_for_a_posterior_too():
    rng, _, data, eta = simulate(5)
    data["y"] = outcome_of("gaussian", rng, eta)
    model = hmlm.Model("y ~ x + w + (x | g)", data)
    fit = model.fit(hmlm.NUTS(draws=500, chains=4), random_seed=1, progressbar=False)
    checks = check_fit(fit, random_seed=1)
    first = checks.table.iloc[0]
    assert first["check"] == "sampler (largest R-hat)"
    assert first["observed"] == pytest.approx(fit.status.numbers["max_r_hat"])
    assert (checks.table["verdict"] != "misfit").all()
    assert (checks.table["verdict"] == "fine").mean() > 0.8


# --- planted misfits


@pytest.mark.parametrize("seed", [1, 2])
def test_overdispersed_counts_ask_for_a_negative_binomial(seed):
    rng, _, data, eta = simulate(seed)
    data["y"] = rng.poisson(np.exp(eta) * rng.gamma(2, size=len(eta)) / 2)
    found = row(checked(data, "poisson"), "dispersion")
    assert found["verdict"] == "misfit"
    assert found["observed"] > found["upper"] > 1
    assert "family='negative-binomial'" in found["next_step"]
    assert row(checked(data, "negative-binomial"), "dispersion")["verdict"] == "fine"


@pytest.mark.parametrize("seed", [1, 2])
def test_extra_zeros_ask_for_zero_inflation(seed):
    rng, _, data, eta = simulate(seed)
    data["y"] = rng.poisson(np.exp(eta + 0.7)) * (rng.random(len(eta)) > 0.25)
    checks = checked(data, "poisson")
    for check in ("share of zeros", "dispersion"):
        found = row(checks, check)
        assert found["verdict"] == "misfit"
        assert "family='zero-inflated-poisson'" in found["next_step"]
        assert "family='negative-binomial'" not in found["next_step"]


@pytest.mark.parametrize("seed", [1, 2])
def test_overdispersed_shares_ask_for_a_beta_binomial(seed):
    rng, _, data, eta = simulate(seed)
    p = logistic(eta)
    data["n"] = 10
    data["y"] = rng.binomial(10, rng.beta(p * 4, (1 - p) * 4))
    found = row(checked(data, "binomial", "p(y, n)"), "dispersion")
    assert found["verdict"] == "misfit"
    assert "family='beta-binomial'" in found["next_step"]


@pytest.mark.parametrize("seed", [1, 2])
def test_heavy_tails_ask_for_student_t(seed):
    rng, _, data, eta = simulate(seed)
    data["y"] = eta + 0.5 * rng.standard_t(3, size=len(eta))
    found = row(checked(data), "tails of residuals")
    assert found["verdict"] == "misfit"
    assert found["observed"] > found["upper"] > 3
    assert "family='student-t'" in found["next_step"]


@pytest.mark.parametrize("seed", [1, 2])
def test_groups_of_unequal_spread_ask_for_sigma_by_group(seed):
    rng, g, data, eta = simulate(seed)
    data["y"] = eta + 0.5 * np.exp(rng.normal(0, 0.6, J))[g] * rng.normal(size=len(g))
    found = row(checked(data), "spread of group sds", "g")
    assert found["verdict"] == "misfit"
    assert '"...; sigma ~ 1 + (1 | g)"' in found["next_step"]


def test_sigma_by_group_mends_unequal_spread():
    rng, g, data, eta = simulate(1)
    data["y"] = eta + 0.5 * np.exp(rng.normal(0, 0.6, J))[g] * rng.normal(size=len(g))
    model = hmlm.Model("y ~ x + w + (1 | g); sigma ~ 1 + (1 | g)", data)
    fit = model.fit(hmlm.NUTS(draws=300, chains=2), random_seed=1, progressbar=False)
    checks = check_fit(fit, random_seed=1)
    assert row(checks, "spread of group sds", "g")["verdict"] == "fine"
    assert row(checks, "largest group effect", "g", "sigma_Intercept")["verdict"] == "fine"


@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_a_curve_asks_for_a_square(family):
    rng, _, data, eta = simulate(1)
    data["y"] = outcome_of(family, rng, eta - 0.8 + 0.8 * data["x"] ** 2)
    found = row(checked(data, family), "linearity", term="x")
    assert found["verdict"] == "misfit"
    assert "add I(x**2)" in found["next_step"]
    mended = checked(data, family, formula="x + I(x**2) + w + (1 | g)")
    assert row(mended, "linearity", term="x")["verdict"] == "fine"


def test_a_curve_between_groups_is_seen_in_their_effects():
    rng, _, data, eta = simulate(1)
    data["y"] = outcome_of("gaussian", rng, eta + 0.8 * data["w"] ** 2)
    found = row(checked(data), "linearity", "g", "w")
    assert found["verdict"] == "misfit"
    assert "effects of 'g' bend upwards along 'w': add I(w**2)" in found["next_step"]


@pytest.mark.parametrize("seed", [1, 2])
def test_an_outlying_group_is_named(seed):
    rng, g, data, eta = simulate(seed)
    data["y"] = eta + 5.0 * (g == 7) + 0.5 * rng.normal(size=len(g))
    checks = checked(data)
    assert row(checks, "shape of group effects", "g", "Intercept")["verdict"] == "misfit"
    found = row(checks, "largest group effect", "g", "Intercept")
    assert found["verdict"] != "fine"
    assert "the most extreme of 'g' are 'g07' and" in found["next_step"]
    assert "plot_groups(fit, levels=['g07'," in found["next_step"]


def test_rows_that_follow_each_other_ask_for_time():
    rng, _, data, eta = simulate(1)
    u = rng.normal(size=(J, SIZE))
    for t in range(1, SIZE):
        u[:, t] = 0.6 * u[:, t - 1] + 0.8 * u[:, t]
    data["y"] = eta + 0.7 * u.ravel()
    found = row(checked(data), "order within groups", "g")
    assert found["verdict"] == "misfit"
    assert "a slope of time, as (time | g)" in found["next_step"]


def test_skewed_positive_outcomes_ask_for_lognormal():
    rng, _, data, eta = simulate(1)
    data["y"] = np.exp(eta + 0.6 * rng.normal(size=len(eta)))
    checks = checked(data)
    for check in ("minimum", "skewness of residuals", "tails of residuals"):
        assert row(checks, check)["verdict"] == "misfit"
        assert "family='lognormal'" in row(checks, check)["next_step"]


def test_groups_left_out_ask_for_partial_pooling():
    rng, _, data, eta = simulate(1)
    data["y"] = outcome_of("gaussian", rng, eta)
    fit = hmlm.Model("y ~ x + (1 | g)", data).with_pooling("complete").fit(hmlm.OLS())
    found = row(check_fit(fit, random_seed=1), "sd of group means", "g")
    assert found["verdict"] == "misfit"
    assert '.with_pooling("partial")' in found["next_step"]


def test_wrong_probabilities_ask_for_another_curve():
    rng, _, data, _ = simulate(1, effect=0.0)
    data = pd.concat([data] * 4, ignore_index=True)
    x = data["x"] = rng.normal(size=len(data))
    data["y"] = (rng.random(len(data)) < np.where(np.abs(x) > 1, 0.9, 0.2)).astype(int)
    found = row(checked(data, "bernoulli", formula="x + I(x**2) + (1 | g)"), "calibration error")
    assert found["verdict"] in ("look", "misfit")
    assert "plot_calibration" in found["next_step"]


# --- the table and its text


def test_table_and_text(sleepstudy_reml):
    checks = check_fit(sleepstudy_reml, random_seed=1)
    table = checks.table
    assert list(table.columns) == COLUMNS
    assert table.iloc[0]["check"] == "convergence"
    assert set(table["verdict"]) <= {"fine", "look", "misfit"}
    assert ((table["next_step"] == "") == (table["verdict"] == "fine")).all()
    numbers = table.iloc[1:]
    assert numbers[["observed", "lower", "upper", "p"]].notna().all().all()
    assert (numbers["lower"] <= numbers["upper"]).all()
    assert numbers["p"].between(0, 1).all()
    again = check_fit(sleepstudy_reml, random_seed=1).table
    pd.testing.assert_frame_equal(table, again)
    text = str(checks)
    assert "replicated 95%" in text
    assert f"{len(checks.found)} checks to look at:" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "<table>" in checks._repr_html_()
    assert checks.found["verdict"].tolist() == sorted(checks.found["verdict"], reverse=True)


def test_a_fit_that_did_not_converge_comes_first():
    rng, _, data, eta = simulate(1)
    data["y"] = outcome_of("gaussian", rng, eta)
    fit = hmlm.Model("y ~ x + (1 | g)", data).fit(
        hmlm.NUTS(draws=60, chains=2), random_seed=1, progressbar=False
    )
    first = check_fit(fit, random_seed=1).table.iloc[0]
    assert first["verdict"] in ("look", "misfit")
    assert "Raise draws" in first["next_step"]


def test_tail_areas_and_verdicts():
    replicated = np.arange(100.0)

    def p(observed, side="both"):
        d = Discrepancy(
            name="",
            group="",
            term="",
            observed=np.full(100, observed),
            replicated=replicated,
            side=side,
        )
        return d.p

    assert p(50.0) == 1.0
    assert p(99.0) == pytest.approx(0.02)
    assert p(-1.0) == 0.0
    assert p(-1.0, "above") == 1.0
    assert p(0.0, "below") == pytest.approx(0.01)
    ties = Discrepancy(name="", group="", term="", observed=np.zeros(9), replicated=np.zeros(9))
    assert ties.p == 1.0
    assert [verdict_of(v) for v in (0.05, 0.049, 0.01, 0.009)] == ["fine", "look", "look", "misfit"]


def test_bins_of_counts():
    y = np.array([[0, 1, 1, 3, 9]])
    assert bin_counts(y, 1, 4).tolist() == [[1, 2, 0, 1, 1]]
    assert bin_counts(np.repeat(y, 2, axis=0), 2, 2).tolist() == [[3, 1, 1]] * 2
    assert count_bins(np.arange(10.0)) == (1, 9)
    width, last = count_bins(np.arange(1000.0))
    assert width == 25
    assert last * width <= 1000


def test_group_averages_of_trials_pool_them():
    data = hmlm.load_dataset("cbpp")
    design = hmlm.Model("p(incidence, size) ~ 1 + (1 | herd)", data, "binomial").design
    sums = data.groupby("herd", observed=True)[["incidence", "size"]].sum()
    expected = (sums["incidence"] / sums["size"]).to_numpy()
    assert np.allclose(group_averages(design, "herd", design.y[None])[0], expected)


def test_numeric_predictors_and_where_they_vary(radon):
    model = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", radon)
    (found,) = numeric_predictors(model.design)
    assert found.name == "log_uranium"
    assert found.block is not None
    assert len(found.curve) == len(model.design.blocks[0].levels)
    assert found.curve.sum() == pytest.approx(0, abs=1e-9)
    complete = numeric_predictors(model.with_pooling("complete").design)
    assert [p.block for p in complete] == [None]


@pytest.mark.parametrize("pooling", ["none", "complete"])
def test_other_poolings_are_checked(sleepstudy, pooling):
    fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy).with_pooling(pooling)
    table = check_fit(fit.fit(hmlm.OLS()), random_seed=1).table
    assert "largest group effect" not in set(table["check"])
    assert ("sd of group means" in set(table["check"])) == (pooling == "complete")


def test_nested_groups_and_no_predictor():
    pastes = hmlm.load_dataset("pastes")
    fit = hmlm.Model("strength ~ 1 + (1 | batch/cask)", pastes).fit(hmlm.REML())
    table = check_fit(fit, random_seed=1).table
    assert set(table["group"]) >= {"batch", "batch:cask"}
    assert (table["verdict"] == "fine").mean() > 0.8


def test_singular_effects_are_left_out(dyestuff2_reml):
    table = check_fit(dyestuff2_reml, random_seed=1).table
    assert "largest group effect" not in set(table["check"])


def test_too_few_replicates(sleepstudy_reml):
    with pytest.raises(HmlmError, match="50 replicates cannot show a tail: draw 100 or more"):
        check_fit(sleepstudy_reml, draws=50)
