"""Coordinates of standard deviations.

The sd of group effects may well be zero, where its logarithm has a long tail that costs the
sampler dearly. So an sd is the size of ``turn * sinh(x)``: linear in x where it is small against
`turn`, what the data can tell from zero, and exponential where it is large. The sign goes to the
effect's correlations, which makes the density smooth at zero: D = diag(s) R diag(s) is, and the
prior of a correlation matrix is the same when an effect changes its sign.

Under a half-normal prior the exponential part would run into a wall, exp(-s^2 / 2), which a step
of the sampler cannot see and ends behind. So beyond the prior's own scale the sd is linear again:
``scale * arcsinh(turn / scale * sinh(x))``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.likelihoods.prior_kernel import encode_prior
from hmlm.priors import Prior

THROUGH_ZERO = frozenset({"half-normal", "half-student-t", "half-cauchy", "half-flat"})


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Scale:
    """How one standard deviation depends on its coordinate.

    Attributes
    ----------
    prior : Prior
        Its prior: a uniform one makes it logistic between its edges, one that vanishes or has no
        bound at zero exponential.
    turn : float
        Where it turns from linear to exponential; zero for an exponential alone.
    """

    prior: Prior
    turn: float = 0.0

    @property
    def edges(self) -> tuple[float, float] | None:
        """Edges of the prior, or None where it has none above zero."""
        if self.prior.name == "uniform":
            return self.prior.parameters["lower"], self.prior.parameters["upper"]
        return (0.0, 1.0) if self.prior.name == "beta" else None

    def value(self, x: np.ndarray) -> np.ndarray:
        """Return the sd with its sign."""
        if edges := self.edges:
            lower, upper = edges
            return lower + (upper - lower) / (1.0 + np.exp(-x))
        if not self.turn:
            return np.exp(x)
        if self.prior.name == "half-normal":
            edge = self.prior.parameters["sigma"]
            return edge * np.arcsinh(self.turn / edge * np.sinh(x))
        return self.turn * np.sinh(x)

    def coordinate(self, sd: float) -> float:
        """Return the coordinate of an sd, kept off the edges of the prior."""
        if edges := self.edges:
            lower, upper = edges
            share = min(max((sd - lower) / (upper - lower), 0.05), 0.95)
            return float(np.log(share / (1 - share)))
        if not self.turn:
            return float(np.log(sd))
        if self.prior.name == "half-normal":
            edge = self.prior.parameters["sigma"]
            return float(np.arcsinh(edge / self.turn * np.sinh(min(sd / edge, 500.0))))
        return float(np.arcsinh(sd / self.turn))

    def encode(self) -> np.ndarray:
        """Return prior and turn as the five numbers that the kernel reads."""
        code = encode_prior(self.prior)
        assert code is not None
        return np.append(code, self.turn)


def make_scale(prior: Prior, resolution: float) -> Scale:
    """Choose the coordinate of one sd.

    Parameters
    ----------
    prior : Prior
        Its prior.
    resolution : float
        What the data can tell from zero.
    """
    if prior.name not in THROUGH_ZERO:
        return Scale(prior=prior)
    if prior.name == "half-normal":
        resolution = min(resolution, prior.parameters["sigma"])
    return Scale(prior=prior, turn=resolution)


def resolutions(T: np.ndarray, information: np.ndarray, sigma: float, levels: int) -> np.ndarray:
    """Return which sds of one factor's effects the data can tell from zero.

    An effect of a level with information S about it has the standard error sigma / sqrt(S); J such
    levels tell an sd of that, times (2 / J)^(1/4), from zero.

    Parameters
    ----------
    T : ndarray, shape (q, q)
        Change of basis of the effects.
    information : ndarray, shape (q,)
        Average information about each conditioned effect, the diagonal of Z'Z.
    sigma : float
        Residual sd.
    levels : int
        Number of levels.
    """
    variance = (T**2) @ (sigma**2 / np.maximum(information, 1e-12))
    return np.asarray(np.sqrt(variance) * (2.0 / levels) ** 0.25)
