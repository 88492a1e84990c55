"""The maximum of the approximated likelihood of a generalised linear mixed model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from hmlm.likelihoods.laplace import LaplacePoint, Memory, MixedProblem, laplace
from hmlm.likelihoods.optimum import SINGULAR
from hmlm.likelihoods.scoring import PARAMETER_RANGE

STEEP = 1e-2
STEP = 1e-3
SMALLEST = 1e-2
IMPOSSIBLE = 1e100


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LaplaceOptimum:
    """Where the optimiser stopped.

    Attributes
    ----------
    psi : ndarray
        theta, gamma, and the logarithm of the family's parameter where there is one.
    point : LaplacePoint
        The likelihood there.
    message : str
        What went wrong; empty where nothing did.
    steepest : float
        Largest derivative of the deviance that is free to move.
    evaluations : int
        Evaluations of the likelihood.
    """

    psi: np.ndarray
    point: LaplacePoint
    message: str
    steepest: float
    evaluations: int


def best_laplace(
    problem: MixedProblem, gamma: np.ndarray, log_parameter: float, max_iterations: int
) -> LaplaceOptimum | None:
    """Maximise by bounded quasi-Newton steps.

    Starts at theta = 0.5 and the coefficients of the model without groups; a second start, at
    theta = 0.1, is tried where the first ends at the edge or has not converged.

    Parameters
    ----------
    problem : MixedProblem
        The data.
    gamma : ndarray, shape (p,)
        Coefficients to start from.
    log_parameter : float
        Logarithm of the family's parameter to start from.
    max_iterations : int
        Most iterations from each start.

    Returns
    -------
    LaplaceOptimum or None
        None where no start makes the outcome possible.
    """
    diagonal = problem.effects.is_diagonal
    extra = [log_parameter] if problem.rows.has_parameter else []
    k = len(diagonal)
    bounds: list[tuple[float | None, float | None]] = [
        (0.0, None) if d else (None, None) for d in diagonal
    ]
    bounds += [(None, None)] * len(gamma) + [PARAMETER_RANGE] * len(extra)
    best: LaplaceOptimum | None = None
    memory = Memory()
    for size in (0.5, 0.1):
        start = np.concatenate([np.where(diagonal, size, 0.0), gamma, extra])
        seen: list[tuple[np.ndarray, LaplacePoint]] = []

        def objective(
            psi: np.ndarray, seen: list[tuple[np.ndarray, LaplacePoint]] = seen
        ) -> tuple[float, np.ndarray]:
            at = laplace(psi, problem, memory)
            if at is None:
                return IMPOSSIBLE, np.zeros(len(psi))
            if not seen or at.log_likelihood > seen[0][1].log_likelihood:
                seen[:] = [(psi.copy(), at)]
            return -2 * at.log_likelihood, -2 * at.gradient

        result = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": max_iterations, "ftol": 1e-13, "gtol": 1e-4, "maxcor": 30},
        )
        if not seen:
            continue
        psi, point = seen[0]
        slope = -2 * point.gradient
        edge = np.array(
            [low is not None and x <= low for x, (low, _) in zip(psi, bounds, strict=True)]
        )
        steepest = float(np.abs(slope[~(edge & (slope >= 0))]).max(initial=0.0))
        message = ""
        if steepest > STEEP * max(1.0, abs(point.log_likelihood) * 1e-4):
            message = f"the optimiser stopped with a gradient of {steepest:.2g} ({result.message})"
        if best is None or point.log_likelihood > best.point.log_likelihood + 1e-8:
            best = LaplaceOptimum(
                psi=psi,
                point=point,
                message=message,
                steepest=steepest,
                evaluations=memory.evaluations,
            )
        if not message and (psi[:k][diagonal] > SINGULAR).all():
            break
    return best


def laplace_covariance(optimum: LaplaceOptimum, problem: MixedProblem) -> tuple[np.ndarray, bool]:
    """Return the covariance of gamma, as glmer's with ``use.hessian = TRUE``.

    The inverse of the observed information about all parameters, by central differences of the
    gradient; an entry of theta at the edge is held there. Where it is not positive definite, the
    inverse of the information about gamma with the weights at the mode, all else held.

    Returns
    -------
    covariance : ndarray, shape (p, p)
        Of the coefficients on the orthogonal columns.
    observed : bool
        Whether the observed information was used.
    """
    k, p = problem.n_theta, problem.Q.shape[1]
    psi = optimum.psi
    memory = Memory(u=optimum.point.u)
    diagonal = problem.effects.is_diagonal
    free = np.ones(len(psi), dtype=bool)
    free[:k] = ~diagonal | (psi[:k] > SINGULAR)
    steps = np.full(len(psi), STEP)
    steps[:k] *= np.maximum(np.abs(psi[:k]).max(initial=0.0), SMALLEST)
    information = np.zeros((len(psi), len(psi)))
    for i in np.flatnonzero(free):
        moved = psi.copy()
        slopes = []
        for sign in (1.0, -1.0):
            moved[i] = psi[i] + sign * steps[i]
            memory.u = optimum.point.u
            at = laplace(moved, problem, memory)
            if at is None:
                return _expected(optimum, problem), False
            slopes.append(at.gradient)
        information[i] = (slopes[1] - slopes[0]) / (2 * steps[i])
    information = (information + information.T) / 2
    places = np.ix_(free, free)
    try:
        np.linalg.cholesky(information[places])
    except np.linalg.LinAlgError:
        return _expected(optimum, problem), False
    whole = np.linalg.inv(information[places])
    at_gamma = np.flatnonzero((np.flatnonzero(free) >= k) & (np.flatnonzero(free) < k + p))
    return whole[np.ix_(at_gamma, at_gamma)], True


def _expected(optimum: LaplaceOptimum, problem: MixedProblem) -> np.ndarray:
    """Return the inverse of Q'WQ less what the group effects take up."""
    point, w = optimum.point, optimum.point.at_mode.weight
    cross = point.scaled.transposed(w[:, None] * problem.Q)
    information = problem.Q.T @ (w[:, None] * problem.Q) - cross.T @ point.H.solve(cross)
    return np.linalg.inv(information)
