"""The parts of a variance: of population terms, of group effects, and of the distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from hmlm.cells import needs_rows
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.expectation import expected_outcome
from hmlm.families import Family
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.group_rows import column_covariance, group_variance
from hmlm.links import from_link, to_link
from hmlm.new_rows import new_rows
from hmlm.prediction import block_covariance, family_values, linear_predictors
from hmlm.spec import POOLING_WORDS

Values = Mapping[str, np.ndarray]
LATENT = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}
METHODS = ("lognormal", "delta", "trigamma", "theoretical")
# Families whose residual variance stands on the scale of the linear predictor itself.
LINEAR = ("gaussian", "student-t", "lognormal")
_NODES = 15
_ROWS_AT_ONCE = 500


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Parts:
    """The variance of one linear predictor, taken apart; every array has the draws on its axis.

    Attributes
    ----------
    term : str
        Empty, or for a categorical outcome which category is set against the first.
    population : ndarray, shape (draws,)
        Variance of X beta over the rows.
    groups : mapping of str to ndarray of shape (draws,)
        For each grouping factor the average of z'Dz over the rows.
    residual : ndarray, shape (draws,)
        Residual variance, or that of the family on the scale of the linear predictor.
    """

    term: str
    population: np.ndarray
    groups: Mapping[str, np.ndarray]
    residual: np.ndarray

    @property
    def between(self) -> np.ndarray:
        """Sum over the grouping factors."""
        return np.asarray(sum(self.groups.values(), np.zeros_like(self.residual)))

    @property
    def total(self) -> np.ndarray:
        """Sum of all parts."""
        return self.population + self.between + self.residual


def check_prob(prob: float) -> None:
    """Raise an HmlmError for an impossible probability of intervals."""
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")


def check_pooled(fit: Any, what: str, groups: bool = True) -> None:
    """Raise an HmlmError where effects of groups have no common distribution."""
    design: Design = fit.design
    if design.spec.pooling == "none" or (groups and not design.blocks):
        raise HmlmError(
            f"{what} needs the variance between groups, which a fit of '{design.spec.formula}' "
            f"under {POOLING_WORDS[design.spec.pooling]} does not have: fit a model with a group "
            "term under partial pooling."
        )


def fit_values(fit: Any, effects: bool = False) -> dict[str, np.ndarray]:
    """Return draws of every variable, the draw on the first axis; one 'draw' of a classical fit.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    effects : bool
        Whether to have the effects of groups among them.
    """
    if isinstance(fit, BayesFit):
        found = {}
        for variable in fit.design.variables:
            if effects or variable.kind != "group":
                draws = fit.variable(variable.name)
                found[variable.name] = draws.reshape(-1, *draws.shape[2:])
        return found
    return {
        name: np.asarray(value, dtype=float)[None]
        for name, value in fit.estimates.items()
        if effects or not name.startswith("b_")
    }


def variance_parts(fit: Any, method: str | None = None) -> tuple[Parts, ...]:
    """Take the variance of a fit apart.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        A fit under partial or complete pooling.
    method : str, optional
        See `hmlm.variance.split_variance`.

    Returns
    -------
    tuple of Parts
        One; of a categorical outcome one for each category but the first.

    Raises
    ------
    HmlmError
        If the method is unknown or the link has none of that name.
    """
    check_pooled(fit, "the split of the variance", groups=False)
    design: Design = fit.design
    if design.cells is not None and design.cells.sums and (design.spec.weights or design.known_se):
        needs_rows(design.cells, "The split of the variance under weights", *design.spec.groups[:1])
    values = fit_values(fit)
    n_draws = len(next(iter(values.values())))
    categorical = design.spec.family.outcome == "category"
    modelled = [p for p in design.distributional if p.blocks and not categorical]
    if modelled and isinstance(fit, BayesFit):
        for name in (p.named(f"b_{b.group}") for p in modelled for b in p.blocks):
            own = fit.variable(name)
            values[name] = own.reshape(-1, *own.shape[2:])
    found = []
    residual = residual_variance(design, values, n_draws, method)
    for p in design.predictors if categorical else design.predictors[:1]:
        population = np.zeros(n_draws)
        if p.terms:
            spread = column_covariance(design, p)
            beta = values[p.named("beta")]
            population = np.maximum(np.einsum("sp,pr,sr->s", beta, spread, beta), 0.0)
        label = (p.name or f"mu_{design.categories[1]}") if categorical else ""
        groups = {b.group: group_variance(block_covariance(values, p, b), b) for b in p.blocks}
        found.append(Parts(term=label, population=population, groups=groups, residual=residual))
    return tuple(found)


def residual_variance(
    design: Design, values: Values, n_draws: int, method: str | None = None
) -> np.ndarray:
    """Return the residual variance on the scale of the linear predictor, shape (draws,)."""
    family = design.spec.family
    chosen = _choose_method(family, method)
    if chosen == "theoretical":
        return np.full(n_draws, LATENT[family.link])
    parameters = _average_parameters(design, values)
    shrink = 1.0
    if design.weights is not None:
        shrink = float(np.average(1.0 / design.weights, weights=design.row_weights))
    if chosen == "exact":
        with np.errstate(divide="ignore", invalid="ignore"):
            found = parameters["sigma^2"] * shrink
            if family.name == "student-t":
                nu = parameters["nu"]
                found = np.where(nu > 2, found * nu / (nu - 2), np.inf)
        return np.broadcast_to(found, (n_draws,)).copy()
    mu = _average_mean(design, values, n_draws)
    eta = to_link(family.link, mu)
    weights = None if design.weights is None else np.asarray(1.0 / shrink)
    V = outcome_variance(family, eta, parameters, weights=weights)
    step = 1e-5 * np.maximum(1.0, np.abs(eta))
    rise = expected_outcome(family, eta + step, parameters) - expected_outcome(
        family, eta - step, parameters
    )
    delta = V / (rise / (2 * step)) ** 2
    if chosen == "delta":
        return np.asarray(delta)
    return np.asarray(np.log1p(delta) if chosen == "lognormal" else special.polygamma(1, 1 / delta))


def _choose_method(family: Family, method: str | None) -> str:
    exact = family.name in LINEAR and family.link == "identity"
    latent = family.link in LATENT and family.name != "beta"
    if method is None:
        if exact:
            return "exact"
        return "theoretical" if latent else "lognormal" if family.link == "log" else "delta"
    possible = ["theoretical"] if latent else []
    if not exact and family.outcome not in ("ordered", "category"):
        possible += ["delta"]
    if family.link == "log":
        possible += ["lognormal", "trigamma"]
    if method not in METHODS or method not in possible:
        has = f"one of {possible}" if possible else "None: its residual variance is there already"
        raise HmlmError(
            f"the residual variance of a {family.name} model with the {family.link} link has no "
            f"method {method!r}; method is {has}."
        )
    return method


def _average_parameters(design: Design, values: Values) -> dict[str, np.ndarray]:
    """Return the family's parameters, and sigma^2, averaged over the rows; shape (draws,)."""
    found = {name: values[name] for name in design.parameters}
    if design.known_se:
        found["sigma"] = np.ones(1)
    if "sigma" in found:
        found["sigma^2"] = found["sigma"] ** 2
    if design.spec.family.outcome == "category":
        return found
    n, often = len(design.y), design.row_weights
    for p in design.distributional:
        sums = squares = np.zeros(1)
        for start in range(0, n, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            eta = values[p.named("beta")] @ p.X[part].T if p.terms else 0.0
            eta = eta + (0.0 if p.offset is None else p.offset[part])
            for block in p.blocks:
                b = values[p.named(f"b_{block.group}")][:, block.index[part], :]
                eta = eta + np.einsum("nk,snk->sn", block.Z[part], b)
            own = from_link("logit" if p.name in ("zi", "hu") else "log", eta)
            sums, squares = sums + own @ often[part], squares + own**2 @ often[part]
        found[p.name] = np.asarray(sums / design.n_rows)
        if p.name == "sigma":
            found["sigma^2"] = np.asarray(squares / design.n_rows)
            found["sigma"] = np.sqrt(found["sigma^2"])
    return found


def _average_mean(design: Design, values: Values, n_draws: int) -> np.ndarray:
    """Return the mean of the family, over rows and over new groups, shape (draws,)."""
    link, (p, *_) = design.spec.family.link, design.predictors
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    n, sums, often = len(design.y), np.zeros(n_draws), design.row_weights
    for start in range(0, n, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        eta = np.zeros((n_draws, len(design.y[part])))
        if p.terms:
            eta += values["beta"] @ p.X[part].T
        if p.offset is not None:
            eta += p.offset[part]
        spread = np.zeros_like(eta)
        for b in p.blocks:
            D = block_covariance(values, p, b)
            spread += np.einsum("nk,skl,nl->sn", b.Z[part], D, b.Z[part], optimize=True)
        if link == "log":
            sums += np.exp(eta + spread / 2) @ often[part]
        elif link == "identity":
            sums += eta @ often[part]
        else:
            root = np.sqrt(np.maximum(spread, 0.0))
            for node, weight in zip(nodes, weights / weights.sum(), strict=True):
                sums += weight * (from_link(link, eta + node * root) @ often[part])
    return np.asarray(sums / design.n_rows)


def outcome_variance(
    family: Family,
    eta: np.ndarray,
    values: Values,
    trials: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return the variance of outcomes about their expectation.

    Parameters
    ----------
    family : Family
        The family, other than ordinal and categorical.
    eta : ndarray
        Linear predictor of the mean.
    values : mapping of str to ndarray
        Parameters of the family, of shapes that broadcast with `eta`.
    trials : ndarray, optional
        Trials: the variance is that of the proportion of successes.
    weights : ndarray, optional
        Weights that divide the residual variance.

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.families import get_family
    >>> outcome_variance(get_family("negbinomial"), np.log([2.0]), {"alpha": np.array(4.0)})
    array([3.])
    """
    name = family.name
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if name in LINEAR:
            sigma2 = values["sigma"] ** 2 / (1.0 if weights is None else weights)
            if name == "student-t":
                nu = values["nu"]
                sigma2 = np.where(nu > 2, sigma2 * nu / (nu - 2), np.inf)
            if name == "lognormal":
                return np.asarray(np.expm1(sigma2) * np.exp(2 * eta + sigma2))
            return np.asarray(np.broadcast_to(sigma2, np.broadcast_shapes(sigma2.shape, eta.shape)))
        mu = from_link(family.link, eta)
        n = 1.0 if trials is None else trials
        if name in ("bernoulli", "binomial"):
            return np.asarray(mu * (1 - mu) / n)
        if name == "beta-binomial":
            return np.asarray(mu * (1 - mu) / n * (values["phi"] + n) / (values["phi"] + 1))
        if name == "beta":
            return np.asarray(mu * (1 - mu) / (1 + values["phi"]))
        if name == "gamma":
            return np.asarray(mu**2 / values["alpha"])
        own = mu + (mu**2 / values["alpha"] if "negative-binomial" in name else 0.0)
        if name.startswith("zero-inflated"):
            zi = values["zi"]
            return np.asarray((1 - zi) * (own + zi * mu**2))
        if name.startswith("hurdle"):
            mean = expected_outcome(family, eta, values)
            # E(y) = share mu and E(y^2) = share (var + mu^2), whatever the chance of a zero.
            return np.asarray(mean / mu * (own + mu**2) - mean**2)
    return np.asarray(own)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowSums:
    """What the rows of a Bayesian fit say, draw by draw.

    Attributes
    ----------
    fitted : ndarray of shape (draws,)
        Variance over the rows of the expected outcome.
    residual : ndarray of shape (draws,)
        Average variance of the outcome about it.
    error : float
        Average over draws of the variance over rows of y - eta; NaN where y has another scale.
    mean_error : float
        Variance over rows of the average over draws of y - eta.
    """

    fitted: np.ndarray
    residual: np.ndarray
    error: float
    mean_error: float


def row_sums(fit: BayesFit) -> RowSums:
    """Go through the rows of a fit once; see `RowSums`."""
    design, family = fit.design, fit.design.spec.family
    posterior = fit_values(fit, effects=True)
    rows = new_rows(design, None, "include")
    n, n_draws = len(design.y), len(next(iter(posterior.values())))
    linear = family.name in LINEAR and family.link == "identity"
    y = np.log(design.y) if family.name == "lognormal" else design.y
    sums = np.zeros((5, n_draws))
    mean_error = np.empty(n)
    shift = 0.0
    for start in range(0, n, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        etas = linear_predictors(design, posterior, rows, part)
        values = family_values(design, posterior, etas)
        mu = expected_outcome(family, etas[0], values)
        shift = shift if start else float(mu.mean())
        own = [None if a is None else a[part] for a in (design.trials, design.weights)]
        V = np.broadcast_to(outcome_variance(family, etas[0], values, *own), mu.shape)
        sums[0] += (mu - shift).sum(axis=1)
        sums[1] += ((mu - shift) ** 2).sum(axis=1)
        sums[2] += V.sum(axis=1)
        error = y[part] - etas[0]
        sums[3] += error.sum(axis=1)
        sums[4] += (error**2).sum(axis=1)
        mean_error[part] = error.mean(axis=0)
    spread = (sums[4] - sums[3] ** 2 / n) / (n - 1)
    return RowSums(
        fitted=np.maximum((sums[1] - sums[0] ** 2 / n) / (n - 1), 0.0),
        residual=sums[2] / n,
        error=float(spread.mean()) if linear else np.nan,
        mean_error=float(mean_error.var(ddof=1)) if linear else np.nan,
    )


def share_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return a ratio of draws; NaN where nothing varies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(part / whole)


def spread_of(draws: np.ndarray, prob: float) -> dict[str, float]:
    """Return mean, sd and equal-tailed interval of draws; of one value itself, the rest blank."""
    if len(draws) == 1:
        blank = dict.fromkeys(("std_error", "lower", "upper"), np.nan)
        return {"estimate": float(draws[0]), **blank}
    low, high = np.quantile(draws, [0.5 - prob / 2, 0.5 + prob / 2])
    return {
        "estimate": float(draws.mean()),
        "std_error": float(draws.std(ddof=1)),
        "lower": float(low),
        "upper": float(high),
    }
