"""Links between the mean of an outcome and its linear predictor, on arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import special

Function = Callable[[Any], Any]

_LINKS: Mapping[str, Function] = MappingProxyType(
    {
        "identity": np.asarray,
        "log": np.log,
        "inverse": lambda mu: 1.0 / np.asarray(mu),
        "logit": special.logit,
        "probit": special.ndtri,
        "cloglog": lambda mu: np.log(-np.log1p(-np.asarray(mu))),
    }
)
_INVERSES: Mapping[str, Function] = MappingProxyType(
    {
        "identity": np.asarray,
        "log": np.exp,
        "inverse": lambda eta: 1.0 / np.asarray(eta),
        "logit": special.expit,
        "probit": special.ndtr,
        "cloglog": lambda eta: -np.expm1(-np.exp(eta)),
    }
)
_SLOPES: Mapping[str, Function] = MappingProxyType(
    {
        "identity": np.ones_like,
        "log": np.exp,
        "inverse": lambda eta: -1.0 / np.asarray(eta) ** 2,
        "logit": lambda eta: special.expit(eta) * special.expit(-np.asarray(eta)),
        "probit": lambda eta: np.exp(-0.5 * np.asarray(eta) ** 2) / np.sqrt(2 * np.pi),
        "cloglog": lambda eta: np.exp(eta - np.exp(eta)),
    }
)


def to_link(link: str, mu: Any) -> np.ndarray:
    """Return the linear predictor of a mean.

    Examples
    --------
    >>> from hmlm.links import to_link
    >>> to_link("logit", [0.5, 0.9]).round(4).tolist()
    [0.0, 2.1972]
    """
    return np.asarray(_LINKS[link](mu), dtype=float)


def from_link(link: str, eta: Any) -> np.ndarray:
    """Return the mean of a linear predictor.

    Examples
    --------
    >>> from hmlm.links import from_link
    >>> from_link("log", [0.0, 1.0]).round(4).tolist()
    [1.0, 2.7183]
    """
    return np.asarray(_INVERSES[link](eta), dtype=float)


def link_slope(link: str, eta: Any) -> np.ndarray:
    """Return the derivative of the mean by its linear predictor.

    Examples
    --------
    >>> from hmlm.links import link_slope
    >>> float(link_slope("logit", 0.0))
    0.25
    """
    return np.asarray(_SLOPES[link](eta), dtype=float)
