"""Second step: standard deviations, correlations, and the group effects that they govern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hmlm.blocks import Block, Predictor
from hmlm.default_priors import PredictorPriors
from hmlm.models.distributions import array_variable, correlation_cholesky


def add_groups(
    predictor: Predictor,
    priors: PredictorPriors,
    pooled: bool = True,
    centered: Mapping[str, bool] | None = None,
) -> Any:
    """Add the effects of every grouping factor to the model in context.

    Parameters
    ----------
    predictor : Predictor
        Blocks. Its name comes before the names of variables: ``sigma_sd_<group>``.
    priors : PredictorPriors
        Priors of this predictor.
    pooled : bool
        Whether the effects of a factor share a distribution; else each has its own prior.
    centered : mapping of str to bool, optional
        For each group, whether its effects are written in their centred form; none are when None.

    Returns
    -------
    TensorVariable of shape (N,), or float
        The sum over factors of Z_j b_j in every row; 0.0 where there are no groups.
    """
    import pymc as pm

    eta: Any = 0.0
    for block in predictor.blocks:
        group = block.group
        dims = (group, predictor.named(f"{group}_term"))
        if pooled:
            own = centered is not None and centered[group]
            effects = _pooled_effects(predictor, block, priors, dims, own)
        else:
            name = predictor.named(f"b_{group}")
            effects = array_variable(name, priors.b[group], dims, block.columns)
        index = pm.Data(predictor.named(f"index_{group}"), block.index, dims="row")
        if block.columns == ("Intercept",):
            eta = eta + effects[index, 0]
        else:
            Z = pm.Data(predictor.named(f"Z_{group}"), block.Z, dims=("row", dims[1]))
            eta = eta + (Z * effects[index]).sum(axis=1)
    return eta


def _pooled_effects(
    predictor: Predictor,
    block: Block,
    priors: PredictorPriors,
    dims: tuple[str, str],
    centered: bool,
) -> Any:
    """Add effects b_j ~ N(0, diag(sd) cor diag(sd)), one row a level."""
    import pymc as pm

    group, q = block.group, len(block.columns)
    names = {part: predictor.named(f"{part}_{group}") for part in ("sd", "cor", "chol", "z", "b")}
    sd = array_variable(names["sd"], priors.sd[group], dims[1:], block.columns)
    if not block.correlated:
        if centered:
            return pm.Normal(names["b"], mu=0.0, sigma=sd, dims=dims)
        z = pm.Normal(names["z"], mu=0.0, sigma=1.0, dims=dims)
        return pm.Deterministic(names["b"], z * sd, dims=dims)
    chol = _correlations(names["chol"], block, priors)
    pm.Deterministic(names["cor"], chol @ chol.T, dims=(dims[1], f"{dims[1]}_"))
    factor = sd[:, None] * chol
    if centered:
        return pm.MvNormal(names["b"], mu=np.zeros(q), chol=factor, dims=dims)
    z = pm.Normal(names["z"], mu=0.0, sigma=1.0, dims=dims)
    return pm.Deterministic(names["b"], z @ factor.T, dims=dims)


def _correlations(name: str, block: Block, priors: PredictorPriors) -> Any:
    """Return the Cholesky factor of the correlation matrix: an LKJ one for each correlated part."""
    import pytensor.tensor as pt

    prior = priors.cor[block.group]
    if len(block.parts) == 1:
        return correlation_cholesky(name, prior, block.parts[0])
    pieces: list[Any] = [
        correlation_cholesky(f"{name}[{number}]", prior, size) if size > 1 else np.eye(1)
        for number, size in enumerate(block.parts)
    ]
    return pt.linalg.block_diag(*pieces)
