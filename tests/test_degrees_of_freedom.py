"""Degrees of freedom: nlme's inner-outer rule, Satterthwaite's and Kenward and Roger's."""

import numpy as np
import pandas as pd
import pytest
from support import RECORDED, make, our_term, recorded, recorded_fixed, simulate

from hmlm.datasets import load_dataset
from hmlm.errors import HmlmError
from hmlm.fitting import degrees_of_freedom as module
from hmlm.fitting.degrees_of_freedom import inner_outer
from hmlm.fitting.maximum_likelihood import ML, REML


def test_alcohol_as_nlme_prints_it(alcohol_reml):
    assert inner_outer(alcohol_reml.design).tolist() == [163, 79, 79, 163]


def test_sleepstudy_as_nlme_prints_it(sleepstudy_reml):
    # lme(Reaction ~ Days, random = ~ Days | Subject): 161 for both
    assert inner_outer(sleepstudy_reml.design).tolist() == [161, 161]


def test_intercept_alone():
    # lme(Yield ~ 1, random = ~ 1 | Batch): 30 - 6 = 24
    design = make("Yield ~ 1 + (1 | Batch)", load_dataset("dyestuff"))
    assert inner_outer(design).tolist() == [24]


def school_table():
    """Two pupils in each of 3 classes in each of 5 schools; predictors at every level."""
    school = np.repeat(np.arange(5), 6)
    frame = pd.DataFrame({"school": school, "class_": np.repeat(np.arange(15), 2)})
    rng = np.random.default_rng(0)
    frame["of_school"] = rng.normal(size=5)[school]
    frame["of_class"] = rng.normal(size=15)[frame["class_"]]
    frame["of_pupil"] = rng.normal(size=30)
    frame["y"] = rng.normal(size=30)
    return frame


def test_each_term_is_tested_at_its_own_level():
    formula = "y ~ of_school + of_class + of_pupil + (1 | school/class_)"
    # levels: schools 5 - (1 + 1) = 3; classes 15 - (5 + 1) = 9; pupils 30 - (15 + 1) = 14
    assert inner_outer(make(formula, school_table())).tolist() == [14, 3, 9, 14]


def test_without_an_intercept_the_outermost_level_loses_none():
    formula = "y ~ 0 + of_school + of_pupil + (1 | school)"
    assert inner_outer(make(formula, school_table())).tolist() == [4, 24]


def test_a_level_with_none_left_is_blank():
    frame = school_table()
    rng = np.random.default_rng(1)
    for k in range(4):
        frame[f"s{k}"] = rng.normal(size=5)[frame["school"]]
    df = inner_outer(make("y ~ s0 + s1 + s2 + s3 + of_pupil + (1 | school)", frame))
    assert np.isnan(df[1:5]).all()
    assert df[0] == df[5] == 24


def test_a_blank_test_is_printed_as_blank(recwarn):
    frame = school_table()
    rng = np.random.default_rng(1)
    for k in range(4):
        frame[f"s{k}"] = rng.normal(size=5)[frame["school"]]
    fit = REML().run(make("y ~ s0 + s1 + s2 + s3 + of_pupil + (1 | school)", frame))
    numbers = fit.describe("beta", 0.95)
    assert np.isnan(numbers.p_value[1])
    assert np.isfinite(numbers.p_value[5])
    assert "nan" not in str(fit).lower()
    assert not recwarn.list


def test_order_of_the_formula_does_not_matter():
    frame = school_table()
    nested = inner_outer(make("y ~ of_class + (1 | school) + (1 | class_)", frame))
    turned = inner_outer(make("y ~ of_class + (1 | class_) + (1 | school)", frame))
    np.testing.assert_array_equal(nested, turned)
    assert nested.tolist() == pytest.approx([15, 9])


@pytest.mark.parametrize("name", [n for n in RECORDED if "df" in recorded(n)["fixed"]])
def test_satterthwaite_is_that_of_lmertest(name):
    data, formula, method = RECORDED[name]
    design = make(formula, load_dataset(data))
    fit = type(method)(df="satterthwaite").run(design)
    theirs = pd.Series(recorded(name)["fixed"]["df"], recorded_fixed(recorded(name)).index)
    # lmerTest differentiates numerically, at an optimum a little off the top
    np.testing.assert_allclose(fit.df, theirs[list(design.terms)], rtol=3e-4)
    assert "Satterthwaite" in str(fit)


@pytest.mark.parametrize("name", ["alcohol", "sleepstudy"])
def test_kenward_roger_is_that_of_pbkrtest(name):
    data, formula, _ = RECORDED[f"{name}_reml"]
    design = make(formula, load_dataset(data))
    fit = REML(df="kenward-roger").run(design)
    record = recorded("kenward_roger")[name]
    terms = ["Intercept" if t == "(Intercept)" else t for t in record["term"]]
    theirs = pd.DataFrame({k: record[k] for k in ("df", "Std. Error")}, index=terms)
    theirs = theirs.loc[list(design.terms)]
    np.testing.assert_allclose(fit.df, theirs["df"], rtol=1e-5)
    np.testing.assert_allclose(fit.std_errors["beta"], theirs["Std. Error"], rtol=1e-4)


def test_crossed_factors_are_not_tested_by_nlmes_rule(sleepstudy):
    penicillin = load_dataset("penicillin")
    fit = REML().run(make("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin))
    assert fit.df[0] == pytest.approx(5.4869, abs=1e-3)
    assert "crossed" in str(fit)
    design = make("Reaction ~ Days + (Days | Subject)", sleepstudy)
    assert np.isinf(REML(df="normal").run(design).df).all()


def test_degrees_of_freedom_that_do_not_exist_are_refused(sleepstudy):
    design = make("Reaction ~ Days + (Days | Subject)", sleepstudy)
    with pytest.raises(HmlmError, match=r"df is one of 'auto', .*not 'between-within'"):
        REML(df="between-within").run(design)
    with pytest.raises(HmlmError, match="made for REML"):
        ML(df="kenward-roger").run(design)


def satterthwaite_fit(formula, frame, method=REML, **options):
    return method(df="satterthwaite").run(make(formula, frame, **options))


def test_alcohol_as_lmertest_prints_it(alcohol):
    fixed = recorded("alcohol_lmertest")["fixed"]
    fit = satterthwaite_fit("alcuse ~ coa + peer + time + (time | id)", alcohol)
    assert [our_term(t) for t in fixed["term"]] == list(fit.design.terms)
    numbers = fit.describe("beta", 0.95)
    np.testing.assert_allclose(numbers.df, fixed["df"], rtol=1e-5)
    np.testing.assert_allclose(numbers.statistic, fixed["t value"], rtol=1e-5)
    np.testing.assert_allclose(numbers.p_value, fixed["Pr(>|t|)"], rtol=1e-3)


def test_satterthwaite_on_the_right_scale(sleepstudy):
    # 17 by balance; 18.8 is what differencing on another scale of the variances gives.
    fit = satterthwaite_fit("Reaction ~ Days + (Days | Subject)", sleepstudy)
    np.testing.assert_allclose(fit.df, [17, 17], rtol=1e-6)


def by_hand(fit):
    """Satterthwaite by the entries of D and sigma^2, from N x N matrices alone."""
    design = fit.design
    (block,) = design.blocks
    sd, cor = fit.estimates["sd_g"], fit.estimates["cor_g"]
    D = np.outer(sd, sd) * cor
    at = np.array([D[0, 0], D[1, 0], D[1, 1], float(fit.estimates["sigma"]) ** 2])
    X, y = design.X, design.response
    same = block.index[:, None] == block.index[None, :]

    def covariance(v):
        D = np.array([[v[0], v[1]], [v[1], v[2]]])
        return same * (block.Z @ D @ block.Z.T) + v[3] * np.eye(len(y))

    def vcov(v):
        return np.linalg.inv(X.T @ np.linalg.solve(covariance(v), X))

    def deviance(v):
        V = covariance(v)
        beta = vcov(v) @ X.T @ np.linalg.solve(V, y)
        r = y - X @ beta
        log_det = np.linalg.slogdet(V)[1] - np.linalg.slogdet(vcov(v))[1]
        return log_det + r @ np.linalg.solve(V, r)

    step = 1e-3 * np.abs(at)
    E = np.diag(step)
    k = range(4)
    H = np.array(
        [
            [
                sum(s * t * deviance(at + s * E[i] + t * E[j]) for s in (1, -1) for t in (1, -1))
                / (4 * step[i] * step[j])
                for j in k
            ]
            for i in k
        ]
    )
    g = np.array([np.diagonal(vcov(at + E[i]) - vcov(at - E[i])) / (2 * step[i]) for i in k])
    A = 2 * np.linalg.inv(H)
    return 2 * np.diagonal(vcov(at)) ** 2 / np.einsum("ik,ij,jk->k", g, A, g)


def test_satterthwaite_is_the_same_in_any_parameters():
    frame, _ = simulate(3, groups=30, size=4)
    fit = satterthwaite_fit("y ~ x + (x | g)", frame)
    np.testing.assert_allclose(fit.df, by_hand(fit), rtol=1e-3)


def test_satterthwaite_where_sharing_and_every_group_must_agree(radon):
    # One factor with few columns is summed by distinct designs, a second one makes a tree of it.
    frame = radon.assign(state="MN", half=np.arange(len(radon)) // 3 % 2)
    one = satterthwaite_fit("log_radon ~ floor + (1 | county)", frame)
    tree = satterthwaite_fit("log_radon ~ floor + (1 | county) + (1 | half)", frame)
    assert tree.estimates["sd_half"].item() == 0
    np.testing.assert_allclose(one.df, tree.df, rtol=1e-4)


@pytest.mark.parametrize("method", [ML, REML])
def test_scales_of_predictor_and_outcome_change_no_degrees_of_freedom(method):
    frame, _ = simulate(5)
    fit = satterthwaite_fit("y ~ x + (x | g)", frame, method)
    scaled = frame.assign(x=frame["x"] * 1e6 + 3e6, y=frame["y"] * 1e4)
    other = satterthwaite_fit("y ~ x + (x | g)", scaled, method)
    assert other.df[1] == pytest.approx(fit.df[1], rel=1e-3)


def test_a_singular_fit_has_degrees_of_freedom():
    frame, _ = simulate(3, groups=8, size=4, sd=(0.8, 0.0), cor=0.0)
    fit = satterthwaite_fit("y ~ x + (x | g)", frame)
    assert fit.status.numbers["singular"]
    assert (fit.df > 1).all()
    assert np.isfinite(fit.df).all()


def test_nlmes_standard_errors_have_the_same_degrees_of_freedom(sleepstudy):
    formula = "Reaction ~ Days + (Days | Subject)"
    lme4 = satterthwaite_fit(formula, sleepstudy, ML)
    nlme = ML(std_errors="nlme", df="satterthwaite").run(make(formula, sleepstudy))
    np.testing.assert_allclose(nlme.df, lme4.df)
    np.testing.assert_allclose(nlme.vcov, lme4.vcov * 180 / 178)


def test_the_default_is_nlmes_rule_where_factors_are_nested(pastes_reml, sleepstudy_reml):
    for fit in (pastes_reml, sleepstudy_reml):
        np.testing.assert_array_equal(fit.df, inner_outer(fit.design))
        assert fit.status.notes == ()


def test_large_crossed_problems_are_tested_by_the_normal_distribution(monkeypatch):
    design = make("diameter ~ 1 + (1 | plate) + (1 | sample)", load_dataset("penicillin"))
    monkeypatch.setattr(module, "MOST_ROWS", 100)
    fit = REML().run(design)
    assert fit.df.item() == np.inf
    (note,) = fit.status.notes
    assert note == "Tests by the normal distribution; the grouping factors are crossed."
    nlme = REML(df="inner-outer").run(design)
    np.testing.assert_array_equal(nlme.df, inner_outer(design))
    assert nlme.status.notes == ()


def test_normal_tests(sleepstudy):
    fit = REML(df="normal").run(make("Reaction ~ Days + (Days | Subject)", sleepstudy))
    numbers = fit.describe("beta", 0.95)
    np.testing.assert_allclose(
        numbers.upper - numbers.estimate, 1.959964 * numbers.std_error, rtol=1e-6
    )
    assert "Tests by the normal distribution." in str(fit)
