"""Specification and data become arrays and coordinates: the fork of the road.

Everything after this stage, Bayesian or classical, shares these columns, levels and names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmlm.data import GroupedData, read_only
from hmlm.encoding import Encoding, check_finite, encode, evaluate
from hmlm.errors import DataError, counted, listed
from hmlm.linear import dependent_columns, within_groups
from hmlm.spec import ModelSpec


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Block:
    """The group effects of one grouping factor.

    Attributes
    ----------
    group : str
        Name of the factor.
    levels : pandas.Index, length J
        Its levels.
    index : ndarray of int, shape (N,)
        Every row's level.
    columns : tuple of str, length q
        Names of the columns of Z.
    Z : ndarray, shape (N, q)
        Values that the effects of a row's group are multiplied with.
    parts : tuple of int
        Sizes of the correlated parts, which sum to q: ``(2,)`` for ``(x | g)``, ``(1, 1)`` for
        ``(x || g)``.
    encodings : tuple of Encoding
        What makes Z from new rows.
    """

    group: str
    levels: pd.Index
    index: np.ndarray
    columns: tuple[str, ...]
    Z: np.ndarray
    parts: tuple[int, ...]
    encodings: tuple[Encoding, ...]

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows of each level."""
        return np.bincount(self.index, minlength=len(self.levels))

    @property
    def correlated(self) -> bool:
        """Whether any two effects of a level are correlated."""
        return any(size > 1 for size in self.parts)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Columns of each correlated part."""
        stops = np.cumsum(self.parts)
        return tuple(slice(int(b - a), int(b)) for a, b in zip(self.parts, stops, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Design:
    """Arrays and coordinates of one model on one data set.

    Attributes
    ----------
    spec : ModelSpec
        What was asked for.
    data : GroupedData
        The rows used.
    y : ndarray, shape (N,)
        The outcome.
    X : ndarray, shape (N, p)
        Population columns.
    terms : tuple of str, length p
        Their names.
    blocks : tuple of Block
        One for each grouping factor; empty under complete pooling.
    offset : ndarray of shape (N,) or None
        Known part of the linear predictor.
    weights : ndarray of shape (N,) or None
        Weights: the residual variance of a row is sigma^2 / weight.
    aliased : tuple of str
        Population columns dropped because the group effects repeat them (no pooling), or because
        they depend on earlier columns.
    encoding : Encoding
        What makes X from new rows (before columns were dropped).
    coords : mapping of str to sequence
        Values along every dimension.
    """

    spec: ModelSpec
    data: GroupedData
    y: np.ndarray
    X: np.ndarray
    terms: tuple[str, ...]
    blocks: tuple[Block, ...]
    offset: np.ndarray | None
    weights: np.ndarray | None
    aliased: tuple[str, ...]
    encoding: Encoding
    coords: Mapping[str, Any]

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of every variable of the model, in the order of a table of estimates."""
        dims: dict[str, tuple[str, ...]] = {"beta": ("term",)} if self.terms else {}
        partial = self.spec.pooling == "partial"
        for block in self.blocks if partial else ():
            g = block.group
            dims[f"sd_{g}"] = (f"{g}_term",)
            if block.correlated:
                dims[f"cor_{g}"] = (f"{g}_term", f"{g}_term_")
        if self.spec.family.scale:
            dims[self.spec.family.scale] = ()
        for block in self.blocks:
            dims[f"b_{block.group}"] = (block.group, f"{block.group}_term")
        return dims

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences: rows with missing values, and columns."""
        notes = [self.data.missing_note] if self.data.n_dropped else []
        if self.aliased and self.spec.pooling == "none":
            notes.append(
                "Left out because the groups' own coefficients repeat them: "
                f"{listed(self.aliased)}."
            )
        elif self.aliased:
            notes.append(f"Dropped because they depend on earlier columns: {listed(self.aliased)}.")
        return tuple(notes)

    @property
    def response(self) -> np.ndarray:
        """The outcome less the offset."""
        return self.y if self.offset is None else self.y - self.offset


def make_design(spec: ModelSpec, data: GroupedData, collinear: str = "error") -> Design:
    """Turn a specification and data into arrays.

    Parameters
    ----------
    spec : ModelSpec
        What to fit.
    data : GroupedData
        The rows, with every grouping factor of `spec` indexed.
    collinear : {"error", "drop"}
        What to do with a population column that depends on earlier ones: refuse it, or drop it as
        lme4 does.

    Returns
    -------
    Design
        Arrays, names and coordinates.

    Raises
    ------
    DataError
        If the model cannot be told from the data: a constant or collinear predictor, fewer rows
        than parameters, groups of one row with a slope.
    """
    frame = data.frame
    y = _outcome(spec, frame)
    encoding = encode(spec.terms, frame)
    X, terms = encoding.values, encoding.names
    X, terms, aliased = _check_population(X, terms, collinear)
    blocks = () if spec.pooling == "complete" else _make_blocks(spec, data)
    _check_sizes(spec, len(y), X, blocks)
    if spec.pooling == "none" and blocks:
        repeated = _repeated_by_groups(X, max(blocks, key=lambda b: len(b.levels)))
        aliased = (*aliased, *(t for t, r in zip(terms, repeated, strict=True) if r))
        X, terms = X[:, ~repeated], tuple(t for t, r in zip(terms, repeated, strict=True) if not r)
    coords: dict[str, Any] = {"row": np.arange(len(y)), "term": list(terms)}
    for block in blocks:
        coords[block.group] = block.levels
        coords[f"{block.group}_term"] = list(block.columns)
        coords[f"{block.group}_term_"] = list(block.columns)
    return Design(
        spec=spec,
        data=data,
        y=read_only(y),
        X=read_only(np.ascontiguousarray(X)),
        terms=terms,
        blocks=blocks,
        offset=None if encoding.offset is None else read_only(encoding.offset),
        weights=_weights(spec, frame),
        aliased=aliased,
        encoding=encoding,
        coords=coords,
    )


def _repeated_by_groups(X: np.ndarray, block: Block) -> np.ndarray:
    """Say which population columns own coefficients of every group, and earlier columns, repeat."""
    if not X.shape[1]:
        return np.zeros(0, dtype=bool)
    residual = within_groups(block.Z, block.index, X).residual
    size = np.sqrt((X**2).sum(axis=0))
    repeated = np.asarray(np.sqrt((residual**2).sum(axis=0)) < 1e-7 * size)
    left = np.flatnonzero(~repeated)
    repeated[left[list(dependent_columns(residual[:, left]))]] = True
    return repeated


def _outcome(spec: ModelSpec, frame: pd.DataFrame) -> np.ndarray:
    if spec.outcome in frame:
        column = frame[spec.outcome]
        if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
            raise DataError(
                f"the outcome '{spec.outcome}' is of type {column.dtype} in "
                f"{counted(len(column), 'row')}; a {spec.family.name} model needs numbers: convert "
                "it first."
            )
        y = column.to_numpy(dtype=float, copy=True)
    else:
        if spec.outcome.startswith(("p(", "prop(")):
            raise DataError(
                f"'{spec.outcome}' is a count out of trials; a {spec.family.name} model needs one "
                "number a row: name one column, or the function of one, before '~'."
            )
        response = evaluate(f"{spec.outcome} ~ 1", frame).response
        y = np.asarray(response.design_matrix)
        if response.kind != "numeric" or y.dtype == bool or y.shape != (len(frame),):
            raise DataError(
                f"the outcome '{spec.outcome}' is no column of numbers; a {spec.family.name} model "
                "needs one number a row."
            )
        y = y.astype(float)
    check_finite({spec.outcome: y})
    if np.ptp(y) == 0:
        raise DataError(
            f"the outcome '{spec.outcome}' has the same value in all {counted(len(y), 'row')}: "
            "there is nothing to explain."
        )
    return y


def _weights(spec: ModelSpec, frame: pd.DataFrame) -> np.ndarray | None:
    if spec.weights is None:
        return None
    column = frame[spec.weights]
    if not pd.api.types.is_numeric_dtype(column):
        raise DataError(
            f"the weights '{spec.weights}' are of type {column.dtype} in "
            f"{counted(len(column), 'row')}: they must be positive numbers."
        )
    weights = column.to_numpy(dtype=float, copy=True)
    if bad := int((weights <= 0).sum()):
        raise DataError(
            f"the weights '{spec.weights}' must be positive; {counted(bad, 'row')} are not: leave "
            "them out or correct them."
        )
    return read_only(weights)


def _check_population(
    X: np.ndarray, terms: tuple[str, ...], collinear: str
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Refuse or drop columns that depend on earlier ones."""
    dependent = dependent_columns(X)
    if not dependent:
        return X, terms, ()
    if collinear == "error":
        k, others = next(iter(dependent.items()))
        if others in ([], [0]) and np.ptp(X[:, k]) == 0:
            raise DataError(
                f"predictor '{terms[k]}' has the same value ({X[0, k]:g}) in all "
                f"{counted(len(X), 'row')}: leave it out of the formula."
            )
        raise DataError(
            f"predictor '{terms[k]}' is collinear: in all {counted(len(X), 'row')} it is a linear "
            f"combination of {listed(repr(terms[i]) for i in others)}. Leave one of them out, or "
            "pass collinear='drop' to drop it as lme4 does."
        )
    keep = [k for k in range(len(terms)) if k not in dependent]
    return X[:, keep], tuple(terms[k] for k in keep), tuple(terms[k] for k in dependent)


def group_blocks(design: Design) -> tuple[Block, ...]:
    """Return a design's blocks; under complete pooling those that the formula would have made.

    Every group has its totals under complete pooling too: those of the population.
    """
    if design.spec.pooling == "complete":
        return _make_blocks(design.spec, design.data)
    return design.blocks


def find_block(design: Design, group: str) -> Block:
    """Return the block of one grouping factor, under any pooling."""
    return next(b for b in group_blocks(design) if b.group == group)


def _make_blocks(spec: ModelSpec, data: GroupedData) -> tuple[Block, ...]:
    blocks = []
    for group in spec.groups:
        encodings: list[Encoding] = []
        columns: list[str] = []
        parts: list[int] = []
        for term in (t for t in spec.group_terms if t.group == group):
            encoding = encode(term.terms, data.frame)
            if twice := set(encoding.names).intersection(columns):
                raise DataError(
                    f"'{min(twice)}' varies by '{group}' in two terms: name it in one, or write "
                    f"(0 + ... | {group}) for the second."
                )
            columns += encoding.names
            parts += [len(encoding.names)] if term.correlated else [1] * len(encoding.names)
            encodings.append(encoding)
        if not columns:
            raise DataError(f"the term of '{group}' has no effect left: write (1 | {group}).")
        Z = np.column_stack([e.values for e in encodings])
        for k, others in dependent_columns(Z).items():
            if _distinguishable(Z, parts):
                break
            raise DataError(
                f"in the group term of '{group}', '{columns[k]}' depends on "
                f"{listed(columns[i] for i in others) or 'nothing: it is zero in every row'}: "
                "leave one of them out."
            )
        blocks.append(
            Block(
                group=group,
                levels=data.levels[group],
                index=data.index[group],
                columns=tuple(columns),
                Z=read_only(np.ascontiguousarray(Z)),
                parts=tuple(parts),
                encodings=tuple(encodings),
            )
        )
    return tuple(blocks)


def _distinguishable(Z: np.ndarray, parts: list[int]) -> bool:
    """Return whether the data tell the variances of dependent columns apart.

    As in ``(1 | g) + (0 + factor || g)``: each variance and covariance is the weight of an outer
    product of two columns, and those may be independent where the columns are not.
    """
    length = np.sqrt((Z**2).sum(axis=0))
    R = np.linalg.qr(Z / np.where(length > 0, length, 1.0), mode="r")
    products = []
    stops = np.cumsum(parts)
    for start, stop in zip(stops - parts, stops, strict=True):
        for a in range(start, stop):
            for b in range(start, a + 1):
                products.append((np.outer(R[:, a], R[:, b]) + np.outer(R[:, b], R[:, a])).ravel())
    return bool(np.linalg.matrix_rank(np.array(products)) == len(products))


def _check_sizes(spec: ModelSpec, n: int, X: np.ndarray, blocks: tuple[Block, ...]) -> None:
    """Refuse models with fewer rows than parameters."""
    p = X.shape[1]
    if n <= p:
        raise DataError(
            f"{counted(n, 'row')} are too few for {counted(p, 'population coefficient')} and a "
            "residual: leave predictors out or add rows."
        )
    for block in blocks:
        J, q = len(block.levels), len(block.columns)
        if spec.pooling == "partial" and n <= J * q:
            largest = int(block.sizes.max())
            how = (
                f"every group of '{block.group}' has one row"
                if largest == 1
                else f"the groups of '{block.group}' have at most {counted(largest, 'row')}"
            )
            raise DataError(
                f"{how} ({counted(n, 'row')} for {counted(J, 'group')} with "
                f"{counted(q, 'effect')} each): the effects of {listed(block.columns)} cannot be "
                f"told from the residual. Use (1 | {block.group}) or fewer effects, a coarser "
                "group, or leave the term out."
            )
