"""Each step of the Gibbs sampler leaves the joint distribution of parameters and data as it is.

Parameters are drawn from the prior and what is given from its distribution; after the step the
parameters must still have the prior's distribution (Geweke 2004). Thousands of chains at once.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from hmlm import Prior
from hmlm.likelihoods.gibbs_steps import State, draw_covariance, draw_mixture, interweave
from hmlm.likelihoods.gibbs_sums import Part

CHAINS = 30_000
BASIS = {1: np.array([[1.7]]), 2: np.array([[1.0, 0.4], [0.0, 2.0]])}


def make_part(size, eta):
    T = BASIS[size]
    priors = (Prior("half-normal", sigma=1.3), Prior("lognormal", mu=-0.2, sigma=0.5))[:size]
    return Part(
        at=slice(0, size),
        T=T,
        T_inverse=np.linalg.inv(T),
        log_det=float(np.log(np.linalg.det(T))),
        priors=priors,
        eta=eta,
    )


def draw_prior(part, rng):
    """Return factors L of covariances drawn from the prior, in the basis of the part."""
    normals = rng.standard_normal((CHAINS, 2))
    sd = np.column_stack([1.3 * np.abs(normals[:, 0]), np.exp(-0.2 + 0.5 * normals[:, 1])])
    sd = sd[:, : part.size]
    R = np.tile(np.eye(part.size), (CHAINS, 1, 1))
    if part.size == 2:
        R[:, 0, 1] = R[:, 1, 0] = 2 * rng.beta(part.eta, part.eta, CHAINS) - 1
    D = sd[:, :, None] * R * sd[:, None, :]
    return np.linalg.cholesky(part.T_inverse @ D @ part.T_inverse.T)


def features(part, L):
    """Return functions of sds and correlations, one in each column."""
    half = part.T @ L
    D = half @ np.swapaxes(half, 1, 2)
    sd = np.sqrt(np.diagonal(D, axis1=1, axis2=2))
    columns = [sd, sd**2, np.log(sd)]
    if part.size == 2:
        r = D[:, 0, 1] / sd.prod(axis=1)
        columns += [np.column_stack([r, r**2, r * sd[:, 0]])]
    return np.concatenate(columns, axis=1)


def assert_same_means(first, second):
    error = np.sqrt((first.var(axis=0) + second.var(axis=0)) / CHAINS)
    z = (first - second).mean(axis=0) / error
    assert np.abs(z).max() < 4, z


def make_state(part, L, J, rng):
    b = rng.standard_normal((CHAINS, J, part.size)) @ np.swapaxes(L, 1, 2)
    ones = np.ones(CHAINS)
    return State(
        gamma=np.zeros((CHAINS, 0)), b=[b], L=[L.copy()], sigma=ones, omega=ones, accepted=0 * ones
    )


@pytest.mark.parametrize(("size", "eta"), [(1, 1.0), (2, 1.0), (2, 2.5)])
@pytest.mark.parametrize("groups", [2, 5])
def test_covariances_given_the_effects(size, eta, groups):
    rng = np.random.default_rng(3)
    part = make_part(size, eta)
    L = draw_prior(part, rng)
    state = make_state(part, L, groups, rng)
    for _ in range(3):
        draw_covariance(state, 0, part, rng)
    assert state.accepted.mean() > 0.2
    assert_same_means(features(part, draw_prior(part, rng)), features(part, state.L[0]))
    # Jointly with the effects: D^-1/2 b is standard normal.
    z = np.linalg.solve(state.L[0][:, None], state.b[0][..., None])[..., 0]
    square = (z**2).mean(axis=(1, 2))
    assert abs(square.mean() - 1) < 4 * square.std() / np.sqrt(CHAINS)


@pytest.mark.parametrize(("size", "eta"), [(1, 1.0), (2, 1.0), (2, 2.5)])
def test_covariances_given_effects_in_their_units(size, eta):
    rng = np.random.default_rng(4)
    part = make_part(size, eta)
    L = draw_prior(part, rng)
    groups = 4
    Z = np.random.default_rng(5).normal(size=(groups, 3, size))
    ZZ = np.swapaxes(Z, 1, 2) @ Z
    state = make_state(part, L, groups, rng)
    score = np.einsum("jna,cjn->cja", Z, rng.standard_normal((CHAINS, groups, 3)))
    interweave(state, 0, part, score, lambda X: ZZ @ X, rng)
    assert state.accepted.mean() > 0.3
    assert not np.array_equal(state.L[0], L)
    assert_same_means(features(part, draw_prior(part, rng)), features(part, state.L[0]))
    z = np.linalg.solve(state.L[0][:, None], state.b[0][..., None])[..., 0]
    square = (z**2).mean(axis=(1, 2))
    assert abs(square.mean() - 1) < 4 * square.std() / np.sqrt(CHAINS)


@pytest.mark.parametrize(
    "prior",
    [Prior("student-t", nu=4, mu=0.7, sigma=1.4), Prior("cauchy", alpha=-0.4, beta=0.8)],
    ids=lambda p: p.name,
)
def test_scales_of_heavy_tails(prior):
    rng = np.random.default_rng(6)
    v = prior.parameters
    nu, scale = v.get("nu", 1.0), v.get("sigma", v.get("beta"))
    omega = nu / rng.chisquare(nu, CHAINS)
    u = v.get("mu", v.get("alpha")) + scale * np.sqrt(omega) * rng.standard_normal(CHAINS)
    sums = SimpleNamespace(priors=[prior], u0=np.array([0.3]), U=np.array([[1.0]]))
    state = SimpleNamespace(gamma=(u - 0.3)[:, None], omega=omega[:, None].copy())
    draw_mixture(sums, state, rng)
    again = nu / rng.chisquare(nu, CHAINS)
    before = np.column_stack([1 / again, np.log(again)])
    after = np.column_stack([1 / state.omega[:, 0], np.log(state.omega[:, 0])])
    assert_same_means(before, after)
