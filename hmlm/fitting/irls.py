"""Generalised linear models under complete pooling and under no pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.design import Block, Design
from hmlm.errors import HmlmError, counted, listed
from hmlm.fitting.classical_fit import ClassicalFit, GroupEffects
from hmlm.fitting.ols import indicators
from hmlm.likelihoods.exponential import (
    SUPPORTED,
    RowLikelihood,
    row_likelihood,
)
from hmlm.likelihoods.precision import precision_information
from hmlm.likelihoods.scoring import (
    PARAMETER_RANGE,
    Predictors,
    Scored,
    Solution,
    least_squares,
    maximise,
    predictor_of,
)
from hmlm.likelihoods.separation import (
    Extremes,
    extremes,
    is_suspect,
    separated_groups,
    separated_rows,
)
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.status import Status

AT_EDGE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class GLM:
    """Maximum likelihood of a generalised linear model by iteratively reweighted least squares.

    Under complete pooling this is the regression that ignores the groups; under no pooling every
    group has its own intercept and slopes. A parameter of the family (the shape of a
    negative-binomial or gamma outcome, the precision of a beta one) is estimated by maximum
    likelihood too. Tests are by the normal distribution.

    A coefficient that the likelihood pushes to infinity, because some rows can be fitted perfectly
    (a group without any success, or any event; a predictor that separates the outcomes), is found,
    named in the status and left blank. The other estimates are those of the other rows, which is
    the limit that maximum likelihood approaches.

    References
    ----------
    .. [1] McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., sections 2.5 and 4.4.
    .. [2] Albert and Anderson (1984), On the existence of maximum likelihood estimates in logistic
       regression models, Biometrika 71, 1-10.

    Examples
    --------
    >>> import hmlm
    >>> cbpp = hmlm.load_dataset("cbpp")
    >>> model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, family="binomial")
    >>> fit = model.with_pooling("complete").fit(hmlm.GLM())
    >>> fit.estimates["beta"].round(3).tolist()
    [-1.269, -1.171, -1.301, -1.782]
    """

    def __str__(self) -> str:
        """Return the name of the method."""
        return "GLM"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = False
    ) -> ClassicalFit:
        """Fit a design.

        Raises
        ------
        HmlmError
            If the design pools partially, or its family has no maximum likelihood here.
        """
        check_family(design, self, "hmlm.OLS()")
        if design.spec.pooling == "partial" and design.blocks:
            raise HmlmError(
                "GLM cannot pool partially: use hmlm.Laplace(), or model.with_pooling('complete') "
                "or model.with_pooling('none') with hmlm.GLM()."
            )
        with one_blas_thread():
            return _fit(design, self)


def check_family(design: Design, method: Any, gaussian: str) -> None:
    """Raise an HmlmError if a design's family is none of those that fit by maximum likelihood.

    Parameters
    ----------
    design : Design
        What to fit.
    method : object
        The method, to name it.
    gaussian : str
        The method for gaussian models.
    """
    family = design.spec.family
    name = f"hmlm.{type(method).__name__}()"
    if design.distributional:
        what = listed(repr(d.name) for d in design.distributional)
        raise HmlmError(
            f"{name} has one linear predictor, that of the mean, and this model has one for {what} "
            "too: use hmlm.NUTS()."
        )
    if family.name not in SUPPORTED:
        instead = gaussian if str(family) == "gaussian" else "hmlm.NUTS()"
        raise HmlmError(
            f"{name} fits {listed(SUPPORTED)} models, not {family} ones: use {instead}."
        )


def rows_of(design: Design) -> RowLikelihood:
    """Return a design's outcomes with their family."""
    return row_likelihood(design.spec.family, design.y, design.trials, counts=design.counts)


def _fit(design: Design, method: GLM) -> ClassicalFit:
    rows = rows_of(design)
    n, p = design.X.shape
    offset = np.zeros(n) if design.offset is None else design.offset
    fine = max(design.blocks, key=lambda b: len(b.levels)) if design.blocks else None
    others = [b for b in design.blocks if b is not fine]
    dummies = [indicators(b.Z, b.index, len(b.levels), "hmlm.Laplace()") for b in others]
    X = np.column_stack([design.X, *dummies]) if dummies else design.X
    columns = (
        Predictors(X=X, offset=offset)
        if fine is None
        else Predictors(X=X, offset=offset, Z=fine.Z, index=fine.index, J=len(fine.levels))
    )
    total = least_squares(columns, np.ones(n), np.zeros(n))
    scored, keep, notes, said = _without_separated(rows, columns, fine, design)
    solution, covariance_of = _solve(scored, columns.take(np.flatnonzero(keep)))
    problems = _problems(scored, solution, total, design, design.rows_in(~keep))
    effects: dict[str, GroupEffects] = {}
    if fine is not None:
        effects[fine.group] = GroupEffects(
            modes=_blank(solution.own, solution.own_estimable, total.own_estimable),
            covariance=covariance_of[1],
            gain=solution.gain[:, :, :p],
            estimable=solution.own_estimable,
        )
        notes += _slope_words(fine, total.own_estimable & ~solution.own_estimable, said)
        notes += _blank_words(fine, total.own_estimable)
    start = p
    for block in others:
        J, q = len(block.levels), len(block.columns)
        at = np.arange(start, start + J * q).reshape(J, q)
        known = solution.estimable[at]
        effects[block.group] = GroupEffects(
            modes=_blank(solution.beta[at], known, total.estimable[at]),
            covariance=covariance_of[0][at[:, :, None], at[:, None, :]],
            gain=np.zeros((J, q, p)),
            estimable=known,
        )
        start += J * q
    known = solution.estimable[:p]
    vcov = np.where(np.outer(known, known), covariance_of[0][:p, :p], np.nan)
    found: dict[str, np.ndarray] = {"beta": np.where(known, solution.beta[:p], np.nan)}
    for name in design.parameters:
        found[name] = np.array(scored.rows.parameter)
    found |= {f"b_{group}": e.modes for group, e in effects.items()}
    return ClassicalFit(
        design=design,
        method=method,
        status=Status(
            converged=not problems,
            problems=tuple(problems),
            notes=(*notes, *design.notes),
            numbers={"separated rows": float(design.rows_in(~keep))},
        ),
        estimates={name: found[name] for name in design.dims},
        vcov=vcov,
        df=np.full(p, np.inf),
        log_likelihood=scored.log_likelihood,
        criterion=-2 * scored.log_likelihood,
        n_parameters=total.rank + len(design.parameters),
        n_effective=design.n_rows,
        effects={b.group: effects[b.group] for b in design.blocks},
    )


def _blank(values: np.ndarray, known: np.ndarray, could: np.ndarray) -> np.ndarray:
    """Return values with NaN where separation, not the columns, keeps them from being known."""
    return np.where(known | ~could, values, np.nan)


def _without_separated(
    rows: RowLikelihood, columns: Predictors, fine: Block | None, design: Design
) -> tuple[Scored, np.ndarray, list[str], np.ndarray]:
    """Maximise over the rows that cannot be fitted perfectly.

    Returns
    -------
    scored : Scored
        The maximum.
    keep : ndarray of bool, shape (N,)
        The rows it is over.
    notes : list of str
        Which groups have one outcome only.
    said : ndarray of bool, shape (J,)
        The same groups.
    """
    keep = np.ones(len(rows.y), dtype=bool)
    said = np.zeros(columns.J, dtype=bool)
    notes: list[str] = []
    ends = extremes(rows)
    if ends is not None and fine is not None:
        low, high = separated_groups(ends, columns)
        said = low | high
        keep = ~said[fine.index]
        notes = _group_words(fine, low, high, design)
    while keep.any():
        at = np.flatnonzero(keep)
        part, those = rows.take(at), columns.take(at)
        scored = maximise(part, those)
        if ends is None:
            return scored, keep, notes, said
        inside = Extremes(low=ends.low[at], high=ends.high[at])
        if not is_suspect(inside, scored.at.weight, part.all_trials):
            return scored, keep, notes, said
        new = separated_rows(inside, those)
        if not new.any():
            return scored, keep, notes, said
        keep[at[new]] = False
    none = rows.take(np.empty(0, dtype=int))
    empty = np.empty(0)
    nothing = Scored(rows=none, eta=empty, at=none.terms(empty), log_likelihood=0.0, converged=True)
    return nothing, keep, notes, said


def _group_words(block: Block, low: np.ndarray, high: np.ndarray, design: Design) -> list[str]:
    """Say which groups have one outcome only."""
    found = []
    count = design.spec.family.outcome == "count"
    for which, word in ((low, "zero" if count else "no success"), (high, "only successes")):
        if which.any():
            rows = int(block.sizes[which].sum())
            found.append(
                f"All {counted(rows, 'row')} of {listed(block.levels[which].astype(str))} of "
                f"'{block.group}' have {word}: the estimate of these groups' own coefficients is "
                "infinite and stays blank. Pool partially, with hmlm.Laplace(), for finite ones."
            )
    return found


def _slope_words(block: Block, lost: np.ndarray, said: np.ndarray) -> list[str]:
    """Say which groups are separated by their predictors."""
    which = lost.any(axis=1) & ~said
    if not which.any():
        return []
    return [
        f"Inside {listed(block.levels[which].astype(str))} of '{block.group}' the groups' own "
        "coefficients predict some rows perfectly: the estimates of these coefficients are "
        "infinite and stay blank. Pool partially, with hmlm.Laplace(), for finite ones."
    ]


def _blank_words(block: Block, could: np.ndarray) -> list[str]:
    """Say how many own coefficients no data with these columns would determine."""
    never = int((~could).sum())
    if not never:
        return []
    return [
        f"{counted(never, 'coefficient')} of '{block.group}' cannot be estimated from the rows of "
        "its own group alone and stay blank."
    ]


def _problems(
    scored: Scored, solution: Solution, total: Solution, design: Design, separated: int
) -> list[str]:
    problems = []
    if not scored.converged:
        problems.append(
            "Iteratively reweighted least squares did not converge: rescale the predictors or "
            "leave some out."
        )
    positive = design.spec.family.link in ("identity", "inverse")
    if positive and (edge := int((scored.eta < AT_EDGE * scored.eta.max(initial=0.0)).sum())):
        problems.append(
            f"The linear predictor of {counted(edge, 'row')} is zero, the least that the "
            f"{design.spec.family.link} link allows, and no maximum inside: use the log link."
        )
    lost = (total.estimable & ~solution.estimable)[: len(design.terms)]
    if lost.any():
        problems.append(separation_words(design, lost, separated))
    elif separated and not len(scored.eta):
        problems.append("Separation: every row can be predicted perfectly; nothing is left to fit.")
    log_parameter = np.log(scored.rows.parameter) if scored.rows.has_parameter else 0.0
    if log_parameter > PARAMETER_RANGE[1] - 0.01 or log_parameter < PARAMETER_RANGE[0] + 0.01:
        name = design.spec.family.parameters[0]
        problems.append(edge_words(name, log_parameter > 0, design))
    return problems


def separation_words(
    design: Design, lost: np.ndarray, separated: int, after: str = "they stay blank"
) -> str:
    """Say which population coefficients are infinite.

    Parameters
    ----------
    design : Design
        The model.
    lost : ndarray of bool, shape (p,)
        Its infinite coefficients.
    separated : int
        Number of rows that can be predicted perfectly.
    after : str
        What became of the estimates.
    """
    terms = listed(t for t, gone in zip(design.terms, lost, strict=True) if gone)
    return (
        f"Separation: {counted(separated, 'row')} can be predicted perfectly, and as the "
        f"likelihood rises the coefficients of {terms} go to infinity; {after}. Leave the "
        "predictor out, merge its levels, or give it a prior with hmlm.NUTS()."
    )


def separated_terms(
    rows: RowLikelihood, columns: Predictors, weight: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return which population coefficients separation makes infinite, and by how many rows.

    Parameters
    ----------
    rows : RowLikelihood
        Outcomes and family.
    columns : Predictors
        Population columns.
    weight : ndarray, shape (N,)
        Information of the rows at the estimates; rows without any arouse suspicion.
    """
    ends = extremes(rows)
    none = np.zeros(columns.X.shape[1], dtype=bool)
    if ends is None or not is_suspect(ends, weight, rows.all_trials):
        return none, 0
    out = separated_rows(ends, columns)
    left = columns.take(np.flatnonzero(~out))
    size = len(left.offset)
    return ~least_squares(left, np.ones(size), np.zeros(size)).estimable, (
        int(out.sum() if rows.counts is None else rows.counts[out].sum())
    )


def edge_words(name: str, high: bool, design: Design) -> str:
    """Say that the family's parameter went to the end of its range."""
    where = "infinity" if high else "zero"
    advice = (
        " The counts vary no more than a Poisson distribution: use family='poisson'."
        if high and design.spec.family.name == "negative-binomial"
        else ""
    )
    return f"The estimate of {name} goes to {where}.{advice}"


def _solve(scored: Scored, columns: Predictors) -> tuple[Solution, tuple[np.ndarray, np.ndarray]]:
    """Return the coefficients at the maximum, and covariances of population and own ones."""
    eta, weight = scored.eta, scored.at.weight
    if not len(eta):
        solution = least_squares(columns, weight, eta)
        return solution, (solution.covariance, solution.own_covariance)
    weight = np.maximum(weight, 1e-12 * weight.max())
    solution = least_squares(columns, weight, eta - columns.offset)
    covariance, own = solution.covariance, solution.own_covariance
    if scored.rows.family.name == "beta":
        # What phi adds: the regression of the information about eta and phi, over the weight.
        cross, about_phi = precision_information(scored.rows, eta)
        moved = least_squares(columns, weight, cross / weight)
        fitted = predictor_of(columns, moved) - columns.offset
        left = about_phi - float(cross @ fitted)
        covariance = covariance + np.outer(moved.beta, moved.beta) / left
        own = own + moved.own[:, :, None] * moved.own[:, None, :] / left
    return solution, (covariance, own)
