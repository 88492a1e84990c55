"""Data sets, designs and fits that the tests share: each is made once and has a name."""

import numpy as np
import pandas as pd
import pytest
from support import RECORDED, make, recorded, recorded_fit

from hmlm.datasets import load_dataset
from hmlm.fitting.ols import OLS
from hmlm.likelihoods.threads import one_blas_thread


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
