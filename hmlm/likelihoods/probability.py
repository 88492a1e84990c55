"""Probabilities as functions of the linear predictor, exact in both tails."""

from __future__ import annotations

import numpy as np
from scipy import special

FARTHEST = 300.0  # linear predictors beyond this are held here: exp(2 * 300) is still a number


def probability_ratios(
    link: str, eta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return m'/p, m'/(1 - p), m''/m', log p and log(1 - p) of the inverse link m of a probability.

    All keep their accuracy in the tails, where p or 1 - p is rounded away.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}
        The link.
    eta : ndarray
        Linear predictors.
    """
    if link == "logit":
        p, q = special.expit(eta), special.expit(-eta)
        return q, p, q - p, special.log_expit(eta), special.log_expit(-eta)
    if link == "probit":
        log_p, log_q = special.log_ndtr(eta), special.log_ndtr(-eta)
        log_slope = -0.5 * eta**2 - 0.5 * np.log(2 * np.pi)
        return np.exp(log_slope - log_p), np.exp(log_slope - log_q), -eta, log_p, log_q
    x = np.exp(np.clip(eta, -FARTHEST, FARTHEST))
    rest = -np.expm1(-x)
    return x * np.exp(-x) / rest, x, 1.0 - x, np.log(rest), -x
