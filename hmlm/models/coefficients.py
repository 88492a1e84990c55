"""First step: the population coefficients, and the linear predictor that they make."""

from __future__ import annotations

from typing import Any

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Design
from hmlm.models.distributions import array_variable


def add_population(design: Design, priors: ResolvedPriors) -> Any:
    """Add ``beta`` to the model in context and return the population's linear predictor.

    Where the prior of the intercept is on the expected outcome at the average of the predictors,
    the random variable is ``beta_centered`` and ``beta`` follows from it.

    Parameters
    ----------
    design : Design
        Columns and offset.
    priors : ResolvedPriors
        The priors.

    Returns
    -------
    TensorVariable of shape (N,), or float
        X beta plus the offset; 0.0 where there is neither.
    """
    import pymc as pm

    eta: Any = 0.0
    if design.terms:
        dims, labels = ("term",), design.terms
        X = pm.Data("X", design.X, dims=("row", "term"))
        if priors.centered_intercept:
            centered = array_variable("beta_centered", priors.beta, dims, labels)
            shift = pm.math.sum(priors.x_means * centered)
            beta = pm.Deterministic("beta", centered - priors.constant * shift, dims=dims)
        else:
            beta = array_variable("beta", priors.beta, dims, labels)
        eta = X @ beta
    if design.offset is not None:
        eta = eta + pm.Data("offset", design.offset, dims="row")
    return eta
