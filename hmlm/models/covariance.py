"""Second step: standard deviations, correlations, and the group effects that they govern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Block, Design
from hmlm.likelihoods.structure import parent_of
from hmlm.linear import WithinGroups, within_groups
from hmlm.models.distributions import array_variable, correlation_cholesky


def add_groups(design: Design, priors: ResolvedPriors, centered: Mapping[str, bool]) -> Any:
    """Add the effects of every grouping factor to the model in context.

    Parameters
    ----------
    design : Design
        Blocks.
    priors : ResolvedPriors
        The priors.
    centered : mapping of str to bool
        For each group, whether its effects are written in their centred form.

    Returns
    -------
    TensorVariable of shape (N,), or float
        The sum over factors of Z_j b_j in every row; 0.0 where there are no groups.
    """
    import pymc as pm

    eta: Any = 0.0
    for block in design.blocks:
        dims = (block.group, f"{block.group}_term")
        if design.spec.pooling == "none":
            effects = array_variable(f"b_{block.group}", priors.b[block.group], dims, block.columns)
        else:
            effects = _pooled_effects(block, priors, dims, centered[block.group])
        index = pm.Data(f"index_{block.group}", block.index, dims="row")
        if block.columns == ("Intercept",):
            eta = eta + effects[index, 0]
        else:
            Z = pm.Data(f"Z_{block.group}", block.Z, dims=("row", dims[1]))
            eta = eta + (Z * effects[index]).sum(axis=1)
    return eta


def _pooled_effects(
    block: Block, priors: ResolvedPriors, dims: tuple[str, str], centered: bool
) -> Any:
    """Add effects b_j ~ N(0, diag(sd) cor diag(sd)), one row a level."""
    import pymc as pm

    group, q = block.group, len(block.columns)
    sd = array_variable(f"sd_{group}", priors.sd[group], dims[1:], block.columns)
    name = f"b_{group}"
    if not block.correlated:
        if centered:
            return pm.Normal(name, mu=0.0, sigma=sd, dims=dims)
        z = pm.Normal(f"z_{group}", mu=0.0, sigma=1.0, dims=dims)
        return pm.Deterministic(name, z * sd, dims=dims)
    chol = _correlations(block, priors)
    pm.Deterministic(f"cor_{group}", chol @ chol.T, dims=(dims[1], f"{dims[1]}_"))
    factor = sd[:, None] * chol
    if centered:
        return pm.MvNormal(name, mu=np.zeros(q), chol=factor, dims=dims)
    z = pm.Normal(f"z_{group}", mu=0.0, sigma=1.0, dims=dims)
    return pm.Deterministic(name, z @ factor.T, dims=dims)


def _correlations(block: Block, priors: ResolvedPriors) -> Any:
    """Return the Cholesky factor of the correlation matrix: an LKJ one for each correlated part."""
    import pytensor.tensor as pt

    prior, group = priors.cor[block.group], block.group
    if len(block.parts) == 1:
        return correlation_cholesky(f"chol_{group}", prior, block.parts[0])
    pieces: list[Any] = [
        correlation_cholesky(f"chol_{group}[{number}]", prior, size) if size > 1 else np.eye(1)
        for number, size in enumerate(block.parts)
    ]
    return pt.linalg.block_diag(*pieces)


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
    root = np.ones(len(design.y)) if design.weights is None else np.sqrt(design.weights)
    response = design.response * root
    if design.terms:
        X = design.X * root[:, None]
        response = response - X @ np.linalg.lstsq(X, response)[0]
    fits = {
        b.group: within_groups(b.Z * root[:, None], b.index, response[:, None])
        for b in design.blocks
    }
    # The factor that leaves least is nearest to the residual variance.
    sigma2 = min(_residual_variance(fit) for fit in fits.values())
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


def _residual_variance(fit: WithinGroups) -> float:
    """Return the residual variance inside groups; infinity where no row is left for it."""
    left = len(fit.residual) - int(fit.rank.sum())
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
