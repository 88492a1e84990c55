"""Degrees of freedom: nlme's inner-outer rule, Satterthwaite's and Kenward and Roger's."""

import numpy as np
import pandas as pd
import pytest
from support import RECORDED, make, recorded, recorded_fixed

from hmlm.datasets import load_dataset
from hmlm.errors import HmlmError
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
