"""Adaptive Gauss-Hermite quadrature over the effects of one scalar factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.likelihoods.exponential import RowLikelihood
from hmlm.likelihoods.penalised import Factored, ScaledEffects


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Quadrature:
    """The integrated likelihood by quadrature, and what its gradient needs.

    Attributes
    ----------
    log_likelihood : float
        Sum over groups.
    posterior : ndarray, shape (K, J)
        Weights of the nodes given the outcome, which sum to one in every group.
    eta : ndarray, shape (K, N)
        Linear predictors at the nodes.
    starts : ndarray of int, shape (J,)
        Where each group begins.
    score : ndarray, shape (N,)
        Posterior mean of the score of every row.
    score_u : ndarray, shape (N,)
        Posterior mean of the score times the effect.
    slope : ndarray, shape (J,)
        Posterior mean of the derivative of log p(y, u) by u, which moves with the mode.
    kappa : ndarray, shape (J,)
        Derivative of the log-likelihood by the logarithm of the scale of the nodes.
    """

    log_likelihood: float
    posterior: np.ndarray
    eta: np.ndarray
    starts: np.ndarray
    score: np.ndarray
    score_u: np.ndarray
    slope: np.ndarray
    kappa: np.ndarray

    def sums(self, rows: RowLikelihood) -> np.ndarray:
        """Return log p(y | node) of every group at other rows, shape (K, J)."""
        return np.add.reduceat(rows.terms(self.eta).log_likelihood, self.starts, axis=1)


def quadrature(
    rows: RowLikelihood,
    base: np.ndarray,
    scaled: ScaledEffects,
    u: np.ndarray,
    H: Factored,
    nodes: int,
) -> Quadrature:
    """Integrate over the effect of every group with nodes u^ + sqrt(2) tau x.

    tau^2 is the inverse of the curvature at the mode (Liu & Pierce 1994; Pinheiro & Bates 1995,
    section 2.3).

    Parameters
    ----------
    rows : RowLikelihood
        Outcomes and family.
    base : ndarray, shape (N,)
        Linear predictor without the effects.
    scaled : ScaledEffects
        Z Lambda of one scalar factor.
    u : ndarray, shape (J,)
        Modes.
    H : Factored
        Curvature at the modes.
    nodes : int
        Number of nodes K.
    """
    x, weights = np.polynomial.hermite.hermgauss(nodes)
    log_weights = np.log(weights) + x**2 - 0.5 * np.log(np.pi)
    tau = np.sqrt(H.U[:, 0, 0])
    away = np.sqrt(2.0) * x[:, None] * tau
    at = u + away
    index, starts = scaled.effects.factors[0].index, scaled.effects.starts
    z = scaled.rows[0][0]
    at_rows = at.take(index, axis=1)
    eta = base + z * at_rows
    terms = rows.terms(eta)
    joint = np.add.reduceat(terms.log_likelihood, starts, axis=1) - 0.5 * at**2
    joint = joint + log_weights[:, None]
    highest = joint.max(axis=0)
    share = np.exp(joint - highest)
    total = share.sum(axis=0)
    posterior = share / total
    slope = np.add.reduceat(z * terms.score, starts, axis=1) - at
    weighted = posterior.take(index, axis=1) * terms.score
    return Quadrature(
        log_likelihood=float((np.log(tau) + highest + np.log(total)).sum()),
        posterior=posterior,
        eta=eta,
        starts=starts,
        score=weighted.sum(axis=0),
        score_u=(weighted * at_rows).sum(axis=0),
        slope=(posterior * slope).sum(axis=0),
        kappa=1.0 + (posterior * slope * away).sum(axis=0),
    )
