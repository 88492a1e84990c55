"""The outcome of a model: its numbers, checked row by row against what its family can have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmlm.data import read_only
from hmlm.encoding import check_finite, evaluate
from hmlm.errors import DataError, counted, listed
from hmlm.families import Family
from hmlm.spec import ModelSpec
from hmlm.value_checks import LARGEST

MOST_CATEGORIES = 50


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Outcome:
    """The outcome of every row.

    Attributes
    ----------
    y : ndarray, shape (N,)
        Values; successes where there are trials; codes from zero where there are categories.
    trials : ndarray of shape (N,) or None
        Number of trials.
    categories : tuple of str
        Labels of the categories; for yes/no outcomes that were no numbers, no first.
    weights : ndarray of shape (N,) or None
        Weights: the residual variance of a row is sigma^2 / weight, where sigma is one if the
        standard errors are known.
    """

    y: np.ndarray
    trials: np.ndarray | None = None
    categories: tuple[str, ...] = ()
    weights: np.ndarray | None = None


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowCount:
    """Counts rows of the table.

    Attributes
    ----------
    n : int
        Number of rows that there are here.
    counts : ndarray of int of shape (n,), or None
        How many rows of the table each stands for; one when None.
    """

    n: int
    counts: np.ndarray | None

    def __call__(self, which: np.ndarray | None = None) -> int:
        """Return the number of rows, or of some of them."""
        if self.counts is None:
            return self.n if which is None else int(which.sum())
        return int(self.counts.sum() if which is None else self.counts[which].sum())


def make_outcome(spec: ModelSpec, frame: pd.DataFrame, counts: np.ndarray | None = None) -> Outcome:
    """Read the outcome of a model, with its trials or its standard errors.

    Parameters
    ----------
    spec : ModelSpec
        What to fit.
    frame : pandas.DataFrame
        Complete rows.
    counts : ndarray of int, shape (R,), optional
        How many rows of the table each row stands for; one when None.

    Raises
    ------
    DataError
        If a row has a value that the family cannot have; the message says in how many rows.
    """
    family = spec.family
    of = RowCount(n=len(frame), counts=counts)
    _check_parts(spec)
    categories: tuple[str, ...] = ()
    if family.outcome in ("ordered", "category"):
        y, categories = _categories(spec, frame, of)
    elif family.outcome in ("binary", "trials") and spec.trials is None and _is_words(spec, frame):
        y, categories = _yes_or_no(spec, frame, of)
    else:
        y = _numbers(spec, frame, of)
    trials = _trials(spec, frame, y, of) if family.outcome == "trials" else None
    _check_values(spec, y, trials, of)
    if family.outcome != "trials" and np.ptp(y) == 0:
        raise DataError(
            f"the outcome '{spec.outcome}' has the same value in all {counted(of(), 'row')}: "
            "there is nothing to explain."
        )
    if trials is not None and (not y.any() or (y == trials).all()):
        raise DataError(
            f"the outcome '{spec.outcome}' has {'no' if not y.any() else 'only'} successes in all "
            f"{counted(of(), 'row')}: there is nothing to explain."
        )
    return Outcome(
        y=read_only(y),
        trials=None if trials is None else read_only(trials),
        categories=categories,
        weights=_weights(spec, frame, of),
    )


def _check_parts(spec: ModelSpec) -> None:
    """Refuse trials, standard errors and weights where the family has no place for them."""
    family = spec.family.name
    if spec.trials is not None and spec.family.outcome != "trials":
        raise DataError(
            f"'p({spec.outcome}, {spec.trials})' is a count out of trials; a {family} "
            f"model needs one number a row: use family='binomial', or name one column."
        )
    if family == "beta-binomial" and spec.trials is None:
        raise DataError(
            f"a beta-binomial outcome is a count out of trials: write p({spec.outcome}, trials)."
        )
    sigma = [d.name for d in spec.distributional]
    if spec.standard_error is not None and (family != "gaussian" or "sigma" in sigma):
        what = "sigma has a formula of its own" if family == "gaussian" else f"this is {family}"
        raise DataError(
            f"known standard errors ('{spec.standard_error}') belong to a gaussian outcome whose "
            f"sigma they are; {what}: leave one of them out."
        )
    if spec.weights is not None and family != "gaussian":
        raise DataError(
            f"weights ('{spec.weights}') divide the residual variance of a gaussian outcome; a "
            f"{family} model has none: use p(successes, trials) for counts, or repeat the rows."
        )
    if spec.weights is not None and spec.standard_error is not None:
        raise DataError(
            f"weights ('{spec.weights}') and known standard errors ('{spec.standard_error}') say "
            "the same thing twice: leave one of them out."
        )


def _is_words(spec: ModelSpec, frame: pd.DataFrame) -> bool:
    if spec.outcome not in frame:
        return False
    column = frame[spec.outcome]
    return pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column)


def _labels(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return the code of every row and the labels: in order of a categorical, else sorted."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy().astype(float), [str(c) for c in column.cat.categories]
    codes, labels = pd.factorize(column, sort=True)
    if pd.api.types.is_float_dtype(labels) and (labels % 1 == 0).all():
        labels = labels.astype(int)
    return codes.astype(float), [str(v) for v in labels]


def _categories(
    spec: ModelSpec, frame: pd.DataFrame, of: RowCount
) -> tuple[np.ndarray, tuple[str, ...]]:
    name = spec.outcome
    if name not in frame:
        raise DataError(f"a {spec.family.name} outcome is a column of categories, not '{name}'.")
    column = frame[name]
    text = not isinstance(column.dtype, pd.CategoricalDtype) and not (
        pd.api.types.is_numeric_dtype(column)
    )
    if spec.family.outcome == "ordered" and text and not pd.api.types.is_bool_dtype(column):
        raise DataError(
            f"the ordinal outcome '{name}' is text in {counted(of(), 'row')}, and its order "
            "is not known: make it numbers, or pandas.Categorical(..., ordered=True) with the "
            "categories from lowest to highest."
        )
    y, labels = _labels(column)
    few = 2 if spec.family.outcome == "ordered" else 3
    if not few <= len(labels) <= MOST_CATEGORIES:
        hint = " Use family='bernoulli' for two." if len(labels) == 2 else ""
        raise DataError(
            f"the outcome '{name}' has {len(labels)} categories in "
            f"{counted(of(), 'row')}; a {spec.family.name} model needs {few} to "
            f"{MOST_CATEGORIES}.{hint}"
        )
    return y, tuple(labels)


def _yes_or_no(
    spec: ModelSpec, frame: pd.DataFrame, of: RowCount
) -> tuple[np.ndarray, tuple[str, ...]]:
    y, labels = _labels(frame[spec.outcome])
    if len(labels) != 2:
        raise DataError(
            f"the outcome '{spec.outcome}' has {len(labels)} values in "
            f"{counted(of(), 'row')} ({listed(labels)}); a {spec.family.name} model needs "
            "two: make it 0 and 1."
        )
    return y, tuple(labels)


def _numbers(spec: ModelSpec, frame: pd.DataFrame, of: RowCount) -> np.ndarray:
    if spec.outcome in frame:
        column = frame[spec.outcome]
        if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
            raise DataError(
                f"the outcome '{spec.outcome}' is of type {column.dtype} in "
                f"{counted(of(), 'row')}; a {spec.family.name} model needs numbers: convert "
                "it first."
            )
        y = column.to_numpy(dtype=float, copy=True)
    else:
        response = evaluate(f"{spec.outcome} ~ 1", frame).response
        y = np.asarray(response.design_matrix)
        if response.kind != "numeric" or y.dtype == bool or y.shape != (len(frame),):
            raise DataError(
                f"the outcome '{spec.outcome}' is no column of numbers; a {spec.family.name} model "
                "needs one number a row."
            )
        y = y.astype(float)
    check_finite({spec.outcome: y}, of.counts)
    return y


def _trials(spec: ModelSpec, frame: pd.DataFrame, y: np.ndarray, of: RowCount) -> np.ndarray:
    """Return the number of trials of every row; ones where outcomes are 0 and 1."""
    if spec.trials is None:
        bad = ~np.isin(y, (0.0, 1.0))
        if bad.any():
            raise DataError(
                f"the outcome '{spec.outcome}' is neither 0 nor 1 in "
                f"{counted(of(bad), 'row')} (the first: {y[bad][0]:g}): for counts write "
                f"p({spec.outcome}, trials) before '~'."
            )
        return np.ones(len(y))
    if spec.trials in frame:
        column = frame[spec.trials]
        if not pd.api.types.is_numeric_dtype(column):
            raise DataError(
                f"the trials '{spec.trials}' are of type {column.dtype} in "
                f"{counted(of(), 'row')}: they must be whole numbers."
            )
        trials = column.to_numpy(dtype=float, copy=True)
    else:
        trials = np.full(len(y), float(spec.trials))
    _refuse(trials < 0, "the trials", spec.trials, trials, "are negative", "correct them", of)
    _refuse(trials % 1 != 0, "the trials", spec.trials, trials, "are not whole", "correct them", of)
    if not trials.any():
        raise DataError(f"the trials '{spec.trials}' are zero in every row.")
    return trials


def _refuse(
    bad: np.ndarray,
    what: str,
    name: str,
    values: np.ndarray,
    wrong: str,
    instead: str,
    of: RowCount,
) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        where = f"the first being row {row} of the complete rows"
        raise DataError(
            f"{what} '{name}' {wrong} in {counted(of(bad), 'row')}, "
            f"{where if of.counts is None else 'one of them'} ({values[row]:g}): {instead}."
        )


def _check_values(spec: ModelSpec, y: np.ndarray, trials: np.ndarray | None, of: RowCount) -> None:
    """Refuse outcomes that the family cannot have."""
    family: Family = spec.family
    what, name = "the outcome", spec.outcome
    if family.outcome == "binary":
        _refuse(
            ~np.isin(y, (0.0, 1.0)),
            what,
            name,
            y,
            "is neither 0 nor 1",
            "a bernoulli model needs yes or no; for counts use family='binomial'",
            of,
        )
    if family.outcome in ("count", "trials"):
        instead = f"a {family.name} model needs whole numbers from 0 on; leave such rows out"
        _refuse(y < 0, what, name, y, "is negative", instead, of)
        _refuse(y % 1 != 0, what, name, y, "is not a whole number", instead, of)
    if trials is not None:
        above = f"is above the number of trials '{spec.trials}'"
        _refuse(y > trials, what, name, y, above, "correct one of the two", of)
    if family.outcome == "positive":
        instead = f"a {family.name} model needs values above 0; leave such rows out"
        _refuse(y <= 0, what, name, y, "is not positive", instead, of)
    if family.outcome == "unit":
        instead = "a beta model needs values inside (0, 1); leave such rows out, or move them in"
        _refuse((y <= 0) | (y >= 1), what, name, y, "is not between 0 and 1", instead, of)
    if family.name.startswith("hurdle") and (y <= 1).all():
        raise DataError(
            f"the outcome '{name}' is 0 or 1 in all {counted(of(), 'row')}: a {family.name} "
            "model cannot tell the size of counts from that; use family='bernoulli'."
        )


def _weights(spec: ModelSpec, frame: pd.DataFrame, of: RowCount) -> np.ndarray | None:
    """Return weights, or the inverse squares of known standard errors."""
    name = spec.weights or spec.standard_error
    if name is None:
        return None
    what = "the weights" if spec.weights else "the standard errors"
    if name not in frame:
        try:
            values = np.full(len(frame), float(name))
        except ValueError:
            raise DataError(f"there is no column '{name}' for {what}.") from None
    else:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            raise DataError(
                f"{what} '{name}' are of type {column.dtype} in {counted(of(), 'row')}: "
                "they must be positive numbers."
            )
        values = column.to_numpy(dtype=float, copy=True)
    if bad := of(values <= 0):
        raise DataError(
            f"{what} '{name}' must be positive; {counted(bad, 'row')} are not: leave them out or "
            "correct them."
        )
    most = LARGEST if spec.weights else LARGEST**0.5
    if values.min() < 1 / most or values.max() > most:
        raise DataError(
            f"{what} '{name}' go from {values.min():.3g} to {values.max():.3g}, and must be "
            f"between {1 / most:g} and {most:g}: correct them, or measure in another unit."
        )
    return read_only(values if spec.weights else values**-2.0)
