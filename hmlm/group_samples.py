"""A sample of whole groups of a table of any size, in memory."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from hmlm.errors import HmlmError
from hmlm.lazy_rows import check_columns, collect, complete_rows, plain_keys
from hmlm.sources import is_source, open_source, schema


def sample_groups(
    data: Any,
    group: str,
    n: int,
    random_seed: int | None = None,
    *,
    memory_limit: str | None = None,
) -> pd.DataFrame:
    """Read all rows of some groups, drawn at random, into memory.

    Every group has the same chance, whatever its size, and comes whole, so that variation between
    groups and inside of them are estimated from the sample as from the table, less precisely.
    Groups of a nested factor, such as classes of schools, come with the outer ones that are drawn.

    Parameters
    ----------
    data : data frame, lazy frame, relation or path
        The table, as of `hmlm.Model`.
    group : str
        Column of the groups.
    n : int
        How many groups; all of them where there are no more.
    random_seed : int, optional
        Seed of the draw.
    memory_limit : str, optional
        How much memory DuckDB may take to read files.

    Returns
    -------
    pandas.DataFrame
        The rows of these groups with all columns; rows without a group are left out.

    Raises
    ------
    HmlmError
        If `n` is no number of groups, or `group` names several columns.
    DataError
        If there is no such column.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.group_samples import sample_groups
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> some = sample_groups(sleep, "Subject", 5, random_seed=1)
    >>> some["Subject"].nunique(), len(some)
    (5, 50)
    """
    size: Any = n
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise HmlmError(f"n is a number of groups, at least 1, not {n!r:.60}.")
    if ":" in group:
        outer = group.partition(":")[0]
        raise HmlmError(
            f"groups are drawn by one column, not by '{group}': draw those of '{outer}', and the "
            "groups inside come with them."
        )
    if isinstance(data, pd.DataFrame) and not is_source(data) and group in data:
        values = data[group]
        levels = pd.unique(values.dropna())
        return data[values.isin(_drawn(levels, int(n), random_seed))].reset_index(drop=True)
    source = open_source(data, memory_limit)
    check_columns(source, [group])
    there = complete_rows(source, [group])
    distinct = collect(source, there.select(nw.col(group).alias("g")).unique())["g"]
    chosen = _drawn(distinct.to_numpy(), int(n), random_seed).tolist()
    if not chosen:
        raise HmlmError(f"column '{group}' has no value in any row: name another column.")
    column = nw.col(group)
    if schema(source)[group] in ("text", "category") and not isinstance(chosen[0], (int, float)):
        column = column.cast(nw.String)
    found = collect(source, there.filter(column.is_in(chosen)))
    found.columns = list(source.frame.collect_schema())
    ordered = {c: plain_keys(source, c, found[c]) for c in source.orders}
    return found.assign(**ordered)


def _drawn(levels: Any, n: int, random_seed: int | None) -> np.ndarray:
    """Return n of the levels, in an order that does not depend on that of the rows."""
    known = np.asarray(levels)
    known = np.sort(known.astype(str) if known.dtype == object else known)
    if n >= len(known):
        return known
    rng = np.random.default_rng(random_seed)
    return np.asarray(rng.choice(known, n, replace=False))
