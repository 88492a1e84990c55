"""Log densities of the priors that the compiled kernel knows, with their derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from math import asinh, cosh, exp, log, sinh, sqrt
from types import MappingProxyType

import numba as nb
import numpy as np

from hmlm.priors import Prior

CODES: Mapping[str, int] = MappingProxyType(
    {
        "flat": 0,
        "half-flat": 0,
        "normal": 1,
        "half-normal": 1,
        "student-t": 2,
        "half-student-t": 2,
        "cauchy": 2,
        "half-cauchy": 2,
        "exponential": 3,
        "gamma": 4,
        "inverse-gamma": 5,
        "lognormal": 6,
        "uniform": 7,
        "beta": 8,
    }
)


def encode_prior(prior: Prior) -> np.ndarray | None:
    """Return a prior as four numbers, code and three parameters; None where the kernel has none."""
    if prior.name not in CODES:
        return None
    v = prior.parameters
    parameters = {
        "normal": lambda: (v["mu"], v["sigma"], 0.0),
        "half-normal": lambda: (0.0, v["sigma"], 0.0),
        "student-t": lambda: (v["mu"], v["sigma"], v["nu"]),
        "half-student-t": lambda: (0.0, v["sigma"], v["nu"]),
        "cauchy": lambda: (v["alpha"], v["beta"], 1.0),
        "half-cauchy": lambda: (0.0, v["beta"], 1.0),
        "exponential": lambda: (v["lam"], 0.0, 0.0),
        "gamma": lambda: (v["alpha"], v["beta"], 0.0),
        "inverse-gamma": lambda: (v["alpha"], v["beta"], 0.0),
        "lognormal": lambda: (v["mu"], v["sigma"], 0.0),
        "uniform": lambda: (v["lower"], v["upper"], 0.0),
        "beta": lambda: (v["alpha"], v["beta"], 0.0),
    }.get(prior.name, lambda: (0.0, 0.0, 0.0))()
    return np.array([CODES[prior.name], *parameters], dtype=float)


@nb.njit(nogil=True, error_model="numpy")
def prior_logp(code, a, b, c, x):  # type: ignore[no-untyped-def]
    """Return the log density, to a constant, and its derivative."""
    if code == 1:
        d = (x - a) / b
        return -0.5 * d * d, -d / b
    if code == 2:
        d = (x - a) / b
        t = 1.0 + d * d / c
        return -0.5 * (c + 1.0) * log(t), -(c + 1.0) * d / (c * b * t)
    if code == 3:
        return -a * x, -a
    if code == 4:
        return (a - 1.0) * log(x) - b * x, (a - 1.0) / x - b
    if code == 5:
        return -(a + 1.0) * log(x) - b / x, -(a + 1.0) / x + b / (x * x)
    if code == 6:
        d = (log(x) - a) / b
        return -0.5 * d * d - log(x), (-d / b - 1.0) / x
    if code == 8:
        rest = (a - 1.0) / x - (b - 1.0) / (1.0 - x)
        return (a - 1.0) * log(x) + (b - 1.0) * log(1.0 - x), rest
    return 0.0, 0.0


@nb.njit(nogil=True, error_model="numpy")
def scale_from(code, a, b, turn, x):  # type: ignore[no-untyped-def]
    """Return a scale, its derivative by the coordinate, the log Jacobian and its derivative.

    The scale has a sign where it goes through zero; see `hmlm.likelihoods.scales`.
    """
    if turn > 0.0:
        s, c = sinh(x), cosh(x)
        if code == 1:
            u, du = s * turn / b, c * turn / b
            r = 1.0 + u * u
            return b * asinh(u), b * du / sqrt(r), log(c) - 0.5 * log(r), s / c - u * du / r
        return turn * s, turn * c, log(c), s / c
    if code == 7 or code == 8:
        u = 1.0 / (1.0 + exp(-x))
        if code == 8:
            a, b = 0.0, 1.0
        width = b - a
        return a + width * u, width * u * (1.0 - u), log(u) + log(1.0 - u), 1.0 - 2.0 * u
    s = exp(x)
    return s, s, x, 1.0
