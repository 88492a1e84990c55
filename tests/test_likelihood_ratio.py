"""Likelihood-ratio tests: R's numbers, the mixture at the edge, and what is not nested."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support import make, simulate

import hmlm
from hmlm.errors import HmlmError
from hmlm.fitting.maximum_likelihood import ML, REML
from hmlm.fitting.ols import OLS
from hmlm.likelihood_ratio import likelihood_ratio_test


def ml(formula, frame, **options):
    return ML().run(make(formula, frame, **options))


@pytest.fixture(scope="module")
def nested(sleepstudy):
    """Models of the sleep study, from the smallest to the largest."""
    formulas = {
        "none": "Reaction ~ 1 + (1 | Subject)",
        "intercept": "Reaction ~ Days + (1 | Subject)",
        "uncorrelated": "Reaction ~ Days + (Days || Subject)",
        "correlated": "Reaction ~ Days + (Days | Subject)",
    }
    return {name: ml(formula, sleepstudy) for name, formula in formulas.items()}


def test_a_correlation_alone_has_the_plain_distribution(nested):
    # anova(fm2, fm1) of lme4's vignette: Chisq 0.0639, Df 1, Pr 0.8004
    test = likelihood_ratio_test(nested["uncorrelated"], nested["correlated"]).iloc[0]
    assert test["df"] == 1
    assert round(test["statistic"], 4) == 0.0639
    assert round(test["p_value"], 4) == 0.8004
    assert test["method"] == "chi2(1)"


def test_a_correlated_slope_has_the_mixture_of_stram_and_lee(nested):
    # anova in R: Chisq 42.139, Df 2; its p-value of 7.07e-10 ignores the edge
    test = likelihood_ratio_test(nested["intercept"], nested["correlated"]).iloc[0]
    assert test["df"] == 2
    assert round(test["statistic"], 3) == 42.139
    assert test["method"] == "0.5 chi2(1) + 0.5 chi2(2)"
    half = 0.5 * (stats.chi2.sf(test["statistic"], 1) + stats.chi2.sf(test["statistic"], 2))
    assert test["p_value"] == pytest.approx(half, rel=1e-10)
    assert test["p_value"] < stats.chi2.sf(test["statistic"], 2) == pytest.approx(7.072e-10, 1e-3)


def test_a_coefficient_with_an_uncorrelated_slope(nested):
    test = likelihood_ratio_test(nested["none"], nested["uncorrelated"]).iloc[0]
    assert test["method"] == "0.5 chi2(1) + 0.5 chi2(2)"
    plain = likelihood_ratio_test(nested["none"], nested["intercept"]).iloc[0]
    assert plain["method"] == "chi2(1)"
    assert plain["p_value"] == pytest.approx(stats.chi2.sf(plain["statistic"], 1), rel=1e-10)


def test_complete_pooling_against_a_random_intercept(nested, sleepstudy_pooled):
    test = likelihood_ratio_test(sleepstudy_pooled, nested["intercept"]).iloc[0]
    assert test["method"] == "0.5 chi2(0) + 0.5 chi2(1)"
    assert test["df"] == 1
    # logLik(lm(Reaction ~ Days)) in R: -950.1465
    assert round(test["log_likelihood_smaller"], 4) == -950.1465
    assert test["p_value"] == pytest.approx(0.5 * stats.chi2.sf(test["statistic"], 1), rel=1e-10)
    assert "OLS (complete pooling)" in test["smaller"]


def test_several_variances_are_conservative_and_say_so(nested, sleepstudy_pooled):
    test = likelihood_ratio_test(sleepstudy_pooled, nested["correlated"]).iloc[0]
    assert test["method"] == "chi2(3), conservative: 2 variances at zero"


def test_reml_with_the_same_fixed_effects(sleepstudy, sleepstudy_reml):
    smaller = REML().run(make("Reaction ~ Days + (1 | Subject)", sleepstudy))
    test = likelihood_ratio_test(smaller, sleepstudy_reml).iloc[0]
    # anova(refit = FALSE) in R: 1786.465 - 1743.628
    assert round(test["statistic"], 3) == 42.837


def test_no_gain_at_all_has_a_p_value_of_one():
    frame, _ = simulate(3, sd=(1e-9, 1e-9), cor=0.0)
    flat = frame.assign(y=frame["y"] - frame.groupby("g")["y"].transform("mean"))
    pooled = OLS().run(make("y ~ x + (1 | g)", flat, "complete"))
    test = likelihood_ratio_test(pooled, ml("y ~ x + (1 | g)", flat)).iloc[0]
    assert test["statistic"] == pytest.approx(0.0, abs=1e-8)
    assert test["p_value"] == pytest.approx(1.0, abs=1e-3)


def test_other_codings_of_the_same_population_columns_are_nested(sleepstudy):
    frame = sleepstudy.assign(late=sleepstudy["Days"] - 4.5)
    a = ml("Reaction ~ late + (1 | Subject)", frame)
    b = ml("Reaction ~ Days + (late | Subject)", frame)
    assert likelihood_ratio_test(a, b)["df"].item() == 2


def test_the_mixture_rejects_as_often_as_it_says():
    # No variance between groups: the p-value of the mixture is below 0.1 in a tenth of the samples
    # (three standard errors: 0.07), and the plain one in a twentieth.
    rng = np.random.default_rng(4)
    frame, _ = simulate(1, groups=25, size=5, sd=(1e-9, 1e-9), cor=0.0)
    tests = []
    for _ in range(150):
        drawn = frame.assign(y=rng.normal(size=len(frame)))
        pooled = OLS().run(make("y ~ x + (1 | g)", drawn, "complete"))
        tests.append(likelihood_ratio_test(pooled, ml("y ~ x + (1 | g)", drawn)).iloc[0])
    p = np.array([t["p_value"] for t in tests])
    statistic = np.array([t["statistic"] for t in tests])
    assert 0.03 < (p < 0.1).mean() < 0.17
    assert (stats.chi2.sf(statistic, 1) < 0.1).mean() < 0.1
    assert 0.35 < (statistic < 1e-6).mean() < 0.75


def test_what_does_not_compare_is_refused(nested, sleepstudy, sleepstudy_reml, sleepstudy_alone):
    small, large = nested["intercept"], nested["correlated"]

    def refused(match, a, b):
        with pytest.raises(HmlmError, match=match):
            likelihood_ratio_test(a, b)

    refused("pass the smaller fit first", large, small)
    refused("nothing to test", small, small)
    refused("restricted likelihood does not compare", small, sleepstudy_reml)
    refused("no pooling is not nested", sleepstudy_alone, large)
    reml = REML().run(make("Reaction ~ 1 + (Days | Subject)", sleepstudy))
    refused("different fixed effects", reml, sleepstudy_reml)
    refused("needs two classical fits", "Days", large)
    frame = sleepstudy.assign(x=np.random.default_rng(0).normal(size=len(sleepstudy)))
    frame["half"] = frame["Subject"].astype(str).str[-1]
    frame["log"] = np.log(frame["Reaction"])
    other = ml("Reaction ~ x + (1 | Subject)", frame)
    refused("the larger fit lacks x", other, large)
    refused("lacks the group term of 'half'", ml("Reaction ~ Days + (1 | half)", frame), large)
    refused("different outcomes", ml("log ~ Days + (1 | Subject)", frame), large)
    refused("170 rows and 180 rows", ml("Reaction ~ Days + (1 | Subject)", frame[10:]), large)
    shuffled = frame.sample(frac=1, random_state=0)
    refused("same order of rows", ml("Reaction ~ Days + (1 | Subject)", shuffled), large)
    weighed = ml(
        "Reaction ~ Days + (1 | Subject)", frame.assign(w=frame["Days"] + 1.0), weights="w"
    )
    refused("different weights", weighed, large)
    three = ml("Reaction ~ Days + (Days + x || Subject)", frame)
    refused("correlated in the smaller fit, and not in the larger", large, three)
    slope = ml("Reaction ~ Days + (0 + x | Subject)", frame)
    refused("lacks the effects x by 'Subject'", slope, large)


def test_a_larger_fit_that_stopped_short_is_refused(nested):
    short = replace(nested["correlated"], log_likelihood=-1000.0)
    with pytest.raises(HmlmError, match="did not reach its maximum"):
        likelihood_ratio_test(nested["intercept"], short)


def test_it_is_public():
    assert hmlm.likelihood_ratio_test is likelihood_ratio_test
