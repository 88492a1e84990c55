"""Profile likelihood: intervals for coefficients, sds, correlations and sigma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from hmlm.errors import HmlmError
from hmlm.fitting.parameters import Parameter, chosen_parameters, interval_table
from hmlm.likelihoods.gaussian import blocks_of, gaussian_sums, known_sigma2
from hmlm.likelihoods.optimum import SINGULAR, best_point
from hmlm.likelihoods.profile_curve import ProfileCurve, Target, profile_curve
from hmlm.likelihoods.profiled import shapes_of, split_theta
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.likelihoods.user_scale import user_scale

if TYPE_CHECKING:
    import pandas as pd

    from hmlm.design import Design
    from hmlm.likelihoods.profiled import GaussianSums, ProfiledPoint


def profile_intervals(
    fit: Any,
    prob: float = 0.95,
    parameters: str | Sequence[str] | None = None,
    t: bool = False,
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
    t : bool
        Whether coefficients are judged by the t distribution with the degrees of freedom of the
        fit, as profile t in Bates & Watts (1988, section 6.1). The normal quantile makes intervals
        too short where groups are few; docs/trust has the figures.

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
    normal = float(special.ndtri(0.5 + prob / 2))
    chosen = chosen_parameters(fit.design, parameters)
    with one_blas_thread():
        top = _Maximum.of(fit)
        bounds = []
        for parameter in chosen:
            zeta = normal
            if t and parameter.variable == "beta" and fit.df[parameter.place] > 0:
                zeta = float(special.stdtrit(fit.df[parameter.place], 0.5 + prob / 2))
            curve = top.curve(parameter)
            bounds.append((np.nan, np.nan) if curve is None else curve.interval(zeta))
    return interval_table(chosen, fit.estimates, bounds, prob, "profile-t" if t else "profile")


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
        curve = _Maximum.of(fit).curve(chosen)
        if curve is None:
            raise HmlmError(
                f"'{parameter}' has no profile: the variance of one of its effects is estimated as "
                "zero, so there is no correlation."
            )
        curve.trace(float(special.ndtri(0.5 + prob / 2)), points)
    sign = -1 if curve.target.form == "angle" else 1  # a larger angle is a smaller correlation
    rows = [
        (curve.target.to_user(v), sign * curve.at(v), m.deviance) for v, m in curve.seen.items()
    ]
    table = pd.DataFrame(sorted(rows), columns=["value", "zeta", "deviance"])
    table.attrs = {"parameter": parameter}
    return table


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Maximum:
    """The maximum of the likelihood, from which the curves start."""

    design: Design
    sums: GaussianSums
    theta: np.ndarray
    point: ProfiledPoint

    @classmethod
    def of(cls, fit: Any) -> _Maximum:
        design = fit.design
        if design.spec.family.name != "gaussian":
            raise HmlmError(
                f"profiles are those of gaussian models; the family is {design.spec.family.name}: "
                "use method='wald'."
            )
        if design.spec.pooling != "partial" or not design.blocks:
            raise HmlmError(
                f"{fit.label} pools nothing partially: its Wald intervals by the t distribution "
                "are exact, use method='wald'."
            )
        sums = gaussian_sums(design)
        point, theta, _ = best_point(sums, reml=False, sigma2=known_sigma2(design))
        return cls(design=design, sums=sums, theta=theta, point=point)

    def curve(self, parameter: Parameter) -> ProfileCurve | None:
        """Return the profile of one parameter; None for a correlation with nothing."""
        if parameter.component == "cor":
            return self._of_correlation(parameter)
        scale, phi = user_scale(
            self.sums, self.theta, self.point.sigma2, known=self.design.known_se
        )
        if parameter.component == "sd":
            place = scale.sd_of(self._block(parameter), parameter.place[0])
            target = Target(name=parameter.name, form="plain", limits=(0.0, np.inf), place=place)
        elif parameter.component == "residual":
            target = Target(name=parameter.name, form="log", place=len(phi) - 1)
        else:
            (k,) = parameter.place
            c = np.linalg.inv(self.sums.basis.R)[k]
            held = (c, float(self.sums.basis.beta[k]))
            target = Target(name=parameter.name, form="plain", held=held)
        return profile_curve(target, scale, phi, self.point)

    def _of_correlation(self, parameter: Parameter) -> ProfileCurve | None:
        i, j = parameter.place
        k = self._block(parameter)
        own = shapes_of(self.sums)[k].unpack(split_theta(self.theta, self.sums)[k])
        if (np.sqrt((own[[i, j]] ** 2).sum(axis=1)) < SINGULAR).any():
            return None
        without = []
        for effect in (i, j):
            curve = self.curve(replace(parameter, component="sd", place=(effect,)))
            assert curve is not None
            curve.at(0.0)
            without.append(curve.seen[0.0].deviance)
        scale, phi = user_scale(
            self.sums, self.theta, self.point.sigma2, (k, i, j), self.design.known_se
        )
        target = Target(
            name=parameter.name,
            form="angle",
            limits=(0.0, np.pi),
            place=scale.angle_of(k, i),
            # Negative sds would turn the correlation that is held.
            roots=(scale.sd_of(k, i), scale.sd_of(k, j)),
            # Without the variance of one effect its correlation can be anything.
            floor=min(without),
        )
        return profile_curve(target, scale, phi, self.point)

    def _block(self, parameter: Parameter) -> int:
        return [b.group for b in blocks_of(self.sums, self.design)].index(parameter.group)
