"""Information criteria, and the table that ranks fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support import effect_covariance

import hmlm
from hmlm import NUTS, Model
from hmlm.errors import HmlmError
from hmlm.hat_matrix import effective_parameters
from hmlm.information import conditional_aic, corrected_aic

MODELS = {
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "pastes": "strength ~ 1 + (1 | batch/cask)",
    "dyestuff2": "Yield ~ 1 + (1 | Batch)",
}


def dense_trace(fit):
    """Return the trace of the matrix that makes the fitted values, built in full."""
    design = fit.design
    sigma2 = float(fit.estimates.get("sigma", 1.0)) ** 2
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    R = np.diag(sigma2 / w)
    G = np.zeros_like(R)
    for block in design.blocks:
        same = block.index[:, None] == block.index
        G += same * (block.Z @ effect_covariance(fit.estimates, block.group) @ block.Z.T)
    inverse = np.linalg.inv(G + R)
    X = design.X
    P = X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    hat = P + G @ inverse @ (np.eye(len(w)) - P)
    np.testing.assert_allclose(hat @ design.y, fit.fitted, rtol=1e-6)
    return float(np.trace(hat))


@pytest.mark.parametrize("data", MODELS)
@pytest.mark.parametrize("method", [hmlm.REML(df="kenward-roger"), hmlm.ML(std_errors="nlme")])
def test_effective_parameters_are_the_trace_of_the_hat_matrix(data, method):
    fit = Model(MODELS[data], hmlm.load_dataset(data)).fit(method)
    assert effective_parameters(fit) == pytest.approx(dense_trace(fit), rel=1e-6)
    residual = fit.design.y - fit.fitted
    density = stats.norm.logpdf(residual, 0, fit.estimates["sigma"]).sum()
    expected = -2 * density + 2 * (dense_trace(fit) + 1)
    assert conditional_aic(fit) == pytest.approx(expected, rel=1e-9)


def test_known_standard_errors():
    schools = hmlm.load_dataset("eight_schools")
    fit = Model("y ~ 1 + (1 | school)", schools.assign(y=2 * schools["y"]), se="sigma").fit(
        hmlm.REML()
    )
    assert effective_parameters(fit) == pytest.approx(dense_trace(fit), rel=1e-6)
    density = stats.norm.logpdf(fit.design.y, fit.fitted, schools["sigma"]).sum()
    expected = -2 * density + 2 * effective_parameters(fit)
    assert conditional_aic(fit) == pytest.approx(expected)


@pytest.mark.parametrize("method", [hmlm.ML(), hmlm.REML()])
@pytest.mark.parametrize(
    ("data", "formula"),
    [
        ("dyestuff", "Yield ~ 1 + (1 | Batch)"),
        ("dyestuff2", "Yield ~ 1 + (1 | Batch)"),
        ("pastes", "strength ~ 1 + (1 | batch/cask)"),
    ],
)
def test_the_correction_is_the_derivative_of_the_fitted_values(data, formula, method):
    """The trace of dyhat/dy by fits to outcomes that are moved a little, row by row."""
    frame = hmlm.load_dataset(data)
    fit = Model(formula, frame).fit(method)
    outcome, y = fit.design.spec.outcome, fit.design.y
    step = 1e-3 * y.std()
    trace = 0.0
    for i in range(len(y)):
        high, low = (
            Model(formula, frame.assign(**{outcome: y + sign * step * np.eye(len(y))[i]}))
            .fit(method)
            .fitted[i]
            for sign in (1, -1)
        )
        trace += (high - low) / (2 * step)
    assert effective_parameters(fit, corrected=True) == pytest.approx(trace, abs=2e-3)
    assert effective_parameters(fit, corrected=True) >= effective_parameters(fit) - 1e-9


def test_effective_parameters_lie_between_the_poolings(sleepstudy):
    model = Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    least = effective_parameters(model.with_pooling("complete").fit(hmlm.OLS()))
    most = effective_parameters(model.with_pooling("none").fit(hmlm.OLS()))
    assert (least, most) == (2, 36)
    assert least < effective_parameters(model.fit(hmlm.REML())) < most


def test_few_rows_cost_more(sleepstudy_ml):
    k, n = 6, 180
    expected = sleepstudy_ml.aic + 2 * k * (k + 1) / (n - k - 1)
    assert corrected_aic(sleepstudy_ml) == pytest.approx(expected)


def test_only_gaussian_fits_have_a_hat_matrix():
    model = Model(
        "p(incidence, size) ~ period + (1 | herd)", hmlm.load_dataset("cbpp"), family="binomial"
    )
    fit = model.fit(hmlm.Laplace())
    assert np.isnan(conditional_aic(fit))
    with pytest.raises(HmlmError, match="this one is binomial"):
        effective_parameters(fit)


def test_fits_are_ranked_in_one_table(radon):
    formulas = (
        "log_radon ~ floor + (1 | county)",
        "log_radon ~ floor + log_uranium + (1 | county)",
    )
    quick = NUTS(draws=500, tune=500)
    bayes = [Model(f, radon).fit(quick, random_seed=1, progressbar=False) for f in formulas]
    classical = [Model(f, radon).fit(hmlm.ML()) for f in formulas]
    ranked = hmlm.rank_fits(*bayes, *classical)
    assert len(ranked) == 4
    assert ranked["formula"].tolist() == [formulas[1], formulas[0]] * 2
    assert ranked["fit"].tolist() == ["NUTS", "NUTS", "ML", "ML"]
    # Uranium is of the county: it helps to predict a county that was not seen.
    logo = ranked.dropna(subset=["elpd_logo"]).set_index("formula")["elpd_logo"]
    assert logo[formulas[1]] > logo[formulas[0]] + 5
    assert ranked["difference"].iloc[0] == 0
    assert ranked["difference_logo"].iloc[1] == pytest.approx(logo[formulas[0]] - logo[formulas[1]])
    assert ranked["weight"].sum() == pytest.approx(1)
    assert ranked["lrt_p"].iloc[2] < 1e-6
    assert ranked["lrt_against"].tolist() == ["", "", formulas[0], ""]
    test = hmlm.likelihood_ratio_test(*classical)
    assert ranked["lrt_p"].iloc[2] == test["p_value"].iloc[0]
    assert ranked["caic"].iloc[2] < ranked["caic"].iloc[3]
    assert "elpd_logo leaves out the levels of county." in ranked.attrs["notes"]


def test_slopes_of_the_sleep_study_are_worth_it(sleepstudy):
    formulas = ("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)")
    quick = NUTS(draws=400, tune=500)
    bayes = [Model(f, sleepstudy).fit(quick, random_seed=1, progressbar=False) for f in formulas]
    pooled = Model(formulas[0], sleepstudy).with_pooling("complete").fit(hmlm.OLS())
    classical = [Model(f, sleepstudy).fit(hmlm.ML()) for f in formulas]
    ranked = hmlm.rank_fits(pooled, *classical, *bayes, groups=False)
    assert "elpd_logo" not in ranked
    assert ranked["formula"].tolist()[:4] == [formulas[1], formulas[0]] * 2
    assert ranked["fit"].iloc[4].startswith("OLS")
    assert ranked["difference"].iloc[1] < -2 * ranked["se_difference"].iloc[1]
    assert ranked["lrt_against"].iloc[2] == formulas[0]


def test_restricted_likelihoods_do_not_compare(sleepstudy):
    some = [
        Model(f, sleepstudy).fit(hmlm.REML())
        for f in ("Reaction ~ 1 + (1 | Subject)", "Reaction ~ Days + (1 | Subject)")
    ]
    ranked = hmlm.rank_fits(*some)
    assert ranked[["aic", "aicc", "bic", "log_likelihood"]].isna().all(axis=None)
    assert ranked["formula"].iloc[0] == "Reaction ~ Days + (1 | Subject)"
    assert "compare only among fits by REML" in ranked.attrs["notes"][0]
    same = Model("Reaction ~ Days + (Days | Subject)", sleepstudy).fit(hmlm.REML())
    assert hmlm.rank_fits(some[1], same)["aic"].notna().all()


def test_a_restricted_likelihood_does_not_compare_with_one_that_is_not(sleepstudy):
    model = Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    ranked = hmlm.rank_fits(model.fit(hmlm.REML()), model.fit(hmlm.ML()))
    assert ranked[["aic", "aicc", "bic", "log_likelihood"]].isna().all(axis=None)
    ranked = hmlm.rank_fits(model.fit(hmlm.ML()), model.fit(hmlm.ML(std_errors="nlme")))
    assert ranked["aic"].notna().all()


def test_what_does_not_compare(sleepstudy):
    def fit(formula, frame=sleepstudy, **more):
        return Model(formula, frame, **more).fit(hmlm.ML())

    first = fit("Reaction ~ Days + (1 | Subject)")
    with pytest.raises(HmlmError, match="two fits or more"):
        hmlm.rank_fits(first)
    with pytest.raises(HmlmError, match=r"on different scales.*family='lognormal'"):
        hmlm.rank_fits(first, fit("log(Reaction) ~ Days + (1 | Subject)"))
    with pytest.raises(HmlmError, match="these are different outcomes"):
        hmlm.rank_fits(first, fit("Days ~ 1 + (1 | Subject)"))
    with pytest.raises(HmlmError, match=r"numbers of rows \(ML: 180, ML: 100\)"):
        hmlm.rank_fits(first, fit("Reaction ~ Days + (1 | Subject)", sleepstudy.iloc[:100]))
    with pytest.raises(HmlmError, match="in the same order of rows"):
        hmlm.rank_fits(first, fit("Reaction ~ Days + (1 | Subject)", sleepstudy.iloc[::-1]))
    counts = pd.DataFrame({"n": [1, 4, 2, 5, 3, 9] * 4, "g": np.repeat(list("abcd"), 6)})
    poisson = Model("n ~ 1 + (1 | g)", counts, family="poisson").fit(hmlm.Laplace())
    with pytest.raises(HmlmError, match="densities of a gaussian outcome do not compare"):
        hmlm.rank_fits(fit("n ~ 1 + (1 | g)", counts), poisson)


def test_fits_without_a_common_factor(pastes_bayes):
    ranked = hmlm.rank_fits(*pastes_bayes)
    assert "elpd_logo" not in ranked
    assert any("no grouping factor in common" in note for note in ranked.attrs["notes"])


@pytest.fixture(scope="module")
def pastes_bayes():
    pastes = hmlm.load_dataset("pastes")
    return [
        Model(f"strength ~ 1 + (1 | {g})", pastes).fit(
            NUTS(draws=200, tune=300, chains=2), random_seed=1, progressbar=False
        )
        for g in ("batch", "sample")
    ]
