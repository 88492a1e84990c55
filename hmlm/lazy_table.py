"""A table larger than memory, what is known of it, and the cells that it is cut into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from hmlm.aggregation import MAX_BYTES, CellSums, count_rows, estimate_cells, sum_products
from hmlm.cells import Cells
from hmlm.column_facts import Facts
from hmlm.data import GroupedData, index_levels, read_only
from hmlm.errors import DataError, counted, listed
from hmlm.grammar import scan_formula
from hmlm.lazy_columns import MEASURED, plain_type
from hmlm.sources import Source
from hmlm.spec import ModelSpec
from hmlm.table_columns import ANY_TYPE, names_column

MOST_MERGED = 20_000_000  # rows


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LazyTable:
    """A table and what is asked of it."""

    spec: ModelSpec
    source: Source
    columns: list[str]
    facts: Facts
    texts: tuple[str, ...]
    memory: int = MAX_BYTES

    @property
    def factors(self) -> list[str]:
        """Columns of the grouping factors."""
        groups = self.spec.all_groups
        return list(dict.fromkeys(f for g in groups for f in g.split(":")))

    @property
    def predictors(self) -> list[str]:
        """Columns that terms are made of."""
        return [c for c in self.columns if any(names_column(t, c) for t in self.texts)]

    def totals(self, values: Mapping[str, nw.Expr]) -> CellSums:
        """Sum values over all complete rows."""
        means = {c: f.mean for c, f in self.facts.columns.items() if np.isfinite(f.mean)}
        sds = {c: f.sd for c, f in self.facts.columns.items() if f.sd > 0}
        return sum_products(self.source, self.columns, [], values, means, sds)


def encoded_texts(spec: ModelSpec) -> tuple[str, ...]:
    """Return the sums of terms that a design of the specification encodes."""
    mean = f"1{spec.terms[1:]}" if spec.family.outcome == "ordered" else spec.terms
    found = [mean, *(t.terms for t in spec.group_terms)]
    for parameter in spec.distributional:
        found += [parameter.terms, *(t.terms for t in parameter.group_terms)]
    return tuple(dict.fromkeys(found))


def has_levels(column: str, texts: Sequence[str], kinds: Mapping[str, str]) -> bool:
    """Whether terms need the levels of a column: of text, and of what stands in C()."""
    for text in texts:
        if not names_column(text, column):
            continue
        if kinds.get(column) in ("text", "category"):
            return True
        tokens = scan_formula(text)
        for called, opened, inside in zip(tokens, tokens[1:], tokens[2:], strict=False):
            if called.text == "C" and opened.kind == "LEFT_PAREN" and inside.name == column:
                return True
    return False


def check_facts(spec: ModelSpec, facts: Facts) -> None:
    """Refuse outcomes that are no numbers, and infinite values, as tables in memory are."""
    outcome = facts.columns.get(spec.outcome)
    if outcome is not None and spec.family.outcome not in ANY_TYPE and outcome.kind not in MEASURED:
        raise DataError(
            f"the outcome '{spec.outcome}' must hold numbers, but its "
            f"{counted(facts.n_rows, 'row')} are of type {outcome.kind}: convert it first."
        )
    for column in facts.columns.values():
        if column.infinite:
            raise DataError(
                f"column '{column.name}' is infinite in {counted(column.infinite, 'row')}: correct "
                "them, or make them missing to leave them out."
            )


def group_cells(
    table: LazyTable, keys: pd.DataFrame, cell: np.ndarray, cells: Cells, frame: pd.DataFrame
) -> GroupedData:
    """Return the rows of cells with the levels and the index of every factor."""
    groups = table.spec.all_groups
    levels: dict[str, pd.Index] = {}
    index: dict[str, np.ndarray] = {}
    present = {c: _present_levels(keys[c]) for c in table.factors}
    for name in groups:
        own, levels[name] = index_levels(present, name)
        index[name] = read_only(own[cell])
        if len(levels[name]) < 2:
            raise DataError(
                f"column '{name}' has one level in {counted(cells.n, 'row')}, so there is "
                "nothing to pool: use a grouping column with two or more levels, or leave the "
                f"term (... | {name}) out."
            )
    return GroupedData(
        frame=frame,
        groups=groups,
        levels=levels,
        index=index,
        n_rows=table.facts.n_rows,
        missing=dict(table.facts.missing),
        cells=cells,
        origin=table_origin(table, cells),
        typical=typical_values(table),
    )


def typical_values(table: LazyTable) -> dict[str, Any]:
    """Return the mean of every number among the predictors, the most frequent level of others."""
    found: dict[str, Any] = {}
    for name in table.predictors:
        column = table.facts.columns[name]
        if column.levels is not None:
            counts = count_rows(table.source, table.columns, [name])
            at = int(np.argmax(counts.iloc[:, -1].to_numpy()))
            found[name] = plain_frame(counts.iloc[:, :1], table.facts)[name].iloc[at]
        elif column.kind == "boolean" and not column.missing:
            found[name] = bool(column.mean > 0.5)
        else:
            found[name] = column.mean
    return found


def _present_levels(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.remove_unused_categories()
    return column


def table_origin(table: LazyTable, cells: Cells) -> str:
    """Say what was read, in a sentence."""
    if cells.sums:
        size = int((cells.counts > 0).sum())
        return (
            f"Fitted from sums over {counted(cells.n, 'row')} of {table.source.name} in "
            f"{counted(size, 'cell')}."
        )
    return (
        f"{counted(cells.n, 'row')} of {table.source.name} merged into "
        f"{counted(len(cells.counts), 'row')} before they were read."
    )


def plain_frame(keys: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    """Return keys in the types that the columns have in memory."""
    typed = {}
    for name in keys.columns:
        column = facts.columns[name]
        typed[name] = keys[name]
        if column.kind in MEASURED:
            typed[name] = keys[name].astype(plain_type(column))
    return pd.DataFrame(typed, copy=False)


def check_merged(table: LazyTable, keys: list[str], memory: int | None) -> None:
    """Refuse more merged rows than memory should hold."""
    n = table.facts.n_complete
    bytes_each = 16 * (len(keys) + 4)
    most = MOST_MERGED if memory is None else min(MOST_MERGED, memory // bytes_each)
    if n <= most:
        return
    merged = estimate_cells(table.source, keys)
    if merged <= most:
        return
    distinct = {c: estimate_cells(table.source, [c]) for c in keys if c not in table.factors}
    worst = sorted(distinct, key=lambda c: -distinct[c])[:3]
    where = listed(f"'{c}' has {counted(distinct[c], 'different value')}" for c in worst)
    group = table.spec.all_groups[0] if table.spec.all_groups else "group"
    raise DataError(
        f"{counted(n, 'row')} of {table.source.name} would merge into about {merged:,} "
        f"({where}), {merged * bytes_each / 2**30:.3g} GiB in memory, and the likelihood of a "
        f"{table.spec.family.name} model has no smaller sums. Round the columns, or fit a sample "
        f"of whole groups, hmlm.sample_groups(data, '{group}', 1000), or read all rows, about "
        f"{n * 8 * len(keys) / 2**30:.3g} GiB, with aggregate=False."
    )
