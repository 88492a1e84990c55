"""Priors as named values."""

import copy
import pickle

import pytest

from hmlm.errors import PriorError
from hmlm.priors import PRIOR_KINDS, Prior, check_priors

EXAMPLES = {
    "normal": {"mu": 0, "sigma": 10},
    "student-t": {"nu": 4, "mu": 0, "sigma": 2.5},
    "cauchy": {"alpha": 0, "beta": 2},
    "flat": {},
    "uniform": {"lower": -1, "upper": 3},
    "half-normal": {"sigma": 2},
    "half-student-t": {"nu": 4, "sigma": 2.5},
    "half-cauchy": {"beta": 5},
    "half-flat": {},
    "exponential": {"lam": 1},
    "gamma": {"alpha": 2, "beta": 0.1},
    "inverse-gamma": {"alpha": 3, "beta": 2},
    "lognormal": {"mu": 0, "sigma": 1},
    "beta": {"alpha": 1, "beta": 3},
    "lkj": {"eta": 2},
}


def test_every_kind_has_an_example():
    assert set(EXAMPLES) == set(PRIOR_KINDS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_prior_holds_its_name_and_parameters(name):
    prior = Prior(name, **EXAMPLES[name])
    assert prior.name == name
    assert dict(prior.parameters) == EXAMPLES[name]
    assert eval(repr(prior), {"Prior": Prior}) == prior
    assert str(prior).startswith(f"{name}(")
    for twin in (copy.copy(prior), copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert twin == prior
        assert hash(twin) == hash(prior)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if EXAMPLES[n]])
def test_parameters_without_a_default_are_needed(name):
    needed = [p for p, default in PRIOR_KINDS[name].parameters.items() if default is None]
    if not needed:
        assert Prior(name).parameters == {"eta": 1.0}
    for parameter in needed:
        rest = {k: v for k, v in EXAMPLES[name].items() if k != parameter}
        with pytest.raises(PriorError, match=f"a {name} prior needs {parameter}="):
            Prior(name, **rest)


@pytest.mark.parametrize("name", EXAMPLES)
def test_scales_and_shapes_are_positive(name):
    for parameter in PRIOR_KINDS[name].positive:
        for value in (0, -1, float("inf"), float("nan")):
            with pytest.raises(PriorError, match=f"{parameter} of a {name} prior must be positive"):
                Prior(name, **{**EXAMPLES[name], parameter: value})


def test_names_may_be_written_loosely():
    assert Prior("Half_Normal", sigma=1) == Prior("half normal", sigma=1.0)
    assert Prior("LKJ", eta=2).name == "lkj"


@pytest.mark.parametrize(
    ("name", "parameters", "support"),
    [
        ("normal", {"sigma": 1}, "real"),
        ("half-normal", {"sigma": 1}, "positive"),
        ("uniform", {"lower": 0, "upper": 2}, "positive"),
        ("uniform", {"lower": -1, "upper": 2}, "interval"),
        ("lkj", {"eta": 2}, "correlation"),
    ],
)
def test_support(name, parameters, support):
    assert Prior(name, **parameters).support == support


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("norml", {"sigma": 1}, "there is no prior called 'norml'. Did you mean 'normal'"),
        ("zzz", {}, "Known: normal, student-t, .*lkj"),
        ("normal", {"sd": 1}, "a normal prior has no parameter sd; it takes mu, sigma"),
        ("flat", {"sigma": 1}, "it takes none"),
        ("normal", {"sigma": "wide"}, "sigma of a normal prior must be a number, not 'wide'"),
        ("normal", {"mu": float("nan"), "sigma": 1}, "mu of a normal prior must be finite"),
        ("uniform", {"lower": 2, "upper": 2}, "needs lower < upper"),
    ],
)
def test_wrong_priors_say_what_is_wrong(name, parameters, message):
    with pytest.raises(PriorError, match=message):
        Prior(name, **parameters)


def test_priors_do_not_change():
    prior = Prior("normal", sigma=1)
    with pytest.raises(AttributeError):
        prior.name = "flat"
    with pytest.raises(TypeError):
        prior.parameters["sigma"] = 2


def test_priors_compare_by_value():
    assert Prior("normal", mu=0, sigma=1) == Prior("normal", sigma=1)
    assert Prior("normal", sigma=1) != Prior("normal", sigma=2)
    assert Prior("half-normal", sigma=1) != Prior("normal", sigma=1)
    assert Prior("normal", sigma=1) != "normal"


def test_priors_of_a_user_are_checked():
    prior = Prior("normal", sigma=1)
    assert check_priors({"x": prior}) == {"x": prior}
    assert check_priors(None) == {}
    with pytest.raises(PriorError, match=r"the prior of 'x' must be an hmlm.Prior, .*not float"):
        check_priors({"x": 1.0})
    with pytest.raises(PriorError, match="priors must be a dict"):
        check_priors([prior])
