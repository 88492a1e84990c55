"""EM algorithms for Gaussian models: ECME, PX-EM and the plain one, with their traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.errors import HmlmError, listed
from hmlm.fitting.classical_fit import ClassicalFit
from hmlm.fitting.maximum_likelihood import check_pools, classical_fit_at
from hmlm.likelihoods.covariance import sds_and_correlations
from hmlm.likelihoods.em_steps import (
    Factor,
    at_the_edge,
    em_factors,
    em_update,
    px_update,
    residual_variance,
)
from hmlm.likelihoods.gaussian import gaussian_sums, known_sigma2
from hmlm.likelihoods.profiled import (
    GaussianSums,
    ProfiledPoint,
    profiled_deviance,
    split_theta,
)
from hmlm.likelihoods.threads import one_blas_thread

ALGORITHMS: Mapping[str, str] = MappingProxyType({"ecme": "ECME", "px-em": "PX-EM", "em": "EM"})


@dataclass(frozen=True, kw_only=True, slots=True)
class EM:
    """Maximum likelihood or REML by an EM algorithm, with the trace of its iterations.

    The estimates are those of `hmlm.REML` and `hmlm.ML`, which get there sooner; this is for
    seeing how EM gets there. The group effects are the missing data (under REML with the population
    coefficients, Laird & Ware 1982). The E-step finds their expected squares and products given
    the data, the M-step makes each covariance matrix their average over the levels. An iteration
    works on sums over the levels, so its cost does not grow with the rows.

    Parameters
    ----------
    algorithm : {"ecme", "px-em", "em"}
        How sigma and the covariances follow from the E-step; see Notes.
    reml : bool
        Whether the likelihood is the restricted one.
    max_iterations : int
        Most iterations.
    tolerance : float
        Stop when so much log-likelihood is left to gain, judged by the rate at which the gains
        fall (Aitken's extrapolation; McLachlan & Krishnan 2008, section 4.9).

    Raises
    ------
    HmlmError
        If a setting is out of range.

    Notes
    -----
    In all three the coefficients are generalised least squares at each step, and every step
    raises the likelihood.

    - ``"em"`` (Laird & Ware 1982): sigma^2 is the expected average square of the residuals.
    - ``"ecme"`` (Liu & Rubin 1994): coefficients and sigma maximise the likelihood itself, given
      the covariances over sigma^2.
    - ``"px-em"`` (Liu, Rubin & Wu 1998): as ECME, and the effects enter with a matrix alpha of
      extra parameters, which the M-step fits by regression. That corrects the covariances for
      what the E-step took over from the last iteration, and often needs several times fewer
      steps.

    Where a variance is estimated as zero, EM and ECME creep: each step takes off a share of the
    variance that is proportional to the variance, so that about 1/t is left after t steps. PX-EM
    takes off a constant share. Where the standard errors of the outcome are known there is no
    sigma to estimate, and EM and ECME are the same.

    References
    ----------
    .. [1] Laird and Ware (1982), Random-effects models for longitudinal data, Biometrics 38,
       963-974.
    .. [2] Liu and Rubin (1994), The ECME algorithm, Biometrika 81, 633-648.
    .. [3] Liu, Rubin and Wu (1998), Parameter expansion to accelerate EM: the PX-EM algorithm,
       Biometrika 85, 755-770.
    .. [4] McLachlan and Krishnan (2008), The EM Algorithm and Extensions, second edition.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep)
    >>> fit = model.fit(hmlm.EM(algorithm="px-em"))
    >>> round(fit.log_likelihood, 4)
    -871.8141
    >>> fit.trace[["log_likelihood", "sd_Subject[Days]", "sigma"]].head(4).round(2)
               log_likelihood  sd_Subject[Days]  sigma
    iteration
    0                 -881.17              9.14  26.24
    1                 -871.97              6.05  25.50
    2                 -871.82              5.97  25.55
    3                 -871.81              5.94  25.58
    """

    algorithm: Literal["ecme", "px-em", "em"] = "ecme"
    reml: bool = True
    max_iterations: int = 1000
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.algorithm not in ALGORITHMS:
            raise HmlmError(f"algorithm is 'ecme', 'px-em' or 'em', not {self.algorithm!r}.")
        if not isinstance(self.reml, bool):
            raise HmlmError(f"reml is True or False, not {self.reml!r}.")
        n: Any = self.max_iterations
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise HmlmError(f"max_iterations must be a whole number, at least 1, not {n!r}.")
        if not 0 < self.tolerance < np.inf:
            raise HmlmError(
                f"tolerance must be a positive number, such as 1e-9, not {self.tolerance!r}."
            )

    def __str__(self) -> str:
        """Return the name of the likelihood and of the algorithm."""
        return f"{'REML' if self.reml else 'ML'} by {ALGORITHMS[self.algorithm]}"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = False
    ) -> ClassicalFit:
        """Fit a design.

        Returns
        -------
        ClassicalFit
            With a `trace`: a row for every iteration, from the start (0) on.

        Raises
        ------
        HmlmError
            If there is nothing to pool, or the family is not gaussian.
        """
        check_pools(design, self)
        with one_blas_thread():
            sums = gaussian_sums(design)
            factors = em_factors(design, sums)
            theta = np.concatenate([np.where(f.shape.is_diagonal, 1.0, 0.0) for f in factors])
            known = sigma2 = known_sigma2(design)
            if self.algorithm == "em" and known is None:
                sigma2 = profiled_deviance(theta, sums, self.reml).sigma2
            rows, progress = [], _Progress(self.tolerance)
            while True:
                point = profiled_deviance(theta, sums, self.reml, sigma2)
                rows.append(_row(factors, sums, theta, point, known))
                progress.add(-0.5 * point.deviance)
                if progress.converged or progress.iterations == self.max_iterations:
                    break
                theta, sigma2 = self._step(factors, sums, theta, point, known)
            problems, notes = [], []
            if progress.converged:
                name = ALGORITHMS[self.algorithm]
                notes.append(f"{name} converged in {progress.iterations:,} iterations.")
            else:
                edges = [
                    sentence
                    for k in range(len(factors))
                    if (sentence := _creeping(k, factors, sums, theta, point, self.reml, known))
                ]
                problems.append(self._problem(progress, edges))
        trace = pd.DataFrame(rows)
        trace.index.name = "iteration"
        return classical_fit_at(
            design,
            self,
            sums,
            point,
            theta,
            reml=self.reml,
            problems=problems,
            notes=notes,
            numbers={
                "iterations": float(progress.iterations),
                "rate": progress.rate,
                "remaining": progress.remaining,
            },
            trace=trace,
        )

    def _step(
        self,
        factors: list[Factor],
        sums: GaussianSums,
        theta: np.ndarray,
        point: ProfiledPoint,
        known: float | None,
    ) -> tuple[np.ndarray, float | None]:
        """Return theta, and sigma^2 for plain EM or where it is known, after one iteration."""
        if self.algorithm == "px-em":
            return px_update(factors, sums, theta, point, self.reml, known), known
        new = em_update(factors, sums, theta, point.gradient)
        if self.algorithm == "ecme" or known is not None:
            return new, known
        sigma2 = residual_variance(sums, theta, point, self.reml)
        return new * np.sqrt(point.sigma2 / sigma2), sigma2

    def _problem(self, progress: _Progress, edges: list[str]) -> str:
        name = ALGORITHMS[self.algorithm]
        head = (
            f"{name} stopped after {progress.iterations:,} iterations, before it converged: the "
            f"last one raised the log-likelihood by {progress.gain:.2g}."
        )
        quick = "hmlm.REML()" if self.reml else "hmlm.ML()"
        if edges and self.algorithm != "px-em":
            return (
                f"{head} {' '.join(edges)} There {name} gets ever slower: each step takes off a "
                "share that falls with what is left, about 1/t after t steps. "
                f"hmlm.EM(algorithm='px-em') takes off a constant share, and {quick} goes to the "
                "edge at once."
            )
        pace = (
            f"A step leaves about {progress.rate:.0%} of the gain of the one before."
            if np.isfinite(progress.rate)
            else ""
        )
        faster = "" if self.algorithm == "px-em" else "hmlm.EM(algorithm='px-em') or "
        advice = f"Raise max_iterations, or use {faster}{quick}."
        return " ".join(filter(None, [head, *edges, pace, advice]))


class _Progress:
    """How the log-likelihood rises, and how much is left to gain."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.iterations = -1
        self.last = self.gain = self.rate = self.remaining = np.nan
        self.close = 0

    def add(self, log_likelihood: float) -> None:
        """Take the log-likelihood of the next iteration."""
        gain, before = log_likelihood - self.last, self.gain
        self.iterations += 1
        self.last, self.gain = log_likelihood, gain
        if self.iterations < 2:
            return
        self.rate = min(max(gain / before, 0.0), 1.0) if before > 0 else 0.0
        left = gain * self.rate / (1 - self.rate) if self.rate < 1 else np.inf
        self.remaining = max(left, 0.0)
        rounding = 4 * np.finfo(float).eps * abs(log_likelihood)
        small = max(self.remaining, gain) < self.tolerance or gain <= rounding
        self.close = self.close + 1 if small else 0

    @property
    def converged(self) -> bool:
        """Whether too little was left to gain twice running."""
        return self.close >= 2


def _row(
    factors: list[Factor],
    sums: GaussianSums,
    theta: np.ndarray,
    point: ProfiledPoint,
    known: float | None,
) -> dict[str, float]:
    """One row of the trace, on the user's scale."""
    row = {"log_likelihood": -0.5 * point.deviance}
    for factor, part in zip(factors, split_theta(theta, sums), strict=True):
        half = factor.T @ factor.shape.unpack(part)
        sd, cor = sds_and_correlations(point.sigma2 * half @ half.T)
        block = factor.block
        for a, name in enumerate(block.columns):
            row[f"sd_{block.group}[{name}]"] = float(sd[a])
        for a, b in zip(*np.nonzero(np.triu(factor.joint, 1)), strict=True):
            pair = f"{block.columns[a]}, {block.columns[b]}"
            row[f"cor_{block.group}[{pair}]"] = float(cor[a, b])
    if known is None:
        row["sigma"] = float(np.sqrt(point.sigma2))
    return row


def _creeping(
    k: int,
    factors: list[Factor],
    sums: GaussianSums,
    theta: np.ndarray,
    point: ProfiledPoint,
    reml: bool,
    known: float | None,
) -> str:
    """Say what is on its way to the edge: a variance of zero, or a correlation of one."""
    factor, parts = factors[k], split_theta(theta, sums)
    block, Lambda = factor.block, factor.shape.unpack(parts[k])
    sentences = []
    for part in block.slices:
        edge = at_the_edge(Lambda, part)
        there = np.concatenate([*parts[:k], factor.shape.pack(edge), *parts[k + 1 :]])
        higher = 0.5 * (point.deviance - profiled_deviance(there, sums, reml, known).deviance)
        if not higher > 0:
            continue
        left = np.diagonal(factor.T @ edge @ edge.T @ factor.T.T)[part]
        now = np.diagonal(factor.T @ Lambda @ Lambda.T @ factor.T.T)[part]
        names = block.columns[part]
        gone = [c for c, a, b in zip(names, left, now, strict=True) if a < 1e-8 * b]
        what = (
            f"The variance of {listed(gone)} between the levels of '{block.group}' is on its way "
            "to zero"
            if gone
            else f"The effects of {listed(names)} by '{block.group}' are on their way to perfect "
            "dependence (a correlation of 1 or -1)"
        )
        sentences.append(f"{what}, where the log-likelihood is {higher:.2g} higher.")
    return " ".join(sentences)
