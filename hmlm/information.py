"""Information criteria of classical fits, and any fits ranked in one table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hmlm.cross_validation import (
    CrossValidation,
    leave_one_group_out,
    leave_one_out,
    paired_difference,
    stack_weights,
)
from hmlm.errors import HmlmError, listed
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.classical_fit import ClassicalFit
from hmlm.likelihood_ratio import likelihood_ratio_test
from hmlm.prediction import effect_covariance

_TINY = 1e-10


def effective_parameters(fit: ClassicalFit) -> float:
    """Return the effective number of coefficients and effects: the trace of the hat matrix.

    Between the number of population coefficients, where effects are pooled to zero, and that of
    all coefficients and effects, where they are not pooled (Hodges & Sargent 2001; Vaida &
    Blanchard 2005, section 3).

    Parameters
    ----------
    fit : ClassicalFit
        A gaussian fit by ML, REML, EM or OLS.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.information import effective_parameters
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> 1 < effective_parameters(model.fit(hmlm.REML())) < 6
    True
    """
    design = fit.design
    total = float(len(design.terms))
    if design.spec.pooling == "none":
        return total + sum(float(fit.effects[b.group].estimable.sum()) for b in design.blocks)
    for block in design.blocks:
        effects = fit.effects[block.group]
        D = effect_covariance(fit.estimates, f"sd_{block.group}", f"cor_{block.group}")
        error = effects.covariance + effects.gain @ fit.vcov @ np.swapaxes(effects.gain, 1, 2)
        values, vectors = np.linalg.eigh(D)
        own = np.einsum("ak,jab,bk->jk", vectors, error, vectors, optimize=True)
        # An effect of variance zero costs nothing.
        some = values > _TINY * max(float(values.max()), _TINY)
        total += float((1.0 - own[:, some] / values[some]).sum())
    return total


def conditional_aic(fit: ClassicalFit) -> float:
    """Return Akaike's criterion for predicting new rows of the same groups.

    -2 log p(y | beta, b, sigma) + 2 (effective parameters + 1), after Vaida & Blanchard (2005);
    that of `fit.aic` is for new groups. The variances count as known.

    Parameters
    ----------
    fit : ClassicalFit
        A fit.

    Returns
    -------
    float
        NaN where the family is not gaussian.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.information import conditional_aic
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> round(conditional_aic(model.fit(hmlm.REML())))
    1709
    """
    design = fit.design
    if str(design.spec.family) != "gaussian":
        return float("nan")
    sigma = float(fit.estimates.get("sigma", 1.0))
    weights = np.ones(len(design.y)) if design.weights is None else design.weights
    residual = design.y - fit.fitted
    square = weights * (residual / sigma) ** 2
    log_density = -0.5 * (square + np.log(2 * np.pi * sigma**2) - np.log(weights))
    free = effective_parameters(fit) + (not design.known_se)
    return float(-2.0 * log_density.sum() + 2.0 * free)


def corrected_aic(fit: ClassicalFit) -> float:
    """Return AIC with the correction for few rows of Hurvich & Tsai (1989)."""
    k, n = fit.n_parameters, len(fit.design.y)
    return fit.aic + 2.0 * k * (k + 1) / (n - k - 1) if n > k + 1 else float("nan")


def rank_fits(*fits: BayesFit | ClassicalFit, groups: bool = True) -> pd.DataFrame:
    """Rank fits of the same outcome by how well they predict, all criteria in one table.

    Parameters
    ----------
    *fits : BayesFit or ClassicalFit
        Two or more fits of the same rows.
    groups : bool
        Whether to leave whole groups out as well, where a posterior pools partially.

    Returns
    -------
    pandas.DataFrame
        A row a fit, the best first. Of posteriors ``elpd_loo`` (a new row of a known group), its
        standard error, effective parameters ``p_loo``, rows of high Pareto k, the difference from
        the best with its own standard error, the ``weight`` in the best mixture of predictions,
        and ``elpd_logo`` (a new group). Of classical fits ``log_likelihood``, ``aic``, ``aicc``,
        ``bic``, the conditional ``caic``, and ``lrt_p``, the p-value of the likelihood-ratio test
        against the classical fit given before it, where one of the two is nested in the other.

    Raises
    ------
    HmlmError
        If the fits are of different outcomes or rows.

    Examples
    --------
    >>> import hmlm
    >>> radon = hmlm.load_dataset("radon")
    >>> plain = hmlm.Model("log_radon ~ floor + (1 | county)", radon).fit(hmlm.ML())
    >>> soil = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", radon).fit(hmlm.ML())
    >>> hmlm.rank_fits(plain, soil)["aic"].round(1).tolist()
    [2058.0, 2097.7]
    """
    if len(fits) < 2:
        raise HmlmError("rank_fits needs two fits or more.")
    first = fits[0].design
    for fit in fits[1:]:
        same = fit.design.spec.outcome == first.spec.outcome
        if not same or len(fit.design.y) != len(first.y) or (fit.design.y != first.y).any():
            what = listed(f"{f.label}: {f.design.spec.outcome}, {len(f.design.y):,}" for f in fits)
            raise HmlmError(
                f"predictions of different outcomes or rows do not compare ({what} rows): fit all "
                "models to the same outcome and the same complete rows."
            )
    loo: dict[int, CrossValidation] = {}
    rows: list[dict[str, Any]] = []
    earlier: ClassicalFit | None = None
    for i, fit in enumerate(fits):
        row: dict[str, Any] = {"fit": fit.label, "formula": fit.design.spec.formula}
        if isinstance(fit, BayesFit):
            loo[i] = leave_one_out(fit)
            row |= {
                "elpd_loo": loo[i].elpd,
                "se_loo": loo[i].std_error,
                "p_loo": loo[i].p,
                "high_k": loo[i].high_k,
            }
            if groups and fit.design.spec.pooling == "partial" and fit.design.blocks:
                whole = leave_one_group_out(fit)
                row |= {"elpd_logo": whole.elpd, "se_logo": whole.std_error}
        else:
            row |= {
                "log_likelihood": fit.log_likelihood,
                "aic": fit.aic,
                "aicc": corrected_aic(fit),
                "bic": fit.bic,
                "caic": conditional_aic(fit),
                "lrt_p": _nested_test(earlier, fit),
            }
            earlier = fit
        rows.append(row)
    _differences(rows, loo)
    table = pd.DataFrame(rows)
    by = "elpd_loo" if "elpd_loo" in table else "aic"
    return table.sort_values(by, ascending=by == "aic", ignore_index=True, na_position="last")


def _differences(rows: list[dict[str, Any]], loo: dict[int, CrossValidation]) -> None:
    """Add differences from the best posterior, and weights."""
    if not loo:
        return
    best = max(loo, key=lambda i: loo[i].elpd)
    weights = stack_weights(list(loo.values())) if len(loo) > 1 else np.ones(1)
    for weight, (i, found) in zip(weights, loo.items(), strict=True):
        gap, error = paired_difference(found, loo[best])
        rows[i] |= {"difference": gap, "se_difference": error, "weight": float(weight)}


def _nested_test(smaller: ClassicalFit | None, larger: ClassicalFit) -> float:
    """Return the p-value of a likelihood-ratio test; NaN where the fits are not nested."""
    if smaller is None:
        return float("nan")
    if smaller.n_parameters > larger.n_parameters:
        smaller, larger = larger, smaller
    try:
        found = likelihood_ratio_test(smaller, larger)
    except HmlmError:
        return float("nan")
    return float(found["p_value"].iloc[0])
