"""First step: the population coefficients, and the part of the linear predictor that they make."""

from __future__ import annotations

from typing import Any

from hmlm.blocks import Predictor
from hmlm.default_priors import PredictorPriors
from hmlm.models.distributions import array_variable


def add_population(predictor: Predictor, priors: PredictorPriors) -> Any:
    """Add ``beta`` to the model in context and return the population's linear predictor.

    Where the prior of the intercept is on the expected outcome at the average of the predictors,
    the random variable is ``beta_centered`` and ``beta`` follows from it.

    Parameters
    ----------
    predictor : Predictor
        Columns and offset. Its name comes before the names of variables: ``sigma_beta``.
    priors : PredictorPriors
        Priors of this predictor.

    Returns
    -------
    TensorVariable of shape (N,), or float
        X beta plus the offset; 0.0 where there is neither.
    """
    import pymc as pm

    eta: Any = 0.0
    if predictor.terms:
        dims, labels = (predictor.named("term"),), predictor.terms
        X = pm.Data(predictor.named("X"), predictor.X, dims=("row", *dims))
        name = predictor.named("beta")
        if priors.centered_intercept:
            centered = array_variable(f"{name}_centered", priors.beta, dims, labels)
            shift = pm.math.sum(priors.x_means * centered)
            beta = pm.Deterministic(name, centered - priors.constant * shift, dims=dims)
        else:
            beta = array_variable(name, priors.beta, dims, labels)
        eta = X @ beta
    if predictor.offset is not None:
        eta = eta + pm.Data(predictor.named("offset"), predictor.offset, dims="row")
    return eta
