"""Likelihoods of generalised linear models, row by row, as functions of the linear predictor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from hmlm.errors import HmlmError, listed
from hmlm.families import Family
from hmlm.likelihoods.probability import FARTHEST, probability_ratios
from hmlm.links import from_link, to_link

SUPPORTED = ("bernoulli", "binomial", "poisson", "negative-binomial", "gamma", "beta")
FARTHEST_BETA = 80.0  # the same where third powers of exp(eta) appear
_SMALLEST = 1e-300


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowTerms:
    """What fitting needs of every row at one value of the linear predictor eta.

    All have the shape of eta; where eta is impossible (a mean below zero) the log-likelihood is
    minus infinity and the rest has no meaning.

    Attributes
    ----------
    log_likelihood : ndarray
        log p(y | eta), with its constants.
    score : ndarray
        Its derivative by eta.
    observed : ndarray
        Minus its second derivative: the observed information.
    weight : ndarray
        The expectation of that: the Fisher information.
    weight_slope : ndarray
        The derivative of the Fisher information by eta.
    """

    log_likelihood: np.ndarray
    score: np.ndarray
    observed: np.ndarray
    weight: np.ndarray
    weight_slope: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowLikelihood:
    """Outcomes with their family, at one value of the family's parameter.

    Attributes
    ----------
    family : Family
        Family and link.
    y : ndarray, shape (N,)
        The outcome; successes where there are trials.
    trials : ndarray, shape (N,)
        Trials; ones for families without.
    parameter : float
        Shape or precision; NaN for families without.
    constant : ndarray, shape (N,)
        Part of the log-likelihood that does not depend on eta.
    counts : ndarray of shape (N,), or None
        How many rows of the table each row stands for; one when None.
    """

    family: Family
    y: np.ndarray
    trials: np.ndarray
    parameter: float
    constant: np.ndarray
    counts: np.ndarray | None = None

    @property
    def all_trials(self) -> np.ndarray:
        """Trials of all the rows of the table that each row stands for."""
        return self.trials if self.counts is None else self.trials * self.counts

    @property
    def share(self) -> float:
        """Average outcome over the rows of the table, divided by the trials."""
        if self.counts is None:
            return float((self.y / self.trials).mean())
        return float(self.counts @ (self.y / self.trials) / self.counts.sum())

    @property
    def has_parameter(self) -> bool:
        """Whether the family has a parameter besides the mean."""
        return bool(self.family.parameters)

    @property
    def canonical(self) -> bool:
        """Whether the observed information is the expected one."""
        return (self.family.name, self.family.link) in (
            ("bernoulli", "logit"),
            ("binomial", "logit"),
            ("poisson", "log"),
            ("gamma", "inverse"),
        )

    def given(self, parameter: float) -> RowLikelihood:
        """Return the same rows at another value of the family's parameter."""
        if not self.has_parameter:
            return self
        constant = _constant(self.family, self.y, self.trials, parameter)
        return replace(self, parameter=parameter, constant=constant)

    def take(self, rows: np.ndarray) -> RowLikelihood:
        """Return some of the rows, or all in another order."""
        return replace(
            self,
            y=self.y[rows],
            trials=self.trials[rows],
            constant=self.constant[rows],
            counts=None if self.counts is None else self.counts[rows],
        )

    def terms(self, eta: np.ndarray) -> RowTerms:
        """Return log-likelihood and derivatives; eta has the rows along its last axis."""
        name = self.family.name
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            if name in ("bernoulli", "binomial"):
                found = _binomial_terms(self, eta)
            elif name == "poisson":
                found = _poisson_terms(self, eta)
            elif name == "negative-binomial":
                found = _negative_binomial_terms(self, eta)
            elif name == "gamma":
                found = _gamma_terms(self, eta)
            else:
                found = _beta_terms(self, eta)
        if self.counts is not None:
            often = self.counts
            log_likelihood, score, observed, weight, slope = (often * v for v in found)
            return RowTerms(
                log_likelihood=log_likelihood + often * self.constant,
                score=score,
                observed=observed,
                weight=weight,
                weight_slope=slope,
            )
        return RowTerms(
            log_likelihood=found[0] + self.constant,
            score=found[1],
            observed=found[2],
            weight=found[3],
            weight_slope=found[4],
        )

    def mean(self, eta: np.ndarray) -> np.ndarray:
        """Return the inverse link: the expected outcome, or the probability of a success."""
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            return from_link(self.family.link, eta)

    def variance(self, eta: np.ndarray) -> np.ndarray:
        """Return the variance of the outcome (of the successes) of every row."""
        mu, name = self.mean(eta), self.family.name
        if name in ("bernoulli", "binomial"):
            return self.trials * mu * (1.0 - mu)
        if name == "poisson":
            return mu
        if name == "negative-binomial":
            return mu + mu**2 / self.parameter
        if name == "gamma":
            return mu**2 / self.parameter
        return mu * (1.0 - mu) / (1.0 + self.parameter)

    def pearson(self, eta: np.ndarray) -> np.ndarray:
        """Return the Pearson residuals: outcome less its mean, over its sd.

        They are the scores over the root of the information (but for beta outcomes), which keeps
        them exact where a probability is rounded to 0 or 1. NaN where eta is impossible.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.family.name == "beta":
                return (self.y - self.mean(eta)) / np.sqrt(self.variance(eta))
            at = self.terms(eta)
            falling = -1.0 if self.family.link == "inverse" else 1.0
            residual = np.where(at.weight > 0, falling * at.score / np.sqrt(at.weight), 0.0)
        possible = np.isfinite(at.log_likelihood)
        return np.where(possible & ~np.isnan(eta), residual, np.nan)

    def start(self) -> np.ndarray:
        """Return a linear predictor near the outcome itself, from which scoring can start."""
        name, y = self.family.name, self.y
        if name in ("bernoulli", "binomial"):
            mu = (y + 0.5) / (self.trials + 1.0)
        elif name in ("poisson", "negative-binomial"):
            mu = y + 0.1
        else:
            mu = y
        return to_link(self.family.link, mu)


def row_likelihood(
    family: Family,
    y: np.ndarray,
    trials: np.ndarray | None = None,
    parameter: float = 1.0,
    counts: np.ndarray | None = None,
) -> RowLikelihood:
    """Gather outcomes and family.

    Parameters
    ----------
    family : Family
        Family and link.
    y : ndarray, shape (N,)
        The outcome; successes where there are trials.
    trials : ndarray, shape (N,), optional
        Trials of a binomial outcome.
    parameter : float
        Shape or precision, where the family has one.
    counts : ndarray, shape (N,), optional
        How many rows of the table each row stands for; one when None.

    Raises
    ------
    HmlmError
        If the family is none of those that fit by maximum likelihood here.

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.families import get_family
    >>> rows = row_likelihood(get_family("poisson"), np.array([0.0, 2.0]))
    >>> rows.terms(np.zeros(2)).log_likelihood.round(3).tolist()
    [-1.0, -1.693]
    """
    if family.name not in SUPPORTED:
        raise HmlmError(
            f"there is no maximum likelihood of a {family.name} model here, only of "
            f"{listed(SUPPORTED)} ones: use hmlm.NUTS()."
        )
    y = np.asarray(y, dtype=float)
    n = np.ones(len(y)) if trials is None else np.asarray(trials, dtype=float)
    value = float(parameter) if family.parameters else float("nan")
    return RowLikelihood(
        family=family,
        y=y,
        trials=n,
        parameter=value,
        constant=_constant(family, y, n, value),
        counts=None if counts is None else np.asarray(counts, dtype=float),
    )


def _constant(family: Family, y: np.ndarray, n: np.ndarray, parameter: float) -> np.ndarray:
    """Return the part of the log-likelihood that does not depend on the mean."""
    if family.name == "bernoulli":
        return np.zeros(len(y))
    if family.name == "binomial":
        return np.asarray(-special.betaln(y + 1.0, n - y + 1.0) - np.log(n + 1.0))
    if family.name == "poisson":
        return np.asarray(-special.gammaln(y + 1.0))
    if family.name == "negative-binomial":
        # log Gamma(y + alpha) - log Gamma(alpha) - log y!, without their cancellation
        return np.asarray(-special.betaln(parameter, y + 1.0) - np.log(parameter + y))
    if family.name == "gamma":
        size = parameter * np.log(parameter) - special.gammaln(parameter)
        return np.asarray(size + (parameter - 1.0) * np.log(y))
    return -np.log(y) - np.log1p(-y)


Terms = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _binomial_terms(rows: RowLikelihood, eta: np.ndarray) -> Terms:
    """Binomial outcomes, from a = m'/p, c = m'/(1 - p) and g = m''/m' of the inverse link m.

    The ratios stay exact in the tails, where p itself does not: the score is y a - (n - y) c, the
    expected information n a c.
    """
    y, n = rows.y, rows.trials
    link = rows.family.link
    if link == "logit":
        e = np.exp(-np.abs(eta))
        log_q = -np.maximum(eta, 0.0) - np.log1p(e)
        large = 1.0 / (1.0 + e)
        p = np.where(eta >= 0, large, e * large)
        spread = e * large * large
        w = n * spread
        return y * eta + n * log_q, y - n * p, w, w, w * (1.0 - 2.0 * p)
    a, c, g, log_p, log_q = probability_ratios(link, eta)
    w = n * a * c
    return (
        _times(y, log_p) + _times(n - y, log_q),
        _times(y, a) - _times(n - y, c),
        _times(y, a * (a - g)) + _times(n - y, c * (c + g)),
        w,
        w * (2.0 * g - a + c),
    )


def _times(count: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return count * values, with 0 for none of something infinite."""
    return np.where(count == 0, 0.0, count * values)


def _positive(eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eta where it is positive, and what makes the log-likelihood -inf elsewhere."""
    return np.where(eta > 0, eta, 1.0), np.where(eta > 0, 0.0, -np.inf)


def _poisson_terms(rows: RowLikelihood, eta: np.ndarray) -> Terms:
    y = rows.y
    if rows.family.link == "log":
        mu = np.exp(np.minimum(eta, FARTHEST))
        return y * eta - mu, y - mu, mu, mu, mu
    mu, bar = _positive(eta)
    return y * np.log(mu) - mu + bar, y / mu - 1.0, y / mu**2, 1.0 / mu, -1.0 / mu**2


def _negative_binomial_terms(rows: RowLikelihood, eta: np.ndarray) -> Terms:
    y, alpha = rows.y, rows.parameter
    if rows.family.link == "log":
        t = eta - np.log(alpha)
        p, q = special.expit(t), special.expit(-t)
        log_p, log_q = special.log_expit(t), special.log_expit(-t)
        return (
            y * log_p + alpha * log_q,
            y * q - alpha * p,
            (y + alpha) * p * q,
            alpha * p,
            alpha * p * q,
        )
    mu, bar = _positive(eta)
    both = mu + alpha
    return (
        y * (np.log(mu) - np.log(both)) - alpha * np.log1p(mu / alpha) + bar,
        y / mu - (y + alpha) / both,
        y / mu**2 - (y + alpha) / both**2,
        alpha / (mu * both),
        -alpha * (alpha + 2.0 * mu) / (mu * both) ** 2,
    )


def _gamma_terms(rows: RowLikelihood, eta: np.ndarray) -> Terms:
    y, alpha = rows.y, rows.parameter
    if rows.family.link == "log":
        ratio = np.exp(np.minimum(np.log(y) - eta, FARTHEST))
        even = np.full(np.shape(eta), alpha)
        return (
            -alpha * (eta + ratio),
            alpha * (ratio - 1.0),
            alpha * ratio,
            even,
            np.zeros(np.shape(eta)),
        )
    if rows.family.link == "inverse":
        at, bar = _positive(eta)
        w = alpha / at**2
        return alpha * (np.log(at) - y * at) + bar, alpha * (1.0 / at - y), w, w, -2.0 * w / at
    mu, bar = _positive(eta)
    w = alpha / mu**2
    return (
        -alpha * (np.log(mu) + y / mu) + bar,
        w * (y - mu),
        w * (2.0 * y / mu - 1.0),
        w,
        -2.0 * w / mu,
    )


def _beta_terms(rows: RowLikelihood, eta: np.ndarray) -> Terms:
    y, phi = rows.y, rows.parameter
    eta = np.clip(eta, -FARTHEST_BETA, 4.0 if rows.family.link == "cloglog" else FARTHEST_BETA)
    if rows.family.link == "probit":
        eta = np.clip(eta, -12.0, 12.0)
    ratio_p, _, g, log_p, log_q = probability_ratios(rows.family.link, eta)
    p, q = np.exp(log_p), np.exp(log_q)
    a, b = np.maximum(phi * p, _SMALLEST), np.maximum(phi * q, _SMALLEST)
    slope = ratio_p * p
    log_y, log_z = np.log(y), np.log1p(-y)
    gap = phi * (log_y - log_z - special.psi(a) + special.psi(b))
    information = phi**2 * (special.zeta(2.0, a) + special.zeta(2.0, b))
    bend = -2.0 * phi**3 * (special.zeta(3.0, a) - special.zeta(3.0, b))
    w = information * slope**2
    return (
        -special.betaln(a, b) + a * log_y + b * log_z,
        gap * slope,
        w - gap * g * slope,
        w,
        bend * slope**3 + 2.0 * g * w,
    )
