"""Counts with their own probability of zero: zero-inflated, and behind a hurdle."""

from __future__ import annotations

from typing import Any

from hmlm.models.links import log1mexp


def add_zero_inflated(logit_zi: Any, mu: Any, alpha: Any, observed: Any) -> Any:
    """Add ``y`` with P(y) = zi [y = 0] + (1 - zi) f(y).

    Parameters
    ----------
    logit_zi : TensorVariable
        Logit of the probability of an extra zero.
    mu : TensorVariable
        Mean of f.
    alpha : TensorVariable or None
        Shape of f, a negative binomial; f is Poisson when None.
    observed : TensorVariable
        The counts.
    """
    import pymc as pm
    import pytensor.tensor as pt

    def draw(logit: Any, mu: Any, *rest: Any) -> Any:
        *shape, size = rest
        logit, mu, *shape = pt.broadcast_arrays(logit, mu, *shape)
        some = pm.Bernoulli.dist(logit_p=-logit, size=size)
        return some * _counts(size, mu, *shape)

    def log_density(value: Any, logit: Any, mu: Any, *shape: Any) -> Any:
        count = -pt.softplus(logit) + pm.logp(_counts(None, mu, *shape), value)
        return pt.switch(pt.eq(value, 0), pm.math.logaddexp(-pt.softplus(-logit), count), count)

    return _add_counts("ZeroInflated", logit_zi, mu, alpha, observed, draw, log_density)


def add_hurdle(logit_hu: Any, mu: Any, alpha: Any, observed: Any) -> Any:
    """Add ``y`` with P(0) = hu, and P(y) = (1 - hu) f(y) / (1 - f(0)) for other counts.

    Parameters
    ----------
    logit_hu : TensorVariable
        Logit of the probability of zero.
    mu : TensorVariable
        Mean of f, which has zeros too.
    alpha : TensorVariable or None
        Shape of f, a negative binomial; f is Poisson when None.
    observed : TensorVariable
        The counts.
    """
    import pymc as pm
    import pytensor.tensor as pt

    def draw(logit: Any, mu: Any, *rest: Any) -> Any:
        *shape, size = rest
        logit, mu, *shape = pt.broadcast_arrays(logit, mu, *shape)
        some = pm.Bernoulli.dist(logit_p=-logit, size=size)
        return some * _counts_above_zero(size, mu, *shape)

    def log_density(value: Any, logit: Any, mu: Any, *shape: Any) -> Any:
        zero = pt.eq(value, 0)
        count = pm.logp(_counts(None, mu, *shape), pt.switch(zero, 1, value))
        some = log1mexp(_minus_log_zero(mu, *shape), pt.log(mu))
        return pt.switch(zero, -pt.softplus(-logit), -pt.softplus(logit) + count - some)

    return _add_counts("Hurdle", logit_hu, mu, alpha, observed, draw, log_density)


def _add_counts(
    kind: str, logit: Any, mu: Any, alpha: Any, observed: Any, draw: Any, log_density: Any
) -> Any:
    import pymc as pm

    inputs = [logit, mu] if alpha is None else [logit, mu, alpha]
    return pm.CustomDist(
        "y",
        *inputs,
        dist=draw,
        logp=log_density,
        class_name=f"{kind}{'Poisson' if alpha is None else 'NegativeBinomial'}",
        signature=f"{','.join(['()'] * len(inputs))}->()",
        observed=observed,
        dims="row",
    )


def _counts(size: Any, mu: Any, alpha: Any = None) -> Any:
    """Return the distribution f of the counts."""
    import pymc as pm

    if alpha is None:
        return pm.Poisson.dist(mu=mu, size=size)
    return pm.NegativeBinomial.dist(mu=mu, alpha=alpha, size=size)


def _minus_log_zero(mu: Any, alpha: Any = None) -> Any:
    """Return -log f(0)."""
    import pytensor.tensor as pt

    return mu if alpha is None else alpha * pt.log1p(mu / alpha)


def _counts_above_zero(size: Any, mu: Any, alpha: Any = None) -> Any:
    """Return draws of the counts given that they are not zero.

    Counts are events in time: f(0) is the probability of none until time 1. The time of the first
    one, given that there is one, is drawn; the others follow in what is left. For a Poisson count
    they come as before; a negative binomial one counts immigrants at rate alpha and their offspring
    until time T = log(1 + mu / alpha), to which the first one adds its own.
    """
    import pymc as pm
    import pytensor.tensor as pt

    total = _minus_log_zero(mu, alpha)
    uniform = pm.Uniform.dist(pt.zeros_like(total), 1.0, size=size)
    left = pt.maximum(total + pt.log1p(uniform * pt.expm1(-total)), 0.0)
    if alpha is None:
        return 1 + pm.Poisson.dist(mu=left, size=size)
    more = (alpha + 1.0) * pt.expm1(left / alpha)
    return 1 + pm.NegativeBinomial.dist(mu=more, alpha=alpha + 1.0, size=size)
