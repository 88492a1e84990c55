"""Average predictions, comparisons and slopes: what a model says in the units of the outcome.

Quantities and words are those of Arel-Bundock, Greifer and Heiss (2024, "How to interpret
statistical models using marginaleffects for R and Python", Journal of Statistical Software 111):
predict in every row, with a predictor set to one value and to another, then average over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pandas as pd

from hmlm.averages import (
    Cells,
    Comparing,
    Scale,
    average_settings,
    compared,
    make_cells,
    result_table,
    whole_frame,
)
from hmlm.contrasts import Contrast, Setting, make_contrasts, slope_contrasts
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.new_rows import Groups, group_modes
from hmlm.prediction import check_request

_PROBABILITIES = ("binary", "trials", "unit", "ordered", "category")


def average_predictions(
    fit: Any,
    by: str | Sequence[str] | None = None,
    new_data: Any = None,
    *,
    kind: Scale = "mean",
    groups: Groups = "include",
    prob: float = 0.95,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Average the predictions of rows, over all of them or by the values of columns.

    Parameters
    ----------
    fit : ClassicalFit or BayesFit
        The fit.
    by : str or sequence of str, optional
        Columns whose every combination of values has an average of its own.
    new_data : data frame, optional
        Rows to average over; those of the fit when None. `hmlm.grid_of` makes some.
    kind : {"mean", "linear"}
        Expected outcomes, or linear predictors.
    groups : {"include", "population", "new", "average"} or mapping of str to one of these
        What becomes of group effects; see `BayesFit.predict`.
    prob : float
        Probability of the intervals.
    random_seed : int, optional
        Seed of the draws of new groups.

    Returns
    -------
    pandas.DataFrame
        Columns of `by`, ``category`` where the outcome has categories, ``estimate``,
        ``std_error``, ``lower``, ``upper`` and ``prob``. Means, sds and equal-tailed intervals of
        draws; of a classical fit estimates with errors by the delta method, from the joint error
        of coefficients and group effects (Henderson 1975), and normal intervals. Variances of
        groups count as known in a classical fit.

    Raises
    ------
    HmlmError
        If a column or a level is unknown.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> average_predictions(fit, groups="population").round(2)
       estimate  std_error   lower   upper  prob
    0    298.51       9.05  280.77  316.25  0.95
    """
    check_request(kind, group_modes(fit.design, groups), prob)
    _check_scale(kind)
    cells = make_cells(fit.design, by, new_data)
    found, errors = average_settings(fit, cells, [Setting()], kind, groups, random_seed)
    return result_table(fit, cells, {}, found[0], errors, prob, kind)


def compare_predictions(
    fit: Any,
    variables: str | Sequence[str] | Mapping[str, Any] | None = None,
    by: str | Sequence[str] | None = None,
    new_data: Any = None,
    *,
    comparison: Comparing = "difference",
    kind: Scale = "mean",
    groups: Groups = "include",
    prob: float = 0.95,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Compare average predictions in which a predictor has one value and another.

    All other columns of the rows stay as they are, so that the comparison is one of the same rows
    (g-computation). Averages are taken first, and compared then: a ratio is that of averages.

    Parameters
    ----------
    fit : ClassicalFit or BayesFit
        The fit.
    variables : str, sequence of str, or mapping of str to what to compare; optional
        Predictors; all of them when None. Without more, a number is raised by one (zero and one
        are compared where it has no other value), and each level of a factor is compared with the
        first. In a mapping: a number to raise by, ``"sd"`` or
        ``"iqr"`` (a range of one sd about the row's own value; the quartiles), ``"minmax"``, two
        or more values of which each is compared with the first, or for a factor ``"pairwise"``
        or ``"sequential"``.
    by : str or sequence of str, optional
        Columns whose every combination of values has a comparison of its own.
    new_data : data frame, optional
        Rows to average over; those of the fit when None.
    comparison : {"difference", "ratio", "log odds ratio"}
        How to compare.
    kind, groups, prob, random_seed
        As in `average_predictions`.

    Returns
    -------
    pandas.DataFrame
        Columns ``variable``, ``contrast``, those of `by`, ``category`` where the outcome has
        categories, ``estimate``, ``std_error``, ``lower``, ``upper``, ``prob``. The interval of a
        ratio in a classical fit is normal on the log scale.

    Raises
    ------
    HmlmError
        If a column, a level or a comparison is unknown, or odds are asked for of an outcome that
        is no probability.

    Examples
    --------
    >>> import hmlm
    >>> cbpp = hmlm.load_dataset("cbpp")
    >>> formula = "p(incidence, size) ~ period + (1 | herd)"
    >>> fit = hmlm.Model(formula, cbpp, family="binomial").fit(hmlm.Laplace())
    >>> table = compare_predictions(fit, {"period": ("1", "4")}, groups="average")
    >>> table.round(3)
      variable contrast  estimate  std_error  lower  upper  prob
    0   period    4 - 1    -0.159      0.037 -0.232 -0.085  0.95
    """
    check_request(kind, group_modes(fit.design, groups), prob)
    _check_scale(kind)
    _check_comparison(fit.design, comparison, kind)
    cells = make_cells(fit.design, by, new_data)
    frame = whole_frame(fit.design, cells)
    contrasts = make_contrasts(fit.design, frame, variables, groups, comparison == "difference")
    return _contrast_table(fit, cells, contrasts, comparison, kind, groups, prob, random_seed)


def average_slopes(
    fit: Any,
    variables: str | Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    new_data: Any = None,
    *,
    kind: Scale = "mean",
    groups: Groups = "include",
    prob: float = 0.95,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Average the derivative of predictions by a number, over rows.

    Derivatives are central differences over a ten-thousandth of the predictor's range in the
    fit; at an end of the range, one-sided.

    Parameters
    ----------
    fit : ClassicalFit or BayesFit
        The fit.
    variables : str or sequence of str, optional
        Predictors that are numbers; all such when None.
    by, new_data
        As in `compare_predictions`.
    kind, groups, prob, random_seed
        As in `average_predictions`.

    Returns
    -------
    pandas.DataFrame
        As from `compare_predictions`; ``contrast`` reads ``slope``.

    Raises
    ------
    HmlmError
        If a column is unknown or a factor.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> average_slopes(fit, "Days", groups="population").round(2)
      variable contrast  estimate  std_error  lower  upper  prob
    0     Days    slope     10.47       1.55   7.44   13.5  0.95
    """
    check_request(kind, group_modes(fit.design, groups), prob)
    _check_scale(kind)
    cells = make_cells(fit.design, by, new_data)
    contrasts = slope_contrasts(fit.design, whole_frame(fit.design, cells), variables)
    return _contrast_table(fit, cells, contrasts, "difference", kind, groups, prob, random_seed)


def _check_scale(kind: str) -> None:
    if kind == "response":
        raise HmlmError(
            "averages are of expected outcomes (kind='mean') or linear predictors "
            "(kind='linear'): for new observations use fit.predict(kind='response')."
        )


def _check_comparison(design: Design, comparison: str, kind: str) -> None:
    if comparison not in get_args(Comparing):
        raise HmlmError(
            f"comparison is 'difference', 'ratio' or 'log odds ratio', not {comparison!r}."
        )
    if comparison != "difference" and kind == "linear":
        raise HmlmError("linear predictors are compared by their difference: use kind='mean'.")
    family = design.spec.family
    if comparison == "log odds ratio" and family.outcome not in _PROBABILITIES:
        raise HmlmError(
            f"the expected outcome of a {family.name} model is no probability, and has no odds: "
            "use comparison='difference' or 'ratio'."
        )


def _contrast_table(
    fit: Any,
    cells: Cells,
    contrasts: Sequence[Contrast],
    comparison: Comparing,
    kind: Scale,
    groups: Groups,
    prob: float,
    random_seed: int | None,
) -> pd.DataFrame:
    pieces = []
    for variable in dict.fromkeys(c.variable for c in contrasts):
        own = [c for c in contrasts if c.variable == variable]
        settings = list(dict.fromkeys(s for c in own for s in (c.high, c.low)))
        found, errors = average_settings(fit, cells, settings, kind, groups, random_seed)
        at = dict(zip(settings, found, strict=True))
        for c in own:
            both = compared(at[c.high], at[c.low], comparison)
            labels = {"variable": c.variable, "contrast": c.label}
            log = comparison == "ratio"
            pieces.append(result_table(fit, cells, labels, both, errors, prob, kind, log))
    return pd.concat(pieces, ignore_index=True)
