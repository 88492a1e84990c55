"""One iteration of EM algorithms for a Gaussian model: E-step and M-step on sums.

Symbols as in `hmlm.likelihoods.profiled`: b_j = sigma Lambda u_j are the J effects of a factor,
D = sigma^2 Lambda Lambda' their covariance. Given the data, the sum of E(u_j u_j') over the levels
is what an M-step needs. It follows from the gradient of the log-likelihood l by Fisher's identity,
the derivative of l being the expected derivative of the log density of data and effects together:

    sum_j E(u_j u_j') = J I + Lambda' dl/dLambda,

whose lower triangle needs no more than the lower triangle of dl/dLambda.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Block, Design
from hmlm.likelihoods.covariance import CovarianceShape
from hmlm.likelihoods.crossproducts import group_sums, share
from hmlm.likelihoods.effects import EffectMoments, effect_moments
from hmlm.likelihoods.gaussian import bases_of, blocks_of
from hmlm.likelihoods.profiled import (
    GaussianSums,
    ProfiledPoint,
    profiled_deviance,
    shapes_of,
    split_theta,
)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Factor:
    """What the M-step needs to know of one grouping factor.

    Attributes
    ----------
    block : Block
        The factor.
    shape : CovarianceShape
        Free entries of Lambda.
    T : ndarray, shape (q, q)
        Change of basis of Z.
    ZZ : ndarray, shape (G, q, q)
        Distinct Z'Z in that basis.
    which : ndarray of int, shape (J,)
        Which of them each level has.
    """

    block: Block
    shape: CovarianceShape
    T: np.ndarray
    ZZ: np.ndarray
    which: np.ndarray

    @property
    def joint(self) -> np.ndarray:
        """Which pairs of effects stand in the same correlated part, shape (q, q)."""
        part = np.repeat(np.arange(len(self.block.parts)), self.block.parts)
        return np.asarray(part[:, None] == part)


def em_factors(design: Design, sums: GaussianSums) -> list[Factor]:
    """Return the factors of a design in the order of theta."""
    root = sums.basis.root_weights
    found = []
    for block, shape, T in zip(
        blocks_of(sums, design), shapes_of(sums), bases_of(sums), strict=True
    ):
        Z = block.Z @ T if root is None else root[:, None] * (block.Z @ T)
        J, q = len(block.levels), Z.shape[1]
        ZZ = np.empty((J, q, q))
        for a in range(q):
            for b in range(a + 1):
                ZZ[:, a, b] = ZZ[:, b, a] = group_sums(block.index, Z[:, a] * Z[:, b], J)
        distinct, which = share(ZZ)
        found.append(Factor(block=block, shape=shape, T=T, ZZ=distinct, which=which))
    return found


def expected_squares(factor: Factor, Lambda: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return the average of E(u_j u_j') over the levels of a factor, inside correlated parts.

    Parameters
    ----------
    factor : Factor
        The factor.
    Lambda : ndarray, shape (q, q)
        Its relative Cholesky factor.
    gradient : ndarray
        Derivative of the deviance, -2 l, by the free entries of Lambda.
    """
    lower = np.tril(Lambda.T @ factor.shape.unpack(-0.5 * gradient))
    whole = lower + np.tril(lower, -1).T
    J = len(factor.block.levels)
    return np.eye(factor.shape.q) + np.where(factor.joint, whole, 0.0) / J


def covariance_factor(half: np.ndarray) -> np.ndarray:
    """Return the lower triangular factor, diagonal not negative, of half half'."""
    R = np.linalg.qr(half.T, mode="r")
    return np.tril(R.T * np.where(np.diagonal(R) < 0, -1.0, 1.0)) + 0.0


def em_update(
    factors: list[Factor], sums: GaussianSums, theta: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """Return theta after the M-step of D: the average of E(b_j b_j') over the levels."""
    gradients = split_theta(gradient, sums)
    parts = []
    for factor, part, g in zip(factors, split_theta(theta, sums), gradients, strict=True):
        Lambda = factor.shape.unpack(part)
        C = expected_squares(factor, Lambda, g)
        parts.append(factor.shape.pack(covariance_factor(Lambda @ _root(C))))
    return np.concatenate(parts)


def residual_variance(
    sums: GaussianSums, theta: np.ndarray, point: ProfiledPoint, reml: bool
) -> float:
    """Return the M-step of sigma^2: the average of E(e_i^2) over the rows.

    The sum of squares of residuals and spherical effects is r^2 at its minimum, and each of the
    Jq effects (and under REML each of the p coefficients) adds sigma^2 to what is expected of it.
    """
    p = len(point.gamma) if reml else 0
    more = point.sigma2 * (p + 0.5 * float(theta @ point.gradient))
    return (point.r2 + more) / sums.n


def px_update(
    factors: list[Factor],
    sums: GaussianSums,
    theta: np.ndarray,
    point: ProfiledPoint,
    reml: bool,
    sigma2: float | None = None,
) -> np.ndarray:
    """Return theta after an M-step with expanded parameters.

    In the expanded model effects enter as Z_j alpha b_j. The M-step fits alpha by least squares
    and D by its average; then alpha D alpha' is the new D (Liu, Rubin & Wu 1998). With several
    factors each has an E-step of its own: only then does every step raise the likelihood. Where
    `sigma2` is given it is held.
    """
    for k, factor in enumerate(factors):
        if k:
            point = profiled_deviance(theta, sums, reml, sigma2)
        parts = split_theta(theta, sums)
        Lambda = factor.shape.unpack(parts[k])
        C = expected_squares(factor, Lambda, split_theta(point.gradient, sums)[k])
        moments = effect_moments(sums, point)
        moment = moments.get(factor.block.group) or moments[""]
        alpha = _expansion(factor, Lambda, C, moment, point, sums, reml)
        parts[k] = factor.shape.pack(covariance_factor(Lambda @ alpha @ _root(C)))
        theta = np.concatenate(parts)
    return theta


def _expansion(
    factor: Factor,
    Lambda: np.ndarray,
    C: np.ndarray,
    moment: EffectMoments,
    point: ProfiledPoint,
    sums: GaussianSums,
    reml: bool,
) -> np.ndarray:
    """Regress the outcome on the effects: alpha, in the coordinates u."""
    inverse = np.linalg.pinv(factor.T @ Lambda)
    u = moment.modes @ inverse.T
    second = u[:, :, None] * u[:, None, :] + inverse @ moment.covariance @ inverse.T
    if reml:
        gain = inverse @ moment.gain
        vcov = point.sigma2 * sums.basis.covariance_to_user(point.K_inverse)
        second += gain @ vcov @ np.swapaxes(gain, 1, 2)
    G, q = factor.ZZ.shape[:2]
    total = np.zeros((G, q, q))
    np.add.at(total, factor.which, second / point.sigma2)
    features = Lambda.T @ factor.ZZ @ Lambda
    rows, columns = np.nonzero(factor.joint)
    normal = np.einsum("gac,gbd->abcd", features, total)
    normal = normal[rows[:, None], columns[:, None], rows, columns]
    J = len(factor.block.levels)
    right = J * (C - np.eye(q))[rows, columns]
    alpha = np.eye(q)
    alpha[rows, columns] += np.linalg.lstsq(normal, right)[0]
    return alpha


def _root(C: np.ndarray) -> np.ndarray:
    """Return a square root of a symmetric matrix that rounding may have left indefinite."""
    values, vectors = np.linalg.eigh(C)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def at_the_edge(Lambda: np.ndarray, part: slice) -> np.ndarray:
    """Return the factor of the nearest singular covariance: the part's least variance set to zero.

    Examples
    --------
    >>> at_the_edge(np.diag([2.0, 0.1]), slice(0, 2))
    array([[2., 0.],
           [0., 0.]])
    """
    values, vectors = np.linalg.eigh(Lambda[part, part] @ Lambda[part, part].T)
    values[0] = 0.0
    edge = np.array(Lambda)
    edge[part, part] = covariance_factor(vectors * np.sqrt(np.maximum(values, 0.0)))
    return edge
