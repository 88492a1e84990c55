"""The distribution of an outcome given its parameters: moments, tail areas, residuals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from hmlm.expectation import expected_outcome
from hmlm.families import Family
from hmlm.links import from_link

Values = Mapping[str, np.ndarray]
_SMALLEST = 1e-300


def outcome_moments(
    family: Family,
    eta: np.ndarray,
    values: Values,
    trials: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the outcome of every row.

    Parameters
    ----------
    family : Family
        The family.
    eta : ndarray, shape (draws, rows)
        Linear predictor of the mean.
    values : mapping of str to ndarray
        Parameters of the family, of shapes that broadcast with `eta`.
    trials, weights : ndarray, shape (rows,), optional
        Trials, or weights that divide the residual variance.
    probabilities : ndarray, shape (draws, rows, K), optional
        Of the categories of an ordinal or categorical outcome, whose codes have the moments.

    Returns
    -------
    mean, sd : ndarray, shape (draws, rows)
        Moments; of counts out of trials those of the successes. The sd of a Student t outcome is
        infinite up to two degrees of freedom.

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.families import get_family
    >>> mean, sd = outcome_moments(get_family("negbinomial"), np.zeros((1, 1)), {"alpha": 0.5})
    >>> mean.item(), round(sd.item() ** 2, 3)
    (1.0, 3.0)
    """
    if probabilities is not None:
        codes = np.arange(probabilities.shape[-1])
        mean = probabilities @ codes
        return mean, np.sqrt(np.maximum(probabilities @ codes**2 - mean**2, 0.0))
    name = family.name
    mean = expected_outcome(family, eta, values)
    variance: np.ndarray
    if name in ("gaussian", "student-t"):
        variance = values["sigma"] ** 2 / (1.0 if weights is None else weights)
        if name == "student-t":
            nu = np.asarray(values["nu"])
            variance = variance * np.where(nu > 2, nu / np.maximum(nu - 2.0, 1e-12), np.inf)
    elif name == "lognormal":
        variance = np.expm1(values["sigma"] ** 2) * mean**2
    elif name == "gamma":
        variance = mean**2 / values["alpha"]
    elif name == "beta":
        variance = mean * (1.0 - mean) / (1.0 + values["phi"])
    elif family.outcome in ("binary", "trials"):
        n = np.ones(eta.shape[-1]) if trials is None else trials
        variance = n * mean * (1.0 - mean)
        if name == "beta-binomial":
            variance = variance * (1.0 + np.maximum(n - 1.0, 0.0) / (1.0 + values["phi"]))
        mean = np.asarray(n * mean)
    else:
        variance = _count_variance(family, eta, values, mean)
    return mean, np.sqrt(np.broadcast_to(np.maximum(variance, 0.0), mean.shape))


def _count_variance(
    family: Family, eta: np.ndarray, values: Values, mean: np.ndarray
) -> np.ndarray:
    """Variance of counts: E[y^2] of the plain counts, shared out between zero and the rest."""
    mu = from_link(family.link, eta)
    square = mu + mu**2
    if "negative-binomial" in family.name:
        square = square + mu**2 / values["alpha"]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(mu > 0, mean / mu, 0.0)  # of a count above zero, against the plain ones
    return np.asarray(share * square - mean**2)


def tail_areas(
    family: Family,
    y: np.ndarray,
    eta: np.ndarray,
    values: Values,
    trials: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of outcomes below and above those that were observed.

    Parameters
    ----------
    family, eta, values, trials, weights, probabilities
        As in `outcome_moments`.
    y : ndarray, shape (rows,) or (draws, rows)
        The outcome: successes where there are trials, codes where there are categories.

    Returns
    -------
    below, above : ndarray, shape (draws, rows)
        P(Y < y) and P(Y > y), each exact in its own tail; what is missing from one is P(Y = y).

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.families import get_family
    >>> below, above = tail_areas(get_family("poisson"), np.array([1.0]), np.zeros((1, 1)), {})
    >>> below.round(4).item(), above.round(4).item()
    (0.3679, 0.2642)
    """
    if probabilities is not None:
        codes = np.arange(probabilities.shape[-1])
        at = np.asarray(y)[..., None]
        return (probabilities * (codes < at)).sum(-1), (probabilities * (codes > at)).sum(-1)
    name, shape = family.name, eta.shape
    y = np.broadcast_to(y, shape)
    mu = eta if name == "lognormal" else from_link(family.link, eta)
    if name in ("gaussian", "student-t", "lognormal"):
        z = ((np.log(y) if name == "lognormal" else y) - mu) / values["sigma"]
        if weights is not None:
            z = z * np.sqrt(weights)
        if name == "student-t":
            nu = np.broadcast_to(values["nu"], shape)
            return special.stdtr(nu, z), special.stdtr(nu, -z)
        return special.ndtr(z), special.ndtr(-z)
    if name == "gamma":
        alpha = np.broadcast_to(values["alpha"], shape)
        at = alpha * y / np.maximum(mu, _SMALLEST)
        return special.gammainc(alpha, at), special.gammaincc(alpha, at)
    if name == "beta":
        a, b = _beta_shapes(mu, values["phi"])
        return special.betainc(a, b, y), special.betainc(b, a, 1.0 - y)
    if family.outcome in ("binary", "trials"):
        n = np.broadcast_to(np.ones(shape[-1]) if trials is None else trials, shape)
        if name == "beta-binomial":
            return _beta_binomial(y, n, *_beta_shapes(mu, values["phi"]))
        p = np.clip(mu, 0.0, 1.0)
        below = special.betainc(np.maximum(n - y + 1.0, 1.0), np.maximum(y, 1.0), 1.0 - p)
        above = special.betainc(y + 1.0, np.maximum(n - y, 1.0), p)
        return np.where(y > 0, below, 0.0), np.where(y < n, above, 0.0)
    return _count_tails(family, y, np.maximum(mu, _SMALLEST), values)


def _beta_shapes(mu: np.ndarray, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(mu * phi, 1e-12), np.maximum((1.0 - mu) * phi, 1e-12)


def _beta_binomial(
    y: np.ndarray, n: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the probabilities on both sides, one possible count after the other."""
    below, above = np.zeros(y.shape), np.zeros(y.shape)
    base = special.betaln(a, b)
    for k in range(int(n.max(initial=0.0)) + 1):
        rest = np.maximum(n - k, 0.0)
        log_p = (
            special.betaln(k + a, rest + b)
            - base
            - np.log1p(n)
            - special.betaln(k + 1.0, rest + 1.0)
        )
        p = np.where(k <= n, np.exp(log_p), 0.0)
        below += np.where(k < y, p, 0.0)
        above += np.where(k > y, p, 0.0)
    return np.minimum(below, 1.0), np.minimum(above, 1.0)


def _count_tails(
    family: Family, y: np.ndarray, mu: np.ndarray, values: Values
) -> tuple[np.ndarray, np.ndarray]:
    if "negative-binomial" in family.name:
        alpha = np.broadcast_to(values["alpha"], mu.shape)
        q = mu / (alpha + mu)
        below = special.betainc(alpha, np.maximum(y, 1.0), 1.0 - q)
        above = special.betainc(y + 1.0, alpha, q)
        zero = np.exp(-alpha * np.log1p(mu / alpha))
    else:
        below = special.gammaincc(np.maximum(y, 1.0), mu)
        above = special.gammainc(y + 1.0, mu)
        zero = np.exp(-mu)
    below = np.where(y > 0, below, 0.0)
    if "zi" in values:
        zi = values["zi"]
        return np.where(y > 0, zi + (1.0 - zi) * below, 0.0), (1.0 - zi) * above
    if "hu" in values:
        hu, positive = values["hu"], np.maximum(1.0 - zero, _SMALLEST)
        below = np.where(y > 0, hu + (1.0 - hu) * (below - zero) / positive, 0.0)
        return below, np.where(y > 0, (1.0 - hu) * above / positive, 1.0 - hu)
    return below, above


def normal_residuals(below: np.ndarray, above: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn tail areas into residuals that are standard normal when the model holds.

    They are the randomised quantile residuals of Dunn and Smyth (1996): a discrete outcome takes a
    place drawn at random in its own step of the distribution function.

    Parameters
    ----------
    below, above : ndarray
        From `tail_areas`.
    rng : numpy.random.Generator
        Source of the random places.

    Returns
    -------
    ndarray
        Residuals.

    References
    ----------
    Dunn, P. K., and Smyth, G. K. (1996). Randomized quantile residuals. Journal of Computational
    and Graphical Statistics 5, 236-244.

    Examples
    --------
    >>> import numpy as np
    >>> normal_residuals(np.array([0.5]), np.array([0.5]), np.random.default_rng(1)).item()
    0.0
    """
    step = np.clip(1.0 - below - above, 0.0, 1.0)
    place = rng.random(np.shape(step))
    low, high = below + place * step, above + (1.0 - place) * step
    left = special.ndtri(np.maximum(np.minimum(low, 0.5), _SMALLEST))
    right = -special.ndtri(np.maximum(np.minimum(high, 0.5), _SMALLEST))
    return np.where(low <= high, left, right)
