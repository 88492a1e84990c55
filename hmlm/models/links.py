"""Links in PyTensor, in forms that stay right in the tails."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmlm.errors import HmlmError

# Below this, 1 - exp(-x) is x to the last digit.
_TINY = 1e-17


def mean_at(link: str, eta: Any) -> Any:
    """Return the mean whose link is eta.

    Raises
    ------
    HmlmError
        If there is no such link.
    """
    import pytensor.tensor as pt

    if link == "identity":
        return eta
    if link == "log":
        return pt.exp(eta)
    if link == "inverse":
        return 1.0 / eta
    return pt.sigmoid(logit_at(link, eta))


def logit_at(link: str, eta: Any) -> Any:
    """Return the logit of the probability whose link is eta.

    PyMC takes probabilities by their logits, and from those keeps both log p and log(1 - p) exact.

    Raises
    ------
    HmlmError
        If there is no such link.
    """
    import pytensor.tensor as pt

    if link == "logit":
        return eta
    if link == "probit":
        return log_normal_cdf(eta) - log_normal_cdf(-eta)
    if link == "cloglog":  # log p - log(1 - p), with p = 1 - exp(-exp(eta))
        return log1mexp(pt.exp(eta), eta) + pt.exp(eta)
    raise HmlmError(
        f"the PyMC model knows no link '{link}': use identity, log, inverse, logit, probit or "
        "cloglog."
    )


def log_normal_cdf(x: Any) -> Any:
    """Return the log of the standard normal's cumulative distribution function."""
    import pytensor.tensor as pt

    root = float(np.sqrt(2.0))
    low, high = pt.minimum(x, -1.0), pt.maximum(x, -1.0)
    return pt.switch(
        pt.lt(x, -1.0),
        pt.log(0.5 * pt.erfcx(-low / root)) - 0.5 * low**2,
        pt.log1p(-0.5 * pt.erfc(high / root)),
    )


def log1mexp(x: Any, log_x: Any) -> Any:
    """Return log(1 - exp(-x)) for x >= 0, from x and its log."""
    import pytensor.tensor as pt

    tiny = pt.lt(x, _TINY)
    return pt.switch(tiny, log_x, pt.log(-pt.expm1(-pt.switch(tiny, 1.0, x))))


def log_category_probabilities(link: str, cutpoints: Any, eta: Any) -> Any:
    """Return log P(Y = k) where P(Y <= k) = g^-1(cutpoint_k - eta).

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}
        The link g.
    cutpoints : TensorVariable of shape (K - 1,)
        Increasing.
    eta : TensorVariable of shape (N,)
        The linear predictor.

    Returns
    -------
    TensorVariable of shape (N, K)
        A row's logs of probabilities, with no difference of two that are almost the same.

    Raises
    ------
    HmlmError
        If there is no such link.
    """
    import pytensor.tensor as pt

    a = cutpoints - eta[:, None]
    low, high = a[:, :-1], a[:, 1:]
    gap = (cutpoints[1:] - cutpoints[:-1])[None, :]
    if link == "logit":
        below, above = -pt.softplus(-a), -pt.softplus(a)
        between = below[:, 1:] + above[:, :-1] + log1mexp(gap, pt.log(gap))
    elif link == "probit":
        below, above = log_normal_cdf(a), log_normal_cdf(-a)
        # Intervals right of zero are mirrored: the normal's left tail is the exact one.
        mirrored = pt.gt(low + high, 0.0)
        far, near = pt.switch(mirrored, -high, low), pt.switch(mirrored, -low, high)
        more = log_normal_cdf(near) - log_normal_cdf(far)
        between = log_normal_cdf(near) + log1mexp(more, pt.log(more))
    elif link == "cloglog":
        below, above = log1mexp(pt.exp(a), a), -pt.exp(a)
        log_more = low + pt.log(pt.expm1(gap))
        between = above[:, :-1] + log1mexp(pt.exp(log_more), log_more)
    else:
        raise HmlmError(
            f"an ordinal model has no PyMC likelihood with the link '{link}': use logit, probit or "
            "cloglog."
        )
    return pt.concatenate([below[:, :1], between, above[:, -1:]], axis=1)
