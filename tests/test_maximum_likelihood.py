"""ML and REML against R's numbers, published optima, dense densities and simulated truth."""

import numpy as np
import pandas as pd
import pytest
from support import (
    dense_log_likelihood,
    effect_covariance,
    make,
    our_modes,
    outcome_covariance,
    recorded,
    recorded_fixed,
    recorded_modes,
    recorded_spread,
    simulate,
)

from hmlm.datasets import load_dataset
from hmlm.errors import HmlmError
from hmlm.fitting.maximum_likelihood import ML, REML

# R stops 3.8e-7 short of the top of the radon likelihood: there the estimates differ by up to three
# times the tolerance, and a test of its own shows that our likelihood is the higher one.
SHORT = {"radon_reml": 3.0}


def beside(what, differences):
    """Return the figures of what was compared with R."""
    largest = float(np.max(differences, initial=0.0))
    return {"what": what, "numbers": np.size(differences), "largest difference": largest}


def test_log_likelihood_is_at_least_that_of_r(beside_r, record_property):
    name, fit, record = beside_r
    assert fit.log_likelihood >= record["logLik"] - 1e-6
    assert fit.status.converged, name
    above = record["logLik"] - fit.log_likelihood
    record_property("trust", beside("log-likelihoods, R's above ours", above))


def test_where_r_stops_short_our_likelihood_is_the_higher(radon_reml):
    record = recorded("radon_reml")
    sds, correlations = recorded_spread(record)
    r = correlations["county", "Intercept", "floor"]
    theirs = {
        "sd_county": np.array([sds["county", "Intercept"], sds["county", "floor"]]),
        "cor_county": np.array([[1.0, r], [r, 1.0]]),
        "sigma": record["sigma"],
    }
    at_theirs = dense_log_likelihood(radon_reml.design, theirs, reml=True)
    assert at_theirs == pytest.approx(record["logLik"], abs=1e-8)
    at_ours = dense_log_likelihood(radon_reml.design, radon_reml.estimates, reml=True)
    assert 3e-7 < at_ours - at_theirs < 5e-7


def test_fixed_effects_and_standard_errors_are_those_of_r(beside_r, record_property):
    name, fit, record = beside_r
    theirs = recorded_fixed(record).loc[list(fit.design.terms)]
    tolerance = 1e-4 * SHORT.get(name, 1.0)
    assert len(theirs) == len(record["fixed"]["term"])
    error = theirs["std_error"].to_numpy()
    off = abs(fit.estimates["beta"] - theirs["estimate"].to_numpy()) / error
    assert off.max() < tolerance
    record_property("trust", beside("coefficients, in standard errors", off))
    off = abs(fit.std_errors["beta"] / error - 1)
    assert off.max() < tolerance
    record_property("trust", beside("standard errors, relative", off))


def test_sds_and_correlations_are_those_of_r(beside_r, record_property):
    name, fit, record = beside_r
    tolerance = 1e-4 * SHORT.get(name, 1.0)
    if "nlme" in record["engine"]:  # sds to seven digits, the residual last
        ours = [*fit.estimates["sd_id"], float(fit.estimates["sigma"])]
        assert ours == pytest.approx(record["sd"], rel=tolerance)
        off = abs(np.array(ours) - record["sd"]) / record["sd"][-1]
        record_property("trust", beside("sds, in residual sds", off))
        return
    sds, correlations = recorded_spread(record)
    off = [abs(fit.estimates["sigma"] - record["sigma"])]
    for block in fit.design.blocks:
        ours = dict(zip(block.columns, fit.estimates[f"sd_{block.group}"], strict=True))
        theirs = {term: sd for (group, term), sd in sds.items() if group == block.group}
        assert ours == pytest.approx(theirs, rel=tolerance, abs=1e-7)
        off += [abs(ours[term] - sd) for term, sd in theirs.items()]
    record_property("trust", beside("sds, in residual sds", np.array(off) / record["sigma"]))
    off = []
    for (group, first, second), value in correlations.items():
        block = next(b for b in fit.design.blocks if b.group == group)
        i, j = block.columns.index(first), block.columns.index(second)
        assert fit.estimates[f"cor_{group}"][i, j] == pytest.approx(value, abs=tolerance)
        off.append(abs(fit.estimates[f"cor_{group}"][i, j] - value))
    record_property("trust", beside("correlations", off))
    assert float(fit.estimates["sigma"]) == pytest.approx(record["sigma"], rel=tolerance)


def test_conditional_modes_are_those_of_r(beside_r, record_property):
    _, fit, record = beside_r
    for block in fit.design.blocks:
        ours, theirs = our_modes(fit, block.group), recorded_modes(record, block.group)
        sd = np.sqrt(np.diagonal(fit.effects[block.group].covariance, axis1=1, axis2=2))
        assert sorted(ours.index) == sorted(theirs.index)
        difference = (ours - theirs.loc[ours.index, ours.columns]).abs().to_numpy()
        off = difference / (sd + 1e-6)  # of an sd that is nothing
        assert off.max() < 1e-3
        record_property("trust", beside("conditional modes, in conditional sds", off))


def test_alcohol_prints_what_nlme_prints(alcohol_reml):
    record = recorded("alcohol_reml")
    assert round(alcohol_reml.aic, 4) == 619.7211 == round(record["AIC"], 4)
    assert round(alcohol_reml.bic, 4) == 647.6326 == round(record["BIC"], 4)
    assert round(alcohol_reml.log_likelihood, 4) == -301.8606
    # nlme prints 0.5119871, 0.3938927 and 0.5807686: it stops a little short of the optimum.
    assert alcohol_reml.log_likelihood > record["logLik"]
    np.testing.assert_allclose(
        alcohol_reml.estimates["sd_id"], [0.51198700, 0.39389249], rtol=0, atol=1e-7
    )
    assert float(alcohol_reml.estimates["sigma"]) == pytest.approx(0.58076866, abs=1e-7)
    np.testing.assert_allclose(alcohol_reml.estimates["sd_id"], record["sd"][:2], rtol=1e-6)
    assert round(alcohol_reml.estimates["cor_id"][0, 1], 3) == -0.075
    numbers = alcohol_reml.describe("beta", 0.95)
    assert list(numbers.df) == record["fixed"]["DF"] == [163, 79, 79, 163]
    np.testing.assert_allclose(numbers.statistic, record["fixed"]["t-value"], rtol=1e-5)
    np.testing.assert_allclose(numbers.p_value, record["fixed"]["p-value"], rtol=1e-4)
    np.testing.assert_allclose(numbers.lower, record["intervals_fixed"]["lower"], atol=1e-5)
    np.testing.assert_allclose(numbers.upper, record["intervals_fixed"]["upper"], atol=1e-5)
    np.testing.assert_allclose(alcohol_reml.correlation, record["corFixed"], atol=1e-5)
    quantiles = np.quantile(alcohol_reml.standardized_residuals, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quantiles, record["standardized_residual_quantiles"], atol=1e-5)
    assert (len(alcohol_reml.design.y), len(alcohol_reml.design.blocks[0].levels)) == (246, 82)


def test_alcohol_by_ml_is_that_of_nlme():
    record = recorded("alcohol_ml")
    alcohol = load_dataset("alcohol")
    fit = ML().run(make("alcuse ~ coa + peer + time + (time | id)", alcohol))
    assert fit.aic == pytest.approx(record["AIC"], abs=1e-5)
    assert fit.bic == pytest.approx(record["BIC"], abs=1e-5)
    np.testing.assert_allclose(fit.estimates["sd_id"], record["sd"][:2], rtol=1e-4)
    # lme4 leaves out the factor sqrt(N / (N - p)) that nlme multiplies with.
    theirs = np.array(record["fixed"]["Std.Error"]) / np.sqrt(246 / (246 - 4))
    np.testing.assert_allclose(fit.std_errors["beta"], theirs, rtol=1e-4)


def test_published_optima():
    batches = ML().run(make("Yield ~ 1 + (1 | Batch)", load_dataset("dyestuff")))
    assert -2 * batches.log_likelihood == pytest.approx(327.3270598811, abs=1e-7)
    sleep = load_dataset("sleepstudy")
    lines = ML().run(make("Reaction ~ Days + (Days || Subject)", sleep))
    assert -2 * lines.log_likelihood == pytest.approx(1752.0032551410, abs=1e-7)


def test_maximum_is_the_dense_normal_density(beside_r, record_property):
    _, fit, _ = beside_r
    reml = isinstance(fit.method, REML)
    dense = dense_log_likelihood(fit.design, fit.estimates, reml)
    assert fit.log_likelihood == pytest.approx(dense, rel=1e-10)
    assert fit.criterion == -2 * fit.log_likelihood
    off = abs(fit.log_likelihood / dense - 1)
    record_property("trust", beside("log-likelihoods beside dense ones, relative", off))


def test_coefficients_modes_and_covariances_are_the_dense_ones(beside_r):
    name, fit, _ = beside_r
    design = fit.design
    inverse = np.linalg.inv(outcome_covariance(design, fit.estimates))
    X, y = design.X, design.response
    vcov = np.linalg.inv(X.T @ inverse @ X)
    beta = vcov @ X.T @ inverse @ y
    if name == "alcohol_ml":
        vcov *= len(y) / (len(y) - X.shape[1])
    np.testing.assert_allclose(fit.estimates["beta"], beta, rtol=1e-8)
    np.testing.assert_allclose(fit.vcov, vcov, rtol=1e-7, atol=1e-12)
    for block in design.blocks:
        D = effect_covariance(fit.estimates, block.group)
        effects = fit.effects[block.group]
        for j in range(0, len(block.levels), 7):
            Z = block.Z * (block.index == j)[:, None]
            shrink = D @ Z.T @ inverse
            np.testing.assert_allclose(effects.modes[j], shrink @ (y - X @ beta), atol=1e-8)
            np.testing.assert_allclose(effects.covariance[j], D - shrink @ Z @ D, atol=1e-8)
            np.testing.assert_allclose(effects.gain[j], shrink @ X, atol=1e-8)


@pytest.mark.parametrize("method", [ML(), REML()], ids=str)
@pytest.mark.parametrize("step", [1.02, 0.98])
def test_no_neighbour_of_the_optimum_is_higher(sleepstudy, method, step):
    fit = method.run(make("Reaction ~ Days + (Days | Subject)", sleepstudy))
    for name in ("sd_Subject", "cor_Subject", "sigma"):
        moved = dict(fit.estimates)
        value = np.array(moved[name]) * step
        if name == "cor_Subject":
            np.fill_diagonal(value, 1.0)
        moved[name] = value
        reml = isinstance(method, REML)
        assert dense_log_likelihood(fit.design, moved, reml) < fit.log_likelihood


def test_singular_fit_is_reported_in_words(dyestuff2_reml):
    assert dyestuff2_reml.estimates["sd_Batch"][0] == pytest.approx(0, abs=1e-6)
    (note,) = dyestuff2_reml.status.notes
    assert "Singular fit" in note
    assert "Intercept" in note
    assert "'Batch' is zero" in note
    assert "hmlm.NUTS()" in note
    assert dyestuff2_reml.status.converged
    assert dyestuff2_reml.status.numbers["singular"] == 1
    assert "Singular fit" in str(dyestuff2_reml)


def test_perfect_correlation_is_reported_in_words():
    frame, _ = simulate(3, groups=12, size=3, sd=(0.8, 0.02), sigma=1.0)
    fit = REML().run(make("y ~ x + (x | g)", frame))
    assert fit.status.numbers["singular"] == 1
    assert any("perfectly dependent" in n or "is zero" in n for n in fit.status.notes)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (x || g)", "y ~ x + (1 | g)"])
def test_scale_and_shift_of_a_predictor_change_nothing(formula):
    frame, _ = simulate(5)
    fit = ML().run(make(formula, frame))
    scaled = ML().run(make(formula, frame.assign(x=frame["x"] * 1e6)))
    assert scaled.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-7)
    np.testing.assert_allclose(
        scaled.estimates["beta"] * [1, 1e6], fit.estimates["beta"], rtol=1e-5
    )
    if "||" not in formula:  # an uncorrelated slope does depend on where zero is
        shifted = ML().run(make(formula, frame.assign(x=frame["x"] + 2000)))
        assert shifted.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-6)
        assert shifted.estimates["beta"][1] == pytest.approx(fit.estimates["beta"][1], rel=1e-5)


def test_years_as_they_are_fit_as_well_as_centred_ones():
    frame, _ = simulate(6)
    years = frame.assign(x=np.tile(np.arange(2018.0, 2024.0), 40))
    plain = REML().run(make("y ~ x + (x | g)", years))
    centred = REML().run(make("y ~ x + (x | g)", years.assign(x=years["x"] - 2020.5)))
    assert plain.log_likelihood == pytest.approx(centred.log_likelihood, abs=1e-6)


def test_scale_of_the_outcome_scales_the_estimates():
    frame, _ = simulate(7)
    fit = REML().run(make("y ~ x + (x | g)", frame))
    big = REML().run(make("y ~ x + (x | g)", frame.assign(y=frame["y"] * 1e5 + 1e7)))
    np.testing.assert_allclose(big.estimates["sd_g"], fit.estimates["sd_g"] * 1e5, rtol=1e-4)
    assert float(big.estimates["sigma"]) == pytest.approx(1e5 * float(fit.estimates["sigma"]), 1e-5)
    assert big.status.converged


def test_weights_of_one_change_nothing():
    frame, _ = simulate(8)
    fit = ML().run(make("y ~ x + (x | g)", frame.assign(w=1.0), weights="w"))
    plain = ML().run(make("y ~ x + (x | g)", frame))
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(fit.estimates["sd_g"], plain.estimates["sd_g"], rtol=1e-6)


def test_means_weighted_by_their_counts_fit_as_the_rows_do():
    # Within a cell (group, x) only the mean carries information on beta and the group effects.
    rng = np.random.default_rng(9)
    cells = pd.DataFrame({"g": np.repeat(np.arange(20), 4), "x": np.tile([0.0, 1, 2, 3], 20)})
    cells["w"] = rng.integers(1, 6, len(cells))
    rows = cells.loc[cells.index.repeat(cells["w"])].copy()
    effect = rng.normal(size=(20, 2)) * [1.0, 0.4]
    line = effect[rows["g"], 0] + effect[rows["g"], 1] * rows["x"]
    rows["y"] = 1 + 0.5 * rows["x"] + line + 0.7 * rng.normal(size=len(rows))
    means = rows.groupby(["g", "x"], as_index=False).agg(y=("y", "mean"), w=("w", "size"))
    by_rows, by_means = (
        make("y ~ x + (x | g)", rows),
        make("y ~ x + (x | g)", means, weights="w"),
    )
    estimates = {
        "beta": np.array([1.0, 0.5]),
        "sd_g": np.array([1.0, 0.4]),
        "cor_g": np.eye(2),
        "sigma": 0.7,
    }
    gaps = []
    for scale in (1.0, 1.7):
        at = {**estimates, "sd_g": estimates["sd_g"] * scale}
        dense = [dense_log_likelihood(d, at) for d in (by_rows, by_means)]
        gaps.append(dense[0] - dense[1])
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-8)
    fit = ML().run(by_means)
    assert fit.log_likelihood == pytest.approx(
        dense_log_likelihood(by_means, fit.estimates), rel=1e-10
    )


def test_offset_is_a_known_part_of_the_mean(table):
    with_offset = ML().run(make("y ~ x + offset(z) + (1 | g)", table))
    by_hand = ML().run(make("v ~ x + (1 | g)", table.assign(v=table["y"] - table["z"])))
    assert with_offset.log_likelihood == pytest.approx(by_hand.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(with_offset.fitted, by_hand.fitted + table["z"], atol=1e-6)


def test_order_of_rows_and_kind_of_labels_change_nothing():
    frame, _ = simulate(10, groups=15)
    fit = REML().run(make("y ~ x + (x | g)", frame))
    shuffled = frame.sample(frac=1, random_state=1)
    again = REML().run(make("y ~ x + (x | g)", shuffled))
    numbered = REML().run(
        make("y ~ x + (x | g)", frame.assign(g=pd.factorize(frame["g"])[0] * 10 - 3))
    )
    for other in (again, numbered):
        assert other.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-9)
        np.testing.assert_allclose(other.estimates["b_g"], fit.estimates["b_g"], atol=1e-5)


def test_simulated_truth_lies_inside_the_intervals():
    truth = {"beta": (2.0, -0.7), "sd": (0.8, 0.5), "cor": 0.4, "sigma": 0.6}
    frame, b = simulate(20, groups=200, size=8, **truth)
    fit = REML().run(make("y ~ x + (x | g)", frame))
    numbers = fit.describe("beta", 0.99)
    assert (numbers.lower < truth["beta"]).all()
    assert (numbers.upper > truth["beta"]).all()
    np.testing.assert_allclose(fit.estimates["sd_g"], truth["sd"], rtol=0.15)
    assert fit.estimates["cor_g"][0, 1] == pytest.approx(truth["cor"], abs=0.2)
    assert float(fit.estimates["sigma"]) == pytest.approx(truth["sigma"], rel=0.06)
    effects = fit.describe("b_g", 0.95)
    covered = (effects.lower < b) & (b < effects.upper)
    assert 0.90 < covered.mean() < 0.99


@pytest.mark.parametrize("formula", ["y ~ 0 + (1 | g)", "y ~ 0 + x + (0 + x | g)"])
def test_models_without_an_intercept(formula):
    frame, _ = simulate(11)
    for method in (ML(), REML()):
        fit = method.run(make(formula, frame))
        dense = dense_log_likelihood(fit.design, fit.estimates, isinstance(method, REML))
        assert fit.log_likelihood == pytest.approx(dense, rel=1e-10)


def test_three_correlated_effects_and_two_terms_of_one_factor(table):
    for formula in (
        "y ~ f + (f | g)",
        "y ~ x + z + (1 | g) + (0 + x | g)",
        "y ~ x*z + (x*z || h)",
        "y ~ k + (1 | g) + (0 + k || g)",
    ):
        fit = REML().run(make(formula, table))
        dense = dense_log_likelihood(fit.design, fit.estimates, reml=True)
        assert fit.log_likelihood == pytest.approx(dense, rel=1e-9)


def test_what_cannot_be_fitted_is_refused(table):
    pooled = make("y ~ x + (1 | g)", table, "complete")
    with pytest.raises(HmlmError, match=r"does not pool partially: use hmlm.OLS\(\)"):
        REML().run(pooled)
    with pytest.raises(HmlmError, match="add a group term"):
        ML().run(make("y ~ x", table))
    with pytest.raises(HmlmError, match="'lme4' or 'nlme', not 'SAS'"):
        ML(std_errors="SAS").run(make("y ~ x + (1 | g)", table))


def test_too_few_iterations_are_a_problem_and_not_silence(radon):
    design = make("log_radon ~ floor + log_uranium + (floor | county)", radon)
    fit = REML(max_iterations=1).run(design)
    assert not fit.status.converged
    (problem,) = fit.status.problems
    assert problem.startswith("The optimiser did not converge")
    assert problem in str(fit)
