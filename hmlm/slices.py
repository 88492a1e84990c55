"""Many models at once: the same formula on every slice of a table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

from hmlm.data import check_there, read_columns
from hmlm.errors import HmlmError
from hmlm.estimates import TIDY_COLUMNS, tidy
from hmlm.families import Family
from hmlm.fitting.settings import check_seed
from hmlm.formula import parse_formula
from hmlm.lazy_rows import collect
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.model import Model, chosen_method
from hmlm.progress import progress_bar
from hmlm.simulation_runs import failure
from hmlm.sources import is_source, open_source
from hmlm.table_columns import used_columns

AFTER = ("n", "seconds", "problems", "reason")
DEATHS = ("KilledWorker",)  # how dask says that the workers died that had a task
WAITING = 64  # slices that are cut out and wait for a worker


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Recipe:
    """How each slice is fitted.

    Attributes
    ----------
    arguments : mapping of str to Any
        Arguments of `hmlm.Model` besides the data.
    method : object
        The method.
    prob : float
        Probability of the intervals.
    groups : bool
        Whether estimates of every group are wanted.
    """

    arguments: Mapping[str, Any]
    method: Any
    prob: float
    groups: bool

    def make(self, data: Any) -> Model | str:
        """Return the model of one slice, or the reason why there is none."""
        try:
            return Model(data=data, **self.arguments)
        except Exception as error:
            return reason_of(error)

    def run(self, data: Any, seed: int) -> pd.DataFrame:
        """Fit one slice; a slice that cannot be fitted is one row with its reason.

        Parameters
        ----------
        data : data frame, Model or str
            Its rows, or what `make` made of them.
        seed : int
            Its seed.
        """
        began = time.perf_counter()
        model = data if isinstance(data, (Model, str)) else self.make(data)
        if isinstance(model, str):
            return failed(model)
        n = model.design.n_rows
        try:
            # Not model.fit, which takes an interrupt for itself.
            method = chosen_method(self.method)
            fit = method.run(model.design, random_seed=seed, progressbar=False)
            table = tidy(fit, prob=self.prob, groups=self.groups).drop(columns="fit")
        except Exception as error:
            return failed(reason_of(error), n)
        table["n"] = n
        table["seconds"] = time.perf_counter() - began
        table["problems"] = " ".join(fit.status.problems)
        table["reason"] = ""
        return table


def reason_of(error: Exception) -> str:
    """Return why a slice failed; an error that is none of hmlm's own with its name."""
    if isinstance(error, MemoryError):
        return f"there was not enough memory: {failure(error)}"
    own = isinstance(error, HmlmError)
    return failure(error) if own else f"{type(error).__name__}: {failure(error)}"


def failed(reason: str, n: int = 0) -> pd.DataFrame:
    """Return the one row of a slice that could not be fitted."""
    numbers = {c: [np.nan] for c in TIDY_COLUMNS if c != "fit"}
    words = {c: [""] for c in ("component", "group", "level", "term", "interval")}
    after = {"n": [n], "seconds": [np.nan], "problems": [""], "reason": [reason]}
    return pd.DataFrame({**numbers, **words, **after})


def fit_many(
    formula: str | Sequence[str],
    data: Any,
    by: str | Sequence[str],
    method: Any = None,
    *,
    family: str | Family = "gaussian",
    priors: Mapping[str, Any] | None = None,
    link: str | None = None,
    weights: str | None = None,
    se: str | None = None,
    collinear: str = "error",
    prob: float = 0.95,
    groups: bool = False,
    executor: Executor | None = None,
    random_seed: int | None = None,
    progressbar: bool = True,
) -> pd.DataFrame:
    """Fit one model to each slice of a table: a region, a product, a year at a time.

    Parameters
    ----------
    formula : str or sequence of str
        The model, as in `hmlm.Model`.
    data : data frame, or any source that `hmlm.Model` takes
        The rows. Of a source larger than memory only one slice's aggregate is read at a time.
    by : str or sequence of str
        Columns whose combinations of values are the slices.
    method : object, optional
        How to fit; ``hmlm.NUTS(cores=1)`` when None. ``hmlm.REML()`` is a hundred times faster.
    family, priors, link, weights, se, collinear
        As in `hmlm.Model`.
    prob : float
        Probability of the intervals.
    groups : bool
        Whether to add the estimates of every group.
    executor : concurrent.futures.Executor, optional
        Where to fit: processes, or a cluster's executor, as ``client.get_executor()`` of
        dask.distributed. Threads of this process when None, which the compiled densities leave
        free to run at the same time.
    random_seed : int, optional
        Seed; each slice has its own stream, whatever the executor.
    progressbar : bool
        Whether to show how far it is.

    Returns
    -------
    pandas.DataFrame
        The columns of `by`, those of `hmlm.tidy`, and ``n`` (rows used), ``seconds``,
        ``problems`` (what the fit's status says) and ``reason``. Slices stand in the order of
        their values. One that fails is one row, with the reason in ``reason``; so is one whose
        worker died: those that it took along are fitted anew, one at a time.

    Raises
    ------
    HmlmError
        If the formula cannot be read, or a column is missing: what no slice could bear.

    Examples
    --------
    >>> import hmlm
    >>> pupils = hmlm.load_dataset("egsingle")
    >>> table = hmlm.fit_many(
    ...     "math ~ year + (1 | child)", pupils, by="female", method=hmlm.REML(), progressbar=False
    ... )
    >>> table.loc[table["term"] == "year", ["female", "estimate", "n"]].round(3)
       female  estimate     n
    1       0     0.753  3685
    5       1     0.741  3545
    """
    from hmlm.fitting.nuts import NUTS

    names = [by] if isinstance(by, str) else list(by)
    spec = parse_formula(formula, family, priors, weights, link, se)
    if not names:
        raise HmlmError("by names no column: name one or more, such as by='region'.")
    if twice := [c for c in names if c in spec.groups or c == spec.outcome]:
        raise HmlmError(
            f"'{twice[0]}' is a part of the model and of 'by': a slice would have one value of it. "
            "Leave it out of one of them."
        )
    recipe = Recipe(
        arguments={
            "formula": formula,
            "family": family,
            "priors": priors,
            "link": link,
            "weights": weights,
            "se": se,
            "collinear": collinear,
        },
        method=NUTS(cores=1) if method is None else method,
        prob=prob,
        groups=groups,
    )
    values, rows_of = cut_slices(data, names, used_columns(spec))
    lazy = is_source(data)

    def cut(k: int) -> Any:
        # From a source one query at a time: a connection is for one thread.
        return recipe.make(rows_of(k)) if lazy else rows_of(k)

    root = np.random.SeedSequence(check_seed(random_seed))
    seeds = [int(s.generate_state(1)[0] >> 1) for s in root.spawn(len(values))]
    tables: dict[int, pd.DataFrame] = {}
    with progress_bar("Slices", len(values), progressbar) as advance:
        for k, table in _run(recipe, cut, seeds, executor):
            tables[k] = table
            advance(1)
    pieces = []
    for k in range(len(values)):
        table = tables[k]
        for place, name in enumerate(names):
            table.insert(place, name, [values[k][place]] * len(table))
        pieces.append(table)
    first = [*names, *(c for c in TIDY_COLUMNS if c != "fit"), *AFTER]
    return pd.concat(pieces, ignore_index=True)[first]


def cut_slices(
    data: Any, by: Sequence[str], wanted: Sequence[str]
) -> tuple[list[tuple[Any, ...]], Callable[[int], Any]]:
    """Return the values of all slices, and a function that cuts one of them out.

    Rows whose value of `by` is missing are a slice of their own, with the value None.
    """
    if is_source(data):
        return _cut_source(data, by, wanted)
    columns = read_columns(data, list(dict.fromkeys([*by, *wanted])))
    grouped = columns.groupby(list(by), sort=True, dropna=False, observed=True)
    values, places = [], []
    for value, rows in grouped.indices.items():
        values.append(tuple(_plain(v) for v in (value if isinstance(value, tuple) else (value,))))
        places.append(np.sort(rows))
    return values, lambda k: columns.iloc[places[k]]


def _cut_source(
    data: Any, by: Sequence[str], wanted: Sequence[str]
) -> tuple[list[tuple[Any, ...]], Callable[[int], Any]]:
    import narwhals as nw

    source = open_source(data)  # which must live as long as its slices are cut
    check_there([*by, *wanted], source.frame.collect_schema().names())
    distinct = collect(source, source.frame.select(*by).unique())
    distinct = distinct.sort_values(list(by), na_position="last")
    values = [tuple(_plain(v) for v in row) for row in distinct.itertuples(index=False)]

    def cut(k: int) -> Any:
        pairs = zip(by, values[k], strict=True)
        same = [nw.col(c).is_null() if v is None else nw.col(c) == v for c, v in pairs]
        return source.frame.filter(*same).to_native()

    return values, cut


def _plain(value: Any) -> Any:
    """Return a value as Python has it; None where it is missing."""
    if value is None or value is pd.NA or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


def _run(
    recipe: Recipe, cut: Callable[[int], Any], seeds: Sequence[int], executor: Executor | None
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Fit all slices, a few ahead of the workers.

    Those that a dead worker took along are fitted again at the end, one by one; so is the rest
    where the executor is of no use any more.
    """
    own = ThreadPoolExecutor(os.cpu_count()) if executor is None else None
    pool: Executor = own if own is not None else executor  # type: ignore[assignment]
    waiting: dict[Future[pd.DataFrame], int] = {}
    todo = iter(range(len(seeds)))
    taken_along: list[int] = []
    broken = False
    try:
        # Held to one thread here, so that threads do not undo each other's limit.
        with one_blas_thread():
            while True:
                for k in todo if not broken else ():
                    try:
                        waiting[pool.submit(recipe.run, cut(k), seeds[k])] = k
                    except BrokenExecutor:
                        taken_along.append(k)
                        broken = True
                        break
                    if len(waiting) >= WAITING:
                        break
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    k = waiting.pop(future)
                    try:
                        table = future.result()
                    except BrokenExecutor:
                        taken_along.append(k)
                        broken = True
                        continue
                    except Exception as error:  # whatever a cluster's executor may raise
                        if type(error).__name__ in DEATHS:
                            taken_along.append(k)
                            continue
                        table = failed(f"{type(error).__name__}: {failure(error)}")
                    yield k, table
        yield from _apart(recipe, cut, seeds, [*sorted(taken_along), *todo])
    finally:
        for future in waiting:
            future.cancel()
        if own is not None:
            own.shutdown()


def _apart(
    recipe: Recipe, cut: Callable[[int], Any], seeds: Sequence[int], places: Sequence[int]
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Fit slices one after the other in a process that may die, and is then started anew."""
    pool: ProcessPoolExecutor | None = None
    try:
        for k in places:
            if pool is None:
                pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            try:
                table = pool.submit(recipe.run, cut(k), seeds[k]).result()
            except BrokenExecutor:
                pool.shutdown()
                pool = None
                table = failed(
                    "the process that fitted it died, for lack of memory or by a signal."
                )
            yield k, table
    finally:
        if pool is not None:
            pool.shutdown()
