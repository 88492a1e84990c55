"""What every family expects of an outcome, and new outcomes drawn from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from hmlm.families import Family
from hmlm.links import from_link

Values = Mapping[str, np.ndarray]
_SMALLEST = 1e-300


def expected_outcome(family: Family, eta: np.ndarray, values: Values) -> np.ndarray:
    """Return the expected outcome: of counts out of trials the probability of a success.

    Parameters
    ----------
    family : Family
        The family, other than ordinal and categorical.
    eta : ndarray
        Linear predictor of the mean.
    values : mapping of str to ndarray
        Parameters of the family, of shapes that broadcast with `eta`.

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.families import get_family
    >>> expected_outcome(get_family("zip"), np.log([2.0, 4.0]), {"zi": np.array(0.5)})
    array([1., 2.])
    """
    if family.name == "lognormal":
        return np.asarray(np.exp(eta + 0.5 * values["sigma"] ** 2))
    mu = from_link(family.link, eta)
    if family.name.startswith("zero-inflated"):
        return np.asarray((1.0 - values["zi"]) * mu)
    if family.name.startswith("hurdle"):
        mu = np.maximum(mu, _SMALLEST)  # a mean of zero: the count above zero is one
        return np.asarray((1.0 - values["hu"]) * mu / -np.expm1(_log_zero(family, mu, values)))
    return mu


def _log_zero(family: Family, mu: np.ndarray, values: Values) -> np.ndarray:
    """Log probability of zero of the counts of a hurdle model."""
    if family.name == "hurdle-poisson":
        return -mu
    return np.asarray(-values["alpha"] * np.log1p(mu / values["alpha"]))


def category_probabilities(
    family: Family, etas: list[np.ndarray], cutpoints: np.ndarray | None
) -> np.ndarray:
    """Return the probability of every category of an ordinal or categorical outcome.

    Parameters
    ----------
    family : Family
        The family.
    etas : list of ndarray, shape (...)
        Linear predictors: one, or one for each category but the first.
    cutpoints : ndarray, shape (..., K - 1), or None
        Of an ordinal outcome; broadcasts with ``eta[..., None]``.

    Returns
    -------
    ndarray, shape (..., K)
        Probabilities.
    """
    if cutpoints is None:
        stacked = np.stack([np.zeros_like(etas[0]), *etas], axis=-1)
        return np.asarray(special.softmax(stacked, axis=-1))
    below = from_link(family.link, cutpoints - etas[0][..., None])
    edge = np.zeros((*below.shape[:-1], 1))
    return np.diff(np.concatenate([edge, below, edge + 1.0], axis=-1), axis=-1)


def draw_outcomes(
    family: Family,
    eta: np.ndarray,
    values: Values,
    rng: np.random.Generator,
    trials: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Draw new outcomes of a family other than ordinal and categorical.

    Parameters
    ----------
    family : Family
        The family.
    eta : ndarray, shape (draws, rows)
        Linear predictor of the mean.
    values : mapping of str to ndarray
        Parameters of the family, of shapes that broadcast with `eta`.
    rng : numpy.random.Generator
        Source of the random numbers.
    trials, weights : ndarray, shape (rows,), optional
        Trials, or weights that divide the residual variance.
    """
    name, shape = family.name, eta.shape
    mu = from_link(family.link, eta)
    if name in ("gaussian", "student-t"):
        scale = values["sigma"] / np.sqrt(1.0 if weights is None else weights)
        if name == "student-t":
            noise = rng.standard_t(np.broadcast_to(values["nu"], shape))
        else:
            noise = rng.standard_normal(shape)
        return np.asarray(mu + scale * noise)
    if name == "lognormal":
        return np.exp(eta + values["sigma"] * rng.standard_normal(shape))
    if name in ("bernoulli", "binomial", "beta-binomial"):
        if name == "beta-binomial":
            mu = _beta(mu, values["phi"], rng)
        n = np.ones(shape[-1]) if trials is None else trials
        return rng.binomial(n.astype(np.int64), np.clip(mu, 0.0, 1.0)).astype(float)
    if name == "beta":
        return _beta(mu, values["phi"], rng)
    if name == "gamma":
        alpha = np.broadcast_to(values["alpha"], shape)
        return np.asarray(rng.gamma(alpha) * mu / alpha)
    if name.startswith("hurdle"):
        return _draw_hurdle(family, mu, values, rng)
    counts = _counts(name, mu, values, rng)
    if name.startswith("zero-inflated"):
        counts = np.where(rng.random(shape) < values["zi"], 0.0, counts)
    return counts


def _beta(mu: np.ndarray, phi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    tiny = 1e-12
    return np.asarray(rng.beta(np.maximum(mu * phi, tiny), np.maximum((1.0 - mu) * phi, tiny)))


def _counts(name: str, mu: np.ndarray, values: Values, rng: np.random.Generator) -> np.ndarray:
    if "negative-binomial" in name:
        alpha = np.broadcast_to(values["alpha"], mu.shape)
        mu = rng.gamma(alpha) * mu / alpha
    return rng.poisson(np.minimum(mu, 1e15)).astype(float)


def _draw_hurdle(
    family: Family, mu: np.ndarray, values: Values, rng: np.random.Generator
) -> np.ndarray:
    """Draw counts: zero with probability hu, else above zero.

    A Poisson count is that of arrivals before mu; given one, the first comes at a truncated
    exponential time t, and the rest are Poisson(mu - t). A negative binomial count is a Poisson
    number of logarithmic ones, and is above zero when there is at least one of them.
    """
    zero = rng.random(mu.shape) < values["hu"]
    mu = np.clip(mu, _SMALLEST, 1e15)
    rate = -_log_zero(family, mu, values)
    rest = np.maximum(rate + np.log1p(rng.random(mu.shape) * np.expm1(-rate)), 0.0)
    if family.name == "hurdle-poisson":
        counts = 1.0 + rng.poisson(rest)
    else:
        alpha = np.broadcast_to(values["alpha"], mu.shape)
        odds = mu / alpha
        share = np.minimum(odds / (1.0 + odds), np.nextafter(1.0, 0.0))
        shape = np.maximum(rest / np.log1p(odds), _SMALLEST)
        more = rng.poisson(np.minimum(rng.gamma(shape) * odds, 1e15))
        counts = rng.logseries(share) + more.astype(float)
    return np.where(zero, 0.0, counts)
