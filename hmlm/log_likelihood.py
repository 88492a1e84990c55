"""The log likelihood of every row given draws of the parameters, for every family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy import special

from hmlm.design import Design
from hmlm.families import Family
from hmlm.links import from_link
from hmlm.new_rows import NewRows, new_rows
from hmlm.prediction import Fresh, family_values, linear_predictors

Values = Mapping[str, np.ndarray]
NUMBERS_AT_ONCE = 2_000_000
_LOG_2PI = float(np.log(2.0 * np.pi))


def log_likelihood_rows(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows | None = None,
    fresh: Fresh | None = None,
    population: bool = False,
) -> np.ndarray:
    """Return the log likelihood of every row of a fit at every draw, with all its constants.

    Parameters
    ----------
    design : Design
        What was fitted.
    posterior : mapping of str to ndarray
        Draws of every variable, the draw on the first axis.
    rows : NewRows, optional
        The rows of the fit, made again; by default made here.
    fresh : mapping of str to ndarray or callable, optional
        Effects that stand in place of those in `posterior`; see
        `hmlm.prediction.linear_predictors`.
    population : bool
        Whether to leave all group effects out.

    Returns
    -------
    ndarray, shape (draws, N)
        Log densities or log probabilities; of a count out of trials that of the whole count.

    Examples
    --------
    >>> import numpy as np
    >>> import hmlm
    >>> from hmlm.log_likelihood import log_likelihood_rows
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> pooled = model.with_pooling("complete").design
    >>> at = {"beta": np.array([[1527.5]]), "sigma": np.array([63.0])}
    >>> log_likelihood_rows(pooled, at).shape
    (1, 30)
    """
    n_draws = len(next(iter(posterior.values())))
    out = np.empty((n_draws, len(design.y)))
    for part, values in log_likelihood_parts(design, posterior, rows, fresh, population):
        out[:, part] = values
    return out


def log_likelihood_parts(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows | None = None,
    fresh: Fresh | None = None,
    population: bool = False,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the log likelihood of some rows after the others, with the rows: (draws, rows).

    Parameters
    ----------
    design, posterior, rows, fresh, population
        As in `log_likelihood_rows`.
    """
    rows = new_rows(design, None, "include") if rows is None else rows
    n_draws = len(next(iter(posterior.values())))
    step = max(1, NUMBERS_AT_ONCE // (n_draws * max(1, len(design.categories))))
    for start in range(0, rows.size, step):
        part = slice(start, start + step)
        etas = linear_predictors(design, posterior, rows, part, fresh, population)
        yield (
            part,
            log_density(
                design.spec.family,
                design.y[part],
                etas,
                family_values(design, posterior, etas),
                trials=None if design.trials is None else design.trials[part],
                weights=None if design.weights is None else design.weights[part],
                cutpoints=posterior.get("cutpoints"),
            ),
        )


def log_density(
    family: Family,
    y: np.ndarray,
    etas: list[np.ndarray],
    values: Values,
    *,
    trials: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    cutpoints: np.ndarray | None = None,
) -> np.ndarray:
    """Return the log density of outcomes given their linear predictors.

    Parameters
    ----------
    family : Family
        The family.
    y : ndarray, shape (rows,)
        Outcomes; codes of categories.
    etas : list of ndarray, shape (draws, rows)
        Linear predictors: that of the mean; of a categorical outcome all of them.
    values : mapping of str to ndarray
        Parameters of the family, of shapes that broadcast with an `eta`.
    trials, weights : ndarray, shape (rows,), optional
        Trials, or weights that divide the residual variance.
    cutpoints : ndarray, shape (draws, K - 1), optional
        Of an ordinal outcome.

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.families import get_family
    >>> log_density(get_family("poisson"), np.array([2.0]), [np.zeros((1, 1))], {}).round(4)
    array([[-1.6931]])
    """
    eta, name = etas[0], family.name
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if name == "categorical":
            every = np.stack([np.zeros_like(eta), *etas], axis=-1)
            every = every - special.logsumexp(every, axis=-1, keepdims=True)
            return np.asarray(every[:, np.arange(len(y)), y.astype(int)])
        if name == "ordinal":
            assert cutpoints is not None
            return _ordinal(family.link, y, eta, cutpoints)
        if name in ("gaussian", "student-t"):
            return _location(family, y, from_link(family.link, eta), values, weights)
        if name == "lognormal":
            return _normal(np.log(y), eta, values["sigma"]) - np.log(y)
        if name in ("bernoulli", "binomial", "beta-binomial", "beta"):
            n = np.ones(len(y)) if trials is None else trials
            return _shares(family, y, n, *log_probability(family.link, eta), values)
        if name == "gamma":
            alpha, log_mu = values["alpha"], _log_mean(family, eta)
            scaled = alpha * (np.log(alpha) - log_mu + np.log(y) - y * np.exp(-log_mu))
            return np.asarray(scaled - special.gammaln(alpha) - np.log(y))
        return _counts(family, y, _log_mean(family, eta), values)


def _log_mean(family: Family, eta: np.ndarray) -> np.ndarray:
    return eta if family.link == "log" else np.log(from_link(family.link, eta))


def _normal(y: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return np.asarray(-0.5 * (_LOG_2PI + ((y - mu) / sigma) ** 2) - np.log(sigma))


def _location(
    family: Family, y: np.ndarray, mu: np.ndarray, values: Values, weights: np.ndarray | None
) -> np.ndarray:
    scale = values["sigma"] / np.sqrt(1.0 if weights is None else weights)
    if family.name == "gaussian":
        return _normal(y, mu, scale)
    nu, z = values["nu"], (y - mu) / scale
    constant = special.gammaln(0.5 * (nu + 1.0)) - special.gammaln(0.5 * nu)
    constant = constant - 0.5 * np.log(nu * np.pi) - np.log(scale)
    return np.asarray(constant - 0.5 * (nu + 1.0) * np.log1p(z * z / nu))


def log_probability(link: str, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log p and log(1 - p), exact in both tails."""
    if link == "logit":
        return -np.logaddexp(0.0, -eta), -np.logaddexp(0.0, eta)
    if link == "probit":
        return special.log_ndtr(eta), special.log_ndtr(-eta)
    rate = np.exp(eta)
    return np.where(eta < -30.0, eta, np.log(-np.expm1(-rate))), -rate


def _shares(
    family: Family,
    y: np.ndarray,
    n: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    values: Values,
) -> np.ndarray:
    """Return the log density of yes/no, counts out of trials, and shares."""
    choose = special.gammaln(n + 1.0) - special.gammaln(y + 1.0) - special.gammaln(n - y + 1.0)
    if family.name in ("bernoulli", "binomial"):
        hits = np.where(y > 0, y * up, 0.0) + np.where(n > y, (n - y) * down, 0.0)
        return np.asarray(choose + hits)
    phi = values["phi"]
    a, b = np.exp(up) * phi, np.exp(down) * phi
    if family.name == "beta":
        return np.asarray((a - 1.0) * np.log(y) + (b - 1.0) * np.log1p(-y) - special.betaln(a, b))
    return np.asarray(choose + special.betaln(y + a, n - y + b) - special.betaln(a, b))


def _count_density(name: str, y: np.ndarray, log_mu: np.ndarray, values: Values) -> np.ndarray:
    """Return the log density of plain counts, from the logarithm of their mean."""
    hits = np.where(y > 0, y * log_mu, 0.0)
    if "negative-binomial" not in name:
        return np.asarray(hits - np.exp(log_mu) - special.gammaln(y + 1.0))
    alpha = values["alpha"]
    spread = np.logaddexp(0.0, log_mu - np.log(alpha))
    # The binomial coefficient, exact for a large alpha too.
    whole = -special.betaln(alpha, y + 1.0) - np.log(y + alpha)
    return np.asarray(whole - (alpha + y) * spread + hits - y * np.log(alpha))


def _counts(family: Family, y: np.ndarray, log_mu: np.ndarray, values: Values) -> np.ndarray:
    name = family.name
    value = _count_density(name, y, log_mu, values)
    if name.startswith("zero-inflated"):
        zi = values["zi"]
        some = np.log1p(-zi) + value
        return np.where(y == 0, np.logaddexp(np.log(zi), some), some)
    if name.startswith("hurdle"):
        hu = values["hu"]
        above = np.log(-np.expm1(_count_density(name, np.zeros_like(y), log_mu, values)))
        return np.where(y == 0, np.log(hu), np.log1p(-hu) + value - above)
    return value


def _ordinal(link: str, y: np.ndarray, eta: np.ndarray, cutpoints: np.ndarray) -> np.ndarray:
    """Return log(F(c_k - eta) - F(c_{k-1} - eta)), from whichever tail is nearer."""
    code, last = y.astype(int), cutpoints.shape[1]
    high = cutpoints[:, np.minimum(code, last - 1)] - eta
    low = cutpoints[:, np.maximum(code - 1, 0)] - eta
    high = np.where(code == last, np.inf, high)
    low = np.where(code == 0, -np.inf, low)
    up, up_rest = _log_tails(link, high)
    down, down_rest = _log_tails(link, low)
    left = up + np.log(-np.expm1(np.minimum(down - up, 0.0)))
    right = down_rest + np.log(-np.expm1(np.minimum(up_rest - down_rest, 0.0)))
    return np.asarray(np.where(low > 0.0, right, left))


def _log_tails(link: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log F(x) and log(1 - F(x)), at infinity as well."""
    inside = np.clip(x, -1e6, 1e6)
    below, above = log_probability(link, inside)
    below = np.where(x == np.inf, 0.0, np.where(x == -np.inf, -np.inf, below))
    above = np.where(x == np.inf, -np.inf, np.where(x == -np.inf, 0.0, above))
    return below, above
