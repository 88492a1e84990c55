"""Simulated outcomes, parameters as users give them, and tables of planned studies."""

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm.errors import HmlmError
from hmlm.families import FAMILIES
from hmlm.given_parameters import complete_parameters
from hmlm.simulation import plan_design, simulate_outcomes
from hmlm.study import make_study

PARAMETERS = {
    "sigma": 0.7,
    "nu": 5.0,
    "alpha": 2.0,
    "phi": 6.0,
    "zi": 0.2,
    "hu": 0.3,
}


@pytest.fixture(scope="module")
def study():
    return make_study(groups={"g": 10}, per_group=30, predictors={"x": "normal"})


@pytest.fixture(scope="module")
def sleep_design(sleepstudy):
    return hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy).design


SLEEP = {"beta": [250, 10], "sd_Subject": [25, 6], "cor_Subject": 0.3, "sigma": 25}


def family_parameters(design):
    """Return a value for every parameter of a design."""
    found = {}
    for variable in design.variables:
        shape = tuple(len(design.coords[d]) for d in variable.dims)
        if variable.kind == "population":
            found[variable.name] = np.resize([0.2, 0.4], shape)
        elif variable.kind == "sd":
            found[variable.name] = np.full(shape, 0.5)
        elif variable.kind == "cutpoint":
            found[variable.name] = np.arange(shape[0]) - 1.0
        elif variable.kind == "parameter":
            found[variable.name] = PARAMETERS[variable.name]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_simulated_and_comes_back_as_a_table(family, study):
    """Outcomes of each family are ones that a model of that family accepts."""
    trials = FAMILIES[family].outcome == "trials"
    formula = f"{'p(y, 5)' if trials else 'y'} ~ x + (1 | g)"
    labels = ["a", "b", "c", "d"]
    design = plan_design(formula, study, family, categories=labels, random_seed=1)
    found = simulate_outcomes(design, family_parameters(design), random_seed=2, n=2)
    assert found.y.shape == (2, 300)
    assert np.isfinite(found.y).all()
    assert found.effects["b_g"].shape == (2, 10, 1)
    again = hmlm.Model(formula, found.frame(1), family).design
    np.testing.assert_array_equal(again.y, found.y[1])


def test_moments_of_the_outcome_are_those_of_the_model(sleep_design):
    found = simulate_outcomes(sleep_design, SLEEP, random_seed=3, n=4000)
    block = sleep_design.blocks[0]
    D = np.outer([25, 6], [25, 6]) * np.array([[1, 0.3], [0.3, 1]])
    variance = np.einsum("nk,kl,nl->n", block.Z, D, block.Z) + 25**2
    mean = sleep_design.X @ [250, 10]
    assert np.abs((found.y.mean(axis=0) - mean) / np.sqrt(variance / 4000)).max() < 5
    np.testing.assert_allclose(found.y.var(axis=0), variance, rtol=0.15)
    r = np.corrcoef(found.effects["b_Subject"].reshape(-1, 2).T)[0, 1]
    assert r == pytest.approx(0.3, abs=0.02)


def test_given_effects_stay(sleep_design):
    b = np.tile([10.0, -2.0], (18, 1))
    found = simulate_outcomes(
        sleep_design, {**SLEEP, "b_Subject": b, "sigma": 1e-9}, random_seed=3, n=2
    )
    np.testing.assert_allclose(found.y[1], sleep_design.X @ [260, 8])


def test_the_same_seed_gives_the_same_outcomes(sleep_design):
    first, second = (simulate_outcomes(sleep_design, SLEEP, random_seed=7).y for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_parameters_by_name_or_as_arrays_are_the_same(sleep_design):
    one_by_one = {
        "Intercept": 250,
        "Days": 10,
        "sd_Subject[Intercept]": 25,
        "sd_Subject[Days]": 6,
        "cor_Subject[Intercept, Days]": 0.3,
        "sigma": 25,
    }
    mapped = {**SLEEP, "beta": {"Days": 10, "Intercept": 250}}
    wanted = complete_parameters(sleep_design, SLEEP)
    for given in (one_by_one, mapped):
        found = complete_parameters(sleep_design, given)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": None}, "'sigma' has values that are no finite numbers"),
        ({"sigma": -1}, "'sigma' must be positive"),
        ({"sd_Subject": [25]}, r"'sd_Subject' must have shape \(2,\)"),
        ({"sd_Subject": [25, -6]}, "negative sd"),
        ({"cor_Subject": 1.2}, "no correlation matrix"),
        ({"Dayz": 3}, "no parameter 'Dayz'. Did you mean 'Days'"),
        ({"beta": {"Days": 1}}, "a value for each of Intercept, Days"),
        ({"beta": [1, np.nan]}, "no finite numbers"),
        ({"beta": "large"}, "must be numbers"),
    ],
)
def test_wrong_parameters_are_refused(sleep_design, change, words):
    with pytest.raises(HmlmError, match=words):
        simulate_outcomes(sleep_design, {**SLEEP, **change})


def test_a_missing_parameter_is_named(sleep_design):
    with pytest.raises(HmlmError, match="parameters lacks cor_Subject"):
        simulate_outcomes(sleep_design, {k: v for k, v in SLEEP.items() if k[:3] != "cor"})


def test_impossible_means_are_refused(study):
    design = plan_design("y ~ x + (1 | g)", study, "poisson(identity)", random_seed=1)
    with pytest.raises(HmlmError, match="mean that a poisson"):
        simulate_outcomes(design, {"Intercept": 0, "x": 5, "sd_g": 1}, random_seed=1)


@pytest.mark.parametrize("n", [0, 1.5, True, "many"])
def test_number_of_simulations_is_checked(sleep_design, n):
    with pytest.raises(HmlmError, match="n must be a positive whole number"):
        simulate_outcomes(sleep_design, SLEEP, n=n)


def test_no_pooling_needs_effects(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy).with_pooling("none")
    with pytest.raises(HmlmError, match="lacks b_Subject"):
        simulate_outcomes(model, {"Days": 10, "sigma": 30})
    b = np.full((18, 1), 100.0)
    y = simulate_outcomes(model, {"Days": 0, "sigma": 1e-9, "b_Subject": b}, random_seed=1).y
    np.testing.assert_allclose(y, 100)


def test_an_expression_has_no_table(sleepstudy):
    model = hmlm.Model("log(Reaction) ~ 1 + (1 | Subject)", sleepstudy)
    found = simulate_outcomes(model, {"Intercept": 5, "sd_Subject": 0.1, "sigma": 0.1}, 1)
    with pytest.raises(HmlmError, match="made of columns"):
        found.frame()


def test_a_planned_outcome_is_a_plain_name(study):
    with pytest.raises(HmlmError, match="plain name"):
        plan_design("log(y) ~ x + (1 | g)", study)
    with pytest.raises(HmlmError, match="how many categories"):
        plan_design("y ~ x + (1 | g)", study, "ordinal")


def test_predictors_of_a_study():
    study = make_study(
        groups={"school": 6, "class": 4},
        per_group=5,
        predictors={
            "x": "normal",
            "age": "normal by school",
            "within": "binary",
            "in_school": "binary within school",
            "between": "binary by school",
            "time": "time",
            "own": lambda rng, n: np.arange(n),
        },
    )
    frame = study.make_frame(1)
    assert len(frame) == 120
    assert frame["class"].nunique() == 24
    assert frame["x"].mean() == pytest.approx(0, abs=1e-12)
    assert frame["x"].std() == pytest.approx(1)
    assert (frame.groupby("school")["age"].nunique() == 1).all()
    assert frame.groupby("class")["within"].sum().isin([2, 3]).all()
    assert (frame.groupby("school")["in_school"].mean() == 0.5).all()
    assert frame.groupby("school")["between"].first().sum() == 3
    assert frame.groupby("class")["time"].apply(list).tolist() == [[0, 1, 2, 3, 4]] * 24
    pd.testing.assert_frame_equal(frame, study.make_frame(1))


def test_poisson_sizes_are_never_zero():
    study = make_study(groups={"g": 200}, per_group=1, sizes="poisson")
    sizes = study.make_frame(1).groupby("g").size()
    assert len(sizes) == 200
    assert sizes.max() > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": {"g": 1}}, "'g' must be a whole number, at least 2"),
        ({"per_group": 0}, "'per_group' must be"),
        ({"predictors": {"x": "norml"}}, "predictor 'x' is 'norml'"),
        ({"predictors": {"x": "binary by h"}}, "which the study does not have"),
        ({"predictors": {"g": "normal"}}, "both a group and a predictor"),
        ({"predictors": {"x": "normal within g"}}, "only a binary one"),
        ({"sizes": "equal"}, "sizes is"),
    ],
)
def test_wrong_plans_are_refused(change, words):
    with pytest.raises(HmlmError, match=words):
        make_study(**{"groups": {"g": 3}, "per_group": 2, **change})


def test_a_function_must_return_the_rows():
    study = make_study(groups={"g": 3}, per_group=2, predictors={"x": lambda rng, n: [1.0]})
    with pytest.raises(HmlmError, match="must return as many values"):
        study.make_frame(1)


def test_only_sizes_of_the_study_vary(study):
    with pytest.raises(HmlmError, match="no 'h' to vary"):
        study.vary(h=3)
