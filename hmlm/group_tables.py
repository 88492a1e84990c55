"""Estimates of very many groups: made part by part, and written to a file on request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from hmlm.design import Block, find_block
from hmlm.errors import HmlmError, listed
from hmlm.estimates import Numbers, line_lead, total_lead
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.conditional_effects import LARGEST_INTEGRATED_REST
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.placing import find_place, put_whole
from hmlm.storage_writer import file_names

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["total", "group", "line"]
KINDS = ("total", "group", "line")
FIGURES = ("estimate", "std_error", "lower", "upper")


def iterate_groups(
    fit: Any,
    group: str | None = None,
    kind: Kind = "total",
    prob: float = 0.95,
    at_once: int = 10_000,
) -> Iterator[pd.DataFrame]:
    """Yield the estimates of all groups, some groups at a time.

    The draws of a million groups' effects would not fit in memory. Given beta, the sds and sigma,
    the groups of a Gaussian model are independent (those nested in one another together), so their
    effects are drawn part by part, and only the figures are kept.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        Any fit with groups.
    group : str, optional
        The grouping factor; the one with most levels when None.
    kind : {"total", "group", "line"}
        Population and group together (lme4's ``coef``), deviations (``ranef``), or the group's own
        line with the contribution of group-level predictors.
    prob : float
        Probability of the intervals, which are as in `hmlm.tidy`.
    at_once : int
        About how many groups a part has.

    Yields
    ------
    pandas.DataFrame
        Columns ``level, term, estimate, std_error, lower, upper``, one row for each effect of each
        group of the part. Parts need not come in the order of the levels.

    Raises
    ------
    HmlmError
        If the fit has no such factor, or the effects of so many groups cannot be drawn part by
        part, because factors are crossed.

    Notes
    -----
    Where effects are drawn part by part they have random numbers of their own: figures agree with
    those of ``fit.tidy()`` up to the Monte Carlo error.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> for part in hmlm.iterate_groups(fit, at_once=9):
    ...     print(len(part), part["level"].iloc[0])
    18 308
    18 337
    """
    block = _block_of(fit, group)
    if kind not in KINDS:
        raise HmlmError(f"kind is one of {listed(map(repr, KINDS))}, not {kind!r}.")
    size: Any = at_once
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise HmlmError(f"at_once must be a whole number of groups, 1 or more, not {size!r}.")
    return _iterate(fit, block, kind, prob, int(size))


def _iterate(
    fit: Any, block: Block, kind: Kind, prob: float, at_once: int
) -> Iterator[pd.DataFrame]:
    if isinstance(fit, BayesFit) and fit._too_many(f"b_{block.group}"):
        yield from _drawn(fit, block, kind, prob, at_once)
        return
    name = f"b_{block.group}" if kind == "group" else f"{kind}_{block.group}"
    numbers = fit.describe(name, prob)
    for start in range(0, len(block.levels), at_once):
        places = np.arange(start, min(start + at_once, len(block.levels)))
        yield _frame(block, places, numbers, places)


def _drawn(
    fit: BayesFit, block: Block, kind: Kind, prob: float, at_once: int
) -> Iterator[pd.DataFrame]:
    """Draw effects part by part and keep what they say."""
    from hmlm.likelihoods.effect_draws import can_be_parted, draw_effect_parts

    design = fit.design
    sums = gaussian_sums(design, LARGEST_INTEGRATED_REST) if fit._conditional else None
    if sums is None or not can_be_parted(sums):
        fit.variable(f"b_{block.group}")  # says how large it is, and what to do
    draws = {k: v.reshape(-1, *v.shape[2:]) for k, v in fit._parameters.items()}
    beta = draws.get("beta")
    lead = line_lead(design, block) if kind == "line" else None
    same = total_lead(design, block)
    seed = fit._runs[0][0] if fit._runs else 0
    for part in draw_effect_parts(design, sums, draws, seed, at_once):  # type: ignore[arg-type]
        places, effects = part[block.group]
        if beta is not None and kind != "group":
            if lead is None:
                effects = effects + (beta @ same.T)[:, None, :]
            else:
                effects = effects + np.einsum("dp,jqp->djq", beta, lead[places], optimize=True)
        tails = np.quantile(effects, [0.5 - prob / 2, 0.5 + prob / 2], axis=0)
        numbers = Numbers(
            estimate=effects.mean(axis=0),
            std_error=effects.std(axis=0, ddof=1),
            lower=tails[0],
            upper=tails[1],
            interval="eti",
        )
        yield _frame(block, places, numbers, np.arange(len(places)))


def _frame(block: Block, places: np.ndarray, numbers: Numbers, at: np.ndarray) -> pd.DataFrame:
    """Return the rows of some groups; `at` says where their numbers stand."""
    q = len(block.columns)
    figures = {}
    for name in FIGURES:
        values = np.broadcast_to(getattr(numbers, name), np.shape(numbers.estimate))
        figures[name] = np.asarray(values, dtype=float)[at].ravel()
    levels = block.levels[np.repeat(places, q)]
    return pd.DataFrame({"level": levels, "term": list(block.columns) * len(places), **figures})


def _block_of(fit: Any, group: str | None) -> Block:
    design = fit.design
    names = design.spec.groups
    if not names:
        raise HmlmError("the model has no groups: there is nothing to list group by group.")
    if group is not None and group not in names:
        raise HmlmError(f"the model has no groups '{group}', but {listed(names)}.")
    if group is not None:
        return find_block(design, group)
    return max((find_block(design, g) for g in names), key=lambda b: len(b.levels))


def write_groups(
    fit: Any,
    path: str | Path,
    group: str | None = None,
    kind: Kind = "total",
    prob: float = 0.95,
    at_once: int = 10_000,
) -> Path:
    """Write the estimates of all groups to a file, some groups at a time.

    Parameters
    ----------
    fit, group, kind, prob, at_once
        As in `iterate_groups`.
    path : str or Path
        Ends in ``.parquet`` (one row for each effect of each group, columns as `iterate_groups`
        yields them) or ``.zarr`` (arrays of ``estimate, std_error, lower, upper`` by level and
        term). A file that is there already is replaced once the new one is whole.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    HmlmError
        If the path has another ending, pyarrow is not installed, or the file cannot be written.

    Examples
    --------
    >>> import tempfile, hmlm, pandas as pd
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = hmlm.write_groups(fit, f"{folder}/subjects.parquet")
    ...     pd.read_parquet(path).head(2).round(1)
      level       term  estimate  std_error  lower  upper
    0   308  Intercept     253.7       12.3  229.6  277.7
    1   308       Days      19.7        2.3   15.1   24.2
    """
    path = Path(path)
    writers = {".parquet": _write_parquet, ".zarr": _write_zarr}
    if path.suffix.lower() not in writers:
        raise HmlmError(
            f"'{path}' does not say how to write the groups: end it in .parquet or .zarr."
        )
    # Before the work, which may take long.
    if find_place(path).is_dir() and not (path / "zarr.json").exists():
        raise HmlmError(f"'{path}' is a folder that zarr did not write: it is left alone.")
    parts = iterate_groups(fit, group, kind, prob, at_once)
    block = _block_of(fit, group)
    with put_whole(path) as made:
        writers[path.suffix.lower()](parts, made, block)
    return path


def _write_parquet(parts: Iterator[pd.DataFrame], path: Path, block: Block) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise HmlmError(
            "Parquet files are written by pyarrow, which is not installed: pip install pyarrow, or "
            "end the path in .zarr."
        ) from error
    schema: pa.Schema | None = None
    writer: Any = None
    try:
        for part in parts:
            table = pa.Table.from_pandas(part, schema=schema, preserve_index=False)
            if writer is None:
                schema = table.schema
                writer = parquet.ParquetWriter(path, schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_zarr(parts: Iterator[pd.DataFrame], path: Path, block: Block) -> None:
    import xarray as xr
    import zarr

    J, q = len(block.levels), len(block.columns)
    levels = block.levels.to_numpy()
    if levels.dtype == object or not np.issubdtype(levels.dtype, np.number):
        levels = levels.astype(str).astype(np.dtypes.StringDType())
    # The name of the factor, as one that is no path and no other array's.
    factor = file_names([block.group])[block.group]
    factor += "_level" * (factor in FIGURES)
    coords = {factor: levels, "term": np.array(block.columns, dtype=np.dtypes.StringDType())}
    xr.Dataset(coords=coords).to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    store = zarr.open_group(path, mode="a")
    arrays = {
        name: store.create_array(
            name,
            shape=(J, q),
            chunks=(min(J, 10_000), q),
            dtype="f8",
            dimension_names=(factor, "term"),
            fill_value=float("nan"),
        )
        for name in FIGURES
    }
    whole = {name: np.full((J, q), np.nan) for name in FIGURES}
    for part in parts:
        places = block.levels.get_indexer(pd.Index(part["level"].to_numpy()[::q]))
        for name in FIGURES:
            whole[name][places] = part[name].to_numpy().reshape(-1, q)
    for name, values in whole.items():
        arrays[name][:] = values
