"""Parquet and CSV files, read by a DuckDB connection of their own."""

from __future__ import annotations

import glob
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hmlm.errors import DataError, HmlmError, counted, listed

PARQUET = (".parquet", ".parq", ".pq")
CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst", ".tsv.zst")
# What pandas.read_csv takes for missing, so that a file reads the same by either way.
MISSING_TEXTS = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]
SAMPLED_LINES = 200_000  # of a CSV file, from which the types of its columns are found


class SpillFolder:
    """A folder for what does not fit into memory; it is removed with the object."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="hmlm_")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


def read_files(path: str, memory_limit: str | None) -> tuple[Any, str, tuple[Any, ...]]:
    """Open files lazily.

    Parameters
    ----------
    path : str
        A file, a folder or a glob.
    memory_limit : str or None
        How much memory DuckDB may take.

    Returns
    -------
    relation : duckdb.DuckDBPyRelation
        The table.
    name : str
        What it is, for messages.
    held : tuple
        The connection and its folder, which must live as long as the relation is read.
    """
    files, kind = find_files(path)
    several = len(files) > 1 or not Path(path).is_file()
    name = f"the {kind} file{'s' if several else ''} {path}"
    if not find_spec("duckdb"):
        raise HmlmError(
            f"{name} cannot be read: that takes DuckDB, which is not installed; run "
            "pip install 'hmlm[large]'."
        )
    import duckdb

    folder = SpillFolder()
    config: dict[str, Any] = {
        "temp_directory": folder.name,
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
    }
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    try:
        connection = duckdb.connect(config=config)
    except duckdb.Error as error:
        raise DataError(
            f"memory_limit='{memory_limit}' is no size of memory: write for example '1GiB'."
        ) from error
    connection.execute("SET enable_progress_bar = false")
    escaped: Any = [glob.escape(f) for f in files]  # DuckDB reads [ ] * ? as patterns once more
    with engine_errors(name):
        if kind == "Parquet":
            relation = connection.read_parquet(escaped, union_by_name=len(files) > 1)
        else:
            relation = connection.read_csv(
                escaped, na_values=MISSING_TEXTS, sample_size=SAMPLED_LINES
            )
    return relation, name, (connection, folder)


def find_files(path: str) -> tuple[list[str], str]:
    """Return the files that a path, folder or glob names, sorted, and their kind.

    Parameters
    ----------
    path : str
        A file, a folder or a glob.

    Returns
    -------
    files : list of str
        Paths of files.
    kind : str
        'Parquet' or 'CSV'.

    Raises
    ------
    DataError
        If there is no file, or one of another kind, or both kinds.
    """
    if "://" in path:
        raise DataError(
            f"'{path}' is an address, not a path: open it with DuckDB, polars, Dask or PySpark "
            "and give the relation or lazy frame."
        )
    here = Path(path)
    if here.is_file():
        files = [path]
    elif here.is_dir():
        found = (f for f in here.rglob("*") if f.is_file() and not f.name.startswith((".", "_")))
        files = sorted(str(f) for f in found if _kind(str(f)))
    else:
        files = sorted(f for f in glob.glob(path, recursive=True) if Path(f).is_file())
    if not files:
        what = "no Parquet or CSV file in the folder" if here.is_dir() else "no file"
        raise DataError(
            f"there is {what} '{path}': check the path, which starts from {Path.cwd()}."
        )
    kinds = {f: _kind(f) for f in files}
    if unknown := [f for f, kind in kinds.items() if not kind]:
        raise DataError(
            f"the file '{unknown[0]}' is neither Parquet nor CSV by its name, which must end in "
            f"one of {listed([*PARQUET, *CSV], 20)}."
        )
    if len(set(kinds.values())) > 1:
        raise DataError(
            f"'{path}' names both Parquet and CSV files ({counted(len(files), 'file')}): use a "
            "glob that names one kind, such as '*.parquet'."
        )
    return files, kinds[files[0]]


def _kind(name: str) -> str:
    lower = name.lower()
    return "Parquet" if lower.endswith(PARQUET) else "CSV" if lower.endswith(CSV) else ""


@contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Say in words what DuckDB could not read of the table `name`."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.split(".")[0] not in {"_duckdb", "duckdb"}:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = ", ".join(lines[:3])[:300].rstrip(".")
        if "OutOfMemory" in type(error).__name__:
            advice = "give a larger memory_limit, or fewer columns in the formula"
        else:
            advice = "mend the table, or read it yourself and give the data frame"
        raise DataError(f"{name} cannot be read: {what}; {advice}.") from error
