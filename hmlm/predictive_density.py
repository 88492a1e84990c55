"""Expected log predictive density of what was left out, with its comparison between fits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hmlm.errors import counted, listed

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

HIGH_K = 0.7


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CrossValidation:
    """Expected log predictive density of rows or groups that were left out.

    Attributes
    ----------
    kind : str
        "leave one out", "leave one group out" or "k-fold".
    label : str
        Name of the fit.
    units : tuple of str
        What was left out, one after the other.
    pointwise : ndarray
        Log predictive density of each.
    pareto_k : ndarray
        Shape of the importance weights of each; NaN where it was fitted anew.
    p : float
        Effective number of parameters; NaN where there is none.
    refitted : tuple of str
        Units whose density comes from a fit without them.
    notes : tuple of str
        Sentences about what was done.
    n_draws : int
        Posterior draws that were weighed; zero for folds.
    """

    kind: str
    label: str
    units: tuple[str, ...]
    pointwise: np.ndarray
    pareto_k: np.ndarray
    p: float
    refitted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    n_draws: int = 0

    @property
    def elpd(self) -> float:
        """Expected log predictive density: the sum over units."""
        return float(self.pointwise.sum())

    @property
    def std_error(self) -> float:
        """Standard error of the sum (Vehtari, Gelman & Gabry 2017, section 4)."""
        return float(np.sqrt(len(self.pointwise) * self.pointwise.var(ddof=1)))

    @property
    def high_k(self) -> int:
        """How many units have a Pareto k above 0.7, so that their density cannot be trusted."""
        return int((self.pareto_k > HIGH_K).sum())

    @property
    def table(self) -> pd.DataFrame:
        """One row a unit: ``unit``, ``elpd``, ``pareto_k`` and whether it was ``refitted``."""
        again = set(self.refitted)
        return pd.DataFrame(
            {
                "unit": self.units,
                "elpd": self.pointwise,
                "pareto_k": self.pareto_k,
                "refitted": [unit in again for unit in self.units],
            }
        )

    def to_arviz(self) -> ELPDData:
        """Return the same as ArviZ's ``ELPDData``, for its comparisons and plots."""
        import xarray as xr
        from arviz_stats.utils import ELPDData, ELPDDataLOO

        coords = {"unit": list(self.units)}
        known: dict[str, Any] = {
            "elpd": self.elpd,
            "se": self.std_error,
            "p": self.p,
            "n_samples": self.n_draws,
            "n_data_points": len(self.units),
            "scale": "log",
            "warning": bool(self.high_k),
            "good_k": HIGH_K,
            "elpd_i": xr.DataArray(self.pointwise, dims="unit", coords=coords),
            "pareto_k": xr.DataArray(self.pareto_k, dims="unit", coords=coords),
        }
        return ELPDDataLOO(**known) if self.n_draws else ELPDData(**known)

    def __str__(self) -> str:
        """Return figures and advice as text."""
        lines = [
            f"{self.label}, {self.kind}: elpd {self.elpd:.1f}, standard error "
            f"{self.std_error:.1f}"
            + ("" if np.isnan(self.p) else f", effective parameters {self.p:.1f}")
        ]
        if self.high_k:
            worst = [self.units[i] for i in np.argsort(-np.nan_to_num(self.pareto_k))[:5]]
            rows = self.kind == "leave one out"
            advice = (
                "Pass exact=True to fit the model anew without these rows; where each is all of a "
                "small group, hmlm.leave_one_group_out(fit) is the steadier question; and see "
                "whether they are outliers, which fit.check() tells."
                if rows
                else "Pass exact=True to fit the model anew without these groups, or use "
                "hmlm.k_fold(fit)."
            )
            lines.append(
                f"{counted(self.high_k, 'row' if rows else 'group')} with a Pareto k above "
                f"{HIGH_K} (the largest: {listed(worst[: self.high_k])}): each moves the "
                f"posterior so far that importance weights do not follow. {advice}"
            )
        return "\n".join([*lines, *self.notes])


def stack_weights(found: Sequence[CrossValidation]) -> np.ndarray:
    """Return the weights of the best mixture of predictions [1]_, by ArviZ's ``compare``.

    References
    ----------
    .. [1] Yao, Vehtari, Simpson and Gelman (2018), Using stacking to average Bayesian predictive
       distributions, Bayesian Analysis 13, 917-1007.
    """
    from arviz_stats.loo import compare

    if len(found) == 1:
        return np.ones(1)
    # A constant for each unit moves no weight, and keeps the densities from vanishing.
    best = np.max([f.pointwise for f in found], axis=0)
    shifted = {
        str(i): replace(f, pointwise=f.pointwise - best).to_arviz() for i, f in enumerate(found)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = compare(shifted, method="stacking", round_to="none")
    return np.clip(table["weight"].loc[list(shifted)].to_numpy(dtype=float), 0.0, 1.0)


def paired_difference(a: CrossValidation, b: CrossValidation) -> tuple[float, float]:
    """Return the difference of two elpd, unit by unit, and its standard error."""
    gap = a.pointwise - b.pointwise
    return float(gap.sum()), float(np.sqrt(len(gap) * gap.var(ddof=1)))
