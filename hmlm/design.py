"""Specification and data become arrays and coordinates: the fork of the road.

Everything after this stage, Bayesian or classical, shares these columns, levels and names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hmlm.blocks import Block as Block
from hmlm.blocks import Predictor as Predictor
from hmlm.blocks import Variable as Variable
from hmlm.blocks import column_moments, encode_data, make_blocks
from hmlm.cells import Cells, Moments, moments
from hmlm.data import GroupedData, read_only
from hmlm.design_checks import (
    check_sizes,
    independent_columns,
    keep_columns,
    repeated_by_groups,
)
from hmlm.encoding import Encoding
from hmlm.errors import listed
from hmlm.outcome import Outcome, make_outcome
from hmlm.spec import GroupTerm, ModelSpec


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
    def n_rows(self) -> int:
        """Number of rows of the table that the model is of."""
        return len(self.y) if self.cells is None else self.cells.n

    @property
    def cells(self) -> Cells | None:
        """What the rows stand for where they are not the rows of the table."""
        return self.data.cells

    @property
    def counts(self) -> np.ndarray | None:
        """How many rows of the table each row stands for, where its values are theirs."""
        return None if self.cells is None or self.cells.sums else self.cells.counts

    @property
    def row_weights(self) -> np.ndarray:
        """How many rows of the table each row stands for, as numbers: ones where it is itself."""
        return np.ones(len(self.y)) if self.counts is None else self.counts.astype(float)

    def rows_in(self, which: np.ndarray) -> int:
        """Return how many rows of the table some rows stand for."""
        return int(which.sum() if self.counts is None else self.counts[which].sum())

    @property
    def response_moments(self) -> Moments:
        """Average and sd of the outcome less its offset over the rows of the table."""
        if self.cells is not None and self.cells.y_moments is not None:
            return self.cells.y_moments
        return moments(self.response, self.counts)

    @property
    def mean_weight(self) -> float:
        """Average weight of the rows of the table; one where there are no weights."""
        if self.cells is not None and self.cells.sums:
            return self.cells.mean_weight
        if self.weights is None:
            return 1.0
        if self.counts is None:
            return float(self.weights.mean())
        return float(self.counts @ self.weights / self.counts.sum())

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
            moments=_term_moments(self.encoding, self.X, self.terms, self.cells),
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
        notes = [note for note in (self.data.origin, self.data.missing_note) if note]
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
    outcome = _outcome(spec, data)
    mean = _make_predictor("", spec, spec.terms, spec.group_terms, data, collinear)
    check_sizes(spec, data.n_used, mean.X.shape[1], mean.blocks)
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
    encoding = encode_data(f"1{text[1:]}" if cut else text, data)
    offset = encoding.offset
    if data.cells is not None and data.cells.sums and data.cells.has_offset and not name:
        offset = np.zeros(len(encoding.values))  # taken off the outcome already
    made = Predictor(
        name=name,
        X=read_only(np.ascontiguousarray(encoding.values)),
        terms=encoding.names,
        blocks=(),
        offset=None if offset is None else read_only(offset),
        encoding=encoding,
        moments=column_moments((encoding,), encoding.values, data.cells),
    )
    made = keep_columns(made, independent_columns(made, data.n_used, collinear))
    if cut:
        aliased = made.aliased
        made = keep_columns(made, np.arange(len(made.terms)) > 0)
        made = replace(made, aliased=aliased)
    if spec.pooling != "complete":
        made = replace(made, blocks=make_blocks(group_terms, data))
    if spec.pooling == "none" and made.blocks:
        repeated = repeated_by_groups(made.X, max(made.blocks, key=lambda b: len(b.levels)))
        made = keep_columns(made, ~repeated)
    return made


def _outcome(spec: ModelSpec, data: GroupedData) -> Outcome:
    """Return the outcome of the rows, or what stands for it."""
    cells = data.cells
    if cells is not None and cells.y is not None:
        return Outcome(y=cells.y)
    return make_outcome(spec, data.frame, None if cells is None else cells.counts)


def _term_moments(
    encoding: Encoding, X: np.ndarray, terms: tuple[str, ...], cells: Cells | None
) -> Moments | None:
    """Return averages and spreads of the columns that were kept."""
    if cells is None:
        return None
    if not cells.sums:
        return moments(X, cells.counts)
    own = cells.moments[encoding.text]
    keep = [encoding.names.index(t) for t in terms]
    return Moments(n=own.n, mean=own.mean[keep], sd=own.sd[keep])


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
