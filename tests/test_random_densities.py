"""The compiled kernels against PyMC's density on random models.

``HMLM_AGREE=1000 python -m pytest tests/test_random_densities.py`` draws a thousand models; with
``--numprocesses 2 --dist loadgroup`` two workers share them.
"""

import os

import pytest
from random_models import compare, draw_case

from hmlm.errors import HmlmError
from hmlm.families import FAMILIES

MANY = int(os.environ.get("HMLM_AGREE", "0"))
SEED = os.environ.get("HMLM_AGREE_SEED", "1")
PARTS = min(max(MANY, 1), 20)
# Differences of log densities and slopes; of the gradient and the slopes of its own density.
BOUNDS = {"density": 1e-9, "slope": 1e-5, "own": 1e-4}


def disagreements(case):
    """Compare a case; return its differences, and what is wrong with them."""
    found = compare(case)
    largest = {name: max(float(f[name]) for f in found) for name in BOUNDS}
    wrong = [name for name, bound in BOUNDS.items() if not largest[name] < bound]
    if min(f["points"] for f in found) < 2:
        wrong.append("points")
    return largest, wrong


@pytest.mark.parametrize("family", FAMILIES if MANY else list(FAMILIES)[::4])
def test_a_random_model_of_every_family(family):
    case = draw_case(f"{SEED} {family}", (family,))
    largest, wrong = disagreements(case)
    assert not wrong, (wrong, largest, case)


@pytest.mark.skipif(not MANY, reason="set HMLM_AGREE to how many models to draw")
@pytest.mark.parametrize("part", range(PARTS))
def test_many_random_models(part, record_property):
    """Of all structures, families, links and priors; refused designs do not count."""
    models = len(range(part, MANY, PARTS))
    agreed, refused, number, failed = 0, 0, 0, []
    largest = dict.fromkeys(BOUNDS, 0.0)
    while agreed + len(failed) < models and refused <= models:
        key, number = f"{SEED} {part} {number}", number + 1
        case = draw_case(key)
        try:
            found, wrong = disagreements(case)
        except HmlmError as error:
            if "cannot be told from the residual" not in str(error):
                raise
            refused += 1
            continue
        except Exception as error:  # go on: which models fail says what they share
            error.add_note(f"model {key}: {case}")
            failed.append(error)
            continue
        if wrong:
            failed.append(AssertionError(f"model {key}, {wrong}, {found}: {case}"))
        else:
            agreed += 1
            largest = {name: max(value, found[name]) for name, value in largest.items()}
    record_property(
        "trust",
        {
            "what": "random models agreed with PyMC",
            "models": agreed,
            "refused": refused,
            "largest relative difference of log densities": largest["density"],
            "largest relative difference of slopes": largest["slope"],
            "largest relative error of gradients": largest["own"],
        },
    )
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {models} models", failed)
    assert agreed == models
