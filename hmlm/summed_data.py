"""A gaussian model's data as sums of products per cell, made where the data are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from hmlm.aggregation import CellSums, sum_products
from hmlm.cells import Cells, Moments, moments
from hmlm.column_facts import Facts
from hmlm.data import GroupedData, read_only
from hmlm.encoding import Encoding
from hmlm.errors import DataError, counted
from hmlm.lazy_columns import (
    LazyColumn,
    LazyTerms,
    argument,
    calls_of,
    columns_of,
    lazy_outcome,
    lazy_terms,
    outcome_part,
    state_values,
    stateful_calls,
    template_frame,
)
from hmlm.lazy_table import LazyTable, check_merged, group_cells, plain_frame
from hmlm.made_rows import make_rows_of_sums
from hmlm.spec import ModelSpec
from hmlm.trained_columns import train_encoding


def sum_terms(table: LazyTable) -> GroupedData:
    """Sum the products of all columns per cell."""
    spec, facts = table.spec, table.facts
    template = template_frame(facts)
    terms = [lazy_terms(text, facts, template) for text in table.texts]
    terms = _with_averages(table, terms)
    outcome = _outcome(table, template)
    offset = next((t.offset for t in terms if t.offset is not None), None)
    made = {c.key: c for t in terms for c in t.columns if c.expression is not None}
    keys = [*made]
    values = {f"v{i}": made[key].value for i, key in enumerate(keys)}
    values["y"] = outcome.value if offset is None else outcome.value - offset.value
    weights = _weights(spec, facts)
    whole = _checked_totals(table, made, outcome, offset, values, weights)
    k = len(values)
    over = Moments(n=int(whole.n[0]), mean=whole.means[0, :k], sd=_sds(whole)[:k])
    if not over.sd[-1] > 0 and offset is None:
        raise DataError(
            f"the outcome '{spec.outcome}' has the same value in all {counted(over.n, 'row')}: "
            "there is nothing to explain."
        )
    centres = dict(zip(values, over.mean.tolist(), strict=True))
    scales = {v: s for v, s in zip(values, over.sd.tolist(), strict=True) if s > 0}
    sums = sum_products(
        table.source, table.columns, table.factors, values, centres, scales, weights, table.memory
    )
    rows = make_rows_of_sums(sums.n, sums.weight, sums.means, sums.products, over.mean, over.sd)
    encodings, spreads = {}, {}
    for t in terms:
        at = [keys.index(c.key) if c.expression is not None else -1 for c in t.columns]
        own = [rows.ones if i < 0 else rows.values[:, i] for i in at]
        encodings[t.text] = Encoding(
            text=t.text,
            names=t.names,
            values=np.column_stack(own) if own else np.empty((len(rows.ones), 0)),
            offset=None,
            source=t.source,
        )
        spreads[t.text] = Moments(
            n=over.n,
            mean=np.array([1.0 if i < 0 else over.mean[i] for i in at]),
            sd=np.array([0.0 if i < 0 else over.sd[i] for i in at]),
        )
    cells = Cells(
        n=over.n,
        counts=read_only(rows.counts),
        ones=read_only(rows.ones),
        within=read_only(rows.within),
        log_weights=sums.log_weight,
        mean_weight=float(sums.weight.sum() / over.n),
        y=read_only(rows.values[:, -1].copy()),
        y_moments=Moments(n=over.n, mean=over.mean[-1], sd=over.sd[-1]),
        encodings=encodings,
        moments=spreads,
        has_offset=offset is not None,
    )
    return group_cells(table, sums.keys, rows.cell, cells, template)


def sum_by_values(table: LazyTable, memory: int | None) -> GroupedData:
    """Sum the outcome per combination of all predictors and groups."""
    spec, facts = table.spec, table.facts
    keys = list(dict.fromkeys([*table.predictors, *table.factors]))
    check_merged(table, keys, memory)
    outcome = _outcome(table, template_frame(facts))
    values = {"y": outcome.value}
    weights = _weights(spec, facts)
    whole = _checked_totals(table, {}, outcome, None, values, weights)
    centres, scales = {"y": float(whole.means[0, 0])}, {"y": float(_sds(whole)[0])}
    plain = sum_products(
        table.source, table.columns, keys, values, centres, scales, None, table.memory
    )
    sums = plain
    if weights is not None:
        sums = sum_products(
            table.source, table.columns, keys, values, centres, scales, weights, table.memory
        )
    frame = plain_frame(plain.keys, facts)
    encodings = {t: train_encoding(t, frame, plain.n) for t in table.texts}
    offset = next((e.offset for e in encodings.values() if e.offset is not None), None)
    away = np.zeros(len(frame)) if offset is None else offset
    root = np.sqrt(sums.weight)
    n = int(plain.n.sum())
    mean = float(plain.n @ (plain.means[:, 0] - away) / n)
    square = float(plain.n @ (plain.means[:, 0] - away - mean) ** 2 + plain.products.sum())
    cells = Cells(
        n=n,
        counts=read_only(plain.n),
        ones=read_only(root),
        within=read_only(sums.products[:, 0, 0].copy()),
        log_weights=sums.log_weight,
        mean_weight=float(sums.weight.sum() / n),
        y=read_only(root * (sums.means[:, 0] - away)),
        y_moments=Moments(n=n, mean=np.array(mean), sd=np.array(np.sqrt(square / (n - 1)))),
        encodings={
            t: replace(e, values=root[:, None] * e.values, offset=None)
            for t, e in encodings.items()
        },
        moments={t: moments(e.values, plain.n) for t, e in encodings.items()},
        has_offset=offset is not None,
    )
    return group_cells(table, frame, np.arange(len(frame)), cells, frame)


def _with_averages(table: LazyTable, terms: list[LazyTerms]) -> list[LazyTerms]:
    """Set the averages that calls of center and scale take off, from the inside out."""
    calls = [pair for t in terms for pair in stateful_calls(t.source)]
    if not calls:
        return terms
    _set_averages(table, calls)
    # The expressions have the averages of the template in them: make them again.
    return [_translated_again(t, table.facts) for t in terms]


def _outcome(table: LazyTable, template: pd.DataFrame) -> LazyColumn:
    part = outcome_part(table.spec.outcome, table.facts, template)
    if part is not None:
        _set_averages(table, list(calls_of(part)))
    return lazy_outcome(table.spec.outcome, part, table.facts)


def _set_averages(table: LazyTable, calls: list[tuple[int, Any]]) -> None:
    for depth in sorted({d for d, _ in calls}):
        now = [call for d, call in calls if d == depth]
        columns = {str(call.args[0]): argument(call, table.facts) for call in now}
        whole = table.totals({f"v{i}": c.value for i, c in enumerate(columns.values())})
        spread = np.sqrt(np.diagonal(whole.products[0]) / whole.n[0])
        found = {key: (float(whole.means[0, i]), float(spread[i])) for i, key in enumerate(columns)}
        state_values(found, now)


def _translated_again(terms: LazyTerms, facts: Facts) -> LazyTerms:
    if terms.source is None:
        return terms
    columns, offset = columns_of(terms.source, facts)
    return replace(terms, columns=columns, offset=offset)


def _sds(sums: CellSums) -> np.ndarray:
    """Return the standard deviations of values that were summed in one cell."""
    n = int(sums.n[0])
    if n < 2:
        return np.full(len(sums.names), np.nan)
    return np.asarray(np.sqrt(np.diagonal(sums.products[0]) / (n - 1)))


def _weights(spec: ModelSpec, facts: Facts) -> nw.Expr | None:
    """Return the weights, or the inverse squares of known standard errors, as an expression."""
    name = spec.weights or spec.standard_error
    if name is None:
        return None
    what = "the weights" if spec.weights else "the standard errors"
    if name not in facts.columns:
        value = nw.lit(float(name))
        if float(name) <= 0:
            raise DataError(f"{what} '{name}' must be positive.")
    else:
        kind = facts.columns[name].kind
        if kind not in ("number", "integer"):
            raise DataError(
                f"{what} '{name}' are of type {kind} in {counted(facts.n_complete, 'row')}: "
                "they must be positive numbers."
            )
        value = nw.col(name).cast(nw.Float64)
    return value if spec.weights else 1.0 / (value * value)


def _checked_totals(
    table: LazyTable,
    made: Mapping[str, LazyColumn],
    outcome: LazyColumn,
    offset: LazyColumn | None,
    values: Mapping[str, nw.Expr],
    weights: nw.Expr | None,
) -> CellSums:
    """Sum all values over the whole table; refuse those that are not finite in some row."""
    suspects = {f"'{key}'": c for key, c in made.items() if not c.safe}
    if not outcome.safe:
        suspects[f"'{table.spec.outcome}'"] = outcome
    if offset is not None:
        suspects["the offset"] = offset
    wrong = {key: ~c.value.is_finite() for key, c in suspects.items()}
    name = table.spec.weights or table.spec.standard_error
    column = None if name is None else table.facts.columns.get(name)
    if weights is not None and column is not None and column.low <= 0:
        wrong["weights"] = nw.col(column.name) <= 0
    if not wrong:
        return table.totals(values)
    # A value that is missing, as the logarithm of zero, is not right either.
    flags = {
        f"f{i}": nw.when(~bad).then(nw.lit(0.0)).otherwise(nw.lit(1.0))
        for i, bad in enumerate(wrong.values())
    }
    found = table.totals(flags)
    for key, share in zip(wrong, found.means[0], strict=True):
        rows = int(np.rint(share * found.n[0]))
        if rows and key == "weights":
            what = "the weights" if table.spec.weights else "the standard errors"
            raise DataError(
                f"{what} '{name}' must be positive; {counted(rows, 'row')} are not: leave them "
                "out or correct them."
            )
        if rows:
            raise DataError(
                f"{key} is not finite in {counted(rows, 'row')}: change the values or the function "
                "(log of zero?)."
            )
    return table.totals(values)
