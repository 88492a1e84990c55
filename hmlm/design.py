"""Specification and data become arrays and coordinates: the fork of the road.

Everything after this stage, Bayesian or classical, shares these columns, levels and names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hmlm.blocks import Block as Block
from hmlm.blocks import Predictor as Predictor
from hmlm.blocks import Variable as Variable
from hmlm.blocks import make_blocks
from hmlm.data import GroupedData, make_grouped_data, read_only
from hmlm.encoding import Encoding, encode
from hmlm.errors import DataError, HmlmError, counted, listed
from hmlm.linear import dependent_columns, within_groups
from hmlm.outcome import make_outcome
from hmlm.spec import GroupTerm, ModelSpec

_ANY_TYPE = ("binary", "trials", "ordered", "category")


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
        The outcome: successes where there are trials, codes from 0 where there are categories.
    X : ndarray, shape (N, p)
        Population columns.
    terms : tuple of str, length p
        Their names.
    blocks : tuple of Block
        One for each grouping factor; empty under complete pooling.
    offset : ndarray of shape (N,) or None
        Known part of the linear predictor.
    weights : ndarray of shape (N,) or None
        Weights: the residual variance of a row is sigma^2 / weight; inverse squares of the
        standard errors where those are known.
    trials : ndarray of shape (N,) or None
        Trials of a binomial outcome.
    categories : tuple of str
        Labels of an ordinal, categorical or yes/no outcome.
    distributional : tuple of Predictor
        Linear predictors besides that of the mean.
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
    trials: np.ndarray | None
    categories: tuple[str, ...]
    distributional: tuple[Predictor, ...]
    aliased: tuple[str, ...]
    encoding: Encoding
    coords: Mapping[str, Any]

    @property
    def known_se(self) -> bool:
        """Whether the standard errors of the outcome are known, so that sigma is one."""
        return self.spec.standard_error is not None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Parameters of the family that are one number for all rows."""
        modelled = {d.name for d in self.distributional}
        if self.known_se:
            modelled.add("sigma")
        return tuple(p for p in self.spec.family.parameters if p not in modelled)

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """All linear predictors, that of the mean first."""
        mean = Predictor(
            name="",
            X=self.X,
            terms=self.terms,
            blocks=self.blocks,
            offset=self.offset,
            encoding=self.encoding,
            aliased=self.aliased,
        )
        return (mean, *self.distributional)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of the model, in the order of a table of estimates."""
        found: list[Variable] = []
        effects: list[Variable] = []
        partial = self.spec.pooling == "partial"

        def add(to: list[Variable], p: Predictor, kind: str, name: str, group: str, *dims: str):  # type: ignore[no-untyped-def]
            to.append(
                Variable(name=p.named(name), kind=kind, predictor=p.name, group=group, dims=dims)
            )

        for p in self.predictors:
            if not p.name and self.spec.family.outcome == "ordered":
                add(found, p, "cutpoint", "cutpoints", "", "cutpoint")
            if p.terms:
                add(found, p, "population", "beta", "", p.named("term"))
        for p in self.predictors:
            for block in p.blocks:
                g, term = block.group, p.named(f"{block.group}_term")
                if partial:
                    add(found, p, "sd", f"sd_{g}", g, term)
                if partial and block.correlated:
                    add(found, p, "cor", f"cor_{g}", g, term, f"{term}_")
                add(effects, p, "group", f"b_{g}", g, g, term)
        for name in self.parameters:
            found.append(Variable(name=name, kind="parameter", predictor="", group="", dims=()))
        return (*found, *effects)

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of every variable of the model, in the order of a table of estimates."""
        return {v.name: v.dims for v in self.variables}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences: rows with missing values, and columns."""
        notes = [self.data.missing_note] if self.data.missing_note else []
        if self.aliased and self.spec.pooling == "none":
            notes.append(
                "Left out because the groups' own coefficients repeat them: "
                f"{listed(self.aliased)}."
            )
        elif self.aliased:
            notes.append(f"Dropped because they depend on earlier columns: {listed(self.aliased)}.")
        if self.categories and self.spec.family.outcome in ("binary", "trials"):
            notes.append(f"'{self.spec.outcome}': {self.categories[1]} counts as success.")
        return tuple(notes)

    @property
    def shares(self) -> np.ndarray:
        """The outcome; of counts out of trials the share of successes."""
        return self.y if self.trials is None else self.y / np.maximum(self.trials, 1.0)

    @property
    def response(self) -> np.ndarray:
        """The outcome less the offset."""
        return self.y if self.offset is None else self.y - self.offset


def read_data(spec: ModelSpec, data: Any, missing: str = "drop") -> GroupedData:
    """Check the columns that a specification names and index its grouping factors.

    Parameters
    ----------
    spec : ModelSpec
        What to fit.
    data : data frame
        The table.
    missing : {"drop", "impute"}
        What becomes of rows whose outcome alone is missing: left out as all incomplete rows are,
        or kept aside in `GroupedData.held` to be predicted.

    Raises
    ------
    DataError
        If the data cannot be used; see `make_grouped_data`.
    """
    if missing not in ("drop", "impute"):
        raise HmlmError(f"missing is 'drop' or 'impute', not {missing!r}.")
    extra = [spec.weights, spec.standard_error]
    columns = [*spec.columns, *(c for c in extra if c and not _is_number(c))]
    numeric = spec.outcome in spec.columns and spec.family.outcome not in _ANY_TYPE
    return make_grouped_data(
        data,
        columns,
        spec.all_groups,
        [spec.outcome] if numeric else [],
        outcome_columns(spec) if missing == "impute" else (),
    )


def outcome_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Return the columns that make the outcome and that nothing else needs.

    Examples
    --------
    >>> from hmlm.formula import parse_formula
    >>> outcome_columns(parse_formula("log(y) ~ x + (1 | g)"))
    ('y',)
    """
    if spec.outcome in spec.columns:
        return (spec.outcome,)
    right = " ".join(
        [spec.terms, *map(str, spec.group_terms), *map(str, spec.distributional), str(spec.trials)]
    )
    return tuple(c for c in spec.columns if _names(spec.outcome, c) and not _names(right, c))


def _names(text: str, column: str) -> bool:
    """Whether a formula has a column in it."""
    return bool(re.search(rf"(?<![\w`]){re.escape(column)}(?![\w`(])|`{re.escape(column)}`", text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
    outcome = make_outcome(spec, data.frame)
    mean = _make_predictor("", spec, spec.terms, spec.group_terms, data, collinear)
    _check_sizes(spec, len(outcome.y), mean.X, mean.blocks)
    others = [
        _make_predictor(d.name, spec, d.terms, d.group_terms, data, collinear)
        for d in spec.distributional
    ]
    if spec.family.outcome == "category":
        others = [replace(mean, name=f"mu_{label}") for label in outcome.categories[2:]]
    coords: dict[str, Any] = {"row": np.arange(len(outcome.y))}
    if spec.family.outcome == "ordered":
        pairs = zip(outcome.categories, outcome.categories[1:], strict=False)
        coords["cutpoint"] = [f"{a}|{b}" for a, b in pairs]
    for p in (mean, *others):
        coords[p.named("term")] = list(p.terms)
        for block in p.blocks:
            coords[block.group] = block.levels
            coords[p.named(f"{block.group}_term")] = list(block.columns)
            coords[p.named(f"{block.group}_term_")] = list(block.columns)
    return Design(
        spec=spec,
        data=data,
        y=outcome.y,
        X=mean.X,
        terms=mean.terms,
        blocks=mean.blocks,
        offset=mean.offset,
        weights=outcome.weights,
        trials=outcome.trials,
        categories=outcome.categories,
        distributional=tuple(others),
        aliased=mean.aliased,
        encoding=mean.encoding,
        coords=coords,
    )


def _make_predictor(
    name: str,
    spec: ModelSpec,
    text: str,
    group_terms: tuple[GroupTerm, ...],
    data: GroupedData,
    collinear: str,
) -> Predictor:
    """Make the arrays of one linear predictor."""
    cut = not name and spec.family.outcome == "ordered"
    # The cutpoints of an ordinal outcome are its intercepts.
    encoding = encode(f"1{text[1:]}" if cut else text, data.frame)
    X, terms, aliased = _check_population(encoding.values, encoding.names, collinear)
    if cut:
        X, terms = X[:, 1:], terms[1:]
    blocks = () if spec.pooling == "complete" else make_blocks(group_terms, data)
    if spec.pooling == "none" and blocks:
        repeated = _repeated_by_groups(X, max(blocks, key=lambda b: len(b.levels)))
        aliased = (*aliased, *(t for t, r in zip(terms, repeated, strict=True) if r))
        X, terms = X[:, ~repeated], tuple(t for t, r in zip(terms, repeated, strict=True) if not r)
    return Predictor(
        name=name,
        X=read_only(np.ascontiguousarray(X)),
        terms=terms,
        blocks=blocks,
        offset=None if encoding.offset is None else read_only(encoding.offset),
        encoding=encoding,
        aliased=aliased,
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
        return make_blocks(design.spec.group_terms, design.data)
    return design.blocks


def find_block(design: Design, group: str) -> Block:
    """Return the block of one grouping factor, under any pooling."""
    return next(b for b in group_blocks(design) if b.group == group)


def _check_sizes(spec: ModelSpec, n: int, X: np.ndarray, blocks: tuple[Block, ...]) -> None:
    """Refuse models with fewer rows than parameters."""
    p = X.shape[1]
    if n < p or (n == p and spec.family.scale):
        raise DataError(
            f"{counted(n, 'row')} are too few for {counted(p, 'population coefficient')} and a "
            "residual: leave predictors out or add rows."
        )
    if spec.standard_error is not None or not spec.family.scale:
        return
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
