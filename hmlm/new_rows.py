"""Rows to be predicted: those of the fit, or new ones with the meaning that columns had in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from hmlm.data import index_levels, read_columns
from hmlm.design import Block, Design, Predictor
from hmlm.errors import DataError, counted, listed

Groups = Literal["include", "population", "new"]


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
    """

    predictors: tuple[PredictorArrays, ...]
    trials: np.ndarray | None
    weights: np.ndarray | None

    @property
    def mean(self) -> PredictorArrays:
        """The linear predictor of the mean."""
        return self.predictors[0]

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.mean.offset)


def new_rows(design: Design, new_data: Any, groups: Groups, observed: bool = False) -> NewRows:
    """Make the arrays of new rows with the meaning that every column had in the fit.

    Parameters
    ----------
    design : Design
        What was fitted.
    new_data : data frame or None
        New rows; those of the fit when None.
    groups : {"include", "population", "new"}
        What is to become of group effects.
    observed : bool
        Whether new outcomes will be drawn, for which trials or standard errors must be there.

    Raises
    ------
    DataError
        If a column is missing or has missing values, or (under ``groups="include"``) a level was
        not in the data of the fit.
    """
    if new_data is None:
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
        )
    frame = _new_frame(design, new_data, groups, observed)
    return NewRows(
        predictors=tuple(_arrays(design, p, frame, groups) for p in design.predictors),
        trials=_extra(design, design.spec.trials, frame, observed),
        weights=_new_weights(design, frame, observed),
    )


def _new_frame(design: Design, new_data: Any, groups: Groups, observed: bool) -> pd.DataFrame:
    spec = design.spec
    factors = {f for g in spec.all_groups for f in g.split(":")}
    used = {f for p in design.predictors for b in p.blocks for f in b.group.split(":")}
    outcome = _outcome_columns(design)
    predictors = [c for c in spec.columns if c not in outcome]
    wanted = [c for c in predictors if c not in factors or _is_predictor(design, c)]
    columns = list(_column_names(new_data))
    known = [f for f in sorted(used) if f in columns or groups == "include"]
    extra = [c for c in (spec.trials, spec.standard_error, spec.weights) if c in columns]
    names = dict.fromkeys([*wanted, *known, *filter(None, extra)])
    frame = read_columns(new_data, tuple(names) or tuple(columns[:1]))
    for name in frame:
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


def _extra(
    design: Design, column: str | None, frame: pd.DataFrame, observed: bool
) -> np.ndarray | None:
    """Return a column that only new outcomes need: trials or standard errors."""
    if column is None:
        return None if design.trials is None else np.ones(len(frame))
    if column in frame:
        values = frame[column].to_numpy(dtype=float)
    elif column in design.data.frame:
        if observed:
            raise DataError(
                f"new outcomes need the column '{column}', which the new data do not have: add it."
            )
        return None
    else:
        values = np.full(len(frame), float(column))
    if not (values >= 0).all():
        raise DataError(f"column '{column}' of the new data has negative values.")
    return values


def _new_weights(design: Design, frame: pd.DataFrame, observed: bool) -> np.ndarray | None:
    if design.known_se:
        errors = _extra(design, design.spec.standard_error, frame, observed)
        return None if errors is None else errors**-2.0
    if design.spec.weights in frame:
        return frame[design.spec.weights].to_numpy(dtype=float)
    return None


def _arrays(design: Design, p: Predictor, frame: pd.DataFrame, groups: Groups) -> PredictorArrays:
    X, offset = p.encoding.again(frame)
    keep = [p.encoding.names.index(t) for t in p.terms]
    index, new_index, Z = [], [], []
    for block in p.blocks:
        Z.append(np.column_stack([e.again(frame)[0] for e in block.encodings]))
        here = [f for f in block.group.split(":") if f in frame]
        if len(here) < len(block.group.split(":")):
            index.append(np.full(len(frame), -1))
            new_index.append(np.arange(len(frame)))
            continue
        codes, levels = index_levels(frame, block.group)
        position = _match(levels, block)
        index.append(position[codes])
        new_index.append(codes)
        if groups == "include" and (index[-1] < 0).any():
            unknown = levels[np.unique(codes[index[-1] < 0])].tolist()
            raise DataError(
                f"{counted(len(unknown), 'level')} of '{block.group}' in "
                f"{counted(int((index[-1] < 0).sum()), 'row')} were not in the data of the fit: "
                f"{listed(unknown)}. Pass groups='new' to draw new groups from the population, or "
                "groups='population' to leave group effects out."
            )
    return PredictorArrays(
        X=X[:, keep],
        offset=np.zeros(len(frame)) if offset is None else offset,
        Z=tuple(Z),
        index=tuple(index),
        new_index=tuple(new_index),
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
