"""From a table larger than memory to the rows that stand for it in a design."""

from __future__ import annotations

from dataclasses import replace

from hmlm.aggregation import MAX_BYTES, count_rows
from hmlm.cells import Cells
from hmlm.column_facts import read_facts
from hmlm.data import GroupedData, check_group_names, make_grouped_data, read_only
from hmlm.lazy_columns import NotLazyError
from hmlm.lazy_table import (
    LazyTable,
    check_facts,
    check_merged,
    encoded_texts,
    has_levels,
    plain_frame,
    table_origin,
    typical_values,
)
from hmlm.sources import Source, schema
from hmlm.spec import ModelSpec
from hmlm.summed_data import sum_by_values, sum_terms
from hmlm.table_columns import ANY_TYPE, used_columns
from hmlm.trained_columns import train_encoding


def read_aggregated(spec: ModelSpec, source: Source, memory: int | None = None) -> GroupedData:
    """Read a table as the rows that stand for it.

    Gaussian models with the identity link depend on sums of products per cell, the combinations of
    their groups; others on how often each combination of all columns occurs.

    Parameters
    ----------
    spec : ModelSpec
        What to fit.
    source : Source
        The table.
    memory : int, optional
        Bytes that sums, or merged rows, may take.

    Returns
    -------
    GroupedData
        Rows that stand for those of the table, with their `Cells`.

    Raises
    ------
    DataError
        If the data cannot be used, or there would be too many merged rows.
    """
    columns = list(used_columns(spec))
    check_group_names(spec.all_groups)
    texts = encoded_texts(spec)
    kinds = schema(source)
    leveled = [c for c in columns if has_levels(c, texts, kinds)]
    facts = read_facts(source, columns, leveled)
    check_facts(spec, facts)
    table = LazyTable(
        spec=spec,
        source=source,
        columns=columns,
        facts=facts,
        texts=texts,
        memory=MAX_BYTES if memory is None else memory,
    )
    plain = spec.family.name == "gaussian" and spec.family.link == "identity"
    if not plain or spec.distributional:
        return merge_rows(table, memory)
    try:
        return sum_terms(table)
    except NotLazyError:
        return sum_by_values(table, memory)


def merge_rows(table: LazyTable, memory: int | None) -> GroupedData:
    """Count how often every combination of the columns occurs."""
    spec, facts = table.spec, table.facts
    keys = list(dict.fromkeys([*table.factors, *table.columns]))
    check_merged(table, keys, memory)
    found = count_rows(table.source, table.columns, keys)
    n = found.iloc[:, -1].to_numpy()
    frame = plain_frame(found.iloc[:, :-1], facts)
    numeric = [spec.outcome] if spec.outcome in table.columns else []
    if spec.family.outcome in ANY_TYPE:
        numeric = []
    data = make_grouped_data(frame, table.columns, spec.all_groups, numeric, rows=facts.n_complete)
    cells = Cells(
        n=int(n.sum()),
        counts=read_only(n),
        encodings={t: train_encoding(t, data.frame, n) for t in table.texts},
        moments={},
    )
    return replace(
        data,
        n_rows=facts.n_rows,
        missing=dict(facts.missing),
        cells=cells,
        origin=table_origin(table, cells),
        typical=typical_values(table),
    )
