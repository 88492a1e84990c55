"""The compiled kernels against PyMC's density on random models.

``HMLM_AGREE=1000 python -m pytest tests/test_random_densities.py`` draws a thousand models.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_models import compare, models

from hmlm.errors import HmlmError
from hmlm.families import FAMILIES

MANY = int(os.environ.get("HMLM_AGREE", "0"))
ODDLY = {
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def assert_agreement(case):
    """Differences of log densities and slopes are the same; the gradient is the density's own."""
    for found in compare(case):
        assert found["points"] >= 2, found
        assert found["density"] < 1e-7, found
        assert found["slope"] < 1e-5, found
        assert found["own"] < 1e-4, found


@pytest.mark.parametrize("family", FAMILIES if MANY else list(FAMILIES)[::4])
def test_a_random_model_of_every_family(family):
    @seed(len(family))
    @settings(max_examples=1, **ODDLY)
    @given(models(names=(family,)))
    def check(case):
        assert_agreement(case)

    check()


@pytest.mark.skipif(not MANY, reason="set HMLM_AGREE to how many models to draw")
def test_many_random_models():
    """Of all structures, families, links and priors; refused designs do not count."""
    count = Counter()

    @seed(int(os.environ.get("HMLM_AGREE_SEED", "1")))
    @settings(max_examples=MANY, **ODDLY)
    @given(models())
    def check(case):
        try:
            assert_agreement(case)
        except HmlmError as error:
            if "cannot be told from the residual" not in str(error):
                raise
            count["refused"] += 1
        else:
            count["agreed"] += 1

    check()
    print(dict(count))
    assert count["agreed"] > MANY / 2
