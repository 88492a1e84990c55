"""Outcomes that are categories, with an order or without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.links import to_link
from hmlm.models.distributions import ordered_variable
from hmlm.models.links import log_category_probabilities


def add_categorical(design: Design, etas: Sequence[Any]) -> Any:
    """Add ``y`` ~ categorical with softmax(0, eta_1, ..., eta_{K-1}).

    Parameters
    ----------
    design : Design
        Codes of the categories, from 0.
    etas : sequence of TensorVariable of shape (N,)
        Linear predictors of the second and later categories.
    """
    import pymc as pm
    import pytensor.tensor as pt

    observed = pm.Data("y_observed", design.y.astype(np.int64), dims="row")
    zeros = pt.zeros(observed.shape)
    logits = pt.stack([zeros, *(zeros + eta for eta in etas)], axis=-1)
    return pm.Categorical("y", logit_p=logits, observed=observed, dims="row")


def add_ordinal(design: Design, priors: ResolvedPriors, eta: Any) -> Any:
    """Add ``cutpoints`` c and ``y`` with P(y <= k) = g^-1(c_k - eta).

    Where the prior of the cutpoints is at the average of the predictors, the random variable is
    ``cutpoints_centered`` and ``cutpoints`` follow from it and ``beta``.

    Raises
    ------
    HmlmError
        If the cutpoints have no prior, or one that does not cover all numbers.
    """
    import pymc as pm
    import pytensor.tensor as pt

    prior = priors.cutpoints
    if prior is None:
        raise HmlmError("an ordinal model needs a prior for its cutpoints.")
    if prior.support != "real":
        raise HmlmError(
            f"the prior of the cutpoints must cover all numbers: instead of {prior.name} use "
            "normal, student-t, cauchy or flat."
        )
    start, dims = _start(design), ("cutpoint",)
    if np.any(priors.x_means):
        centered = ordered_variable("cutpoints_centered", prior, dims, start)
        shift = pm.math.sum(priors.x_means * pm.modelcontext(None)["beta"])
        cutpoints = pm.Deterministic("cutpoints", centered + shift, dims=dims)
    else:
        cutpoints = ordered_variable("cutpoints", prior, dims, start)
    observed = pm.Data("y_observed", design.y.astype(np.int64), dims="row")
    eta = pt.zeros(observed.shape) + eta
    logs = log_category_probabilities(design.spec.family.link, cutpoints, eta)
    return pm.Categorical("y", logit_p=logs, observed=observed, dims="row")


def _start(design: Design) -> np.ndarray:
    """Return increasing cutpoints to start from: the link of the shares up to each category."""
    count = np.bincount(design.y.astype(np.int64), minlength=len(design.categories)) + 0.5
    return to_link(design.spec.family.link, np.cumsum(count)[:-1] / count.sum())
