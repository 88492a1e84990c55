"""What tests and doctests share."""

import sys
from collections.abc import Iterator

import pytest

# Tests of which each takes long and shares no fixture: any worker may run any of them.
ALONE = (
    "test_notebook_and_its_solutions_run",
    "test_gibbs_and_nuts_agree_on_every_structure",
    "test_many_random_models",
)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Close the figures of each test and doctest: Matplotlib warns of more than twenty."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together on one worker, so that they share fits."""
    for item in items:
        alone = item.name.startswith(ALONE)
        item.add_marker(pytest.mark.xdist_group(item.nodeid if alone else str(item.path)))
