"""Second step: standard deviations, correlations, and the group effects that they govern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Block, Design
from hmlm.linear import within_groups
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
            effects = array_variable(
                f"b_{block.group}", priors.b[block.group], dims, block.columns
            )
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
    pieces = [
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
    shrinkage factor. Here the sampling variance v_jk = sigma^2 (Z_j'Z_j)^-1_kk (sigma^2 / n_j for
    an intercept) and tau_k^2 come from least squares inside groups, by the method of moments, and
    lambda_jk is zero where a group's rows do not determine the effect. A factor is centred where
    the average of lambda_jk over its groups is at least one half for each of its effects.

    Parameters
    ----------
    design : Design
        The model under partial pooling.

    Returns
    -------
    dict of str to bool
        For each group, whether to centre.
    """
    if design.spec.pooling != "partial":
        return {}
    return {block.group: _information(design, block) >= 0.5 for block in design.blocks}


def _information(design: Design, block: Block) -> float:
    """Return the least, over the effects of a factor, of the average shrinkage factor."""
    root = np.ones(len(design.y)) if design.weights is None else np.sqrt(design.weights)
    response = design.response * root
    if design.terms:
        X = design.X * root[:, None]
        coefficient, *_ = np.linalg.lstsq(X, response, rcond=None)
        response = response - X @ coefficient
    within = within_groups(block.Z * root[:, None], block.index, response[:, None])
    left = len(response) - int(within.rank.sum())
    if left <= 0:
        return 0.0
    sigma2 = float((within.residual**2).sum()) / left
    averages = []
    for k in range(len(block.columns)):
        known = within.estimable[:, k]
        if known.sum() < 2:
            return 0.0
        error = sigma2 * within.inverse[known, k, k]
        # Weighted, so that a few groups with hardly any information do not drown the others.
        weight = 1.0 / np.maximum(error, 1e-300)
        effect = within.coefficients[known, k, 0]
        square = float(np.average(effect**2, weights=weight))
        tau2 = max(square - float(np.average(error, weights=weight)), 0.0)
        averages.append(float((tau2 / np.maximum(tau2 + error, 1e-300)).sum()) / len(known))
    return min(averages)
