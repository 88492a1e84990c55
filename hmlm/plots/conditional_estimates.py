"""Estimates of groups given the between-group sd, with the population effects integrated out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from hmlm.design import Block, Design
from hmlm.estimates import line_lead, total_lead


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ConditionalEstimates:
    """Estimates of J groups at T between-group sds.

    Attributes
    ----------
    sds : ndarray, shape (T,)
        The between-group sds tau.
    mean, sd : ndarray, shape (T, J)
        Conditional mean and sd of the groups' totals (or lines) given tau.
    log_likelihood : ndarray, shape (T,)
        Log restricted likelihood of tau, up to a constant.
    sigma : ndarray, shape (T,)
        Residual sd at each tau; one where the standard errors are known.
    """

    sds: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    log_likelihood: np.ndarray
    sigma: np.ndarray


def condition_on_sd(
    design: Design, block: Block, column: int, sds: np.ndarray, D: np.ndarray
) -> ConditionalEstimates:
    r"""Return what the groups' estimates would be if the between-group sd were known.

    Given tau (and sigma), with a flat prior on beta, effects and totals are normal, with beta
    integrated out exactly. With known standard errors nothing else is left. Otherwise sigma is at
    its restricted maximum likelihood estimate given tau, and with several effects of a group the
    other sds, and the correlations, are those of `D`.

    Parameters
    ----------
    design : Design
        A gaussian model with one grouping factor.
    block : Block
        Its effects.
    column : int
        Position of the effect whose sd is tau.
    sds : ndarray, shape (T,)
        Values of tau, zero or above.
    D : ndarray, shape (q, q)
        Covariance of the effects, whose row and column are rescaled to tau.

    References
    ----------
    .. [1] Gelman et al. (2013), Bayesian Data Analysis, third edition, section 5.4.
    """
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    J, q = len(block.levels), len(block.columns)
    Z, X, y = block.Z, design.X, design.response
    own = np.column_stack([Z, X, y])
    products = np.zeros((J, q, own.shape[1]))
    np.add.at(products, block.index, (w[:, None] * Z)[:, :, None] * own[:, None, :])
    rest = np.column_stack([X, y])
    whole = (w[:, None] * rest).T @ rest
    lead = line_lead(design, block)
    if lead is None:
        lead = np.broadcast_to(total_lead(design, block), (J, q, X.shape[1]))
    factor = np.linalg.cholesky(_correlations(D))
    base = np.sqrt(np.diagonal(D))

    def parts(tau: float, sigma: float) -> tuple[Any, ...]:
        scales = np.array(base)
        scales[column] = tau
        L = scales[:, None] * factor
        M, R = products[:, :, :q] / sigma**2, products[:, :, q:] / sigma**2
        K = np.eye(q) + L.T @ M @ L
        P = L @ np.linalg.solve(K, np.broadcast_to(L.T, (J, q, q)))
        total = whole / sigma**2 - np.einsum("jqa,jqr,jrb->ab", R, P, R)
        A, c = total[:-1, :-1], total[:-1, -1]
        beta = np.linalg.solve(A, c) if len(c) else c
        n, p = len(y), len(c)
        fit = -0.5 * (
            np.linalg.slogdet(K)[1].sum()
            + 2 * n * np.log(sigma)
            + (np.linalg.slogdet(A)[1] if p else 0.0)
            + float(total[-1, -1] - c @ beta)
        )
        return fit, P, R, A, beta

    size = np.sqrt(whole[-1, -1] / len(y)) or 1.0
    found: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    for tau in sds:
        sigma = 1.0
        if not design.known_se:
            best = optimize.minimize_scalar(
                lambda s, tau=tau: -parts(tau, float(np.exp(s)))[0],
                bounds=(np.log(size) - 12, np.log(size) + 2),
                method="bounded",
                options={"xatol": 1e-7},
            )
            sigma = float(np.exp(best.x))
        fit, P, R, A, beta = parts(float(tau), sigma)
        gain = P @ R[:, :, :-1]
        modes = np.einsum("jqr,jr->jq", P, R[:, :, -1])
        left = (lead - gain)[:, column]
        mean = modes[:, column] + left @ beta
        variance = P[:, column, column]
        if len(beta):
            variance = variance + np.einsum("jp,pj->j", left, np.linalg.solve(A, left.T))
        found.append((mean, np.sqrt(np.maximum(variance, 0.0)), fit, sigma))
    return ConditionalEstimates(
        sds=np.asarray(sds, dtype=float),
        mean=np.array([f[0] for f in found]),
        sd=np.array([f[1] for f in found]),
        log_likelihood=np.array([f[2] for f in found]),
        sigma=np.array([f[3] for f in found]),
    )


def _correlations(D: np.ndarray) -> np.ndarray:
    """Return the correlations of D, no nearer to one than a Cholesky factor can be had."""
    sd = np.sqrt(np.diagonal(D))
    R = D / np.where(np.outer(sd, sd) > 0, np.outer(sd, sd), 1.0)
    R = 0.999999 * R
    np.fill_diagonal(R, 1.0)
    return np.asarray(R)
