"""Least squares under complete and no pooling, against numpy's lstsq and closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support import make, simulate

from hmlm.errors import DataError, HmlmError
from hmlm.fitting.ols import OLS


def lstsq(X, y):
    """Return coefficients, covariance, sigma, residual degrees of freedom."""
    beta, _, rank, _ = np.linalg.lstsq(X, y)
    df = len(y) - rank
    sigma2 = ((y - X @ beta) ** 2).sum() / df
    return beta, sigma2 * np.linalg.pinv(X.T @ X), np.sqrt(sigma2), df


def indicators(index, levels):
    return (index[:, None] == np.arange(levels)).astype(float)


def test_complete_pooling_is_lstsq(sleepstudy_pooled):
    design = sleepstudy_pooled.design
    beta, vcov, sigma, df = lstsq(design.X, design.y)
    np.testing.assert_allclose(sleepstudy_pooled.estimates["beta"], beta, rtol=1e-12)
    np.testing.assert_allclose(sleepstudy_pooled.vcov, vcov, rtol=1e-10)
    assert float(sleepstudy_pooled.estimates["sigma"]) == pytest.approx(sigma, rel=1e-12)
    assert list(sleepstudy_pooled.df) == [df, df] == [178, 178]


def test_complete_pooling_has_the_normal_log_likelihood(sleepstudy_pooled):
    design = sleepstudy_pooled.design
    residual = design.y - sleepstudy_pooled.fitted
    maximum = stats.norm.logpdf(residual, scale=np.sqrt((residual**2).mean())).sum()
    assert sleepstudy_pooled.log_likelihood == pytest.approx(maximum, rel=1e-12)
    assert sleepstudy_pooled.criterion == pytest.approx(-2 * maximum, rel=1e-12)
    assert sleepstudy_pooled.aic == pytest.approx(-2 * maximum + 2 * 3)
    assert sleepstudy_pooled.bic == pytest.approx(-2 * maximum + np.log(180) * 3)


def test_simple_regression_in_closed_form():
    x, y = np.array([1.0, 2.0, 4.0, 7.0]), np.array([1.0, 3.0, 2.0, 6.0])
    fit = OLS().run(make("y ~ x", pd.DataFrame({"x": x, "y": y})))
    slope = np.cov(x, y)[0, 1] / x.var(ddof=1)
    np.testing.assert_allclose(fit.estimates["beta"], [y.mean() - slope * x.mean(), slope])
    expected = stats.linregress(x, y)
    assert fit.std_errors["beta"][1] == pytest.approx(expected.stderr)
    assert fit.describe("beta", 0.95).p_value[1] == pytest.approx(expected.pvalue)


def test_no_pooling_is_a_regression_for_every_group(sleepstudy_alone):
    design, block = sleepstudy_alone.design, sleepstudy_alone.design.blocks[0]
    rss = 0.0
    for j in range(len(block.levels)):
        rows = block.index == j
        beta, *_ = np.linalg.lstsq(block.Z[rows], design.y[rows])
        np.testing.assert_allclose(sleepstudy_alone.estimates["b_Subject"][j], beta, rtol=1e-10)
        rss += ((design.y[rows] - block.Z[rows] @ beta) ** 2).sum()
    assert float(sleepstudy_alone.estimates["sigma"]) == pytest.approx(np.sqrt(rss / 144))


def test_no_pooling_drops_the_columns_that_groups_repeat(alcohol_alone):
    assert alcohol_alone.design.aliased == ("Intercept", "coa", "peer", "time")
    assert alcohol_alone.design.terms == ()
    assert "residual standard deviation" in str(alcohol_alone).lower()


def test_no_pooling_has_the_errors_of_one_regression_with_indicators(sleepstudy_alone):
    design, block = sleepstudy_alone.design, sleepstudy_alone.design.blocks[0]
    levels = indicators(block.index, 18)
    X = np.column_stack([levels, levels * block.Z[:, 1:]])
    beta, vcov, _, df = lstsq(X, design.y)
    errors = np.sqrt(np.diagonal(vcov)).reshape(2, 18).T
    numbers = sleepstudy_alone.describe("total_Subject", 0.9)
    np.testing.assert_allclose(numbers.estimate, beta.reshape(2, 18).T, rtol=1e-9)
    np.testing.assert_allclose(numbers.std_error, errors, rtol=1e-9)
    np.testing.assert_allclose(
        numbers.upper - numbers.estimate, stats.t.ppf(0.95, df) * errors, rtol=1e-9
    )


def test_population_slope_beside_own_intercepts():
    frame, _ = simulate(1, groups=10)
    fit = OLS().run(make("y ~ x + (1 | g)", frame, "none"))
    index = pd.factorize(frame["g"])[0]
    X = np.column_stack([frame["x"], indicators(index, 10)])
    beta, vcov, sigma, df = lstsq(X, frame["y"].to_numpy())
    assert fit.design.terms == ("x",)
    assert fit.design.aliased == ("Intercept",)
    assert fit.estimates["beta"][0] == pytest.approx(beta[0], rel=1e-10)
    assert fit.std_errors["beta"][0] == pytest.approx(np.sqrt(vcov[0, 0]), rel=1e-10)
    assert fit.df[0] == df
    np.testing.assert_allclose(fit.estimates["b_g"][:, 0], beta[1:], rtol=1e-9)
    np.testing.assert_allclose(
        fit.std_errors["b_g"][:, 0], np.sqrt(np.diagonal(vcov)[1:]), rtol=1e-9
    )
    assert float(fit.estimates["sigma"]) == pytest.approx(sigma)


def test_second_factor_enters_as_indicators(table):
    fit = OLS().run(make("y ~ x + (1 | g) + (1 | h)", table, "none"))
    gs, hs = pd.factorize(table["g"])[0], pd.factorize(table["h"])[0]
    X = np.column_stack([table["x"], indicators(gs, 6), indicators(hs, 5)])
    beta, _, sigma, df = lstsq(X, table["y"].to_numpy())
    assert fit.estimates["beta"][0] == pytest.approx(beta[0], rel=1e-9)
    assert float(fit.estimates["sigma"]) == pytest.approx(sigma, rel=1e-10)
    assert fit.df[0] == df
    np.testing.assert_allclose(fit.fitted, X @ beta, atol=1e-9)


def test_group_too_small_for_its_own_slope_stays_blank():
    frame, _ = simulate(2, groups=6, size=4)
    frame = frame[(frame["g"] != "g002") | (frame.groupby("g").cumcount() == 0)]
    fit = OLS().run(make("y ~ x + (x | g)", frame, "none"))
    numbers = fit.describe("total_g", 0.95)
    assert np.isnan(numbers.estimate[2]).all()
    assert np.isnan(numbers.std_error[2]).all()
    assert np.isfinite(numbers.estimate[[0, 1, 3, 4, 5]]).all()
    assert "2 coefficients of 'g' cannot be estimated" in fit.status.notes[0]
    assert fit.n_parameters == 5 * 2 + 1 + 1


def test_integer_weights_estimate_as_replicated_rows():
    frame, _ = simulate(3, groups=8, size=5)
    frame["w"] = np.arange(len(frame)) % 3 + 1
    rows = frame.loc[frame.index.repeat(frame["w"])]
    for pooling in ("complete", "none"):
        formula = "y ~ x + (x | g)"
        weighted = OLS().run(make(formula, frame, pooling, weights="w"))
        replicated = OLS().run(make(formula, rows, pooling))
        name = "beta" if pooling == "complete" else "b_g"
        np.testing.assert_allclose(
            weighted.estimates[name], replicated.estimates[name], rtol=1e-9, atol=1e-12
        )
        scale = float(replicated.estimates["sigma"]) / float(weighted.estimates["sigma"])
        np.testing.assert_allclose(
            weighted.std_errors[name] * scale, replicated.std_errors[name], rtol=1e-9
        )


def test_scale_and_shift_of_a_predictor_change_nothing(sleepstudy):
    formula = "Reaction ~ Days + (Days | Subject)"
    for pooling in ("complete", "none"):
        fits = [
            OLS().run(make(formula, sleepstudy.assign(Days=days), pooling))
            for days in (sleepstudy["Days"], sleepstudy["Days"] * 1e6, sleepstudy["Days"] + 2000)
        ]
        for fit in fits[1:]:
            assert fit.log_likelihood == pytest.approx(fits[0].log_likelihood, rel=1e-10)
            np.testing.assert_allclose(fit.fitted, fits[0].fitted, rtol=1e-8)


def test_offset_is_subtracted(table):
    fit = OLS().run(make("y ~ x + offset(z)", table))
    by_hand = OLS().run(make("v ~ x", table.assign(v=table["y"] - table["z"])))
    np.testing.assert_allclose(fit.estimates["beta"], by_hand.estimates["beta"])


def test_partial_pooling_is_refused(table):
    with pytest.raises(HmlmError, match=r"least squares cannot pool partially: use hmlm.REML\(\)"):
        OLS().run(make("y ~ x + (1 | g)", table))


def test_nothing_left_for_the_residual_is_refused():
    frame = pd.DataFrame({"y": [1.0, 2, 3, 5], "x": [0.0, 1, 0, 1], "g": list("aabb")})
    with pytest.raises(DataError, match="4 rows and 4 coefficients leave nothing"):
        OLS().run(make("y ~ x + (x | g)", frame, "none"))


def test_indicators_of_a_large_second_factor_are_refused():
    n = 9000
    frame = pd.DataFrame(
        {"y": np.sin(np.arange(n)), "a": np.arange(n) % 3000, "b": np.arange(n) % 2999}
    )
    with pytest.raises(HmlmError, match="no pooling of a second factor with 2,999 levels"):
        OLS().run(make("y ~ 1 + (1 | a) + (1 | b)", frame, "none"))


def test_perfect_fit_has_no_residual():
    frame = pd.DataFrame({"y": [1.0, 3, 5, 7], "x": [0.0, 1, 2, 3]})
    fit = OLS().run(make("y ~ x", frame))
    np.testing.assert_allclose(fit.estimates["beta"], [1, 2])
    assert float(fit.estimates["sigma"]) == pytest.approx(0, abs=1e-12)
