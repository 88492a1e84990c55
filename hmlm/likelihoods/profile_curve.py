"""The deviance as a function of one parameter, minimised over all the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import optimize

from hmlm.errors import HmlmError
from hmlm.likelihoods.profiled import ProfiledPoint
from hmlm.likelihoods.user_scale import UserScale

MOST_STEPS = 60
TOLERANCE = 1e-4
NEAR_ZERO = 0.1
WALL = 1e12


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Target:
    """The parameter of a curve.

    Attributes
    ----------
    name : str
        What it is called.
    form : {"plain", "log", "angle"}
        Whether it is itself, its logarithm or the angle whose cosine it is.
    limits : tuple of float
        Between which it lies, in that form.
    place : int
        Which of the parameters of a `UserScale` it is; -1 for a coefficient.
    held : tuple of ndarray, shape (p,), and float, or None
        For a coefficient: what makes it from those on the orthogonal columns, and what is added.
    roots : tuple of int
        Sds that enter by their square root, so that they cannot be negative.
    floor : float
        What the deviance can always be had for, whatever the value.
    """

    name: str
    form: Literal["plain", "log", "angle"]
    limits: tuple[float, float] = (-np.inf, np.inf)
    place: int = -1
    held: tuple[np.ndarray, float] | None = None
    roots: tuple[int, ...] = ()
    floor: float = np.inf

    def to_user(self, value: float) -> float:
        """Return the parameter as a user knows it."""
        if self.form == "angle":
            return float(np.cos(value))
        return float(np.exp(value)) if self.form == "log" else float(value)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Minimum:
    """The minimum over the other parameters at one value."""

    others: np.ndarray
    deviance: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ProfileCurve:
    """The minimised deviance, evaluated where it is asked for.

    The others move along directions in which the deviance bends alike at its minimum, and start
    from where the values tried before point to.

    Attributes
    ----------
    target : Target
        The parameter.
    scale : UserScale
        The deviance.
    phi : ndarray
        Its minimum, roots taken.
    best : float
        The value at the minimum.
    step : float
        Its standard error.
    free : ndarray of int
        Which entries of phi the others are.
    half : ndarray
        From steps along those directions to the others'.
    tangent : ndarray
        How the others move with the value at the minimum.
    seen : dict of float to Minimum
        What was evaluated.
    """

    target: Target
    scale: UserScale
    phi: np.ndarray
    best: float
    step: float
    free: np.ndarray
    half: np.ndarray
    tangent: np.ndarray
    seen: dict[float, Minimum] = field(default_factory=dict)

    def at(self, value: float) -> float:
        """Return the signed root of the likelihood ratio.

        Raises
        ------
        HmlmError
            If the likelihood is higher there than at what was thought its maximum.
        """
        lowest = self.seen[self.best].deviance
        if value not in self.seen:
            self.seen[value] = self._minimise(value)
            if self.seen[value].deviance < lowest - TOLERANCE:
                raise HmlmError(
                    f"the profile of '{self.target.name}' found a higher likelihood than that of "
                    "the fit, which has not reached its maximum: simplify the group terms or "
                    "rescale the predictors."
                )
        rise = max(self.seen[value].deviance - lowest, 0.0)
        return float(np.sign(value - self.best) * np.sqrt(rise))

    def interval(self, zeta: float) -> tuple[float, float]:
        """Return the values at which the signed root is minus and plus zeta, as the user's."""
        ends = sorted(self.target.to_user(self._end(side, zeta)) for side in (-1, 1))
        return ends[0], ends[1]

    def _end(self, side: int, zeta: float) -> float:
        limit = self.target.limits[max(side, 0)]
        if self.best == limit:
            return limit
        inside, reach = self.best, zeta * self.step
        for _ in range(MOST_STEPS):
            outside = self._within(self.best + side * reach)
            size = abs(self.at(outside))
            if size >= zeta:
                root = optimize.brentq(
                    lambda v: abs(self.at(float(v))) - zeta, inside, outside, xtol=1e-6 * reach
                )
                return float(root)
            if outside == limit:
                return limit
            inside = outside
            reach *= float(np.clip(1.05 * zeta / max(size, 1e-3), 1.2, 3.0))
        return side * np.inf

    def trace(self, zeta: float, points: int) -> None:
        """Evaluate at about so many values on either side, evenly by the signed root."""
        stride = zeta / points
        for side in (-1, 1):
            value, reached, slope = self.best, 0.0, self.step
            for _ in range(10 * points):
                if reached >= zeta or value == self.target.limits[max(side, 0)]:
                    break
                following = self._within(value + side * slope * stride)
                size = abs(self.at(following))
                slope = abs(following - value) / max(size - reached, 0.2 * stride)
                value, reached = following, size

    def _within(self, value: float) -> float:
        return float(np.clip(value, *self.target.limits))

    def _minimise(self, value: float) -> Minimum:
        phi = self.phi.copy()
        roots = list(self.target.roots)
        held = None
        if self.target.held is not None:
            held = (self.target.held[0], value - self.target.held[1])
        else:
            phi[self.target.place] = value

        def objective(z: np.ndarray, origin: np.ndarray) -> tuple[float, np.ndarray]:
            phi[self.free] = origin + self.half @ z
            plain = phi.copy()
            plain[roots] **= 2
            try:
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    deviance, gradient = self.scale.deviance(plain, held)
            except (ArithmeticError, np.linalg.LinAlgError):
                deviance = np.nan
            if not (np.isfinite(deviance) and np.isfinite(gradient).all()):
                # A line search may step to where floating point ends: a steep wall sends it back.
                far = float(np.linalg.norm(z))
                return WALL * (1 + far), WALL * z / max(far, 1e-300)
            gradient[roots] *= 2 * phi[roots]
            return deviance, self.half.T @ gradient[self.free]

        # At an estimate on the boundary the slope of the others may lead anywhere.
        at_start = np.zeros(len(self.free))
        origin = min(self._starts(value), key=lambda others: objective(at_start, others)[0])
        minimum = self._descend(objective, origin)
        at_roots = np.flatnonzero(np.isin(self.free, roots))
        if (minimum.others[at_roots] ** 2 < NEAR_ZERO * self.scale.large[roots]).any():
            # Effects that hardly vary have any correlation: look for a minimum where they do vary.
            origin[at_roots] = self.phi[roots]
            again = self._descend(objective, origin)
            minimum = min(minimum, again, key=lambda m: m.deviance)
        return Minimum(others=minimum.others, deviance=min(minimum.deviance, self.target.floor))

    def _descend(self, objective: Any, origin: np.ndarray) -> Minimum:
        if not len(self.free):
            return Minimum(others=origin, deviance=objective(np.zeros(0), origin)[0])
        result = optimize.minimize(
            objective,
            np.zeros(len(self.free)),
            (origin,),
            jac=True,
            method="BFGS",
            options={"gtol": 1e-5},
        )
        return Minimum(others=origin + self.half @ np.asarray(result.x), deviance=float(result.fun))

    def _starts(self, value: float) -> tuple[np.ndarray, np.ndarray]:
        """Guess the others from the two values nearest to this one, and from the nearest alone.

        Away from sds of zero and correlations of one, where the deviance is level whether or not
        that is its minimum.
        """
        known = sorted(self.seen, key=lambda v: abs(v - value))[:2]
        a = self.seen[known[0]].others
        if len(known) < 2:
            guess = a + self.tangent * (value - known[0])
        else:
            b = self.seen[known[1]].others
            guess = a + (b - a) * ((value - known[0]) / (known[1] - known[0]))
        return self._inside(guess), self._inside(a.copy())

    def _inside(self, guess: np.ndarray) -> np.ndarray:
        for at, place in enumerate(self.free):
            power = 2 if place in self.target.roots else 1
            least = NEAR_ZERO * self.scale.large[place]
            if place in self.scale.sds and abs(guess[at]) ** power < least:
                guess[at] = (3 * least) ** (1 / power)
            if place in self.scale.angles and abs(np.sin(guess[at])) < NEAR_ZERO:
                guess[at] = np.arccos(np.copysign(np.cos(3 * NEAR_ZERO), np.cos(guess[at])))
        return guess


def profile_curve(
    target: Target, scale: UserScale, phi: np.ndarray, point: ProfiledPoint
) -> ProfileCurve:
    """Prepare the curve of one parameter.

    Parameters
    ----------
    target : Target
        The parameter.
    scale : UserScale
        The deviance.
    phi : ndarray
        Where it is least.
    point : ProfiledPoint
        The likelihood there.
    """
    roots = list(target.roots)
    slopes = np.ones(len(phi))
    slopes[roots] = 2 * np.sqrt(phi[roots])
    hessian = scale.hessian(phi) * np.outer(slopes, slopes)
    phi, large = phi.copy(), scale.large.copy()
    phi[roots] **= 0.5
    large[roots] **= 0.5
    fixed = [] if target.held else [target.place]
    fixed += [len(phi) - 1] if scale.known else []
    free = np.delete(np.arange(len(phi)), fixed)
    # Flat directions are taken in steps of one large change, and no longer ones.
    values, vectors = np.linalg.eigh((hessian * np.outer(large, large))[np.ix_(free, free)])
    half = large[free, None] * vectors / np.sqrt(np.maximum(values, 2.0) / 2)
    tangent = np.zeros(len(free))
    if target.held is not None:
        c, added = target.held
        best = float(added + c @ point.gamma)
        step = float(np.sqrt(point.sigma2 * c @ point.K_inverse @ c))
    else:
        best = float(phi[target.place])
        across = hessian[free, target.place]
        tangent = -0.5 * half @ (half.T @ across)
        own = hessian[target.place, target.place]
        step = large[target.place]
        if own > 0:
            bend = max(float(own + across @ tangent), 1e-6 * own)
            step = min(float(np.sqrt(2 / bend)), 10 * step)
    curve = ProfileCurve(
        target=target,
        scale=scale,
        phi=phi,
        best=best,
        step=step,
        free=free,
        half=half,
        tangent=tangent,
    )
    curve.seen[best] = Minimum(others=phi[free], deviance=point.deviance)
    return curve
