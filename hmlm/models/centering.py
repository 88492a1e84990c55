"""Which form group effects are written in: as they are, or as standard normals times the sd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.blocks import Block
from hmlm.design import Design
from hmlm.likelihoods.structure import parent_of
from hmlm.linear import WithinGroups, within_groups
from hmlm.links import from_link, to_link

# Families whose variance follows from the mean.
_FIXED = ("bernoulli", "binomial", "poisson", "hurdle-poisson")


def choose_centered(design: Design) -> dict[str, bool]:
    """Choose the form in which each factor's effects sample well.

    Effects that their own rows determine well are independent of their sd in the posterior and
    sample best as they are (centred); effects that lean on the other groups sample best as
    standard normals times the sd (non-centred; Papaspiliopoulos, Roberts and Sköld 2007). How much
    the rows of group j say about its effect k is lambda_jk = tau_k^2 / (tau_k^2 + v_jk), its
    shrinkage factor. A factor is centred where the average of lambda_jk over its groups is at
    least one half for each of its effects.

    The sampling variance v_jk is sigma^2 (Z_j'Z_j)^-1_kk, which for an intercept is sigma^2 / n_j,
    plus, where a finer factor is nested in this one, the variance of the finer effects over their
    number in group j. sigma^2 and tau_k^2 come from least squares inside groups by the method of
    moments. lambda_jk is zero where a group's rows do not determine the effect.

    For other families and links the same is done with what one step of Fisher scoring from the
    overall mean would regress: `working_response`. Where that gives no numbers, nothing is centred.

    Parameters
    ----------
    design : Design
        The model.

    Returns
    -------
    dict of str to bool
        For each group, whether to centre; empty without partial pooling.
    """
    if design.spec.pooling != "partial" or not design.blocks:
        return {}
    with np.errstate(all="ignore"):
        working = working_response(design)
    if not (np.isfinite(working.response).all() and np.isfinite(working.weights).all()):
        return dict.fromkeys((b.group for b in design.blocks), False)
    root = np.sqrt(working.weights)
    response = working.response * root
    if design.terms:
        X = design.X * root[:, None]
        response = response - X @ np.linalg.lstsq(X, response)[0]
    fits = {
        b.group: within_groups(b.Z * root[:, None], b.index, response[:, None])
        for b in design.blocks
    }
    # The factor that leaves least is nearest to the residual variance.
    sigma2 = working.dispersion
    if sigma2 is None:
        sigma2 = min(_residual_variance(fit, int((root > 0).sum())) for fit in fits.values())
    if not np.isfinite(sigma2):
        return dict.fromkeys(fits, False)
    chosen = {}
    for block in design.blocks:
        fit = fits[block.group]
        error = sigma2 * np.diagonal(fit.inverse, axis1=1, axis2=2)
        for inner in design.blocks:
            error = error + _inner_variance(block, inner, fits[inner.group], sigma2)
        tau2 = _effect_variances(fit, error)
        informed = np.where(fit.estimable, tau2 / np.maximum(tau2 + error, 1e-300), 0.0)
        chosen[block.group] = bool(informed.mean(axis=0).min() >= 0.5)
    return chosen


def _residual_variance(fit: WithinGroups, rows: int) -> float:
    """Return the residual variance inside groups; infinity where no row is left for it."""
    left = rows - int(fit.rank.sum())
    return float((fit.residual**2).sum()) / left if left > 0 else np.inf


def _effect_variances(fit: WithinGroups, error: np.ndarray) -> np.ndarray:
    """Return the variance between groups of every effect, by moments, shape (q,).

    Weights are inverse sampling variances, so that a few groups with hardly any information do
    not drown the others.
    """
    weight = np.where(fit.estimable & np.isfinite(error), 1.0 / np.maximum(error, 1e-300), 0.0)
    total = np.maximum(weight.sum(axis=0), 1e-300)
    square = (weight * fit.coefficients[:, :, 0] ** 2).sum(axis=0) / total
    return np.maximum(square - (weight * np.nan_to_num(error)).sum(axis=0) / total, 0.0)


def _inner_variance(
    outer: Block, inner: Block, fit: WithinGroups, sigma2: float
) -> np.ndarray | float:
    """Return what the effects of a nested factor add to the sampling variances, shape (J, q)."""
    parent = None if inner is outer else parent_of(inner, outer)
    if parent is None:
        return 0.0
    tau2 = _effect_variances(fit, sigma2 * np.diagonal(fit.inverse, axis1=1, axis2=2))
    number = np.bincount(parent, minlength=len(outer.levels))
    shared = [tau2[inner.columns.index(c)] if c in inner.columns else 0.0 for c in outer.columns]
    return np.asarray(shared) / number[:, None]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Working:
    """A linear model that is near a generalised one.

    Attributes
    ----------
    response : ndarray, shape (N,)
        On the scale of the linear predictor, less the offset.
    weights : ndarray, shape (N,)
        The variance of a row is the dispersion over its weight.
    dispersion : float or None
        Known dispersion; None where it has to be estimated.
    """

    response: np.ndarray
    weights: np.ndarray
    dispersion: float | None


def working_response(design: Design) -> Working:
    """Return what one step of Fisher scoring from the overall mean regresses.

    A row's weight is the information that it has about its linear predictor at the overall mean,
    (dmu / deta)^2 over the variance of y; its response is the linear predictor there plus
    (y - mu) / (dmu / deta). The dispersion is one where the family fixes it, and is estimated for
    the others, counts with more variance than Poisson ones among them.

    Parameters
    ----------
    design : Design
        The model.
    """
    family, n = design.spec.family, len(design.y)
    offset = np.zeros(n) if design.offset is None else design.offset
    if family.outcome in ("ordered", "category"):
        score, information = _categories(design)
        response = score / information - offset
        return Working(response=response, weights=np.full(n, information), dispersion=1.0)
    y = np.log(design.y) if family.name == "lognormal" else design.y
    used = (y > 0) | (not family.name.startswith("hurdle"))
    weights = used * (np.ones(n) if design.weights is None else design.weights)
    # What an outcome is out of: trials, or the exposure that the offset of a log stands for.
    out_of = np.ones(n) if design.trials is None else design.trials
    if family.link == "log":
        out_of = np.exp(offset)
    unit = family.outcome in ("binary", "trials", "unit")
    half = 0.5 if family.discrete else 0.0
    overall = (y[used].sum() + half) / (out_of[used].sum() + 2 * half * unit)
    eta = np.full(n, to_link(family.link, overall))
    mu, slope = from_link(family.link, eta), _slope(family.link, eta)
    share = np.divide(y, out_of, out=mu.copy(), where=out_of > 0)
    if unit:
        variance = mu * (1 - mu) / np.maximum(out_of, 1e-300)
    elif family.outcome == "count":
        variance = mu / out_of
    else:
        variance = mu**2 if family.name == "gamma" else 1.0 / out_of**2
    fixed = design.known_se or family.name in _FIXED
    return Working(
        response=eta + (share - mu) / slope - (0.0 if family.link == "log" else offset),
        weights=weights * slope**2 / variance,
        dispersion=1.0 if fixed else None,
    )


def _categories(design: Design) -> tuple[np.ndarray, float]:
    """Return every row's score about its linear predictor at the overall shares, and information.

    Of a categorical outcome's linear predictors it is that of the second category.
    """
    code = design.y.astype(np.int64)
    count = np.bincount(code, minlength=len(design.categories)) + 0.5
    share = count / count.sum()
    if design.spec.family.outcome == "category":
        p = float(share[1])
        return (code == 1) - p, p * (1 - p)
    link = design.spec.family.link
    slope = _slope(link, to_link(link, np.cumsum(share)[:-1]))
    score = -np.diff(np.concatenate([[0.0], slope, [0.0]])) / share
    return score[code], float((share * score**2).sum())


def _slope(link: str, eta: np.ndarray) -> np.ndarray:
    """Return the derivative of the mean at a linear predictor."""
    mu = from_link(link, eta)
    slopes = {
        "log": mu,
        "inverse": -(mu**2),
        "logit": mu * (1 - mu),
        "probit": np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi),
        "cloglog": np.exp(eta - np.exp(eta)),
    }
    return np.asarray(slopes.get(link, np.ones(len(eta))))
