"""Likelihood-ratio tests between nested fits, with the mixture at the edge for a variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from hmlm.design import Block, Design
from hmlm.errors import HmlmError, counted, listed
from hmlm.fitting.classical_fit import ClassicalFit

TOLERANCE = 1e-3
NOTHING = 1e-6
SPAN = 1e-7


def likelihood_ratio_test(smaller: ClassicalFit, larger: ClassicalFit) -> pd.DataFrame:
    """Test a fit against a larger one that it is nested in.

    Twice the gain in log-likelihood is compared with chi-squared on as many degrees of freedom as
    the larger model has parameters more. Where the smaller model sets one variance to zero, at the
    edge of what is possible, half of the statistic's distribution has one degree less: 0.5 chi2(k)
    + 0.5 chi2(k + 1), k the number of other parameters that it sets, which are the covariances of
    that effect and population coefficients; with one variance alone 0.5 chi2(0) + 0.5 chi2(1)
    (Self & Liang 1987; Stram & Lee 1994). With several variances the plain chi-squared
    distribution is used, whose p-value is then too large: the test is conservative.

    Parameters
    ----------
    smaller, larger : ClassicalFit
        Two fits by ML, or two by REML with the same population terms. The smaller may also be
        complete pooling by least squares, against a larger one by ML.

    Returns
    -------
    pandas.DataFrame
        One row: the formulas ``smaller`` and ``larger``, ``df``, ``log_likelihood_smaller``,
        ``log_likelihood_larger``, ``statistic``, ``p_value`` and ``method``, the distribution that
        the p-value comes from.

    Raises
    ------
    HmlmError
        If the fits are not of the same data, are not nested, or their likelihoods do not compare.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> one = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleep).fit(hmlm.ML())
    >>> two = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.ML())
    >>> test = likelihood_ratio_test(one, two)
    >>> test[["df", "statistic", "method"]].round(2)
       df  statistic                       method
    0   2      42.14  0.5 chi2(1) + 0.5 chi2(2)
    """
    _check_kind(smaller, larger)
    _check_data(smaller.design, larger.design)
    df = larger.n_parameters - smaller.n_parameters
    if df < 0:
        raise HmlmError(
            f"the first fit has more parameters than the second ({smaller.n_parameters} and "
            f"{larger.n_parameters}): pass the smaller fit first."
        )
    _check_population(smaller.design, larger.design, larger.restricted)
    variances = _new_variances(smaller.design, larger.design)
    if df == 0:
        raise HmlmError("both fits have the same parameters: there is nothing to test.")
    statistic = 2 * (larger.log_likelihood - smaller.log_likelihood)
    if statistic < -TOLERANCE:
        raise HmlmError(
            "the larger fit has the lower likelihood "
            f"({larger.log_likelihood:.4f} against {smaller.log_likelihood:.4f}): it did not reach "
            "its maximum, see its .status."
        )
    statistic = max(statistic, 0.0)
    p_value, method = _reference(statistic, df, variances)
    return pd.DataFrame(
        {
            "smaller": [_name(smaller)],
            "larger": [_name(larger)],
            "df": [df],
            "log_likelihood_smaller": [smaller.log_likelihood],
            "log_likelihood_larger": [larger.log_likelihood],
            "statistic": [statistic],
            "p_value": [p_value],
            "method": [method],
        }
    )


def _name(fit: ClassicalFit) -> str:
    formula = fit.design.spec.formula
    return formula if fit.design.spec.pooling == "partial" else f"{formula}, {fit.label}"


def _reference(statistic: float, df: int, variances: int) -> tuple[float, str]:
    """Return the p-value and what it comes from."""

    def tail(k: int) -> float:
        if k == 0:
            return 1.0 if statistic < NOTHING else 0.0
        return float(special.chdtrc(k, statistic))

    if variances == 0:
        return tail(df), f"chi2({df})"
    if variances == 1:
        return (
            0.5 * tail(df - 1) + 0.5 * tail(df),
            f"0.5 chi2({df - 1}) + 0.5 chi2({df})",
        )
    return tail(df), f"chi2({df}), conservative: {variances} variances at zero"


def _check_kind(smaller: Any, larger: Any) -> None:
    for fit in (smaller, larger):
        if not isinstance(fit, ClassicalFit):
            raise HmlmError(
                "a likelihood-ratio test needs two classical fits, such as those of hmlm.ML(); "
                f"{getattr(fit, 'label', repr(fit)):.40} is none."
            )
        if fit.design.spec.pooling == "none":
            raise HmlmError(
                "no pooling is not nested in partial pooling, whose groups share a distribution: "
                "compare the fits with hmlm.compare."
            )
    if smaller.design.spec.family.name != larger.design.spec.family.name:
        raise HmlmError(
            f"fits of different families ({smaller.design.spec.family.name} and "
            f"{larger.design.spec.family.name}) are not nested."
        )
    if smaller.restricted != larger.restricted:
        raise HmlmError(
            f"a restricted likelihood does not compare with an unrestricted one ({smaller.label} "
            f"and {larger.label}): fit both models with hmlm.ML()."
        )


def _check_data(smaller: Design, larger: Design) -> None:
    """Refuse fits of different outcomes, rows, weights or offsets."""
    if smaller.spec.outcome != larger.spec.outcome:
        raise HmlmError(
            "fits of different outcomes do not compare: "
            f"{listed([smaller.spec.outcome, larger.spec.outcome])}."
        )
    if smaller.n_rows != larger.n_rows:
        raise HmlmError(
            f"the fits use {counted(smaller.n_rows, 'row')} and {counted(larger.n_rows, 'row')}, "
            "perhaps because of missing values: fit both to the same complete rows."
        )
    if smaller.cells is not None or larger.cells is not None:
        own, other = smaller.response_moments, larger.response_moments
        if not np.allclose([own.mean, own.sd], [other.mean, other.sd], rtol=1e-9) or (
            smaller.spec.weights != larger.spec.weights
        ):
            raise HmlmError("the fits have different outcomes: fit both to the same table.")
        return
    ones, zeros = np.ones(len(larger.y)), np.zeros(len(larger.y))
    for what, fill, values in (
        ("outcomes", zeros, (smaller.y, larger.y)),
        ("weights", ones, (smaller.weights, larger.weights)),
        ("offsets", zeros, (smaller.offset, larger.offset)),
    ):
        a, b = (fill if v is None else v for v in values)
        if not np.array_equal(a, b):
            raise HmlmError(
                f"the fits have different {what}: fit both to the same table, in the same order of "
                "rows."
            )


def _check_population(smaller: Design, larger: Design, restricted: bool) -> None:
    if smaller.cells is not None or larger.cells is not None:
        # Sums do not show the rows: columns are the same where their names are.
        inside = np.isin(smaller.terms, larger.terms)
    else:
        inside = _spanned(smaller.X, larger.X)
    if outside := [t for t, i in zip(smaller.terms, inside, strict=True) if not i]:
        raise HmlmError(f"not nested: the larger fit lacks {listed(outside)} of the smaller one.")
    same = sorted(smaller.terms) == sorted(larger.terms)
    if same and smaller.cells is None and larger.cells is None:
        order = [larger.terms.index(t) for t in smaller.terms]
        same = np.array_equal(smaller.X, larger.X[:, order])
    if restricted and not same:
        raise HmlmError(
            "REML likelihoods of models with different fixed effects are those of different data "
            "and do not compare: fit the models with hmlm.ML() instead."
        )


def _new_variances(smaller: Design, larger: Design) -> int:
    """Check that the group terms are nested, and count the variances that the larger fit adds."""
    by_name = {b.group: b for b in larger.blocks}
    for block in smaller.blocks:
        if block.group not in by_name:
            raise HmlmError(
                f"not nested: the larger fit lacks the group term of '{block.group}' of the "
                "smaller one."
            )
        _check_block(block, by_name[block.group])
    own = {b.group: set(b.columns) for b in smaller.blocks}
    return sum(len(set(b.columns) - own.get(b.group, set())) for b in larger.blocks)


def _check_block(small: Block, large: Block) -> None:
    if missing := [c for c in small.columns if c not in large.columns]:
        raise HmlmError(
            f"not nested: the larger fit lacks the effects {listed(missing)} by '{small.group}' of "
            "the smaller one."
        )
    part_of = {c: k for k, part in enumerate(large.slices) for c in large.columns[part]}
    for part in small.slices:
        names = small.columns[part]
        if len({part_of[c] for c in names}) > 1:
            raise HmlmError(
                f"not nested: the effects {listed(names)} by '{small.group}' are correlated in the "
                "smaller fit, and not in the larger one."
            )


def _spanned(columns: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return which columns are linear combinations of others."""
    if not columns.shape[1]:
        return np.empty(0, dtype=bool)
    size = np.sqrt((columns**2).sum(axis=0))
    if not by.shape[1]:
        return size <= 0
    Q, _ = np.linalg.qr(by / np.sqrt((by**2).sum(axis=0)))
    scaled = columns / size
    rest = scaled - Q @ (Q.T @ scaled)
    return np.sqrt((rest**2).sum(axis=0)) < SPAN
