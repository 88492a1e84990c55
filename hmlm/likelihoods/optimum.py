"""The maximum of a Gaussian likelihood."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.profiled import GaussianSums, ProfiledPoint, profiled_deviance, shapes_of

SINGULAR = 1e-4
# Where to look for a lower deviance beside an edge; in units of sigma.
BESIDE_THE_EDGE = (0.003, 0.01, 0.03, 0.1, 0.3)


def best_point(
    sums: GaussianSums,
    reml: bool,
    max_iterations: int = 500,
    start: np.ndarray | None = None,
    sigma2: float | None = None,
) -> tuple[ProfiledPoint, np.ndarray, str]:
    """Minimise the profiled deviance by bounded quasi-Newton steps.

    A second start is tried only where the first ends at the edge or is not converged, and further
    ones where the deviance falls from the edge: see `lower_inside`.

    Parameters
    ----------
    sums : OneFactor, Tree or Crossed
        The data.
    reml : bool
        Whether the likelihood is restricted.
    max_iterations : int
        Most iterations from each start.
    start : ndarray, optional
        Where the optimum is likely to be near; tried first, moved off the edge.
    sigma2 : float, optional
        Residual variance where it is known; see `hmlm.likelihoods.gaussian.known_sigma2`.

    Returns
    -------
    point : ProfiledPoint
        The likelihood at the optimum.
    theta : ndarray
        Where it is.
    message : str
        What went wrong; empty where nothing did.
    """
    if not shapes_of(sums):
        return profiled_deviance(np.empty(0), sums, reml, sigma2), np.empty(0), ""
    diagonal = np.concatenate([shape.is_diagonal for shape in shapes_of(sums)])
    bounds = [(0.0, None) if d else (None, None) for d in diagonal]
    best: tuple[ProfiledPoint, np.ndarray, str] | None = None
    starts = [np.where(diagonal, size, 0.0) for size in (1.0, 0.2)]
    if start is None and sigma2 is None and isinstance(sums, OneFactor):
        start = moment_start(sums)
    if start is not None:
        starts = [np.where(diagonal, np.maximum(start, 0.1), start), starts[0]]
    for first in starts:
        seen: dict[bytes, ProfiledPoint] = {}

        def objective(
            theta: np.ndarray, seen: dict[bytes, ProfiledPoint] = seen
        ) -> tuple[float, np.ndarray]:
            at = profiled_deviance(theta, sums, reml, sigma2)
            if not seen or at.deviance < min(p.deviance for p in seen.values()):
                seen.clear()
                seen[theta.tobytes()] = at
            return at.deviance, at.gradient

        result = minimize(
            objective,
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": max_iterations, "ftol": 1e-14, "gtol": 1e-5, "maxcor": 20},
        )
        theta = np.asarray(result.x)
        point = seen.get(theta.tobytes()) or profiled_deviance(theta, sums, reml, sigma2)
        free = ~(diagonal & (theta <= 0) & (point.gradient >= 0))
        steep = float(np.abs(point.gradient[free]).max(initial=0.0))
        message = ""
        if steep > 1e-2 * max(1.0, abs(point.deviance) * 1e-4):
            message = f"the optimiser stopped with a gradient of {steep:.2g} ({result.message})"
        if best is None or point.deviance < best[0].deviance - 1e-9:
            best = (point, theta, message)
        if not message and (theta[diagonal] > SINGULAR).all():
            break
        if first is starts[-1] and len(starts) < 5:
            inside = lower_inside(sums, reml, sigma2, best[0].deviance, best[1], diagonal)
            if inside is not None:
                starts.append(inside)
    assert best is not None
    return best


def lower_inside(
    sums: GaussianSums,
    reml: bool,
    sigma2: float | None,
    deviance: float,
    theta: np.ndarray,
    diagonal: np.ndarray,
) -> np.ndarray | None:
    """Look for a lower deviance off the edge of what is possible.

    The deviance is even in every diagonal entry of Lambda, so at zero its slope is zero: steps that
    end there stay there, also where it is a maximum.

    Returns
    -------
    ndarray or None
        The lowest point of those tried; None where the edge is the lowest.
    """
    found, lowest = None, deviance - 1e-7
    for k in np.flatnonzero(diagonal & (theta <= SINGULAR)):
        for size in BESIDE_THE_EDGE:
            moved = theta.copy()
            moved[k] = size
            at = profiled_deviance(moved, sums, reml, sigma2).deviance
            if at < lowest:
                found, lowest = moved, at
    return found


def moment_start(sums: OneFactor) -> np.ndarray | None:
    """Estimate theta by moments from the coefficients of every group fitted alone.

    Their covariance, less sigma^2 times the average of (Z'Z)^-1, estimates D; in balanced data
    that is the REML estimate itself (Swamy 1970).

    Returns
    -------
    ndarray or None
        Free entries of Lambda; None where some group does not determine its coefficients.
    """
    J, q, m = sums.ZM.shape
    free = sums.n - J * q
    smallest = np.linalg.eigvalsh(sums.ZZ)[:, 0]
    if free <= 0 or J <= q or not (smallest > 1e-6 * np.trace(sums.ZZ, axis1=1, axis2=2)).all():
        return None
    r = sums.ZM[:, :, m - 1]
    inverse = np.linalg.inv(sums.ZZ)
    b = np.einsum("jab,jb->ja", inverse[sums.which], r)
    sigma2 = float(sums.MM[-1, -1] - (b * r).sum()) / free
    if not sigma2 > 0:
        return None
    average = np.tensordot(sums.count / J, inverse, axes=1)
    D = b.T @ b / (J - 1) / sigma2 - average
    mask = np.zeros((q, q))
    mask[sums.shape.rows, sums.shape.columns] = 1.0
    values, vectors = np.linalg.eigh(D * np.maximum(mask, mask.T))
    floor = 0.01 * np.diagonal(average).mean()
    D = (vectors * np.maximum(values, floor)) @ vectors.T
    return sums.shape.pack(np.linalg.cholesky(D))
