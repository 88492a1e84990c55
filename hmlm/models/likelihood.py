"""Third step: the distribution of the outcome given its linear predictors, by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Design
from hmlm.errors import HmlmError, listed
from hmlm.families import PARAMETERS
from hmlm.models.categories import add_categorical, add_ordinal
from hmlm.models.counts import add_hurdle, add_zero_inflated
from hmlm.models.distributions import scalar_variable
from hmlm.models.links import logit_at, mean_at


def add_likelihood(
    design: Design, priors: ResolvedPriors, eta: Any, others: Mapping[str, Any] | None = None
) -> Any:
    """Add the observed outcome ``y`` to the model in context.

    Parameters
    ----------
    design : Design
        Outcome, family, weights and trials.
    priors : ResolvedPriors
        The priors.
    eta : TensorVariable of shape (N,), or float
        The linear predictor.
    others : mapping of str to TensorVariable, optional
        Further linear predictors, by name.

    Raises
    ------
    HmlmError
        If the family has no likelihood here.
    """
    import pymc as pm

    name, kind = design.spec.family.name, design.spec.family.outcome
    others = {} if others is None else others
    if kind == "ordered":
        return add_ordinal(design, priors, eta)
    if kind == "category":
        return add_categorical(design, [eta, *others.values()])
    if name not in LIKELIHOODS:
        known = listed([*LIKELIHOODS, "ordinal", "categorical"], 20)
        raise HmlmError(f"there is no PyMC likelihood for the family '{name}'; known: {known}.")
    parameters = add_parameters(design, priors, others)
    y = design.y.astype(np.int64) if design.spec.family.discrete else design.y
    observed = pm.Data("y_observed", y, dims="row")
    return LIKELIHOODS[name](design, parameters, eta, observed)


def add_parameters(
    design: Design, priors: ResolvedPriors, others: Mapping[str, Any]
) -> dict[str, Any]:
    """Add the parameters of the family that are one number, and return the value of all.

    Parameters
    ----------
    design : Design
        The family.
    priors : ResolvedPriors
        The priors.
    others : mapping of str to TensorVariable
        Linear predictors of the parameters that have their own formula.

    Returns
    -------
    dict of str to TensorVariable
        Positive parameters as they are, probabilities as their logits. A sigma is that of every
        row, after its weight.

    Raises
    ------
    HmlmError
        If a parameter has no prior.
    """
    import pymc as pm

    values: dict[str, Any] = {}
    for name in design.spec.family.parameters:
        log = PARAMETERS[name].link == "log"
        if name in others:
            values[name] = pm.math.exp(others[name]) if log else others[name]
        elif name == "sigma" and design.known_se:
            values[name] = 1.0
        elif name in priors.parameters:
            value = scalar_variable(name, priors.parameters[name])
            values[name] = value if log else pm.math.log(value) - pm.math.log1p(-value)
        else:
            raise HmlmError(f"a {design.spec.family.name} model needs a prior for {name}.")
    if "sigma" in values and design.weights is not None:
        weights = pm.Data("weights", design.weights, dims="row")
        values["sigma"] = values["sigma"] / pm.math.sqrt(weights)
    return values


def add_gaussian(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` ~ N(mu, sigma^2 / weight)."""
    import pymc as pm

    mu = mean_at(design.spec.family.link, eta)
    return pm.Normal("y", mu=mu, sigma=parameters["sigma"], observed=observed, dims="row")


def add_student_t(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` ~ t(nu, mu, sigma / sqrt(weight))."""
    import pymc as pm

    mu, nu, sigma = mean_at(design.spec.family.link, eta), parameters["nu"], parameters["sigma"]
    return pm.StudentT("y", nu=nu, mu=mu, sigma=sigma, observed=observed, dims="row")


def add_lognormal(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` with log(y) ~ N(eta, sigma^2)."""
    import pymc as pm

    return pm.LogNormal("y", mu=eta, sigma=parameters["sigma"], observed=observed, dims="row")


def add_gamma(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` ~ gamma with mean mu and shape alpha, so with variance mu^2 / alpha."""
    import pymc as pm

    mu, alpha = mean_at(design.spec.family.link, eta), parameters["alpha"]
    return pm.Gamma("y", alpha=alpha, beta=alpha / mu, observed=observed, dims="row")


def add_beta(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` ~ beta(mu phi, (1 - mu) phi)."""
    import pymc as pm

    a, b = _beta_parameters(design, parameters, eta)
    return pm.Beta("y", alpha=a, beta=b, observed=observed, dims="row")


def add_bernoulli(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` ~ Bernoulli(p)."""
    import pymc as pm

    logit = logit_at(design.spec.family.link, eta)
    return pm.Bernoulli("y", logit_p=logit, observed=observed, dims="row")


def add_binomial(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` ~ binomial(trials, p)."""
    import pymc as pm

    logit = logit_at(design.spec.family.link, eta)
    return pm.Binomial("y", n=_trials(design), logit_p=logit, observed=observed, dims="row")


def add_beta_binomial(
    design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any
) -> Any:
    """Add ``y`` ~ binomial(trials, q) with q ~ beta(p phi, (1 - p) phi)."""
    import pymc as pm

    a, b = _beta_parameters(design, parameters, eta)
    n = _trials(design)
    return pm.BetaBinomial("y", n=n, alpha=a, beta=b, observed=observed, dims="row")


def add_poisson(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    """Add ``y`` ~ Poisson(mu)."""
    import pymc as pm

    mu = mean_at(design.spec.family.link, eta)
    return pm.Poisson("y", mu=mu, observed=observed, dims="row")


def add_negative_binomial(
    design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any
) -> Any:
    """Add ``y`` ~ negative binomial with mean mu and variance mu + mu^2 / alpha."""
    import pymc as pm

    mu, alpha = mean_at(design.spec.family.link, eta), parameters["alpha"]
    return pm.NegativeBinomial("y", mu=mu, alpha=alpha, observed=observed, dims="row")


def _beta_parameters(design: Design, parameters: Mapping[str, Any], eta: Any) -> tuple[Any, Any]:
    """Return mu phi and (1 - mu) phi, neither as one less something."""
    import pymc as pm

    logit, phi = logit_at(design.spec.family.link, eta), parameters["phi"]
    return pm.math.sigmoid(logit) * phi, pm.math.sigmoid(-logit) * phi


def _trials(design: Design) -> Any:
    import pymc as pm

    if design.trials is None:
        raise HmlmError(f"a {design.spec.family.name} model needs trials: write p(y, trials).")
    return pm.Data("trials", design.trials.astype(np.int64), dims="row")


def _zero_inflated(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    mu = mean_at(design.spec.family.link, eta)
    return add_zero_inflated(parameters["zi"], mu, parameters.get("alpha"), observed)


def _hurdle(design: Design, parameters: Mapping[str, Any], eta: Any, observed: Any) -> Any:
    mu = mean_at(design.spec.family.link, eta)
    return add_hurdle(parameters["hu"], mu, parameters.get("alpha"), observed)


Likelihood = Callable[[Design, Mapping[str, Any], Any, Any], Any]
LIKELIHOODS: Mapping[str, Likelihood] = MappingProxyType(
    {
        "gaussian": add_gaussian,
        "student-t": add_student_t,
        "bernoulli": add_bernoulli,
        "binomial": add_binomial,
        "beta-binomial": add_beta_binomial,
        "poisson": add_poisson,
        "negative-binomial": add_negative_binomial,
        "gamma": add_gamma,
        "lognormal": add_lognormal,
        "beta": add_beta,
        "zero-inflated-poisson": _zero_inflated,
        "zero-inflated-negative-binomial": _zero_inflated,
        "hurdle-poisson": _hurdle,
        "hurdle-negative-binomial": _hurdle,
    }
)
