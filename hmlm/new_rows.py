"""Rows to be predicted: those of the fit, or new ones with the meaning that columns had in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from hmlm.cells import needs_rows
from hmlm.data import index_levels, read_columns
from hmlm.design import Block, Design, Predictor
from hmlm.errors import DataError, HmlmError, counted, listed, suggest

GroupMode = Literal["include", "population", "new", "average"]
Groups = GroupMode | Mapping[str, GroupMode]


def group_modes(design: Design, groups: Groups) -> dict[str, GroupMode]:
    """Return what becomes of the effects of every grouping factor.

    Parameters
    ----------
    design : Design
        What was fitted.
    groups : {"include", "population", "new", "average"} or mapping of str to such a word
        One word for all factors, or one for some; factors that a mapping does not name are
        included.

    Raises
    ------
    HmlmError
        If a word or a factor is unknown, or a population of groups is asked for that a model
        without pooling does not have.

    Examples
    --------
    >>> import hmlm
    >>> pastes = hmlm.load_dataset("pastes")
    >>> design = hmlm.Model("strength ~ 1 + (1 | batch/cask)", pastes).design
    >>> group_modes(design, {"batch:cask": "new"})
    {'batch': 'include', 'batch:cask': 'new'}
    """
    factors = design.spec.all_groups
    given: Mapping[str, Any]
    if isinstance(groups, Mapping):
        given = groups
        for factor in given:
            if factor not in factors:
                raise HmlmError(
                    f"groups names '{factor}', which is no grouping factor of the model."
                    f"{suggest(str(factor), factors)} There are: {listed(factors) or 'none'}."
                )
    else:
        given = dict.fromkeys(factors or ("",), groups)
    for mode in given.values():
        if mode not in get_args(GroupMode):
            raise HmlmError(
                "groups is 'include', 'population', 'new' or 'average', or one of these for each "
                f"grouping factor, not {mode!r}."
            )
    modes: dict[str, GroupMode] = {f: given.get(f, "include") for f in factors}
    if design.spec.pooling == "none" and set(modes.values()) - {"include"}:
        raise HmlmError(
            "without pooling there is no population to draw new groups from: predict for known "
            "groups, or pool partially."
        )
    return modes


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PredictorArrays:
    """The arrays of one linear predictor in rows to be predicted.

    Attributes
    ----------
    X : ndarray, shape (M, p)
        Population columns.
    offset : ndarray, shape (M,)
        Offset, zero where there is none.
    Z : tuple of ndarray
        For each block, shape (M, q).
    index : tuple of ndarray of int
        For each block the position of every row's level; -1 for a level outside the fit.
    new_index : tuple of ndarray of int
        For each block, a number for each distinct level among these rows.
    """

    X: np.ndarray
    offset: np.ndarray
    Z: tuple[np.ndarray, ...]
    index: tuple[np.ndarray, ...]
    new_index: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class NewRows:
    """The arrays of rows to be predicted.

    Attributes
    ----------
    predictors : tuple of PredictorArrays
        One for each linear predictor, that of the mean first.
    trials : ndarray of shape (M,) or None
        Trials, where the outcome has them and they are known.
    weights : ndarray of shape (M,) or None
        Weights, or inverse squares of known standard errors.
    modes : mapping of str to str
        What becomes of the effects of each grouping factor; included where nothing is said.
    """

    predictors: tuple[PredictorArrays, ...]
    trials: np.ndarray | None
    weights: np.ndarray | None
    modes: Mapping[str, GroupMode] = field(default_factory=dict)

    def mode(self, group: str) -> GroupMode:
        """Return what becomes of the effects of one factor."""
        return self.modes.get(group, "include")

    @property
    def mean(self) -> PredictorArrays:
        """The linear predictor of the mean."""
        return self.predictors[0]

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.mean.offset)


def new_rows(
    design: Design, new_data: Any, groups: Groups, observed: bool = False, cells: bool = False
) -> NewRows:
    """Make the arrays of new rows with the meaning that every column had in the fit.

    Parameters
    ----------
    design : Design
        What was fitted.
    new_data : data frame or None
        New rows; those of the fit when None.
    groups : {"include", "population", "new", "average"} or mapping
        What is to become of group effects; see `group_modes`.
    observed : bool
        Whether new outcomes will be drawn, for which trials or standard errors must be there.
    cells : bool
        Whether rows that stand for others will do in the place of those of the fit.

    Raises
    ------
    HmlmError
        If the rows of the fit are asked for, and the model has their sums only.
    DataError
        If a column is missing or has missing values, or (under ``groups="include"``) a level was
        not in the data of the fit.
    """
    modes = group_modes(design, groups)
    if new_data is None:
        if not cells:
            needs_rows(design.cells, "A result row by row", *design.spec.groups[:1])
        n = len(design.y)
        return NewRows(
            predictors=tuple(
                PredictorArrays(
                    X=p.X,
                    offset=np.zeros(n) if p.offset is None else p.offset,
                    Z=tuple(b.Z for b in p.blocks),
                    index=tuple(b.index for b in p.blocks),
                    new_index=tuple(b.index for b in p.blocks),
                )
                for p in design.predictors
            ),
            trials=design.trials,
            weights=design.weights,
            modes=modes,
        )
    frame = _new_frame(design, new_data, modes, observed)
    return NewRows(
        predictors=tuple(_arrays(design, p, frame, modes) for p in design.predictors),
        trials=_new_trials(design, frame) if observed else None,
        weights=_new_weights(design, frame) if observed else None,
        modes=modes,
    )


def predictor_columns(design: Design) -> list[str]:
    """Return the columns of the table that population terms and effects of groups are made of.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> predictor_columns(hmlm.Model("Reaction ~ log(Days + 1) + (1 | Subject)", sleep).design)
    ['Days']
    """
    factors = {f for g in design.spec.all_groups for f in g.split(":")}
    outcome = _outcome_columns(design)
    predictors = [c for c in design.spec.columns if c not in outcome]
    return [c for c in predictors if c not in factors or _is_predictor(design, c)]


def _new_frame(
    design: Design, new_data: Any, modes: Mapping[str, GroupMode], observed: bool
) -> pd.DataFrame:
    spec = design.spec
    wanted = predictor_columns(design)
    columns = list(_column_names(new_data))
    known = []
    for group in dict.fromkeys(b.group for p in design.predictors for b in p.blocks):
        parts = group.split(":")
        if modes[group] == "include" or (
            modes[group] == "new" and all(f in columns for f in parts)
        ):
            known += parts
    extra = [spec.trials, spec.standard_error, spec.weights] if observed else []
    names = dict.fromkeys([*wanted, *known, *(c for c in extra if c in columns and c)])
    if not columns and isinstance(new_data, pd.DataFrame):  # as of a grid without predictors
        frame = pd.DataFrame(index=pd.RangeIndex(len(new_data)))
    else:
        frame = read_columns(new_data, tuple(names) or tuple(columns[:1]))
    for name in names:  # a column read only to count the rows may have anything in it
        if missing := int(frame[name].isna().sum()):
            raise DataError(
                f"column '{name}' is missing in {counted(missing, 'row')} of the new data: fill "
                "them in or leave the rows out."
            )
        if name not in wanted:
            continue
        trained = design.data.frame[name].dtype
        if is_numeric_dtype(trained) and not is_numeric_dtype(frame[name]):
            raise DataError(
                f"column '{name}' held numbers in the fit, and is of type {frame[name].dtype} in "
                f"{counted(len(frame), 'row')} of new data: convert it first."
            )
        if hasattr(trained, "categories"):
            unknown = sorted(set(map(str, frame[name])) - set(map(str, trained.categories)))
            if unknown:
                raise DataError(
                    f"factor '{name}' has levels in the new data that it did not have in the fit: "
                    f"{listed(unknown)}."
                )
            frame[name] = frame[name].astype(trained)
    return frame


def _extra(design: Design, column: str, frame: pd.DataFrame) -> np.ndarray:
    """Return a column that only new outcomes need, or the number that stands in its place."""
    if column in frame:
        return frame[column].to_numpy(dtype=float)
    if column in design.data.frame:
        raise DataError(
            f"new outcomes need the column '{column}', which the new data do not have: add it."
        )
    return np.full(len(frame), float(column))


def _new_trials(design: Design, frame: pd.DataFrame) -> np.ndarray | None:
    if design.trials is None:
        return None
    if design.spec.trials is None:
        return np.ones(len(frame))
    values = _extra(design, design.spec.trials, frame)
    wrong = int(((values < 0) | (values % 1 != 0)).sum())
    if wrong:
        raise DataError(
            f"column '{design.spec.trials}' of the new data is no number of trials in "
            f"{counted(wrong, 'row')}: trials are whole numbers from zero."
        )
    return values


def _new_weights(design: Design, frame: pd.DataFrame) -> np.ndarray | None:
    column = design.spec.standard_error if design.known_se else design.spec.weights
    if column is None:
        return None
    values = _extra(design, column, frame)
    if wrong := int((values <= 0).sum()):
        raise DataError(
            f"column '{column}' of the new data is not positive in {counted(wrong, 'row')}: "
            f"{'standard errors' if design.known_se else 'weights'} are above zero."
        )
    return values**-2.0 if design.known_se else values


def _arrays(
    design: Design, p: Predictor, frame: pd.DataFrame, modes: Mapping[str, GroupMode]
) -> PredictorArrays:
    X, offset = p.encoding.again(frame)
    keep = [p.encoding.names.index(t) for t in p.terms]
    index, new_index, Z = [], [], []
    for block in p.blocks:
        Z.append(np.column_stack([e.again(frame)[0] for e in block.encodings]))
        mode = modes[block.group]
        if mode in ("population", "average") or not all(f in frame for f in block.group.split(":")):
            index.append(np.full(len(frame), -1))
            new_index.append(np.arange(len(frame)))
            continue
        codes, levels = index_levels(frame, block.group)
        position = _match(levels, block)
        index.append(position[codes])
        # Only levels that some row has count: a categorical column may name others.
        new_index.append(np.unique(codes, return_inverse=True)[1])
        if mode == "include" and (index[-1] < 0).any():
            raise DataError(_unknown_words(design, frame, block, index[-1], levels[codes]))
    return PredictorArrays(
        X=X[:, keep],
        offset=np.zeros(len(frame)) if offset is None else offset,
        Z=tuple(Z),
        index=tuple(index),
        new_index=tuple(new_index),
    )


def _unknown_words(
    design: Design, frame: pd.DataFrame, block: Block, index: np.ndarray, labels: pd.Index
) -> str:
    """Say which levels are new; of an interaction also in which factor they are."""
    group, unknown = block.group, index < 0
    levels = labels[unknown].unique().tolist()
    said = (
        f"{counted(len(levels), 'level')} of '{group}' in {counted(int(unknown.sum()), 'row')} "
        f"were not in the data of the fit: {listed(levels)}."
    )
    known = [g for g in design.spec.all_groups if g in group.split(":") and g != group]
    for outer in known:
        seen = set(map(str, design.data.levels[outer]))
        if frame.loc[unknown, outer].map(str).isin(seen).all():
            inner = ":".join(f for f in group.split(":") if f != outer)
            said += (
                f" Their '{outer}' is known, and '{inner}' is new in it: pass "
                f"groups={{'{group}': 'new'}} to keep the effects of '{outer}' and draw "
                f"new ones of '{group}'."
            )
    return (
        f"{said} Pass groups='new' to draw new groups from the population, or "
        "groups='population' to leave group effects out."
    )


def _column_names(data: Any) -> list[str]:
    return list(data) if isinstance(data, dict) else list(getattr(data, "columns", []))


def _outcome_columns(design: Design) -> set[str]:
    """Columns that only the outcome needs."""
    spec = design.spec
    extra = {c for c in (spec.trials, spec.standard_error) if c is not None}
    extra = {c for c in extra if not _is_predictor(design, c)}
    if spec.outcome in spec.columns:
        return {spec.outcome, *extra}
    found = {c for c in spec.columns if c in spec.outcome and not _is_predictor(design, c)}
    return found | extra


def _is_predictor(design: Design, column: str) -> bool:
    """Whether a column stands in a population term or on the left of a group term."""
    spec = design.spec
    texts = [spec.terms, *(t.terms for t in spec.group_terms)]
    for more in spec.distributional:
        texts += [more.terms, *(t.terms for t in more.group_terms)]
    word = re.compile(rf"(?<![\w`]){re.escape(column)}(?![\w`(])|`{re.escape(column)}`")
    return any(word.search(text) for text in texts)


def _match(levels: Any, block: Block) -> np.ndarray:
    """Positions of levels among those of the fit; -1 where they are new."""
    position = block.levels.get_indexer(levels)
    if (position < 0).all() and levels.dtype != block.levels.dtype:
        position = block.levels.map(str).get_indexer(levels.map(str))
    return np.asarray(position)
