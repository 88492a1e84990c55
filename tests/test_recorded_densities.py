"""The compiled kernels against log densities that PyMC gave, without PyMC: quick, on small models.

tests/reference/densities.json holds random models of all structures, families, links and priors,
and PyMC's log densities in the kernel's coordinates (tools/record_densities.py).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from random_models import KernelDensity
from support import central_difference

import hmlm
from hmlm import Prior

PATH = Path(__file__).parent / "reference" / "densities.json"
RECORDS = json.loads(PATH.read_text(encoding="utf-8"))


def make_density(record):
    """Return the kernel's density of a recorded model."""
    settings = dict(record["model"])
    pooling = settings.pop("pooling")
    priors = {k: Prior(name, **own) for k, (name, own) in settings.pop("priors").items()}
    model = hmlm.Model(
        settings.pop("formula"), pd.DataFrame(record["table"]), priors=priors, **settings
    )
    model = model if pooling == "partial" else model.with_pooling(pooling)
    return KernelDensity(model.design, rows=record["rows"]).posterior


@pytest.fixture(scope="module", params=RECORDS, ids=[r["name"] for r in RECORDS])
def recorded_density(request):
    posterior = make_density(request.param)
    offsets = np.array(request.param["offsets"])
    assert offsets.shape[1] == posterior.dim
    return posterior, posterior.start + offsets, np.array(request.param["log_density"])


def test_differences_of_log_densities_are_those_of_pymc(recorded_density):
    posterior, points, wanted = recorded_density
    found = np.array([posterior.log_density(x)[0] for x in points])
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], rtol=1e-7, atol=2e-7)


def test_the_gradient_is_that_of_the_density(recorded_density):
    posterior, points, _ = recorded_density
    for x in points[:2]:
        gradient = posterior.log_density(x)[1]
        slopes = central_difference(lambda v: posterior.log_density(v)[0], x, 1e-5)
        scale = max(1.0, np.abs(gradient).max())
        np.testing.assert_allclose(gradient / scale, slopes / scale, atol=2e-5)


def test_every_family_and_both_kernels_are_recorded():
    assert {r["model"]["family"].partition("(")[0] for r in RECORDS} == set(hmlm.families.FAMILIES)
    assert {r["rows"] for r in RECORDS} == {True, False}
