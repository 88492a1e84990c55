"""Rank and least squares inside groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmlm.linear import dependent_columns, rows_by_size, within_groups

RNG = np.random.default_rng(30)
A = RNG.normal(size=(50, 3))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([np.ones(50), A[:, 0]], {}),
        ([np.ones(50), np.full(50, 7.0)], {1: [0]}),
        ([np.ones(50), A[:, 0], 3 * A[:, 0]], {2: [1]}),
        ([np.ones(50), A[:, 0], 3 * A[:, 0] + 2], {2: [0, 1]}),
        ([A[:, 0], A[:, 1], A[:, 0] - 2 * A[:, 1]], {2: [0, 1]}),
        ([A[:, 0], A[:, 0], A[:, 1], A[:, 1]], {1: [0], 3: [2]}),
        ([np.ones(50), np.zeros(50), A[:, 0]], {1: []}),
        ([np.zeros(50)], {0: []}),
        ([np.ones(50), 2000 + np.arange(50) % 6], {}),
        ([np.ones(50), 1e9 + 1e-1 * A[:, 0]], {}),
        ([np.ones(50), 1e6 * A[:, 0], 1e-6 * A[:, 1]], {}),
        ([np.ones(50), 1e6 * A[:, 0], 1e-9 * A[:, 0]], {2: [1]}),
    ],
)
def test_dependent_columns(columns, expected):
    assert dependent_columns(np.column_stack(columns)) == expected


def test_no_columns_and_fewer_rows_than_columns():
    assert dependent_columns(np.empty((5, 0))) == {}
    assert set(dependent_columns(RNG.normal(size=(2, 4)))) == {2, 3}


def test_rows_by_size_covers_every_row_once():
    index = np.array([2, 0, 1, 2, 2, 0, 4])
    found = rows_by_size(index)
    assert [rows.shape for _, rows in found] == [(2, 1), (1, 2), (1, 3)]
    assert sorted(np.concatenate([rows.ravel() for _, rows in found])) == list(range(7))
    for groups, rows in found:
        assert (index[rows] == groups[:, None]).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 10**6))
def test_within_groups_is_lstsq_in_every_group(labels, seed):
    rng = np.random.default_rng(seed)
    index = np.unique(labels, return_inverse=True)[1]
    Z = np.column_stack([np.ones(len(index)), rng.normal(size=len(index)) * 1e3])
    M = rng.normal(size=(len(index), 3))
    found = within_groups(Z, index, M)
    for j in range(index.max() + 1):
        rows = index == j
        rank = np.linalg.matrix_rank(Z[rows])
        assert found.rank[j] == rank
        assert found.estimable[j].all() == (rank == 2)
        projection = Z[rows] @ np.linalg.pinv(Z[rows])
        np.testing.assert_allclose(found.residual[rows], M[rows] - projection @ M[rows], atol=1e-9)
        if rank == 2:
            beta, *_ = np.linalg.lstsq(Z[rows], M[rows])
            np.testing.assert_allclose(found.coefficients[j], beta, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(
                found.inverse[j], np.linalg.inv(Z[rows].T @ Z[rows]), rtol=1e-6
            )


def test_what_a_group_of_equal_values_determines():
    # Two rows at x = 0 determine the intercept, but no slope.
    Z = np.column_stack([np.ones(4), [0.0, 0, 1, 2]])
    found = within_groups(Z, np.array([0, 0, 1, 1]), np.arange(4.0)[:, None])
    assert found.estimable.tolist() == [[True, False], [True, True]]
    assert found.coefficients[0, 0, 0] == pytest.approx(0.5)
