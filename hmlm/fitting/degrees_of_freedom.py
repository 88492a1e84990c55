"""Degrees of freedom of t tests for population coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.fitting.kenward_roger import kenward_roger
from hmlm.group_rows import constant_within
from hmlm.likelihoods.crossed import Crossed
from hmlm.likelihoods.curvature import curvature
from hmlm.likelihoods.profiled import GaussianSums, ProfiledPoint
from hmlm.likelihoods.structure import find_structure

DegreesOfFreedom = Literal["auto", "inner-outer", "satterthwaite", "kenward-roger", "normal"]

MOST_ROWS = 100_000
MOST_CROSSED_EFFECTS = 500
FLAT = 1e-8


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CoefficientTests:
    """What the t tests of the population coefficients need.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Covariance of the coefficients; Kenward and Roger's adjusted one where they are asked for.
    df : ndarray, shape (p,)
        Degrees of freedom.
    note : str
        Which degrees of freedom they are, where that is not nlme's rule.
    """

    vcov: np.ndarray
    df: np.ndarray
    note: str


def check_df(df: str, reml: bool) -> None:
    """Refuse degrees of freedom that do not exist, or not for this method.

    Raises
    ------
    HmlmError
        With the ones that do.
    """
    if df not in get_args(DegreesOfFreedom):
        known = ", ".join(repr(k) for k in get_args(DegreesOfFreedom))
        raise HmlmError(f"df is one of {known}, not {df!r}.")
    if df == "kenward-roger" and not reml:
        raise HmlmError(
            "Kenward and Roger's degrees of freedom are made for REML: use "
            "hmlm.REML(df='kenward-roger'), or df='satterthwaite' with hmlm.ML()."
        )


def coefficient_tests(
    df: str,
    design: Design,
    sums: GaussianSums,
    theta: np.ndarray,
    point: ProfiledPoint,
    reml: bool,
) -> CoefficientTests:
    """Choose and compute the degrees of freedom of a fit.

    Under "auto" nlme's rule where the grouping factors are nested; where they are crossed it does
    not apply, and Satterthwaite's approximation takes its place unless the problem is so large
    that it would take longer than the fit and change nothing. Where the standard errors of the
    outcome are known, tests are by the normal distribution, as in metafor.

    Parameters
    ----------
    df : str
        One of `DegreesOfFreedom`.
    design : Design
        What was fitted.
    sums : OneFactor, Tree or Crossed
        The data.
    theta : ndarray
        The optimum.
    point : ProfiledPoint
        The likelihood there.
    reml : bool
        Whether the likelihood is restricted.
    """
    check_df(df, reml)
    vcov = point.sigma2 * sums.basis.covariance_to_user(point.K_inverse)
    why = ""
    if df == "auto" and design.known_se:
        df, why = "normal", "; the standard errors of the outcome are known"
    elif df == "auto":
        df = "inner-outer"
        if find_structure(design).rest:
            large = sums.n > MOST_ROWS or (
                isinstance(sums, Crossed) and len(sums.RM) > MOST_CROSSED_EFFECTS
            )
            df, why = ("normal" if large else "satterthwaite"), "; the grouping factors are crossed"
    if df == "normal":
        return CoefficientTests(
            vcov=vcov, df=np.full(len(vcov), np.inf), note=f"Tests by the normal distribution{why}."
        )
    if df == "satterthwaite":
        return CoefficientTests(
            vcov=vcov,
            df=satterthwaite(sums, theta, point, reml, design.known_se),
            note=f"Degrees of freedom by Satterthwaite's approximation{why}.",
        )
    if df == "kenward-roger":
        adjusted, values = kenward_roger(design, sums, theta, point)
        return CoefficientTests(
            vcov=adjusted,
            df=values,
            note="Standard errors and degrees of freedom adjusted as by Kenward and Roger.",
        )
    return CoefficientTests(vcov=vcov, df=inner_outer(design), note="")


def satterthwaite(
    sums: GaussianSums,
    theta: np.ndarray,
    point: ProfiledPoint,
    reml: bool,
    known: bool = False,
) -> np.ndarray:
    """Return Satterthwaite's degrees of freedom, as lmerTest does.

    With v(theta, sigma) the variance of a coefficient and A the asymptotic covariance of the
    variance parameters, twice the inverse of the deviance's second derivatives, the variance of v
    is about g'A g, g the gradient of v, and df = 2 v^2 / g'A g matches the first two moments of a
    chi-squared variable (Giesbrecht & Burns 1985; Kuznetsova, Brockhoff & Christensen 2017).
    Directions in which the deviance is flat, or bends the wrong way, are left out.

    Parameters
    ----------
    sums : OneFactor, Tree or Crossed
        The data.
    theta : ndarray
        The optimum.
    point : ProfiledPoint
        The likelihood there.
    reml : bool
        Whether the likelihood is restricted.
    known : bool
        Whether sigma is known, and adds no uncertainty.

    Returns
    -------
    ndarray, shape (p,)
        Degrees of freedom; infinite where the variance is known exactly.
    """
    bent = curvature(theta, point.sigma2, sums, reml, known)
    values, vectors = np.linalg.eigh(bent.hessian)
    used = values > FLAT * values.max()
    half = vectors[:, used] * np.sqrt(2 / values[used])
    to_user = sums.basis.covariance_to_user
    v = np.diagonal(point.sigma2 * to_user(point.K_inverse))
    g = np.array([np.diagonal(to_user(slope)) for slope in bent.vcov_slopes])
    with np.errstate(divide="ignore"):
        return 2 * v**2 / ((half.T @ g) ** 2).sum(axis=0)


def inner_outer(design: Design) -> np.ndarray:
    """Return nlme's degrees of freedom.

    A coefficient is tested at the innermost level at which its column varies: with m_i groups and
    p_i such columns at level i, it has m_i - (m_{i-1} + p_i) degrees of freedom; the intercept is
    tested at the innermost (Pinheiro & Bates 2000, section 2.4.2).

    Returns
    -------
    ndarray, shape (p,)
        Degrees of freedom; NaN where a level has none left.
    """
    terms, n, p = design.terms, design.n_rows, len(design.terms)
    outer_first = sorted(design.blocks, key=lambda b: len(b.levels))
    m = [int("Intercept" in terms), *(len(b.levels) for b in outer_first), n]
    level = np.full(p, len(outer_first) + 1)
    for i in range(len(outer_first), 0, -1):
        constant = constant_within(design, outer_first[i - 1])
        level[constant & (level == i + 1)] = i
    if "Intercept" in terms:
        level[terms.index("Intercept")] = len(outer_first) + 1
    df = np.empty(p)
    for i in range(1, len(outer_first) + 2):
        estimated = [k for k in range(p) if level[k] == i and terms[k] != "Intercept"]
        df[level == i] = m[i] - (m[i - 1] + len(estimated))
    return np.where(df > 0, df, np.nan)
