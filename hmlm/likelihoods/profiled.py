"""The profiled deviance of a Gaussian model, for ML and REML, with its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.likelihoods.covariance import CovarianceShape, factor_groups
from hmlm.likelihoods.crossed import Crossed, eliminate_crossed, pull_back_crossed
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.tree import Tree, eliminate, pull_back

GaussianSums = OneFactor | Tree | Crossed


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ProfiledPoint:
    """The profiled likelihood at one value of theta.

    Attributes
    ----------
    deviance : float
        -2 log-likelihood (restricted under REML), maximised over beta and sigma.
    gradient : ndarray
        Its derivative by theta.
    gamma : ndarray, shape (p,)
        Generalised least-squares coefficients on the orthogonal columns.
    K_inverse : ndarray, shape (p, p)
        Inverse of Q'V^-1 Q, where sigma^2 V is the covariance of the outcome.
    sigma2 : float
        Residual variance.
    log_det : float
        log|V|.
    r2 : float
        Generalised residual sum of squares.
    state : object
        What the elimination left behind, from which group effects follow.
    """

    deviance: float
    gradient: np.ndarray
    gamma: np.ndarray
    K_inverse: np.ndarray
    sigma2: float
    log_det: float
    r2: float
    state: Any


def shapes_of(sums: GaussianSums) -> list[CovarianceShape]:
    """Return the free entries of each block's Lambda, in the order of theta."""
    if isinstance(sums, OneFactor):
        return [sums.shape]
    if isinstance(sums, Tree):
        return [shape for level in sums.levels for shape in level.shapes]
    return [sums.fine_shape, *sums.rest_shapes]


def split_theta(theta: np.ndarray, sums: GaussianSums) -> list[np.ndarray]:
    """Cut theta into the part of each block."""
    sizes = [shape.size for shape in shapes_of(sums)]
    return np.split(theta, np.cumsum(sizes)[:-1]) if sizes else []


def profiled_deviance(
    theta: np.ndarray,
    sums: GaussianSums,
    reml: bool,
    sigma2: float | None = None,
    held: tuple[np.ndarray, float] | None = None,
) -> ProfiledPoint:
    """Evaluate the profiled deviance.

    With sigma^2 V the covariance of the outcome and K = M'V^-1 M, M = [X, y], profiling out beta
    and sigma^2 leaves

        d = log|V| + f (1 + log(2 pi r^2 / f)) [+ log|X'V^-1 X| under REML],

    with f = n under ML and n - p under REML (Bates et al. 2015, sections 3.3 and 3.4). With
    sigma^2 given instead, d = log|V| + f log(2 pi sigma^2) + r^2 / sigma^2 [+ ...].

    Parameters
    ----------
    theta : ndarray
        Free entries of Lambda, block after block.
    sums : OneFactor, Tree or Crossed
        The data.
    reml : bool
        Whether the likelihood is restricted.
    sigma2 : float, optional
        Residual variance; that of the maximum when None.
    held : tuple of ndarray, shape (p,), and float, optional
        Hold the combination c'gamma of the coefficients at a value.

    Returns
    -------
    ProfiledPoint
        Deviance, gradient and the estimates that go with theta.
    """
    parts = split_theta(theta, sums)
    state: Any
    if isinstance(sums, OneFactor):
        state, log_det, K = _eliminate_one(sums, parts[0])
    elif isinstance(sums, Tree):
        state, log_det, K = eliminate(sums, _by_level(sums, parts))
    else:
        state, log_det, K = eliminate_crossed(sums, parts)
    p = K.shape[0] - 1
    L_XX = np.linalg.cholesky(K[:p, :p])
    half = np.linalg.inv(L_XX)
    K_inverse = half.T @ half
    gamma = K_inverse @ K[:p, p]
    r2 = float(K[p, p] - K[:p, p] @ gamma)
    if held is not None:
        c, value = held
        step = K_inverse @ c
        gap = float(c @ gamma - value)
        gamma = gamma - step * (gap / (c @ step))
        r2 += gap**2 / float(c @ step)
    f = sums.n - p if reml else sums.n
    if sigma2 is None:
        sigma2 = r2 / f
    deviance = log_det + f * np.log(2 * np.pi * sigma2) + r2 / sigma2 - sums.sum_log_weights
    v = np.append(-gamma, 1.0)
    K_bar = np.outer(v, v) / sigma2
    if reml:
        # log|X'V^-1 X| on the user's columns, X = Q R
        deviance += 2 * float(np.log(L_XX.diagonal()).sum()) + sums.basis.log_det
        K_bar[:p, :p] += K_inverse
    if isinstance(sums, OneFactor):
        gradient = _pull_back_one(sums, state, K_bar)
    elif isinstance(sums, Tree):
        pulled = pull_back(sums, state, K_bar)
        gradient = np.concatenate([np.empty(0), *(g for level in pulled for g in level)])
    else:
        gradient = pull_back_crossed(sums, state, K_bar)
    return ProfiledPoint(
        deviance=float(deviance),
        gradient=gradient,
        gamma=gamma,
        K_inverse=K_inverse,
        sigma2=sigma2,
        log_det=log_det,
        r2=r2,
        state=state,
    )


def _by_level(tree: Tree, parts: list[np.ndarray]) -> list[list[np.ndarray]]:
    remaining = iter(parts)
    return [[next(remaining) for _ in level.shapes] for level in tree.levels]


def _eliminate_one(
    sums: OneFactor, theta: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], float, np.ndarray]:
    """Integrate out one factor, once for each distinct Z'Z.

    With A = I + Lambda'Z'Z Lambda and W = Lambda A^-1 Lambda', V^-1 = I - Z W Z'.
    """
    Lambda = sums.shape.unpack(theta)
    m = sums.MM.shape[0]
    log_dets, H, W = factor_groups(sums.ZZ, Lambda)
    K = sums.MM - (W.reshape(-1) @ sums.pairs).reshape(m, m)
    return (H, W), float(sums.count @ log_dets), K


def _pull_back_one(
    sums: OneFactor, state: tuple[np.ndarray, np.ndarray], K_bar: np.ndarray
) -> np.ndarray:
    H, W = state
    W_bar = -(sums.pairs @ K_bar.reshape(-1)).reshape(W.shape)
    inner = W_bar - sums.ZZ @ (W @ W_bar) + sums.count[:, None, None] * sums.ZZ
    return sums.shape.pack(2 * (inner @ H).sum(axis=0))
