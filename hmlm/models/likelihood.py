"""Third step: the distribution of the outcome given its linear predictor, by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Design
from hmlm.errors import HmlmError, listed
from hmlm.models.distributions import scalar_variable


def add_likelihood(design: Design, priors: ResolvedPriors, eta: Any) -> Any:
    """Add the observed outcome ``y`` to the model in context.

    Parameters
    ----------
    design : Design
        Outcome, family and weights.
    priors : ResolvedPriors
        The priors.
    eta : TensorVariable of shape (N,), or float
        The linear predictor.

    Raises
    ------
    HmlmError
        If the family has no likelihood here.
    """
    name = design.spec.family.name
    if name not in LIKELIHOODS:
        raise HmlmError(
            f"there is no PyMC likelihood for the family '{name}'; known: {listed(LIKELIHOODS)}."
        )
    return LIKELIHOODS[name](design, priors, eta)


def add_gaussian(design: Design, priors: ResolvedPriors, eta: Any) -> Any:
    """Add ``sigma`` and ``y`` ~ N(eta, sigma^2 / weight)."""
    import pymc as pm

    if priors.sigma is None:
        raise HmlmError("a gaussian model needs a prior for sigma.")
    sigma = scalar_variable("sigma", priors.sigma)
    if design.weights is not None:
        sigma = sigma / pm.math.sqrt(pm.Data("weights", design.weights, dims="row"))
    observed = pm.Data("y_observed", design.y, dims="row")
    return pm.Normal("y", mu=eta, sigma=sigma, observed=observed, dims="row")


LIKELIHOODS: Mapping[str, Callable[[Design, ResolvedPriors, Any], Any]] = MappingProxyType(
    {"gaussian": add_gaussian}
)
