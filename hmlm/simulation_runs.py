"""Many simulations, run on any executor, each with random numbers of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.progress import progress_bar

Seeds = Sequence[np.random.SeedSequence]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Task:
    """Simulations of one kind.

    Attributes
    ----------
    work : callable
        Takes seeds and returns one record for each; for an executor of processes it can be
        pickled.
    seeds : sequence of numpy.random.SeedSequence
        One for each simulation.
    """

    work: Callable[[Seeds], list[Any]]
    seeds: Seeds


def run_simulations(
    tasks: Iterable[Task],
    executor: Executor | None = None,
    *,
    at_once: int = 25,
    label: str = "Simulations",
    progressbar: bool = True,
) -> list[list[Any]]:
    """Run simulations on an executor.

    Parameters
    ----------
    tasks : iterable of Task
        What to run.
    executor : concurrent.futures.Executor, optional
        Where; as many threads as there are processors when None.
    at_once : int
        Simulations of one call.
    label : str
        What the progress bar says.
    progressbar : bool
        Whether to show one.

    Returns
    -------
    list of list
        The records of each task in the order of its seeds, whatever the order of execution.

    Examples
    --------
    >>> import numpy as np
    >>> def work(seeds):
    ...     return [int(np.random.default_rng(seed).integers(100)) for seed in seeds]
    >>> tasks = [Task(work=work, seeds=np.random.SeedSequence(1).spawn(3))]
    >>> run_simulations(tasks, at_once=2, progressbar=False) == [work(tasks[0].seeds)]
    True
    """
    todo = list(tasks)
    parts = [
        (t, start) for t, task in enumerate(todo) for start in range(0, len(task.seeds), at_once)
    ]
    found: dict[tuple[int, int], list[Any]] = {}
    total = sum(len(task.seeds) for task in todo)
    own = ThreadPoolExecutor(os.cpu_count()) if executor is None else None
    pool: Executor = own if own is not None else executor  # type: ignore[assignment]
    futures: dict[Any, tuple[int, int]] = {}
    try:
        # Held to one thread here, so that threads do not undo each other's limit.
        with one_blas_thread():
            for t, start in parts:
                task = todo[t]
                seeds = task.seeds[start : start + at_once]
                futures[pool.submit(task.work, seeds)] = (t, start)
            with progress_bar(label, total, progressbar) as advance:
                for future in as_completed(futures):
                    found[futures[future]] = future.result()
                    advance(len(found[futures[future]]))
    finally:
        for future in futures:
            future.cancel()
        if own is not None:
            own.shutdown()
    records: list[list[Any]] = [[] for _ in todo]
    for t, start in parts:
        records[t] += found[t, start]
    return records


def check_simulations(n: Any, least: int = 2) -> int:
    """Return the number of simulations, or raise an HmlmError if it is too small or no number."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < least:
        raise HmlmError(f"n_simulations must be a whole number, at least {least}, not {n!r:.40}.")
    return int(n)


def failure(error: Exception) -> str:
    """Return the reason of a simulation that failed, short enough to be counted."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def default_method(design: Design) -> Any:
    """Return the fastest method that fits a design.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.simulation_runs import default_method
    >>> default_method(hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff")).design)
    REML(df='auto', max_iterations=500)
    """
    from hmlm.fitting.irls import GLM
    from hmlm.fitting.laplace import Laplace
    from hmlm.fitting.maximum_likelihood import REML
    from hmlm.fitting.nuts import NUTS
    from hmlm.fitting.ols import OLS
    from hmlm.likelihoods.exponential import SUPPORTED

    grouped = design.spec.pooling == "partial" and bool(design.blocks)
    if str(design.spec.family) == "gaussian" and not design.distributional:
        return REML() if grouped else OLS()
    if design.spec.family.name in SUPPORTED and not design.distributional:
        return Laplace() if grouped else GLM()
    return NUTS(chains=2, cores=1)
