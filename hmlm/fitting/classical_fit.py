"""The result of a classical fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import special

from hmlm.cells import needs_rows
from hmlm.classical_prediction import predict_classical
from hmlm.design import Design, find_block
from hmlm.errors import HmlmError
from hmlm.estimates import (
    Numbers,
    Scale,
    bounds_of_means,
    group_means,
    line_lead,
    tidy_table,
    total_lead,
)
from hmlm.fitting.fit_methods import FitMethods
from hmlm.fitting.parameters import chosen_parameters, interval_table
from hmlm.likelihoods.exponential import row_likelihood
from hmlm.links import from_link, link_slope
from hmlm.new_rows import Groups
from hmlm.prediction import Kind
from hmlm.status import Status
from hmlm.summaries import Summary, classical_summary


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GroupEffects:
    """Estimated effects of every level of one grouping factor.

    Attributes
    ----------
    modes : ndarray, shape (J, q)
        Conditional modes (partial pooling), or the group's own coefficients (no pooling).
    covariance : ndarray, shape (J, q, q)
        Conditional covariance given beta and the variances; the covariance of the coefficients
        under no pooling.
    gain : ndarray, shape (J, q, p)
        How the modes fall as beta rises: D Z'V^-1 X.
    estimable : ndarray of bool, shape (J, q)
        Whether the data determine the effect at all.
    """

    modes: np.ndarray
    covariance: np.ndarray
    gain: np.ndarray
    estimable: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ClassicalFit(FitMethods):
    """Estimates by least squares or maximum likelihood.

    Attributes
    ----------
    design : Design
        What was fitted.
    method : object
        The method and its settings.
    status : Status
        Convergence and singularity, in sentences.
    estimates : mapping of str to ndarray
        Point estimates by the names that the draws of a Bayesian fit have: ``beta``,
        ``sd_<group>``, ``cor_<group>``, the family's parameter (``sigma``, ``alpha`` or ``phi``),
        ``b_<group>``.
    vcov : ndarray, shape (p, p)
        Covariance of the population coefficients.
    df : ndarray, shape (p,)
        Degrees of freedom of their t tests.
    log_likelihood : float
        The maximum; the restricted one under REML, as R's ``logLik``.
    criterion : float
        -2 log-likelihood, the figure that was minimised.
    n_parameters : int
        Number of parameters that AIC and BIC count.
    n_effective : int
        Number of observations in BIC: N, or N - p under REML, as nlme has it.
    effects : mapping of str to GroupEffects
        Group effects by factor.
    trace : pandas.DataFrame or None
        Iterations of an EM algorithm, one a row: log-likelihood, sds, correlations, sigma.
    """

    design: Design
    method: Any
    status: Status
    estimates: Mapping[str, np.ndarray]
    vcov: np.ndarray
    df: np.ndarray
    log_likelihood: float
    criterion: float
    n_parameters: int
    n_effective: int
    effects: Mapping[str, GroupEffects]
    trace: pd.DataFrame | None = None

    @property
    def restricted(self) -> bool:
        """Whether the likelihood is the restricted one."""
        return self.n_effective < self.design.n_rows

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return -2 * self.log_likelihood + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz's criterion, with nlme's number of observations (N - p under REML)."""
        return -2 * self.log_likelihood + float(np.log(self.n_effective)) * self.n_parameters

    @property
    def std_errors(self) -> dict[str, np.ndarray]:
        """Standard errors by variable; NaN where the method gives no honest one."""
        errors = {"beta": np.sqrt(np.diagonal(self.vcov))}
        for name, value in self.estimates.items():
            if name.startswith("b_"):
                effects = self.effects[name.removeprefix("b_")]
                variance = np.diagonal(effects.covariance, axis1=1, axis2=2)
                errors[name] = np.where(
                    effects.estimable, np.sqrt(np.maximum(variance, 0.0)), np.nan
                )
            elif name != "beta":
                errors[name] = np.full(np.shape(value), np.nan)
        return errors

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlation of the estimated population coefficients."""
        se = np.sqrt(np.diagonal(self.vcov))
        terms = list(self.design.terms)
        return pd.DataFrame(self.vcov / np.outer(se, se), index=terms, columns=terms)

    @property
    def linear_predictor(self) -> np.ndarray:
        """Linear predictor with the group effects; NaN without a coefficient it needs, (N,)."""
        needs_rows(self.design.cells, "The linear predictor of every row")
        return self.row_predictor()

    def row_predictor(self) -> np.ndarray:
        """Return the same of the rows there are, which may stand for others."""
        design = self.design
        eta = design.X @ self.estimates["beta"] if design.terms else np.zeros(len(design.y))
        for block in design.blocks:
            modes = self.effects[block.group].modes
            eta = eta + np.einsum("nk,nk->n", block.Z, modes[block.index])
        return eta if design.offset is None else eta + design.offset

    @property
    def fitted(self) -> np.ndarray:
        """Fitted values with the group effects, shape (N,).

        On the scale of the outcome; the probability of a success where there are trials.
        """
        return from_link(self.design.spec.family.link, self.linear_predictor)

    @property
    def standardized_residuals(self) -> np.ndarray:
        """Innermost Pearson residuals, shape (N,): outcome less its mean, over its sd."""
        design, family = self.design, self.design.spec.family
        if family.name != "gaussian":
            parameter = float(self.estimates[design.parameters[0]]) if design.parameters else 1.0
            rows = row_likelihood(family, design.y, design.trials, parameter)
            return rows.pearson(self.linear_predictor)
        # Where the standard errors are known sigma is one, and the weights hold them.
        residual = (design.y - self.fitted) / float(self.estimates.get("sigma", 1.0))
        if design.weights is not None:
            residual = residual * np.sqrt(design.weights)
        return residual

    def describe(self, name: str, prob: float, ratio: bool = False) -> Numbers:
        """Return estimate, standard error, interval and test of a variable, a total or a line.

        ``mean_<group>`` is the average expected outcome of the rows of each group. With `ratio`,
        estimate and interval are exponentials, and the standard error is that of the delta method.
        """
        value, error, df = self._moments(name)
        is_beta = name == "beta"
        with np.errstate(divide="ignore", invalid="ignore"):
            half = special.stdtrit(df, 0.5 + prob / 2) * error
            statistic = value / error if is_beta else np.full(np.shape(value), np.nan)
            p_value = 2 * special.stdtr(df, -np.abs(statistic))
        lower, upper = value - half, value + half
        if name.startswith("mean_"):
            lower, upper = bounds_of_means(self.design, value, half)
        if ratio:
            with np.errstate(over="ignore"):
                value, lower, upper = np.exp(value), np.exp(lower), np.exp(upper)
            error = value * error
        return Numbers(
            estimate=value,
            std_error=error,
            lower=lower,
            upper=upper,
            interval="wald",
            df=df if is_beta else None,
            statistic=statistic,
            p_value=p_value,
        )

    def _mean_moments(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the average expected outcome of every group, with delta-method standard errors.

        They are NaN where there are several factors: their effects are not independent.
        """
        design = self.design
        block = find_block(design, group)
        eta = self.row_predictor()
        value = group_means(design, block, from_link(design.spec.family.link, eta))
        if len(design.blocks) > 1:
            return value, np.full(len(value), np.nan)
        slope = link_slope(design.spec.family.link, eta)
        by_beta = group_means(design, block, slope * design.X.T).T
        known = self.vcov
        if not design.blocks:
            variance = np.einsum("jp,pr,jr->j", by_beta, known, by_beta)
            return value, np.sqrt(np.maximum(variance, 0.0))
        effects = self.effects[group]
        by_own = group_means(design, block, slope * block.Z.T).T
        through = np.einsum("jk,jkp->jp", by_own, effects.gain)
        variance = np.einsum("jk,jkl,jl->j", by_own, effects.covariance, by_own)
        lead = by_beta - through
        variance += np.einsum("jp,pr,jr->j", lead, known, lead)
        if design.spec.pooling == "none":
            # The covariance of own coefficients has the uncertainty of beta in it already.
            variance -= np.einsum("jp,pr,jr->j", through, known, through)
        return value, np.sqrt(np.maximum(variance, 0.0))

    def _moments(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        kind, _, group = name.partition("_")
        if kind == "mean":
            return *self._mean_moments(group), np.inf
        if kind not in ("total", "line"):
            value = np.asarray(self.estimates[name])
            error = self.std_errors[name]
            if kind == "b":
                value = np.where(self.effects[group].estimable, value, np.nan)
            return value, error, self.df if name == "beta" else np.inf
        free = float(self.n_effective - self.n_parameters + 1)
        if "sigma" not in self.estimates:
            free = np.inf
        if self.design.spec.pooling == "none":
            value, error, _ = self._moments(f"b_{group}")
            return value, error, free
        block = find_block(self.design, group)
        line = line_lead(self.design, block) if kind == "line" else None
        select = total_lead(self.design, block) if line is None else line
        if self.design.spec.pooling == "complete":
            shape = (len(block.levels), *select.shape[-2:])
            lead = np.broadcast_to(select, shape)
            variance = np.einsum("jkp,pr,jkr->jk", lead, self.vcov, lead)
            return lead @ self.estimates["beta"], np.sqrt(np.maximum(variance, 0.0)), free
        effects = self.effects[group]
        value = effects.modes + select @ self.estimates.get("beta", np.empty(0))
        # Prediction error of beta_k + b_jk (Henderson 1975): conditional variance of b, plus what
        # the uncertainty of beta adds.
        lead = select - effects.gain
        variance = np.diagonal(effects.covariance, axis1=1, axis2=2) + np.einsum(
            "jkp,pr,jkr->jk", lead, self.vcov, lead
        )
        return value, np.sqrt(np.maximum(variance, 0.0)), np.inf

    def tidy(self, prob: float = 0.95, groups: bool = True, scale: Scale = "link") -> pd.DataFrame:
        """Return every estimate in one tidy table; see `hmlm.tidy`."""
        return tidy_table(self, prob, groups, scale)

    def confint(
        self,
        method: Literal["wald", "profile", "profile-t", "bootstrap"] = "wald",
        prob: float = 0.95,
        *,
        parameters: str | Sequence[str] | None = None,
        n: int = 1000,
        random_seed: int | None = None,
        progressbar: bool = True,
        executor: Executor | None = None,
    ) -> pd.DataFrame:
        """Return intervals of coefficients, sds, correlations and the residual sd.

        Parameters
        ----------
        method : {"wald", "profile", "profile-t", "bootstrap"}
            Estimate and standard error, by the t distribution where the fit has degrees of freedom
            (blank for sds and correlations, which have no honest standard error); profile
            likelihood, always that of ML, as in R; the same with these t quantiles, for few groups;
            or the percentiles of a parametric bootstrap.
        prob : float
            Probability of the intervals.
        parameters : str or sequence of str, optional
            Names such as ``"Days"``, ``"sd_Subject[Days]"``, ``"cor_Subject[Intercept, Days]"`` or
            ``"sigma"``; all parameters but the group effects when None.
        n : int
            Refits of the bootstrap.
        random_seed : int, optional
            Seed of the bootstrap.
        progressbar : bool
            Whether the bootstrap shows how far it is.
        executor : concurrent.futures.Executor, optional
            Where the bootstrap refits; here when None.

        Returns
        -------
        pandas.DataFrame
            Columns ``component, group, term, estimate, lower, upper, prob, interval``.

        Examples
        --------
        >>> import hmlm
        >>> sleep = hmlm.load_dataset("sleepstudy")
        >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
        >>> fit.confint("profile", parameters="sigma")[["term", "lower", "upper"]].round(2)
            term  lower  upper
        0  sigma   22.9  28.86
        """
        from hmlm.fitting.bootstrap import bootstrap_intervals
        from hmlm.fitting.profile import profile_intervals

        if not 0 < prob < 1:
            raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
        if method in ("profile", "profile-t"):
            return profile_intervals(self, prob, parameters, t=method == "profile-t")
        if method == "bootstrap":
            return bootstrap_intervals(
                self, prob, parameters, n, random_seed, progressbar, executor
            )
        if method != "wald":
            raise HmlmError(f"method is wald, profile, profile-t or bootstrap, not {method!r}.")
        chosen = chosen_parameters(self.design, parameters)
        said = {p.variable: self.describe(p.variable, prob) for p in chosen}
        bounds = [
            (
                float(np.asarray(said[p.variable].lower)[p.place]),
                float(np.asarray(said[p.variable].upper)[p.place]),
            )
            for p in chosen
        ]
        return interval_table(chosen, self.estimates, bounds, prob, "wald")

    def summary(self) -> Summary:
        """Return the fit as nlme or glmer prints it, for terminal and notebook."""
        return classical_summary(self)

    def predict(
        self,
        new_data: Any = None,
        kind: Kind = "mean",
        groups: Groups = "include",
        random_seed: int | None = None,
        prob: float = 0.95,
    ) -> pd.DataFrame:
        """Predict the outcome of the rows of the fit, or of new rows.

        Parameters
        ----------
        new_data : data frame, optional
            New rows; those of the fit when None.
        kind : {"mean", "linear", "response"}
            The expected outcome, the linear predictor, or a new observation with its residual
            (of gaussian models).
        groups : {"include", "population", "new", "average"} or mapping of str to one of these
            As in `BayesFit.predict`; new groups widen the interval about the population.
        random_seed : int, optional
            Not used: intervals of classical fits are in closed form.
        prob : float
            Probability of the interval.

        Returns
        -------
        pandas.DataFrame
            Columns ``estimate``, ``std_error``, ``lower`` and ``upper``, a row for each row, with
            the errors of Henderson (1975). Variances of groups count as known.

        Examples
        --------
        >>> import hmlm
        >>> sleep = hmlm.load_dataset("sleepstudy")
        >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
        >>> fit.predict({"Days": [0, 9], "Subject": ["308", "308"]}).round(1)
           estimate  std_error  lower  upper
        0     253.7       12.3  229.6  277.7
        1     430.7       13.9  403.5  457.8
        """
        return predict_classical(self, new_data, kind, groups, prob)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def __str__(self) -> str:
        """Return the summary as text."""
        return str(self.summary())
