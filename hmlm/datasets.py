"""The data sets that travel with hmlm, each with its columns, units, source and licence.

`data/index.json` describes them; the functions here only read what it declares.
"""

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmlm.errors import HmlmError, suggest

_LISTED = ["title", "rows", "groups", "family", "formula", "source", "reference", "licence", "note"]


def load_dataset(name: str) -> pd.DataFrame:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of the names in `list_datasets`.

    Returns
    -------
    pandas.DataFrame
        A fresh table with the columns that the index documents. Grouping labels and factors are
        categorical; their levels come in the declared order, else in the order of the file.

    Raises
    ------
    HmlmError
        A `ValueError`, if there is no data set of that name; it says which there are.

    Examples
    --------
    >>> alcohol = load_dataset("alcohol")
    >>> alcohol.shape
    (246, 7)
    >>> print(alcohol.head(3).round(3).to_string(index=False))
     id  coa  male  age  time  peer  alcuse
      1    1     0   14     0 1.265   1.732
      1    1     0   15     1 1.265   2.000
      1    1     0   16     2 1.265   2.000
    """
    index = _read_index()
    if name not in index:
        hint = suggest(str(name).lower(), index)
        raise HmlmError(f"There is no data set {name!r}.{hint} Available: {', '.join(index)}.")
    columns = index[name]["columns"]
    labels = {column: str for column, facts in columns.items() if facts["dtype"] == "category"}
    frame = pd.read_csv(_data_folder() / index[name]["file"], dtype=labels)
    if name in _DERIVATIONS:
        frame = _DERIVATIONS[name](frame)
    return pd.DataFrame({column: _typed(frame[column], facts) for column, facts in columns.items()})


def list_datasets() -> pd.DataFrame:
    """List the data sets.

    Returns
    -------
    pandas.DataFrame
        One row a data set: name, title, rows, groups (a dict from grouping column to number of
        groups), family and formula (a model to start from), source, reference, licence, note, and
        columns (a dict from column to its meaning and unit).

    Examples
    --------
    >>> datasets = list_datasets().set_index("name")
    >>> datasets.loc["radon", "formula"]
    'log_radon ~ floor + log_uranium + (floor | county)'
    >>> datasets.loc["radon", "groups"]
    {'county': 85}
    >>> datasets.loc["radon", "columns"]["log_radon"]
    'radon activity in the house [log pCi/L]'
    """
    rows = []
    for name, entry in _read_index().items():
        row = {"name": name} | {key: entry.get(key, "") for key in _LISTED}
        row["groups"] = dict(entry["groups"])
        row["columns"] = {
            column: f"{facts['description']} [{facts['unit']}]"
            for column, facts in entry["columns"].items()
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _data_folder() -> Path:
    """Return `_data` inside an installed hmlm, else `data` beside the package in a checkout."""
    inside = Path(str(files("hmlm").joinpath("_data")))
    beside = inside.parent.parent / "data"
    for folder in (inside, beside):
        if (folder / "index.json").is_file():
            return folder
    raise FileNotFoundError(
        f"The data sets of hmlm are neither in {inside} nor in {beside}: reinstall the package."
    )


@cache
def _read_index() -> dict[str, dict[str, Any]]:
    index: dict[str, dict[str, Any]] = json.loads(
        (_data_folder() / "index.json").read_text(encoding="utf-8")
    )
    return index


def _typed(values: Any, facts: dict[str, Any]) -> Any:
    """Give a column its declared dtype; undeclared levels come in the order of the file."""
    if facts["dtype"] != "category":
        return values.astype(facts["dtype"])
    return values.astype(pd.CategoricalDtype(facts.get("levels", values.unique())))


def _lengthen_alcohol(scores: pd.DataFrame) -> pd.DataFrame:
    """Turn one row an adolescent into one row an adolescent and age, and take square roots."""
    long = scores.melt(
        id_vars=["id", "coa", "male", "peer_items"],
        value_vars=["use14", "use15", "use16"],
        var_name="wave",
        value_name="use",
    )
    age = long["wave"].str.removeprefix("use").astype("int64")
    long = long.assign(
        age=age,
        time=age - 14,
        peer=np.sqrt(0.8 * long["peer_items"]),
        alcuse=np.sqrt(long["use"]),
    )
    return long.sort_values(["id", "time"], ignore_index=True)


def _number_tumors(counts: pd.DataFrame) -> pd.DataFrame:
    """Give each group of rats, one row each, a label to group by."""
    return counts.assign(experiment=[str(row) for row in range(1, len(counts) + 1)])


# The columns that the index marks with a "derivation" are made here, before the dtypes are set.
_DERIVATIONS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "alcohol": _lengthen_alcohol,
    "tumors": _number_tumors,
}
