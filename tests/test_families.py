"""Families, links and outcomes: names, and values that are refused by row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hmlm import Model
from hmlm.errors import DataError, FormulaError, HmlmError
from hmlm.families import FAMILIES, PARAMETERS, get_family
from hmlm.formula import parse_formula, split_formulas
from hmlm.links import from_link, link_slope, to_link


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_found_under_its_name_and_links(name):
    family = FAMILIES[name]
    assert get_family(name) is family
    assert get_family(name.replace("-", "_").upper()) is family
    for link in family.links:
        assert get_family(f"{name}({link})").link == link
        assert get_family(name, link).link == link
    assert set(family.parameters) <= set(PARAMETERS)


@pytest.mark.parametrize(
    ("name", "found"),
    [("normal", "gaussian"), ("ZIP", "zero-inflated-poisson"), ("nbinom", "negative-binomial")],
)
def test_other_names(name, found):
    assert get_family(name).name == found


def test_unknown_families_and_links():
    with pytest.raises(HmlmError, match="Did you mean 'poisson'"):
        get_family("poison")
    with pytest.raises(HmlmError, match="a poisson model has no logit link"):
        get_family("poisson", "logit")
    with pytest.raises(HmlmError, match="two links"):
        get_family("bernoulli(probit)", "logit")


@pytest.mark.parametrize("link", ["identity", "log", "inverse", "logit", "probit", "cloglog"])
def test_links_are_inverse_to_each_other_and_their_slopes_are_derivatives(link):
    eta = np.array([0.3, 0.7, 1.2])
    np.testing.assert_allclose(to_link(link, from_link(link, eta)), eta, rtol=1e-12)
    step = 1e-6
    slope = (from_link(link, eta + step) - from_link(link, eta - step)) / (2 * step)
    np.testing.assert_allclose(link_slope(link, eta), slope, rtol=1e-8)


@pytest.fixture
def frame():
    n = 12
    return pd.DataFrame(
        {
            "g": np.repeat(list("abc"), 4),
            "x": np.arange(n) % 5,
            "y": np.arange(n, dtype=float),
            "n": 20,
            "se": 1.0 + np.arange(n) % 3,
            "word": np.where(np.arange(n) % 2, "yes", "no"),
            "kind": np.array(list("pqr"))[np.arange(n) % 3],
        }
    )


def refused(frame, formula, family, *pieces, **settings):
    with pytest.raises(DataError) as refusal:
        Model(formula, frame, family=family, **settings)
    for piece in pieces:
        assert piece in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "family", "pieces"),
    [
        ({3: -1.0, 5: -2.0}, "poisson", ("'y' is negative in 2 rows", "row 3")),
        ({2: 1.5}, "negative-binomial", ("not a whole number in 1 row", "row 2 ", "(1.5)")),
        ({}, "beta", ("'y' is not between 0 and 1 in 12 rows", "inside (0, 1)")),
        ({}, "gamma", ("'y' is not positive in 1 row", "row 0 ")),
        ({}, "bernoulli", ("neither 0 nor 1 in 10 rows", "family='binomial'")),
        ({}, "binomial", ("neither 0 nor 1 in 10 rows", "p(y, trials)")),
        ({}, "beta-binomial", ("write p(y, trials)",)),
    ],
)
def test_impossible_outcomes_are_refused_by_row(frame, values, family, pieces):
    for row, value in values.items():
        frame.loc[row, "y"] = value
    refused(frame, "y ~ x + (1 | g)", family, *pieces)


def test_successes_above_trials_and_broken_trials(frame):
    frame.loc[[4, 6], "n"] = 2
    refused(frame, "p(y, n) ~ x", "binomial", "above the number of trials 'n' in 2 rows", "row 4")
    frame["n"] = 20.5
    refused(frame, "p(y, n) ~ x", "binomial", "'n' are not whole in 12 rows")
    refused(frame, "p(y, n) ~ x", "poisson", "'p(y, n)' is a count out of trials", "binomial")


def test_hurdles_need_counts_above_one(frame):
    frame["y"] = frame.index % 2
    refused(frame, "y ~ x", "hurdle-poisson", "0 or 1 in all 12 rows", "bernoulli")


def test_words_as_yes_and_no(frame):
    model = Model("word ~ x + (1 | g)", frame, family="bernoulli")
    assert model.design.categories == ("no", "yes")
    assert "'word': yes counts as success." in model.design.notes
    assert model.design.y.tolist() == [float(i % 2) for i in range(12)]
    refused(frame, "kind ~ x", "bernoulli", "has 3 values", "(p, q, r)")


def test_ordered_outcomes_need_an_order(frame):
    refused(frame, "kind ~ x", "ordinal", "its order is not known", "ordered=True")
    frame["kind"] = pd.Categorical(frame["kind"], ["r", "q", "p"], ordered=True)
    design = Model("kind ~ x + (1 | g)", frame, family="ordinal").design
    assert design.categories == ("r", "q", "p")
    assert design.coords["cutpoint"] == ["r|q", "q|p"]
    assert design.terms == ("x",)
    refused(frame, "word ~ x", "categorical", "2 categories", "bernoulli")


def test_categories_have_a_predictor_each(frame):
    design = Model("kind ~ x + (1 | g)", frame, family="categorical").design
    names = [v.name for v in design.variables]
    assert names == [
        "beta",
        "mu_r_beta",
        "sd_g",
        "mu_r_sd_g",
        "b_g",
        "mu_r_b_g",
    ]


def test_weights_and_standard_errors_have_their_place(frame):
    refused(frame, "word ~ x", "bernoulli", "weights ('se')", weights="se")
    refused(frame, "y ~ x", "poisson", "known standard errors ('se')", se="se")
    refused(frame, "y ~ x; sigma ~ x", "gaussian", "sigma has a formula of its own", se="se")
    refused(frame, "y ~ x", "gaussian", "say the same thing twice", se="se", weights="n")
    design = Model("se(y, se) ~ x + (1 | g)", frame).design
    assert design.known_se
    assert design.parameters == ()
    np.testing.assert_allclose(design.weights, frame["se"] ** -2.0)
    assert design.spec.formula == "se(y, se) ~ x + (1 | g)"
    assert Model("y ~ x + (1 | g)", frame, se="se").design.known_se


def test_formulas_of_family_parameters():
    spec = parse_formula("y ~ x + (1 | g); sigma ~ x + (x || h)")
    assert spec.formula == "y ~ x + (1 | g); sigma ~ x + (x || h)"
    assert spec.all_groups == ("g", "h")
    assert spec.columns == ("y", "x", "g", "h")
    assert parse_formula(["y ~ x", "sigma ~ z"]).formula == "y ~ x; sigma ~ z"
    assert split_formulas("`a;b` ~ x; sigma ~ 1") == ["`a;b` ~ x", "sigma ~ 1"]


@pytest.mark.parametrize(
    ("formula", "family", "message"),
    [
        ("y ~ x; mu ~ x", "gaussian", "'mu' is no parameter of the gaussian family; it has sigma"),
        ("y ~ x; sigm ~ x", "gaussian", "Did you mean 'sigma'"),
        ("y ~ x; phi ~ x", "poisson", "it has none"),
        ("y ~ x; sigma ~ x; sigma ~ 1", "gaussian", "two formulas"),
        ("y ~ x; sigma ~ y", "gaussian", "both sides"),
        ("p(y) ~ x", "binomial", "takes two columns, as p"),
        ("p(y, n, m) ~ x", "binomial", "takes two columns"),
        ("p(y, log(n)) ~ x", "binomial", "the column of the trials, not 'log"),
        ("log(p(y, n)) ~ x", "binomial", "cannot stand inside another function"),
        ("se(y, s) ~ se(x, s)", "gaussian", "se.y, standard_error. belongs before"),
    ],
)
def test_formulas_that_cannot_be(formula, family, message):
    with pytest.raises(FormulaError, match=message):
        parse_formula(formula, family)


def test_a_distributional_model_names_its_variables(frame):
    design = Model("y ~ x + (1 | g); sigma ~ x + (x | g)", frame).design
    assert {v.name: v.kind for v in design.variables} == {
        "beta": "population",
        "sigma_beta": "population",
        "sd_g": "sd",
        "sigma_sd_g": "sd",
        "sigma_cor_g": "cor",
        "b_g": "group",
        "sigma_b_g": "group",
    }
    assert design.parameters == ()
