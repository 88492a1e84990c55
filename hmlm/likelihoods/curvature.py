"""Second derivatives of the Gaussian deviance at its minimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.likelihoods.profiled import GaussianSums, profiled_deviance, shapes_of, split_theta

STEP = 1e-3
SMALLEST = 1e-2


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Curvature:
    """How the deviance bends, and how the covariance of the coefficients moves.

    Attributes
    ----------
    hessian : ndarray, shape (k + 1, k + 1)
        Second derivatives of the deviance by theta and log sigma, sigma not profiled out; by theta
        alone, shape (k, k), where sigma is known.
    vcov_slopes : ndarray, shape (k + 1, p, p)
        Derivatives of sigma^2 (Q'V^-1 Q)^-1 by the same.
    """

    hessian: np.ndarray
    vcov_slopes: np.ndarray


def curvature(
    theta: np.ndarray, sigma2: float, sums: GaussianSums, reml: bool, known: bool = False
) -> Curvature:
    """Difference the analytic gradient centrally, with errors of the fourth order in the step.

    Parameters
    ----------
    theta : ndarray
        Free entries of Lambda, block after block.
    sigma2 : float
        Residual variance.
    sums : OneFactor, Tree or Crossed
        The data.
    reml : bool
        Whether the likelihood is restricted.
    known : bool
        Whether sigma is known, and no direction to differentiate along.
    """
    steps = np.append(STEP * _scales(theta, sums), STEP)
    at = np.append(theta, 0.5 * np.log(sigma2))
    rows, slopes = [], []
    free = len(theta) if known else len(at)
    for k, step in enumerate(steps[:free]):
        row, slope = 0.0, 0.0
        for multiple, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
            moved = at.copy()
            moved[k] += multiple * step
            gradient, vcov = _gradient(moved, sums, reml)
            row = row + weight * gradient[:free] / (12 * step)
            slope = slope + weight * vcov / (12 * step)
        rows.append(row)
        slopes.append(slope)
    hessian = np.array(rows)
    return Curvature(hessian=(hessian + hessian.T) / 2, vcov_slopes=np.array(slopes))


def _gradient(at: np.ndarray, sums: GaussianSums, reml: bool) -> tuple[np.ndarray, np.ndarray]:
    sigma2 = float(np.exp(2 * at[-1]))
    point = profiled_deviance(at[:-1], sums, reml, sigma2)
    f = sums.n - len(point.gamma) if reml else sums.n
    by_log_sigma = 2 * f - 2 * point.r2 / sigma2
    return np.append(point.gradient, by_log_sigma), sigma2 * point.K_inverse


def _scales(theta: np.ndarray, sums: GaussianSums) -> np.ndarray:
    """Return what is a large change of each entry of theta: the relative sd of its effect."""
    scales = []
    for shape, part in zip(shapes_of(sums), split_theta(theta, sums), strict=True):
        sd = np.sqrt((shape.unpack(part) ** 2).sum(axis=1))
        scales.append(np.maximum(sd, SMALLEST)[shape.rows])
    return np.concatenate(scales)
