"""Fits of several completed data sets, combined into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from hmlm.design import Design
from hmlm.errors import HmlmError, listed
from hmlm.estimates import Numbers, Scale, tidy_table
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.new_rows import Groups
from hmlm.prediction import Kind
from hmlm.status import Status


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PooledFit:
    """Fits of one model to several completed data sets, and what they say together.

    Attributes
    ----------
    fits : tuple of BayesFit or tuple of ClassicalFit
        One for each data set.
    """

    fits: tuple[Any, ...]
    _kept: dict[str, BayesFit] = field(default_factory=dict)

    @property
    def design(self) -> Design:
        """What was fitted, on the first data set."""
        design: Design = self.fits[0].design
        return design

    @property
    def method(self) -> Any:
        """The method and its settings."""
        return self.fits[0].method

    @property
    def label(self) -> str:
        """Short name of the fit for the head of a column."""
        return f"{self.fits[0].label}, {len(self.fits)} data sets"

    @property
    def status(self) -> Status:
        """What every fit has to say, with the number of its data set."""

        def gathered(kind: str) -> tuple[str, ...]:
            found: dict[str, list[str]] = {}
            for number, fit in enumerate(self.fits, 1):
                for sentence in getattr(fit.status, kind):
                    found.setdefault(sentence, []).append(str(number))
            every = len(self.fits)
            return tuple(
                text if len(who) == every else f"Data set {listed(who)}: {text}"
                for text, who in found.items()
            )

        return Status(
            converged=all(fit.status.converged for fit in self.fits),
            problems=gathered("problems"),
            notes=gathered("notes"),
            numbers={"data_sets": float(len(self.fits))},
        )

    @property
    def combined(self) -> BayesFit:
        """All draws as one Bayesian fit: the posterior averaged over the data sets.

        Its chains are those of all fits, one after the other. They differ by what the data sets
        differ in, so that R-hat across them says nothing about convergence: see `status`. Rows are
        those of the first data set.

        Raises
        ------
        HmlmError
            If the fits are classical.
        """
        first = self.fits[0]
        if not isinstance(first, BayesFit):
            raise HmlmError(
                f"fits by {first.label} have no draws: use tidy(), which combines estimates by "
                "Rubin's rules, or fit by hmlm.NUTS()."
            )
        if "combined" not in self._kept:
            fits: tuple[BayesFit, ...] = self.fits
            effects = [n for n in first.design.dims if n not in first._parameters]
            self._kept["combined"] = replace(
                first,
                status=self.status,
                seconds=sum(fit.seconds for fit in fits),
                _parameters={n: _stack(fits, n) for n in first._parameters},
                _stats={n: np.concatenate([f._stats[n] for f in fits]) for n in first._stats},
                _draw_effects=lambda: {n: _stack(fits, n) for n in effects},
                _runs=(),
                _conditional=False,
                _kept={},
            )
        return self._kept["combined"]

    def variable(self, name: str) -> np.ndarray:
        """Return the draws of one variable, shape (chains of all fits, draws, ...)."""
        return self.combined.variable(name)

    def describe(self, name: str, prob: float, ratio: bool = False) -> Numbers:
        """Return the numbers of one variable: pooled draws, or estimates by Rubin's rules."""
        said = [fit.describe(name, prob) for fit in self.fits]
        if isinstance(self.fits[0], BayesFit):
            checks = [(n.ess_bulk, n.r_hat) for n in said if n.ess_bulk is not None]
            return replace(
                self.combined.describe(name, prob, ratio),
                ess_bulk=np.sum([ess for ess, _ in checks], axis=0) if checks else None,
                r_hat=np.max([r_hat for _, r_hat in checks], axis=0) if checks else None,
            )
        tested = said[0].df is not None
        found = combine_estimates(
            [n.estimate for n in said],
            [n.std_error for n in said],
            np.mean([n.df for n in said], axis=0) if tested else np.inf,
        )
        value, error = found["estimate"], found["std_error"]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            half = special.stdtrit(found["df"], 0.5 + prob / 2) * error
            statistic = value / error
            p_value = 2 * special.stdtr(found["df"], -np.abs(statistic))
            lower, upper = value - half, value + half
            if ratio:
                value, lower, upper = np.exp(value), np.exp(lower), np.exp(upper)
                error = value * error
        return Numbers(
            estimate=value,
            std_error=error,
            lower=lower,
            upper=upper,
            interval="wald",
            df=found["df"] if tested else None,
            statistic=statistic if tested else None,
            p_value=p_value if tested else None,
        )

    def tidy(self, prob: float = 0.95, groups: bool = True, scale: Scale = "link") -> pd.DataFrame:
        """Return every estimate in one tidy table.

        Parameters
        ----------
        prob, groups, scale
            As in `hmlm.tidy`.

        Returns
        -------
        pandas.DataFrame
            The columns of `hmlm.tidy`, then ``riv``, the relative increase in variance that the
            missing values bring, and ``fmi``, the fraction of information that is missing. Both
            are blank where there is no standard error; with ``scale="ratio"`` they are those of
            the coefficients.
        """
        table = tidy_table(self, prob, groups, scale)
        tables = [
            fit.tidy(prob, groups, "link" if scale == "ratio" else scale) for fit in self.fits
        ]
        found = combine_estimates(
            [t["estimate"].to_numpy() for t in tables],
            [t["std_error"].to_numpy() for t in tables],
            np.inf if tables[0]["df"].isna().all() else _known_df(tables),
        )
        r = found["riv"]
        table["riv"] = r
        # The share of the posterior variance that lies between data sets; Rubin's adds to it what
        # the few degrees of freedom cost.
        table["fmi"] = r / (1 + r) if isinstance(self.fits[0], BayesFit) else found["fmi"]
        return table

    def predict(
        self,
        new_data: Any,
        kind: Kind = "mean",
        groups: Groups = "include",
        random_seed: int | None = None,
        prob: float = 0.95,
    ) -> pd.DataFrame:
        """Predict the outcome of new rows; see `BayesFit.predict`.

        Classical predictions are combined by Rubin's rules, on the scale of `kind`.

        Returns
        -------
        pandas.DataFrame
            Columns ``estimate``, ``std_error``, ``lower`` and ``upper``, a row for each new row.
        """
        if new_data is None:
            raise HmlmError(
                "the rows of the data sets differ in what was missing: pass new_data, for example "
                "one of the data sets."
            )
        if isinstance(self.fits[0], BayesFit):
            return self.combined.predict(new_data, kind, groups, random_seed, prob)
        tables = [fit.predict(new_data, kind, groups, random_seed, prob) for fit in self.fits]
        found = combine_estimates(
            [t["estimate"].to_numpy() for t in tables],
            [t["std_error"].to_numpy() for t in tables],
        )
        half = special.stdtrit(found["df"], 0.5 + prob / 2) * found["std_error"]
        return pd.DataFrame(
            {
                "estimate": found["estimate"],
                "std_error": found["std_error"],
                "lower": found["estimate"] - half,
                "upper": found["estimate"] + half,
            }
        )

    def __repr__(self) -> str:
        """Return one line: the model, the method, the number of data sets."""
        return f"<PooledFit {self.design.spec.formula!r} by {self.label}>"


def _stack(fits: Sequence[BayesFit], name: str) -> np.ndarray:
    return np.concatenate([fit.variable(name) for fit in fits])


def _known_df(tables: list[pd.DataFrame]) -> np.ndarray:
    """Return degrees of freedom of complete data: of population rows; elsewhere they are many."""
    mean = np.mean([t["df"].to_numpy(dtype=float) for t in tables], axis=0)
    return np.where(tables[0]["component"] == "population", mean, np.inf)


def combine_estimates(
    estimates: Sequence[Any], std_errors: Sequence[Any], df: Any = np.inf
) -> dict[str, np.ndarray]:
    r"""Combine estimates from several completed data sets by Rubin's rules.

    With m estimates Q_l and their squared standard errors U_l [1]_, the combined estimate is the
    average of Q_l; its variance is T = U + (1 + 1/m) B, where U is the average of U_l and B the
    variance of Q_l. With lambda = (1 + 1/m) B / T and nu the degrees of freedom of complete data,
    those of the combined estimate are [2]_

    1 / (lambda^2 / (m - 1) + 1 / (nu (nu + 1) (1 - lambda) / (nu + 3))).

    Parameters
    ----------
    estimates, std_errors : sequence of array_like
        One for each data set, all of one shape.
    df : float or array_like
        Degrees of freedom of complete data.

    Returns
    -------
    dict of str to ndarray
        ``estimate``, ``std_error``, ``df``, ``riv`` (relative increase in variance,
        (1 + 1/m) B / U) and ``fmi`` (fraction of missing information,
        (riv + 2 / (df + 3)) / (riv + 1)). All but the estimate are NaN where a standard error is.

    References
    ----------
    .. [1] Rubin (1987), Multiple Imputation for Nonresponse in Surveys, section 3.1.
    .. [2] Barnard and Rubin (1999), Small-sample degrees of freedom with multiple imputation,
       Biometrika 86, 948-955.

    Examples
    --------
    >>> from hmlm.pooled_fit import combine_estimates
    >>> found = combine_estimates([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], df=20.0)
    >>> {name: round(float(value), 4) for name, value in found.items()}
    {'estimate': 2.0, 'std_error': 1.5275, 'df': 3.4359, 'riv': 1.3333, 'fmi': 0.7046}
    """
    Q, U = np.asarray(estimates, dtype=float), np.asarray(std_errors, dtype=float) ** 2
    m, nu = len(Q), np.asarray(df, dtype=float)
    within, between = U.mean(axis=0), (1 + 1 / m) * Q.var(axis=0, ddof=1)
    T = within + between
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(T > 0, between / T, np.where(np.isnan(T), np.nan, 0.0))
        observed = np.where(np.isinf(nu), np.inf, nu * (nu + 1) * (1 - share) / (nu + 3))
        free = 1.0 / (share**2 / (m - 1) + 1.0 / observed)
        riv = np.where(share == 0, 0.0, between / within)
        # The limit as the variance within goes to zero is one.
        fmi = np.where(np.isinf(riv), 1.0, (riv + 2 / (free + 3)) / (riv + 1))
    return {
        "estimate": Q.mean(axis=0),
        "std_error": np.sqrt(T),
        "df": np.asarray(free),
        "riv": np.asarray(riv),
        "fmi": np.asarray(fmi),
    }
