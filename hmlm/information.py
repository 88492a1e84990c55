"""Information criteria of classical fits, and any fits ranked in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hmlm.cross_validation import leave_one_group_out, leave_one_out
from hmlm.errors import HmlmError, listed
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.classical_fit import ClassicalFit
from hmlm.hat_matrix import effective_parameters
from hmlm.likelihood_ratio import likelihood_ratio_test
from hmlm.predictive_density import CrossValidation, paired_difference, stack_weights

_BAYES = ["elpd_loo", "se_loo", "p_loo", "high_k", "difference", "se_difference", "weight"]
_GROUPS = ["elpd_logo", "se_logo", "difference_logo", "se_difference_logo"]
_CRITERIA = ["aic", "aicc", "bic"]
_CLASSICAL = ["log_likelihood", *_CRITERIA, "caic", "lrt_p", "lrt_against"]


def conditional_aic(fit: ClassicalFit, corrected: bool = False) -> float:
    r"""Return Akaike's criterion for predicting new rows of the same groups.

    .. math:: -2 \log p(y \mid \hat\beta, \hat b, \hat\sigma) + 2 (\rho + 1)

    with rho the effective number of parameters [1]_. It is conditional on the groups that there
    are; `fit.aic` is marginal, for rows of new groups. The variances count as known, by which the
    plain criterion never prefers the model without an effect whose variance is estimated above
    zero; with `corrected` their estimation counts too [2]_.

    Parameters
    ----------
    fit : ClassicalFit
        A fit.
    corrected : bool
        Whether rho holds the estimation of the variances; see
        `hmlm.hat_matrix.effective_parameters`.

    Returns
    -------
    float
        NaN where the family is not gaussian with an identity link.

    References
    ----------
    .. [1] Vaida and Blanchard (2005), Conditional Akaike information for mixed-effects models,
       Biometrika 92, 351-370.
    .. [2] Greven and Kneib (2010), On the behaviour of marginal and conditional AIC in linear mixed
       models, Biometrika 97, 773-789.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.information import conditional_aic
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> fit = model.fit(hmlm.REML())
    >>> round(conditional_aic(fit)), round(conditional_aic(fit, corrected=True))
    (1709, 1712)
    """
    design = fit.design
    if str(design.spec.family) != "gaussian":
        return float("nan")
    sigma = float(fit.estimates.get("sigma", 1.0))
    weights = np.ones(len(design.y)) if design.weights is None else design.weights
    square = weights * ((design.y - fit.fitted) / sigma) ** 2
    log_density = -0.5 * (square + np.log(2 * np.pi * sigma**2) - np.log(weights))
    free = effective_parameters(fit, corrected) + (not design.known_se)
    return float(-2.0 * log_density.sum() + 2.0 * free)


def corrected_aic(fit: ClassicalFit) -> float:
    """Return AICc, the AIC for few rows: NaN where there are hardly more rows than parameters.

    AIC + 2 k (k + 1) / (n - k - 1), of k parameters and n rows (n - p under REML), after Hurvich
    and Tsai (1989), Regression and time series model selection in small samples, Biometrika 76,
    297-307. Rows count as independent in it, which those of one group are not.

    Parameters
    ----------
    fit : ClassicalFit
        A fit.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.information import corrected_aic
    >>> fit = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff")).fit(hmlm.ML())
    >>> round(fit.aic, 2), round(corrected_aic(fit), 2)
    (333.33, 334.25)
    """
    k, n = fit.n_parameters, fit.n_effective
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
        A row a fit, posteriors first, the best first.

        Of posteriors ``elpd_loo`` (a new row of a known group), its standard error ``se_loo``,
        effective parameters ``p_loo`` and rows of high Pareto k; the ``difference`` from the best
        and its standard error, row by row; the ``weight`` in the best mixture of predictions
        (stacking); and the same of new groups, ``elpd_logo``.

        Of classical fits ``log_likelihood``, ``aic``, ``aicc`` and ``bic``, which are marginal: of
        new groups; the conditional ``caic`` of known groups, with the correction of Greven and
        Kneib; and ``lrt_p``, the p-value of the likelihood-ratio test against the largest of the
        other fits that is nested in it, named in ``lrt_against``.

        What does not compare is blank, and ``attrs["notes"]`` says why.

    Raises
    ------
    HmlmError
        If the fits are of different outcomes, of one outcome transformed in two ways, or of
        different rows.

    See Also
    --------
    hmlm.compare : Estimates side by side.

    Examples
    --------
    >>> import hmlm
    >>> radon = hmlm.load_dataset("radon")
    >>> plain = hmlm.Model("log_radon ~ floor + (1 | county)", radon).fit(hmlm.ML())
    >>> soil = hmlm.Model("log_radon ~ floor + log_uranium + (1 | county)", radon).fit(hmlm.ML())
    >>> hmlm.rank_fits(plain, soil)["aic"].round(1).tolist()
    [2058.0, 2097.7]
    """
    _check_outcomes(fits)
    bayes = {i: f for i, f in enumerate(fits) if isinstance(f, BayesFit)}
    classical = {i: f for i, f in enumerate(fits) if isinstance(f, ClassicalFit)}
    rows: list[dict[str, Any]] = [
        {
            "fit": f.label,
            "formula": f.design.spec.formula,
            "family": str(f.design.spec.family),
            "lrt_against": "",
        }
        for f in fits
    ]
    notes: list[str] = []
    loo = {i: leave_one_out(f) for i, f in bayes.items()}
    for i, found in loo.items():
        rows[i] |= {
            "elpd_loo": found.elpd,
            "se_loo": found.std_error,
            "p_loo": found.p,
            "high_k": found.high_k,
        }
    if any(found.high_k for found in loo.values()):
        notes.append(
            "Rows with a Pareto k above 0.7: print hmlm.leave_one_out(fit) for what to do about "
            "them."
        )
    _differences(rows, loo, "")
    if loo:
        for i, weight in zip(loo, stack_weights(list(loo.values())), strict=True):
            rows[i]["weight"] = float(weight)
    if groups:
        _leave_groups_out(rows, bayes, notes)
    _criteria(rows, classical, notes)
    columns = ["fit", "formula", "family", *(_BAYES if bayes else [])]
    columns += _GROUPS if any("elpd_logo" in row for row in rows) else []
    table = pd.DataFrame(rows, columns=[*columns, *(_CLASSICAL if classical else [])])
    if bayes:
        table["high_k"] = table["high_k"].astype("Int64")
    if blank := not classical or table["aic"].isna().all():
        notes.extend(["The classical fits are ranked by caic."] if classical else [])
    by = {"elpd_loo": False, ("caic" if blank else "aic"): True}
    keys = {name: up for name, up in by.items() if name in table}
    table = table.sort_values(
        list(keys), ascending=list(keys.values()), ignore_index=True, na_position="last"
    )
    table.attrs["notes"] = notes
    return table


def _check_outcomes(fits: Sequence[Any]) -> None:
    """Refuse fits whose predictions do not compare."""
    if len(fits) < 2:
        raise HmlmError("rank_fits needs two fits or more.")
    first = fits[0].design
    for fit in fits[1:]:
        design = fit.design
        a, b = first.spec.outcome, design.spec.outcome
        if a != b:
            shared = set(first.spec.columns) & set(design.spec.columns)
            same = any(c in a and c in b for c in shared)
            raise HmlmError(
                f"densities of '{a}' and of '{b}' do not compare"
                + (
                    ": they are densities on different scales. Fit both models to one of them; a "
                    "logarithm is a matter of the family, as in family='lognormal'."
                    if same
                    else ": these are different outcomes. Fit all models to one of them."
                )
            )
        if len(design.y) != len(first.y):
            sizes = listed(f"{f.label}: {len(f.design.y):,}" for f in fits)
            raise HmlmError(
                f"the fits use different numbers of rows ({sizes}), perhaps because of missing "
                "values: fit all models to the same complete rows."
            )
        if not np.array_equal(design.y, first.y) or design.categories != first.categories:
            raise HmlmError(
                f"the fits have different values of '{a}': fit all models to the same table, in "
                "the same order of rows."
            )
        if design.spec.family.discrete != first.spec.family.discrete:
            raise HmlmError(
                f"probabilities of a {_kind(first)} outcome do not compare with densities of a "
                f"{_kind(design)} one: fit all models with families of one kind."
                if first.spec.family.discrete
                else f"densities of a {_kind(first)} outcome do not compare with probabilities of "
                f"a {_kind(design)} one: fit all models with families of one kind."
            )


def _kind(design: Any) -> str:
    return str(design.spec.family)


def _differences(
    rows: list[dict[str, Any]], found: dict[int, CrossValidation], suffix: str
) -> None:
    """Add differences from the best posterior, unit by unit."""
    if not found:
        return
    best = max(found.values(), key=lambda f: f.elpd)
    for i, one in found.items():
        gap, error = paired_difference(one, best)
        rows[i] |= {f"difference{suffix}": gap, f"se_difference{suffix}": error}


def _leave_groups_out(
    rows: list[dict[str, Any]], bayes: dict[int, BayesFit], notes: list[str]
) -> None:
    """Add what leaving groups out says, of one factor that all posteriors have."""
    pooled = {
        i: f for i, f in bayes.items() if f.design.spec.pooling == "partial" and f.design.blocks
    }
    factors = [[b.group for b in f.design.blocks] for f in pooled.values()]
    common = [g for g in factors[0] if all(g in own for own in factors)] if factors else []
    if not common:
        if factors:
            notes.append(
                "elpd_logo is left out: the fits have no grouping factor in common whose levels "
                "could be left out of all of them."
            )
        return
    group = common[0]
    found = {i: leave_one_group_out(f, group) for i, f in pooled.items()}
    for i, whole in found.items():
        rows[i] |= {"elpd_logo": whole.elpd, "se_logo": whole.std_error}
        notes.extend(f"{rows[i]['formula']}, without {group}: {n}" for n in whole.notes)
    _differences(rows, found, "_logo")
    notes.append(f"elpd_logo leaves out the levels of {group}.")


def _criteria(
    rows: list[dict[str, Any]], classical: dict[int, ClassicalFit], notes: list[str]
) -> None:
    """Add what classical fits have; blank what does not compare."""
    restricted = {f.restricted for f in classical.values()}
    terms = {f.design.terms for f in classical.values()}
    blank = len(classical) > 1 and True in restricted and (len(restricted) > 1 or len(terms) > 1)
    if blank:
        notes.append(
            "log_likelihood, aic, aicc and bic are left out: restricted likelihoods compare only "
            "among fits by REML with the same population terms. Fit the models with hmlm.ML()."
        )
    for i, fit in classical.items():
        rows[i]["caic"] = _conditional(fit)
        if not blank:
            rows[i] |= {
                "log_likelihood": fit.log_likelihood,
                "aic": fit.aic,
                "aicc": corrected_aic(fit),
                "bic": fit.bic,
            }
        smaller = [f for f in classical.values() if f.n_parameters < fit.n_parameters]
        for other in sorted(smaller, key=lambda f: -f.n_parameters):
            try:
                test = likelihood_ratio_test(other, fit)
            except HmlmError:
                continue
            rows[i] |= {"lrt_p": float(test["p_value"].iloc[0]), "lrt_against": test["smaller"][0]}
            break


def _conditional(fit: ClassicalFit) -> float:
    try:
        return conditional_aic(fit, corrected=True)
    except HmlmError:
        return float("nan")
