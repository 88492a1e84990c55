"""How partial pooling pulls the estimate of each group: the figures behind the shrinkage plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Block, Design, make_design
from hmlm.errors import HmlmError, listed, suggest
from hmlm.estimates import line_lead, total_lead
from hmlm.fitting.classical_methods import classical_methods
from hmlm.plots.canvas import group_block, group_numbers
from hmlm.spec import with_pooling


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Pulls:
    """The figures of one grouping factor, for one or two of its columns (q).

    partial and none have shape (J, q), mean and complete (q,), covariance (q, q). Where another
    factor crosses this one, the rows of a group tell its difference from other groups only, and
    `none` is centred on `partial`: `relative`.
    """

    levels: pd.Index
    sizes: np.ndarray
    columns: tuple[str, ...]
    partial: np.ndarray
    none: np.ndarray
    mean: np.ndarray
    complete: np.ndarray
    covariance: np.ndarray
    labels: tuple[str, str, str]
    relative: bool

    @property
    def known(self) -> np.ndarray:
        """Which groups have an estimate of their own in every column."""
        return np.isfinite(self.none).all(axis=1)


def plain_fit(design: Design, pooling: str) -> Any:
    """Fit the same rows by least squares or maximum likelihood, without or with complete pooling.

    Raises
    ------
    HmlmError
        If the family has no such fit.
    """
    method = classical_methods(design)[0]
    if method is None:
        raise HmlmError(
            f"a {design.spec.family.name} model has no classical fit to compare with: pass "
            f"{pooling}_fit=model.with_pooling('{pooling}').fit()."
        )
    return method.run(make_design(with_pooling(design.spec, pooling), design.data, "drop"))


def gather_pulls(
    partial_fit: Any,
    none_fit: Any,
    complete_fit: Any,
    group: str | None,
    columns: str | Sequence[str] | None,
) -> Pulls:
    """Gather the figures of `hmlm.plot_shrinkage`, whose parameters these are."""
    design = partial_fit.design
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            f"{partial_fit.label} does not pool partially: pass a fit of a model with a group "
            "term, by hmlm.NUTS() or hmlm.REML(), first."
        )
    block = group_block(design, group)
    chosen = _choose_columns(block, columns)
    none_fit = plain_fit(design, "none") if none_fit is None else none_fit
    complete_fit = plain_fit(design, "complete") if complete_fit is None else complete_fit
    for fit, pooling in ((none_fit, "none"), (complete_fit, "complete")):
        if fit.design.spec.pooling != pooling:
            raise HmlmError(
                f"{pooling}_fit pools {fit.design.spec.pooling!r}: pass a fit of "
                f"model.with_pooling('{pooling}')."
            )
    kind = "total" if line_lead(design, block) is None else "line"
    place = [block.columns.index(c) for c in chosen]
    every = slice(None)
    partial = group_numbers(partial_fit, f"{kind}_{block.group}", every, place)[0]
    none = _own_estimates(none_fit, block, chosen)
    crossed = [_is_crossed(none_fit, block.group, c) for c in chosen]
    for k in np.flatnonzero(crossed):
        none[:, k] = _centred(none[:, k], partial[:, k])
    return Pulls(
        levels=block.levels,
        sizes=block.sizes,
        columns=chosen,
        partial=partial,
        none=none,
        mean=_average_line(partial_fit, partial_fit, block)[place],
        complete=_average_line(complete_fit, partial_fit, block)[place],
        covariance=_population_covariance(partial_fit, block)[np.ix_(place, place)],
        labels=(partial_fit.label, none_fit.label, complete_fit.label),
        relative=any(crossed),
    )


def _choose_columns(block: Block, columns: str | Sequence[str] | None) -> tuple[str, ...]:
    if columns is None:
        return block.columns[:2]
    chosen = (columns,) if isinstance(columns, str) else tuple(columns)
    for column in chosen:
        if column not in block.columns:
            raise HmlmError(
                f"'{column}' does not vary by '{block.group}'.{suggest(column, block.columns)} "
                f"These do: {listed(block.columns)}."
            )
    if len(set(chosen)) != len(chosen) or not 1 <= len(chosen) <= 2:
        raise HmlmError(f"columns names one or two different columns, not {listed(chosen)}.")
    return chosen


def _own_estimates(none_fit: Any, block: Block, chosen: tuple[str, ...]) -> np.ndarray:
    """Return the estimates of no pooling, matched by level and column; NaN where there is none."""
    own = group_block(none_fit.design, block.group)
    absent = [c for c in chosen if c not in own.columns]
    places = own.levels.get_indexer(block.levels)
    if absent or (places < 0).any():
        raise HmlmError(
            f"none_fit lacks {listed(absent or block.levels[places < 0])}: fit the same model to "
            "the same rows."
        )
    columns = [own.columns.index(c) for c in chosen]
    return group_numbers(none_fit, f"total_{block.group}", places, columns)[0]


def _is_crossed(none_fit: Any, group: str, column: str) -> bool:
    """Whether the levels of another factor have estimates beside those of this one."""
    for block in none_fit.design.blocks:
        if block.group != group and column in block.columns:
            k = [block.columns.index(column)]
            numbers = group_numbers(none_fit, f"total_{block.group}", slice(None), k)
            mine = group_numbers(none_fit, f"total_{group}", slice(None), slice(None))
            if np.isfinite(numbers[0]).any() and np.isfinite(mine[0]).any():
                return True
    return False


def _centred(own: np.ndarray, partial: np.ndarray) -> np.ndarray:
    """Give estimates that are known up to a constant the average of others.

    The one level that has none is that which the others are compared with.
    """
    if np.isnan(own).sum() == 1:
        own = np.nan_to_num(own)
    known = np.isfinite(own)
    return np.asarray(own - own[known].mean() + partial[known].mean())


def _average_line(fit: Any, partial_fit: Any, block: Block) -> np.ndarray:
    """Return the intercept and slopes of the average group under the coefficients of a fit.

    Each group has its own values of the group-level predictors; this is the mean over groups.
    """
    design = partial_fit.design
    if not fit.design.terms:
        return np.zeros(len(block.columns))
    lead = line_lead(design, block)
    if lead is None:
        lead = total_lead(design, block)[None]
    average = lead.mean(axis=0)
    beta = dict(zip(fit.design.terms, fit.describe("beta", 0.95).estimate, strict=True))
    return average @ np.array([beta.get(term, 0.0) for term in design.terms])


def _population_covariance(fit: Any, block: Block) -> np.ndarray:
    """Return D; effects that the model takes as independent have no covariance."""
    sd = np.asarray(fit.describe(f"sd_{block.group}", 0.95).estimate)
    cor = np.eye(len(sd))
    if block.correlated:
        cor = np.nan_to_num(np.array(fit.describe(f"cor_{block.group}", 0.95).estimate))
        np.fill_diagonal(cor, 1.0)
    return cor * np.outer(sd, sd)
