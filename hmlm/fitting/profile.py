"""Profile likelihood: intervals for coefficients, sds, correlations and sigma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, special

from hmlm.errors import HmlmError
from hmlm.fitting.parameters import Parameter, chosen_parameters, interval_table
from hmlm.likelihoods.gaussian import blocks_of, gaussian_sums
from hmlm.likelihoods.optimum import SINGULAR, best_point
from hmlm.likelihoods.profiled import shapes_of, split_theta
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.likelihoods.user_scale import UserScale, user_scale

if TYPE_CHECKING:
    import pandas as pd

    from hmlm.design import Design
    from hmlm.likelihoods.profiled import GaussianSums, ProfiledPoint

MOST_STEPS = 60
TOLERANCE = 1e-4
NEAR_ZERO = 0.1


def profile_intervals(
    fit: Any, prob: float = 0.95, parameters: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """Return profile-likelihood intervals: the values that a likelihood-ratio test does not reject.

    As in R the likelihood is that of ML: a fit by REML is refitted. Each end is the root of the
    signed root of the likelihood ratio, zeta(value) = +-sqrt(d(value) - d_min), at the normal
    quantile; d is the deviance minimised over all other parameters (Bates et al. 2015, section
    5.1). A correlation whose zeta never gets there ends at -1 or 1, an sd at 0.

    Parameters
    ----------
    fit : ClassicalFit
        A fit that pools partially.
    prob : float
        Probability of the intervals.
    parameters : str or sequence of str, optional
        Names such as ``"Days"``, ``"sd_Subject[Days]"`` or ``"sigma"``; all parameters when None.

    Returns
    -------
    pandas.DataFrame
        Columns ``component, group, term, estimate, lower, upper, prob, interval``.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.ML())
    >>> profile_intervals(fit, parameters="sd_Subject[Days]")[["lower", "upper"]].round(3)
       lower  upper
    0  3.801  8.753
    """
    target = float(special.ndtri(0.5 + prob / 2))
    with one_blas_thread():
        start = _Start.of(fit)
        chosen = chosen_parameters(fit.design, parameters)
        bounds = []
        for parameter in chosen:
            profile = start.profile(parameter)
            bounds.append((np.nan, np.nan) if profile is None else profile.interval(target))
    return interval_table(chosen, fit.estimates, bounds, prob, "profile")


def profile_likelihood(
    fit: Any, parameter: str, prob: float = 0.99, points: int = 12
) -> pd.DataFrame:
    """Trace the profile likelihood of one parameter, for a figure or a table.

    Parameters
    ----------
    fit : ClassicalFit
        A fit that pools partially; one by REML is refitted by ML.
    parameter : str
        Its name, such as ``"Days"``, ``"sd_Subject[Days]"``, ``"cor_Subject[Intercept, Days]"`` or
        ``"sigma"``.
    prob : float
        How far to go: to the ends of the interval of this probability.
    points : int
        Points on either side of the estimate, about.

    Returns
    -------
    pandas.DataFrame
        Columns ``value``, ``zeta`` (signed root of the likelihood ratio: a straight line where
        the likelihood is normal) and ``deviance``, by rising value.

    Raises
    ------
    HmlmError
        If there is no such parameter, or the fit does not pool partially.

    Examples
    --------
    >>> import hmlm
    >>> dyestuff = hmlm.load_dataset("dyestuff")
    >>> fit = hmlm.Model("Yield ~ 1 + (1 | Batch)", dyestuff).fit(hmlm.ML())
    >>> trace = profile_likelihood(fit, "sd_Batch[Intercept]")
    >>> round(float(trace["deviance"].min() + 2 * fit.log_likelihood), 6)
    0.0
    """
    import pandas as pd

    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
    (chosen,) = chosen_parameters(fit.design, [parameter])
    with one_blas_thread():
        profile = _Start.of(fit).profile(chosen)
        if profile is None:
            raise HmlmError(
                f"'{parameter}' has no profile: the variance of one of its effects is estimated as "
                "zero, so there is no correlation."
            )
        profile.trace(float(special.ndtri(0.5 + prob / 2)), points)
    rows = sorted((profile.to_user(v), profile.zeta(v), p.deviance) for v, p in profile.seen.items())
    table = pd.DataFrame(rows, columns=["value", "zeta", "deviance"])
    if chosen.component == "cor":  # a larger angle is a smaller correlation
        table["zeta"] = -table["zeta"]
    table.attrs = {"parameter": parameter}
    return table


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Start:
    """The maximum of the likelihood, from which profiles start."""

    design: Design
    sums: GaussianSums
    theta: np.ndarray
    point: ProfiledPoint

    @classmethod
    def of(cls, fit: Any) -> _Start:
        design = fit.design
        if design.spec.family.name != "gaussian" or design.spec.pooling != "partial":
            raise HmlmError(
                f"{fit.label} has no profile likelihood here: its Wald intervals are those of the "
                "t distribution (method='wald'); method='bootstrap' works too."
            )
        sums = gaussian_sums(design)
        point, theta, _ = best_point(sums, reml=False)
        return cls(design=design, sums=sums, theta=theta, point=point)

    def profile(self, parameter: Parameter) -> _Profile | None:
        """Return the profile of one parameter; None for a correlation with nothing."""
        blocks = [b.group for b in blocks_of(self.sums, self.design)]
        first = None
        roots: list[int] = []
        place, held, low, high, floor = -1, None, -np.inf, np.inf, np.inf
        if parameter.component in ("sd", "cor"):
            k = blocks.index(parameter.group)
            shape, own = shapes_of(self.sums)[k], split_theta(self.theta, self.sums)[k]
            if parameter.component == "cor":
                i, j = parameter.place
                first = (k, i, j)
                sds = np.sqrt((shape.unpack(own) ** 2).sum(axis=1))
                if (sds[[i, j]] < SINGULAR).any():
                    return None
        scale, phi = user_scale(self.sums, self.theta, self.point.sigma2, first)
        if parameter.component == "sd":
            part = next(
                p for p in scale.parts if p.block == k and parameter.place[0] in p.effects
            )
            place, low = part.sds[part.effects.index(parameter.place[0])], 0.0
        elif parameter.component == "cor":
            part = next(p for p in scale.parts if p.block == k and i in p.effects)
            place, low, high = part.angles[1][0], 0.0, np.pi
            # Negative sds would turn the correlation that is held round.
            roots = list(part.sds[:2])
            floor = min(self._without(parameter, effect) for effect in (i, j))
        elif parameter.component == "residual":
            place = len(phi) - 1
        else:
            c = np.linalg.inv(self.sums.basis.R)[parameter.place[0]]
            held = (c, float(self.sums.basis.beta[parameter.place[0]]))
        return _make_profile(
            self,
            parameter,
            scale,
            phi,
            place=place,
            held=held,
            limits=(low, high),
            roots=roots,
            floor=floor,
        )

    def _without(self, parameter: Parameter, effect: int) -> float:
        """Return the deviance where one effect of a correlation does not vary."""
        sd = replace(parameter, component="sd", place=(effect,))
        profile = self.profile(sd)
        assert profile is not None
        profile.zeta(0.0)
        return profile.seen[0.0].deviance


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Minimum:
    """The minimum over the other parameters at one value."""

    others: np.ndarray
    deviance: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Profile:
    """The deviance as a function of one parameter, minimised over the others.

    The others move along directions in which the deviance bends alike at its minimum, and start
    from where the values tried before point to.

    Attributes
    ----------
    parameter : Parameter
        Which.
    scale : UserScale
        The deviance.
    phi : ndarray
        Its minimum, roots taken.
    place : int
        Which entry of phi is the parameter; -1 for a coefficient.
    held : tuple or None
        For a coefficient, what makes it from those on the orthogonal columns, and its origin.
    limits : tuple of float
        Between which it lies.
    roots : list of int
        Entries of phi that are square roots here, and so cannot be negative.
    best : float
        Its value at the minimum.
    step : float
        Its standard error.
    free : ndarray of int
        Which entries of phi the others are.
    large : ndarray
        What is a large change of each entry of phi, roots not taken.
    sds : list of int
        Which entries of phi are sds.
    floor : float
        For a correlation, the deviance without the variance of one of its effects: then it can be
        anything, so its profile never rises above.
    half : ndarray
        From whitened steps to theirs.
    tangent : ndarray
        How they move with the parameter at the minimum.
    seen : dict of float to _Minimum
        What was evaluated.
    """

    parameter: Parameter
    scale: UserScale
    phi: np.ndarray
    place: int
    held: tuple[np.ndarray, float] | None
    limits: tuple[float, float]
    roots: list[int]
    best: float
    step: float
    free: np.ndarray
    large: np.ndarray
    sds: list[int]
    floor: float
    half: np.ndarray
    tangent: np.ndarray
    seen: dict[float, _Minimum] = field(default_factory=dict)

    @property
    def root_at(self) -> np.ndarray:
        """Where among the others the roots are."""
        return np.flatnonzero(np.isin(self.free, self.roots))

    def to_user(self, value: float) -> float:
        """Return the parameter as the user knows it."""
        if self.parameter.component == "cor":
            return float(np.cos(value))
        return float(np.exp(value)) if self.parameter.component == "residual" else float(value)

    def zeta(self, value: float) -> float:
        """Return the signed root of the likelihood ratio."""
        lowest = self.seen[self.best].deviance
        if value not in self.seen:
            self.seen[value] = self._minimise(value)
            if self.seen[value].deviance < lowest - TOLERANCE:
                raise HmlmError(
                    f"The profile of '{self.parameter.name}' found a higher likelihood than that "
                    "of the fit, which has not reached its maximum: simplify the group terms or "
                    "rescale the predictors."
                )
        rise = max(self.seen[value].deviance - lowest, 0.0)
        return float(np.sign(value - self.best) * np.sqrt(rise))

    def interval(self, target: float) -> tuple[float, float]:
        """Return where zeta is minus and plus the target, on the user's scale."""
        ends = sorted(self.to_user(self._end(side, target)) for side in (-1, 1))
        return ends[0], ends[1]

    def _end(self, side: int, target: float) -> float:
        limit = self.limits[max(side, 0)]
        inside, ratio = self.best, 1.0
        if self.best == limit:
            return limit
        reach = target * self.step
        for _ in range(MOST_STEPS):
            outside = self._within(self.best + side * reach)
            size = abs(self.zeta(outside))
            if size >= target:
                root = optimize.brentq(
                    lambda v: abs(self.zeta(float(v))) - target,
                    inside,
                    outside,
                    xtol=1e-7 * reach,
                )
                return float(root)
            if outside == limit:
                return limit
            inside = outside
            ratio = float(np.clip(1.05 * target / max(size, 1e-3), 1.2, 3.0))
            reach *= ratio
        return side * np.inf

    def trace(self, target: float, points: int) -> None:
        """Evaluate at values where zeta takes steps of about the same size, out to the target."""
        for side in (-1, 1):
            value, reached, slope = self.best, 0.0, self.step
            for _ in range(MOST_STEPS * points):
                if reached >= target or value == self.limits[max(side, 0)]:
                    break
                following = self._within(value + side * slope * target / points)
                size = abs(self.zeta(following))
                rise = max(size - reached, 0.1 * target / points)
                slope = abs(following - value) / rise
                value, reached = following, size

    def _within(self, value: float) -> float:
        return float(np.clip(value, *self.limits))

    def _minimise(self, value: float) -> _Minimum:
        phi = self.phi.copy()
        held = None
        if self.held is not None:
            held = (self.held[0], value - self.held[1])
        else:
            phi[self.place] = value

        def objective(z: np.ndarray, origin: np.ndarray) -> tuple[float, np.ndarray]:
            phi[self.free] = origin + self.half @ z
            plain = phi.copy()
            plain[self.roots] **= 2
            deviance, gradient = self.scale.deviance(plain, held)
            gradient[self.roots] *= 2 * phi[self.roots]
            return deviance, self.half.T @ gradient[self.free]

        origin = self._start(value)
        minimum = self._descend(objective, origin)
        plain = minimum.others[self.root_at] ** 2
        if (plain < NEAR_ZERO * self.large[self.roots]).any():
            # Effects that hardly vary have any correlation: look for a minimum where they do vary.
            origin[self.root_at] = self.phi[self.roots]
            again = self._descend(objective, origin)
            minimum = min(minimum, again, key=lambda m: m.deviance)
        return _Minimum(others=minimum.others, deviance=min(minimum.deviance, self.floor))

    def _descend(self, objective: Any, origin: np.ndarray) -> _Minimum:
        result = optimize.minimize(
            objective,
            np.zeros(len(self.free)),
            (origin,),
            jac=True,
            method="BFGS",
            options={"gtol": 1e-5},
        )
        return _Minimum(
            others=origin + self.half @ np.asarray(result.x), deviance=float(result.fun)
        )

    def _start(self, value: float) -> np.ndarray:
        """Guess the others from the two values nearest to this one.

        Away from sds of zero, where the deviance is level whether or not that is its minimum.
        """
        known = sorted(self.seen, key=lambda v: abs(v - value))[:2]
        a = self.seen[known[0]].others
        if len(known) < 2:
            guess = a + self.tangent * (value - known[0])
        else:
            b = self.seen[known[1]].others
            guess = a + (b - a) * ((value - known[0]) / (known[1] - known[0]))
        for at, place in enumerate(self.free):
            power = 2 if place in self.roots else 1
            if place in self.sds and abs(guess[at]) ** power < NEAR_ZERO * self.large[place]:
                guess[at] = (3 * NEAR_ZERO * self.large[place]) ** (1 / power)
        return guess


def _make_profile(
    start: _Start,
    parameter: Parameter,
    scale: UserScale,
    phi: np.ndarray,
    place: int,
    held: tuple[np.ndarray, float] | None,
    limits: tuple[float, float],
    roots: list[int],
    floor: float,
) -> _Profile:
    hessian = scale.hessian(phi)
    slopes = np.ones(len(phi))
    slopes[roots] = 2 * np.sqrt(phi[roots])
    hessian = hessian * np.outer(slopes, slopes)
    large = scale.large.copy()
    large[roots] **= 0.5
    phi = phi.copy()
    phi[roots] **= 0.5
    free = np.delete(np.arange(len(phi)), [] if held else [place])
    # Flat directions are taken in steps of one large change and no more.
    values, vectors = np.linalg.eigh((hessian * np.outer(large, large))[np.ix_(free, free)])
    half = large[free, None] * vectors / np.sqrt(np.maximum(values, 2.0) / 2)
    tangent = np.zeros(len(free))
    if held is not None:
        gamma, c = start.point.gamma, held[0]
        best = float(held[1] + c @ gamma)
        step = float(np.sqrt(start.point.sigma2 * c @ start.point.K_inverse @ c))
    else:
        best = float(phi[place])
        across = hessian[free, place]
        tangent = -0.5 * half @ (half.T @ across)
        bend = float(hessian[place, place] + across @ tangent)
        step = float(np.sqrt(2 / max(bend, 1e-6 * hessian[place, place])))
    profile = _Profile(
        parameter=parameter,
        scale=scale,
        phi=phi,
        place=place,
        held=held,
        limits=limits,
        roots=roots,
        best=best,
        step=step,
        free=free,
        large=scale.large,
        sds=[sd for part in scale.parts for sd in part.sds],
        floor=floor,
        half=half,
        tangent=tangent,
    )
    profile.seen[best] = _Minimum(others=phi[free], deviance=start.point.deviance)
    return profile
