"""The data as sums, and the profiled deviance that is made of them, against dense algebra."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import central_difference, make, outcome_covariance, simulate

from hmlm.datasets import load_dataset
from hmlm.likelihoods.covariance import condition, covariance_shape, sds_and_correlations
from hmlm.likelihoods.crossproducts import OneFactor, one_factor, population_basis, share
from hmlm.likelihoods.gaussian import bases_of, blocks_of, gaussian_sums, one_level
from hmlm.likelihoods.profiled import profiled_deviance, shapes_of, split_theta

STRUCTURES = {
    "one factor, shared designs": ("alcohol", "alcuse ~ coa + peer + time + (time | id)"),
    "one factor, own designs": ("radon", "log_radon ~ floor + (floor | county)"),
    "uncorrelated": ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    "no intercept": ("sleepstudy", "Reaction ~ 0 + Days + (0 + Days | Subject)"),
    "no population": ("dyestuff", "Yield ~ 0 + (1 | Batch)"),
    "nested": ("pastes", "strength ~ 1 + (1 | batch/cask)"),
    "crossed": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "crossed, many levels": ("ratings", "y ~ x + (x | student) + (1 | teacher)"),
}


def load(name):
    if name != "ratings":
        return load_dataset(name)
    rng = np.random.default_rng(40)
    frame = pd.DataFrame(
        {"student": np.arange(480) % 120, "teacher": rng.permutation(np.arange(480) % 110)}
    )
    frame["x"] = rng.normal(size=480)
    student, teacher = rng.normal(size=120), rng.normal(size=110)
    signal = student[frame["student"]] + teacher[frame["teacher"]] + 0.5 * frame["x"]
    return frame.assign(y=signal + rng.normal(size=480))


@pytest.fixture(scope="module", params=STRUCTURES)
def structure(request):
    data, formula = STRUCTURES[request.param]
    design = make(formula, load(data))
    return design, gaussian_sums(design)


def theta_of(sums, seed):
    rng = np.random.default_rng(seed)
    diagonal = np.concatenate([s.is_diagonal for s in shapes_of(sums)])
    return np.where(diagonal, rng.uniform(0.2, 1.5, len(diagonal)), rng.normal(size=len(diagonal)))


def relative_covariances(design, sums, theta):
    """Each group's effects have covariance sigma^2 times this."""
    parts = zip(
        blocks_of(sums, design),
        split_theta(theta, sums),
        shapes_of(sums),
        bases_of(sums),
        strict=True,
    )
    halves = {block.group: T @ shape.unpack(part) for block, part, shape, T in parts}
    return {group: half @ half.T for group, half in halves.items()}


def dense_deviance(design, sums, theta, reml):
    """-2 log-likelihood at theta, maximised over beta and sigma, from the N x N covariance."""
    X, y = design.X, design.response
    n, p = X.shape
    V = np.diag(np.ones(n) if design.weights is None else 1.0 / design.weights)
    covariances = relative_covariances(design, sums, theta)
    for block in design.blocks:
        same = block.index[:, None] == block.index[None, :]
        V += same * (block.Z @ covariances[block.group] @ block.Z.T)
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    r = y - X @ np.linalg.solve(information, X.T @ inverse @ y) if p else y
    f = n - p if reml else n
    deviance = np.linalg.slogdet(V)[1] + f * (1 + np.log(2 * np.pi * (r @ inverse @ r) / f))
    return deviance + (np.linalg.slogdet(information)[1] if reml and p else 0.0)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_deviance_is_the_dense_one(structure, reml):
    design, sums = structure
    for seed in range(3):
        theta = theta_of(sums, seed)
        point = profiled_deviance(theta, sums, reml)
        expected = dense_deviance(design, sums, theta, reml)
        assert point.deviance == pytest.approx(expected, rel=1e-10, abs=1e-7)


@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_gradient_is_the_central_difference(structure, reml):
    _, sums = structure
    for seed in range(3):
        theta = theta_of(sums, seed)
        numeric = central_difference(lambda t: profiled_deviance(t, sums, reml).deviance, theta)
        exact = profiled_deviance(theta, sums, reml).gradient
        np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-5)


def test_gradient_at_the_edge(structure):
    _, sums = structure
    theta = np.zeros(sum(s.size for s in shapes_of(sums)))
    point = profiled_deviance(theta, sums, True)
    assert np.isfinite(point.gradient).all()
    # The deviance is even in Lambda, so all its derivatives vanish where Lambda does.
    np.testing.assert_allclose(point.gradient, 0, atol=1e-9)


def test_coefficients_on_the_users_scale_are_generalised_least_squares(structure):
    design, sums = structure
    theta = theta_of(sums, 4)
    point = profiled_deviance(theta, sums, True)
    estimates = {"sigma": np.sqrt(point.sigma2)}
    for group, D in relative_covariances(design, sums, theta).items():
        estimates[f"sd_{group}"], estimates[f"cor_{group}"] = sds_and_correlations(point.sigma2 * D)
    inverse = np.linalg.inv(outcome_covariance(design, estimates))
    vcov = np.linalg.inv(design.X.T @ inverse @ design.X)
    np.testing.assert_allclose(
        sums.basis.to_user(point.gamma), vcov @ design.X.T @ inverse @ design.y, rtol=1e-8
    )
    ours = point.sigma2 * sums.basis.covariance_to_user(point.K_inverse)
    np.testing.assert_allclose(ours, vcov, rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("weights", [None, "w"])
def test_sharing_of_equal_designs_is_the_same_as_not_sharing(weights):
    frame, _ = simulate(1, groups=60, size=4)
    frame["x"] = np.tile([0.0, 1, 2, 3], 60)
    frame["w"] = np.tile([1.0, 2, 1, 3], 60)
    design = make("y ~ x + (x | g)", frame, weights=weights)
    shared = one_factor(design, design.blocks[0])
    assert isinstance(gaussian_sums(design), OneFactor)
    assert len(shared.ZZ) == 1
    assert shared.count.tolist() == [60]
    separate = one_level(replace(shared, pairs=shared.pairs[:0]), design.blocks[0])
    for reml in (False, True):
        for seed in range(3):
            theta = theta_of(shared, seed)
            one, many = (profiled_deviance(theta, s, reml) for s in (shared, separate))
            assert one.deviance == pytest.approx(many.deviance, rel=1e-12)
            np.testing.assert_allclose(one.gradient, many.gradient, rtol=1e-8, atol=1e-9)
            expected = dense_deviance(design, shared, theta, reml)
            assert one.deviance == pytest.approx(expected, rel=1e-9)


def test_groups_share_exactly_where_their_cross_products_are_equal():
    a, b = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 1.0], [1.0, 2.5]])
    distinct, which = share(np.stack([a, b, a * (1 + 1e-15), b, 1e6 * a]))
    assert len(distinct) == 3
    assert which[0] == which[2] != which[1] == which[3]
    np.testing.assert_allclose(distinct[which[4]], 1e6 * a)
    nothing, where = share(np.zeros((4, 1, 1)))
    assert len(nothing) == 1
    assert where.tolist() == [0, 0, 0, 0]


def test_sums_are_cross_products_of_the_rows(radon):
    design = make("log_radon ~ floor + (floor | county)", radon)
    block = design.blocks[0]
    sums = one_factor(design, block)
    M = np.column_stack([sums.basis.Q, sums.basis.residual])
    np.testing.assert_allclose(sums.MM, M.T @ M, atol=1e-9)
    for j in (0, 1, 17, 84):
        Z = (block.Z @ sums.T)[block.index == j]
        np.testing.assert_allclose(sums.ZZ[sums.which[j]], Z.T @ Z, atol=1e-10)
        np.testing.assert_allclose(sums.ZM[j], Z.T @ M[block.index == j], atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.floats(-6, 6), st.floats(0, 1e4), st.integers(0, 10**6))
def test_basis_is_orthogonal_whatever_the_scale(power, shift, seed):
    rng = np.random.default_rng(seed)
    frame, _ = simulate(2, groups=5)
    frame["x"] = 10.0**power * (rng.normal(size=len(frame)) + shift)
    design = make("y ~ x + (1 | g)", frame)
    basis = population_basis(design)
    n = len(frame)
    np.testing.assert_allclose(basis.Q.T @ basis.Q, n * np.eye(2), atol=1e-8 * n)
    np.testing.assert_allclose(
        basis.Q @ basis.R, design.X, rtol=1e-9, atol=1e-9 * abs(design.X).max()
    )
    np.testing.assert_allclose(basis.Q.T @ basis.residual, 0, atol=1e-9 * n)
    np.testing.assert_allclose(design.X @ basis.beta + basis.residual, design.y, atol=1e-7)


def test_free_entries_go_by_columns_and_back():
    shape = covariance_shape((2, 1, 3))
    theta = np.arange(1.0, 11)
    Lambda = shape.unpack(theta)
    np.testing.assert_array_equal(shape.pack(Lambda), theta)
    assert np.count_nonzero(Lambda) == shape.size == 10
    assert (np.triu(Lambda, 1) == 0).all()
    assert shape.is_diagonal.sum() == 6
    assert Lambda[2, :2].tolist() == [0, 0]  # parts do not correlate


def test_conditioned_columns_are_centred_and_of_one_size(sleepstudy):
    block = make("Reaction ~ Days + (Days | Subject)", sleepstudy).blocks[0]
    Z = block.Z @ condition(block).T
    np.testing.assert_allclose((Z**2).mean(axis=0), 1)
    assert Z[:, 1].mean() == pytest.approx(0, abs=1e-12)
    apart = make("Reaction ~ Days + (Days || Subject)", sleepstudy).blocks[0]
    T = condition(apart).T
    np.testing.assert_array_equal(T, np.diag(np.diagonal(T)))


def test_sds_and_correlations_of_a_covariance():
    D = np.array([[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    sd, correlation = sds_and_correlations(D)
    assert sd.tolist() == [2, 3, 0]
    assert correlation[0, 1] == correlation[1, 0] == 0.5
    assert np.isnan(correlation[2, :2]).all()
    assert np.diagonal(correlation).tolist() == [1, 1, 1]
