"""The posterior of a between-group sd by quadrature, fast enough to follow a slider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from hmlm.design import Design
from hmlm.likelihoods.gaussian import bases_of, blocks_of, gaussian_sums, known_sigma2
from hmlm.likelihoods.profiled import profiled_deviance, shapes_of
from hmlm.prior_distributions import log_prior_density
from hmlm.priors import Prior

SHARES = (np.arange(400) + 0.5) / 400  # where the posterior of the sd is computed


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SdPosterior:
    """The posterior of the sd between groups on the scale s = sd / (sd + unit), 0 to 1.

    Attributes
    ----------
    sds : ndarray, shape (S,)
        Values of the sd.
    density, prior : ndarray, shape (S,)
        Densities of s, whose areas are probabilities.
    median, lower, upper : float
        Median of the sd, and 2.5 and 97.5 per cent quantiles.
    """

    sds: np.ndarray
    density: np.ndarray
    prior: np.ndarray
    median: float
    lower: float
    upper: float


class Surface(NamedTuple):
    """Log likelihood, coefficients and effects integrated out.

    Attributes
    ----------
    sigmas : ndarray, shape (M,)
        Residual sds; one where it is known.
    values : ndarray, shape (S, M)
        At the sds of `SHARES`, to a constant.
    """

    sigmas: np.ndarray
    values: np.ndarray


def share_of(sd: float, unit: float) -> float:
    """Return where an sd stands on the scale from 0 to 1, with `unit` in the middle.

    Examples
    --------
    >>> from hmlm.exploration_posterior import sd_of, share_of
    >>> share_of(0.0, 2.0), share_of(2.0, 2.0), share_of(float("inf"), 2.0), sd_of(0.75, 2.0)
    (0.0, 0.5, 1.0, 6.0)
    """
    return 1.0 if np.isinf(sd) else sd / (sd + unit)


def sd_of(share: float, unit: float) -> float:
    """Return the sd that stands at a place of the scale from 0 to 1."""
    return float("inf") if share >= 1 else unit * share / (1 - share)


def integrate_out(design: Design, group: str, parameters: Mapping[str, np.ndarray]) -> Surface:
    """Return the log integrated likelihood on a grid of the sd and, if it is unknown, of sigma.

    The relative covariance of the effects is kappa^2 times that of the reference, and log|V|,
    log|X'V^-1 X| and r^2 depend on the data through kappa alone: they are had at 48 values, and
    between them by splines.

    Parameters
    ----------
    design : Design
        A gaussian model of the rows that are there.
    group : str
        Factor whose sds move together.
    parameters : mapping of str to ndarray
        Sds and correlations of the reference, and sigma.
    """
    sums = gaussian_sums(design)
    known = known_sigma2(design)
    # With known standard errors the sums take sigma^2 as the inverse of the average weight.
    sigma0 = float(parameters["sigma"]) if known is None else float(np.sqrt(known))
    start, moved = [], []
    for block, T, shape in zip(
        blocks_of(sums, design), bases_of(sums), shapes_of(sums), strict=True
    ):
        sd = parameters[f"sd_{block.group}"]
        R = parameters.get(f"cor_{block.group}", np.eye(len(sd)))
        half = np.linalg.solve(T, sd[:, None] * np.linalg.cholesky(R))
        theta = shape.pack(np.linalg.cholesky(half @ half.T) / sigma0)
        start.append(theta)
        moved.append(np.full(len(theta), block.group == group))
    theta0, moving = np.concatenate(start), np.concatenate(moved)
    v = np.linspace(0.0, np.arcsinh(2e5), 48)
    points = [
        profiled_deviance(np.where(moving, k, 1.0) * theta0, sums, True, known)
        for k in 0.05 * np.sinh(v)
    ]
    f = sums.n - len(design.terms)
    r2 = np.array([p.r2 for p in points])
    ratio = SHARES / (1 - SHARES)
    if known is not None:
        half = -0.5 * np.array([p.deviance for p in points])
        return Surface(np.ones(1), CubicSpline(v, half)(np.arcsinh(20 * ratio))[:, None])
    log_det = np.array([p.log_det - np.linalg.slogdet(p.K_inverse)[1] for p in points])
    effects = sum(b.Z.shape[1] * len(b.levels) for b in design.blocks if b.group == group)
    spread = 1 / np.sqrt(2 * max(f - effects, 1))
    low = max(r2.min(), 1e-9 * r2.max()) / f
    log_sigma = np.linspace(
        0.5 * np.log(low) - 6 * spread, 0.5 * np.log(r2.max() / f) + 6 * spread, 96
    )
    sigma = np.exp(log_sigma)
    at = np.minimum(np.arcsinh(20 * ratio[:, None] * sigma0 / sigma), v[-1])
    value = CubicSpline(v, log_det)(at) + CubicSpline(v, r2)(at) / sigma**2
    return Surface(sigma, -0.5 * value - f * log_sigma)


def weigh_sds(
    surface: Surface, unit: float, prior: Prior, width: float, sigma_prior: Prior | None
) -> SdPosterior:
    """Return the posterior of the sd from an integrated likelihood and priors.

    Parameters
    ----------
    surface : Surface
        From `integrate_out`.
    unit : float
        The sd in the middle of the scale.
    prior : Prior
        Of the sd.
    width : float
        What the prior's scale is multiplied with.
    sigma_prior : Prior or None
        Of the residual sd; None where it is known.
    """
    log_p = surface.values
    if sigma_prior is not None:
        sigma = surface.sigmas
        log_p = log_p + log_prior_density(sigma_prior, sigma) + np.log(sigma)
    likelihood = np.exp(log_p - log_p.max()).sum(axis=1)
    sds = unit * SHARES / (1 - SHARES)
    jacobian = unit / (1 - SHARES) ** 2
    wide = np.exp(log_prior_density(prior, sds / width)) / width * jacobian
    density = likelihood * wide
    density = density / density.mean()
    cumulative = np.concatenate([[0.0], np.cumsum(density) / density.sum()])
    edges = np.linspace(0.0, 1.0, len(SHARES) + 1)
    lower, median, upper = (
        sd_of(float(np.interp(q, cumulative, edges)), unit) for q in (0.025, 0.5, 0.975)
    )
    return SdPosterior(
        sds=sds, density=density, prior=wide, median=median, lower=lower, upper=upper
    )
