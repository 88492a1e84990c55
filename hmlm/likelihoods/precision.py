"""What the precision of a beta model adds to the uncertainty of its coefficients."""

from __future__ import annotations

import numpy as np
from scipy import special

from hmlm.likelihoods.exponential import RowLikelihood
from hmlm.likelihoods.probability import probability_ratios


def precision_information(rows: RowLikelihood, eta: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the Fisher information of a beta model's precision with eta, and with itself.

    The coefficients of a beta model are not orthogonal to its precision, so that their covariance
    has to take it in (Ferrari & Cribari-Neto 2004, section 3).

    Returns
    -------
    cross : ndarray, shape (N,)
        Information about eta and phi together, row by row.
    own : float
        Information about phi.
    """
    phi = rows.parameter
    p = np.clip(rows.mean(eta), 1e-12, 1.0 - 1e-12)
    at_a, at_b = special.zeta(2.0, phi * p), special.zeta(2.0, phi * (1.0 - p))
    ratio, *_ = probability_ratios(rows.family.link, eta)
    cross = phi * (at_a * p - at_b * (1.0 - p)) * ratio * p
    own = at_a * p**2 + at_b * (1.0 - p) ** 2 - special.zeta(2.0, phi)
    if rows.counts is not None:
        cross, own = cross * rows.counts, own * rows.counts
    return cross, float(own.sum())
