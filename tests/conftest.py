"""Data sets, designs and fits that the tests share: each is made once and has a name."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from support import make, recorded

from hmlm.datasets import load_dataset
from hmlm.fitting.maximum_likelihood import ML, REML
from hmlm.fitting.ols import OLS
from hmlm.likelihoods.threads import one_blas_thread

# The fits that R recorded: name of the record -> data set, formula, method.
RECORDED = {
    "alcohol_reml": ("alcohol", "alcuse ~ coa + peer + time + (time | id)", REML()),
    "alcohol_ml": ("alcohol", "alcuse ~ coa + peer + time + (time | id)", ML(std_errors="nlme")),
    "sleepstudy_reml": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", REML()),
    "sleepstudy_ml": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", ML()),
    "sleepstudy_uncorrelated_reml": ("sleepstudy", "Reaction ~ Days + (Days || Subject)", REML()),
    "dyestuff_reml": ("dyestuff", "Yield ~ 1 + (1 | Batch)", REML()),
    "dyestuff2_reml": ("dyestuff2", "Yield ~ 1 + (1 | Batch)", REML()),
    "radon_reml": ("radon", "log_radon ~ floor + log_uranium + (floor | county)", REML()),
    "pastes_reml": ("pastes", "strength ~ 1 + (1 | batch/cask)", REML()),
    "penicillin_reml": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", REML()),
}


@cache
def recorded_fit(name):
    """Fit a model that R has fitted."""
    data, formula, method = RECORDED[name]
    return method.run(make(formula, load_dataset(data)))


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread():
    """Hold BLAS to one thread: more of them make small matrices many times slower."""
    with one_blas_thread():
        yield


@pytest.fixture(scope="session", params=RECORDED)
def beside_r(request):
    """Every fit that R recorded: its name, our fit, R's record."""
    return request.param, recorded_fit(request.param), recorded(request.param)


@pytest.fixture(scope="session")
def alcohol():
    return load_dataset("alcohol")


@pytest.fixture(scope="session")
def sleepstudy():
    return load_dataset("sleepstudy")


@pytest.fixture(scope="session")
def radon():
    return load_dataset("radon")


@pytest.fixture(scope="session")
def alcohol_reml():
    return recorded_fit("alcohol_reml")


@pytest.fixture(scope="session")
def sleepstudy_reml():
    return recorded_fit("sleepstudy_reml")


@pytest.fixture(scope="session")
def sleepstudy_ml():
    return recorded_fit("sleepstudy_ml")


@pytest.fixture(scope="session")
def radon_reml():
    return recorded_fit("radon_reml")


@pytest.fixture(scope="session")
def dyestuff2_reml():
    return recorded_fit("dyestuff2_reml")


@pytest.fixture(scope="session")
def pastes_reml():
    return recorded_fit("pastes_reml")


@pytest.fixture(scope="session")
def sleepstudy_pooled(sleepstudy):
    """Complete pooling of the sleep study."""
    return OLS().run(make("Reaction ~ Days + (Days | Subject)", sleepstudy, "complete"))


@pytest.fixture(scope="session")
def sleepstudy_alone(sleepstudy):
    """No pooling of the sleep study: a line for every subject."""
    return OLS().run(make("Reaction ~ Days + (Days | Subject)", sleepstudy, "none"))


@pytest.fixture(scope="session")
def alcohol_alone(alcohol):
    """No pooling of the alcohol study."""
    formula = "alcuse ~ coa + peer + time + (time | id)"
    return OLS().run(make(formula, alcohol, "none"))


@pytest.fixture(scope="session")
def _every_kind():
    rng = np.random.default_rng(20)
    n = 60
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(3.0, 1.0, n),
            "z": rng.uniform(1.0, 2.0, n),
            "f": pd.Categorical(rng.choice(["lo", "mid", "hi"], n), ["lo", "mid", "hi"]),
            "k": rng.choice(["u", "v"], n),
            "b": rng.random(n) > 0.5,
            "g": np.repeat(list("abcdef"), 10),
            "h": np.tile(list("pqrst"), 12),
            "my col": rng.normal(size=n),
        }
    )


@pytest.fixture
def table(_every_kind):
    """A small table with a column of every kind, fresh for every test."""
    return _every_kind.copy()
