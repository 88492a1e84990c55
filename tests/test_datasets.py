"""Every bundled data set loads as the index describes it, and the index leaves nothing out."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmlm import datasets
from hmlm.datasets import list_datasets, load_dataset

DATA = Path(__file__).parents[1] / "data"
INDEX = json.loads((DATA / "index.json").read_text(encoding="utf-8"))
ROWS = {
    "alcohol": 246,
    "sleepstudy": 180,
    "radon": 919,
    "eight_schools": 8,
    "penicillin": 144,
    "pastes": 60,
    "cbpp": 56,
    "dyestuff": 30,
    "dyestuff2": 30,
    "egsingle": 7230,
    "contraception": 1934,
    "tumors": 71,
    "baseball": 18,
}
ROLES = {"group", "outcome", "predictor", "trials", "standard_error", "holdout"}


def test_index_names_every_data_set_and_every_file():
    assert set(INDEX) == set(ROWS)
    assert {entry["file"] for entry in INDEX.values()} == {file.name for file in DATA.glob("*.csv")}


@pytest.mark.parametrize("name", ROWS)
def test_data_set_loads_as_the_index_says(name):
    frame = load_dataset(name)
    entry = INDEX[name]
    assert len(frame) == entry["rows"] == ROWS[name]
    assert list(frame.columns) == list(entry["columns"])
    assert frame.index.equals(pd.RangeIndex(len(frame)))
    assert not frame.isna().any(axis=None)
    assert {column: frame[column].nunique() for column in entry["groups"]} == entry["groups"]
    for column, facts in entry["columns"].items():
        assert frame[column].dtype.name == facts["dtype"], column
        if "levels" in facts:
            assert list(frame[column].cat.categories) == facts["levels"]
        if facts["unit"] == "0/1":
            assert set(frame[column]) == {0, 1}


@pytest.mark.parametrize("name", ROWS)
def test_index_documents_every_column_of_the_file(name):
    entry = INDEX[name]
    documented = entry.get("file_columns", entry["columns"])
    assert list(pd.read_csv(DATA / entry["file"], nrows=0)) == list(documented)
    derived = {column for column, facts in entry["columns"].items() if "derivation" in facts}
    assert derived == set(entry["columns"]) - set(documented)
    assert bool(derived) == (name in datasets._DERIVATIONS)


@pytest.mark.parametrize("name", ROWS)
def test_index_has_source_licence_and_units(name):
    entry = INDEX[name]
    for key in ("title", "source", "reference", "licence", "formula", "family"):
        assert entry[key].strip(), key
    assert set(entry["groups"]) <= set(entry["columns"])
    for facts in entry["columns"].values():
        assert facts["description"].strip()
        assert facts["unit"].strip()
        assert facts["role"] in ROLES
    for facts in entry.get("file_columns", {}).values():
        assert facts["description"].strip()
        assert facts["unit"].strip()
    assert sum(facts["role"] == "outcome" for facts in entry["columns"].values()) == 1


def test_readme_names_each_file_with_its_source_and_licence():
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    for entry in INDEX.values():
        (line,) = [line for line in lines if f"`{entry['file']}`" in line]
        assert entry["source"].split(" (")[0].removeprefix("R package ") in line
        assert entry["licence"].split(" (eight")[0] in line


def test_alcohol_is_derived_exactly_from_the_scores():
    scores = pd.read_csv(DATA / "alcohol_scores.csv")
    alcohol = load_dataset("alcohol")
    assert list(alcohol["id"]) == [person for person in range(1, 83) for _ in range(3)]
    assert list(alcohol["age"]) == [14, 15, 16] * 82
    assert list(alcohol["time"]) == [0, 1, 2] * 82
    uses = scores[["use14", "use15", "use16"]].to_numpy().ravel()
    np.testing.assert_array_equal(alcohol["alcuse"], np.sqrt(uses))
    np.testing.assert_array_equal(alcohol["peer"], np.repeat(np.sqrt(0.8 * scores.peer_items), 3))
    for column in ("coa", "male"):
        np.testing.assert_array_equal(alcohol[column], np.repeat(scores[column], 3))


@pytest.mark.parametrize(
    ("name", "column", "mean"),
    [
        ("sleepstudy", "Reaction", 298.507892),
        ("radon", "log_radon", 1.264779),
        ("eight_schools", "y", 8.75),
        ("penicillin", "diameter", 22.972222),
        ("pastes", "strength", 60.053333),
        ("dyestuff", "Yield", 1527.5),
        ("dyestuff2", "Yield", 5.6656),
        ("egsingle", "math", -0.536924),
    ],
)
def test_mean_of_the_outcome(name, column, mean):
    assert load_dataset(name)[column].mean() == pytest.approx(mean, abs=1e-6)


def test_total_counts():
    assert load_dataset("cbpp")[["incidence", "size"]].sum().tolist() == [99, 842]
    assert load_dataset("tumors")[["y", "K"]].sum().tolist() == [267, 1739]
    assert load_dataset("baseball")[["Hits", "AB"]].sum().tolist() == [215, 810]
    assert load_dataset("contraception")["use"].sum() == 759


def test_predictors_of_a_group_are_constant_in_it():
    radon = load_dataset("radon")
    assert (radon.groupby("county", observed=True)["log_uranium"].nunique() == 1).all()
    egsingle = load_dataset("egsingle")
    assert (egsingle.groupby("child", observed=True)["school"].nunique() == 1).all()
    pastes = load_dataset("pastes")
    made = pastes["batch"].astype(str) + ":" + pastes["cask"].astype(str)
    assert (made == pastes["sample"].astype(str)).all()


def test_each_load_is_a_fresh_table():
    frame = load_dataset("dyestuff")
    frame["Yield"] = 0.0
    assert load_dataset("dyestuff")["Yield"].min() > 0
    list_datasets()["groups"].iloc[0].clear()
    assert list_datasets()["groups"].iloc[0] == {"id": 82}


@pytest.mark.parametrize("name", ["alchohol", "Alcohol", "alcohol.csv"])
def test_unknown_name_is_refused_with_the_closest(name):
    with pytest.raises(ValueError, match="Did you mean 'alcohol'") as error:
        load_dataset(name)
    assert all(known in str(error.value) for known in ROWS)


def test_unknown_name_with_nothing_close():
    with pytest.raises(ValueError, match=r"no data set 'zzz'\. Available: alcohol, sleep"):
        load_dataset("zzz")


def test_list_has_one_documented_row_a_data_set():
    listed = list_datasets().set_index("name")
    assert dict(listed["rows"]) == ROWS
    assert listed.loc["penicillin", "groups"] == {"plate": 24, "sample": 6}
    assert listed.loc["alcohol", "formula"] == "alcuse ~ coa + peer + time + (time | id)"
    for name, columns in listed["columns"].items():
        assert list(columns) == list(INDEX[name]["columns"])
    assert listed["note"].map(type).eq(str).all()


def test_installed_data_comes_before_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "files", lambda package: tmp_path / package)
    with pytest.raises(FileNotFoundError, match="reinstall"):
        datasets._data_folder()
    for folder in (tmp_path / "data", tmp_path / "hmlm" / "_data"):
        folder.mkdir(parents=True)
        (folder / "index.json").write_text("{}")
        assert datasets._data_folder() == folder


def test_listing_loads_no_sampler():
    code = (
        "import sys, hmlm.datasets; hmlm.datasets.list_datasets(); "
        "print({'pymc', 'pytensor', 'arviz'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=DATA.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "set()"
