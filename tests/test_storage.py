"""A fit comes back from its file as it was, and no file is lost or taken for what it is not."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hmlm
from hmlm import storage_format
from hmlm.errors import DataError, HmlmError
from hmlm.retrieval import load_fit
from hmlm.storage import save_fit
from hmlm.storage_values import pack_frame, pack_value, unpack_frame, unpack_value

SHORT = hmlm.NUTS(draws=60, tune=150, chains=2)


def every_kind():
    rng = np.random.default_rng(4)
    n = 120
    table = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(2.0, 1.0, n),
            "w": rng.uniform(0.5, 2.0, n),
            "n": rng.poisson(3.0, n),
            "f": pd.Categorical(rng.choice(["lo", "mid", "hi"], n), ["lo", "mid", "hi"]),
            "b": rng.random(n) > 0.5,
            "g": np.repeat(list("abcdefghij"), 12),
            "my col/h": np.tile([3, 1, 2, 7], n // 4),
            "rating": pd.Categorical(rng.integers(1, 4, n), ordered=True),
            "party": rng.choice(["red", "green", "blue"], n),
        }
    )
    table.loc[3, "x"] = np.nan
    table.loc[7, "f"] = np.nan
    return table


CASES = {
    "gaussian": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
    "binomial": ("p(incidence, size) ~ period + (1 | herd)", "cbpp", {"family": "binomial"}),
    "distributional": ("y ~ x + f + (1 | g); sigma ~ x + (1 | g)", "own", {}),
    "ordinal": ("rating ~ x + (1 | g)", "own", {"family": "ordinal"}),
    "categorical": ("party ~ x + (1 | g)", "own", {"family": "categorical"}),
    "nested": ("strength ~ 1 + (1 | batch/cask)", "pastes", {}),
    "crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin", {}),
    "poly": ("Reaction ~ poly(Days, 2) + (scale(Days) || Subject)", "sleepstudy", {}),
    "bs": ("y ~ bs(x, df=4) + b*f + offset(log(w)) + (1 | g)", "own", {"weights": "w"}),
    "odd names": ("n ~ x + (1 | `my col/h`)", "own", {"family": "poisson"}),
    "known errors": ("y ~ 1 + (1 | school)", "eight_schools", {"se": "sigma"}),
    "no pooling": ("n ~ x + (1 | g)", "own", {"family": "poisson"}),
    "aliased": ("y ~ x + I(2 * x) + (1 | g)", "own", {"collinear": "drop"}),
}


def table_of(case):
    return every_kind() if CASES[case][1] == "own" else hmlm.load_dataset(CASES[case][1])


@pytest.fixture(scope="module")
def fits():
    """Fits by name, each made when it is first asked for."""
    made = {}

    def get(case):
        if case not in made:
            formula, _, options = CASES[case]
            model = hmlm.Model(formula, table_of(case), **options)
            if case == "no pooling":
                model = model.with_pooling("none")
            made[case] = model.fit(SHORT, random_seed=11, progressbar=False)
        return made[case]

    return get


@pytest.fixture(scope="module")
def fit(fits):
    return fits("gaussian")


@pytest.fixture
def saved(fit, tmp_path):
    """A folder that holds the gaussian fit."""
    save_fit(fit, tmp_path / "fit.zarr")
    return tmp_path / "fit.zarr"


def same(one, other):
    """Compare two fits to the last bit."""
    assert other.status.problems == one.status.problems
    assert other.status.notes == one.status.notes
    assert dict(other.status.numbers).keys() == dict(one.status.numbers).keys()
    pd.testing.assert_frame_equal(other.tidy(), one.tidy(), check_exact=True)
    assert str(other.summary()) == str(one.summary())
    alone = one.design.spec.pooling == "none"
    for options in ({}, {"kind": "linear"}, {} if alone else {"groups": "population"}):
        made = [f.predict(**options) for f in (one, other)]
        pd.testing.assert_frame_equal(*made, check_exact=True)


def same_new_rows(one, other, table):
    rows = table.dropna().iloc[::7]
    alone = one.design.spec.pooling == "none"
    for options in ({"kind": "response"}, {} if alone else {"groups": "new"}):
        made = [f.predict(rows, random_seed=3, **options) for f in (one, other)]
        pd.testing.assert_frame_equal(*made, check_exact=True)


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_fit_is_the_same_to_the_last_bit(fits, case, tmp_path, record_property):
    fit = fits(case)
    path = tmp_path / ("fit.zarr" if len(case) % 2 else "fit.zip")
    save_fit(fit, path)
    again = load_fit(path, data=table_of(case))
    assert os.listdir(tmp_path) == [path.name]
    same(fit, again)
    same_new_rows(fit, again, table_of(case))
    if "/" not in fit.design.spec.formula.replace("batch/cask", ""):  # none in a DataTree
        assert again.draws.equals(fit.draws)
    for name in fit.design.dims:
        assert np.array_equal(again.variable(name), fit.variable(name))
    n = sum(fit.variable(name).size for name in fit.design.dims)
    compared = {"fits compared": 1, "numbers, the same to the last bit": n}
    record_property("trust", {"what": "draws of fits saved and loaded", **compared})
    assert (again.method, again.random_seed, again.seconds) == (SHORT, 11, fit.seconds)
    pd.testing.assert_frame_equal(again.priors.table(), fit.priors.table())
    pd.testing.assert_frame_equal(again.design.data.frame, fit.design.data.frame)
    assert again.design.spec.formula == fit.design.spec.formula
    assert again.design.spec.columns == fit.design.spec.columns
    assert again.design.notes == fit.design.notes
    assert again.design.aliased == fit.design.aliased


def test_netcdf_holds_the_same(fits, tmp_path):
    for case in ("odd names", "gaussian"):
        save_fit(fits(case), tmp_path / "fit.nc")
        same(fits(case), load_fit(tmp_path / "fit.nc"))
    assert os.listdir(tmp_path) == ["fit.nc"]


def test_netcdf_without_its_libraries_is_refused_in_words(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_format, "find_spec", lambda name: None)
    with pytest.raises(HmlmError, match=r"fit\.nc' is netCDF, which needs h5netcdf"):
        save_fit(fit, tmp_path / "fit.nc")


@pytest.mark.parametrize("case", ["gaussian", "nested", "crossed", "poly", "known errors"])
def test_integrated_effects_left_out_of_the_file_are_drawn_again(fits, case, tmp_path):
    fit = fits(case)
    save_fit(fit, tmp_path / "fit.zarr", effects=False)
    again = load_fit(tmp_path / "fit.zarr")
    inside = os.listdir(tmp_path / "fit.zarr" / "posterior")
    later = [n for n in fit.design.dims if n.startswith("b_") and n not in fit._parameters]
    assert later
    assert not set(later) & set(inside)
    for name in later:
        assert np.array_equal(again.variable(name), fit.variable(name))


def test_other_effects_left_out_of_the_file_are_said_to_be_gone(fits, tmp_path):
    save_fit(fits("binomial"), tmp_path / "fit.zarr", effects=False)
    again = load_fit(tmp_path / "fit.zarr")
    with pytest.raises(HmlmError, match="'b_herd' were not saved with this fit"):
        again.predict()
    assert "b_herd" not in again.draws["posterior"]
    assert again.tidy(groups=False).equals(fits("binomial").tidy(groups=False))
    save_fit(again, tmp_path / "second.zarr")
    assert "beta" in load_fit(tmp_path / "second.zarr").draws["posterior"]


def test_effects_sampled_beside_the_parameters_are_parameters_of_the_file(fits, tmp_path):
    fit = fits("binomial")
    whole = {name: fit.variable(name) for name in fit.design.dims}
    pymc = replace(fit, _parameters=whole, _draw_effects=None, _centered={"herd": True}, _kept={})
    save_fit(pymc, tmp_path / "fit.zarr")
    again = load_fit(tmp_path / "fit.zarr")
    assert np.array_equal(again.variable("b_herd"), whole["b_herd"])
    assert again._centered == {"herd": True}
    save_fit(pymc, tmp_path / "fit.zarr", effects=False)
    assert "b_herd" not in load_fit(tmp_path / "fit.zarr").draws["posterior"]


def test_group_effects_are_read_when_they_are_asked_for(saved, monkeypatch):
    read = []
    arrays = storage_format.Store.arrays
    monkeypatch.setattr(
        storage_format.Store,
        "arrays",
        lambda self, group, names=None: (read.append(names), arrays(self, group, names))[1],
    )
    fit = load_fit(saved)
    assert ["b_Subject"] not in read
    fit.variable("b_Subject")
    fit.variable("b_Subject")
    assert read.count(["b_Subject"]) == 1


def test_gibbs_comes_back(sleepstudy, tmp_path):
    method = hmlm.Gibbs(draws=50, tune=50, chains=2)
    fit = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy).fit(
        method, random_seed=2, progressbar=False
    )
    save_fit(fit, tmp_path / "fit.zip")
    same(fit, load_fit(tmp_path / "fit.zip"))


@pytest.mark.parametrize(
    ("formula", "data", "options", "method"),
    [
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}, hmlm.REML(df="satterthwaite")),
        ("alcuse ~ coa * time + (time | id)", "alcohol", {}, hmlm.ML()),
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}, hmlm.EM()),
        (
            "p(incidence, size) ~ period + (1 | herd)",
            "cbpp",
            {"family": "binomial"},
            hmlm.Laplace(),
        ),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin", {}, hmlm.REML()),
    ],
)
def test_a_classical_fit_comes_back(formula, data, options, method, tmp_path):
    fit = hmlm.Model(formula, hmlm.load_dataset(data), **options).fit(method)
    save_fit(fit, tmp_path / "fit.zarr")
    again = load_fit(tmp_path / "fit.zarr")
    same(fit, again)
    assert again.method == fit.method
    assert (again.aic, again.bic, again.restricted) == (fit.aic, fit.bic, fit.restricted)
    for name, value in fit.estimates.items():
        assert np.array_equal(again.estimates[name], value)
    assert np.array_equal(again.vcov, fit.vcov)
    if fit.trace is not None:
        pd.testing.assert_frame_equal(again.trace, fit.trace)


@pytest.mark.parametrize("pooling", ["complete", "none"])
def test_pooling_comes_back(sleepstudy, pooling, tmp_path):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy).with_pooling(pooling)
    fit = model.fit(hmlm.OLS())
    save_fit(fit, tmp_path / "fit.zip")
    same(fit, load_fit(tmp_path / "fit.zip"))


def test_other_tools_can_read_the_draws(saved, fit):
    posterior = xr.open_dataset(
        saved, engine="zarr", group="posterior", consolidated=False, chunks=None
    )
    with posterior:
        assert np.array_equal(posterior["b_Subject"], fit.variable("b_Subject"))
        assert posterior["term"].to_numpy().tolist() == ["Intercept", "Days"]
        assert posterior["Subject"].to_numpy().tolist() == fit.design.coords["Subject"].tolist()
    head = json.loads((saved / "zarr.json").read_text())["attributes"]
    assert head["formula"] == "Reaction ~ Days + (Days | Subject)"


def contents(path):
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p): p.read_bytes() for p in files}


@pytest.mark.parametrize("suffix", [".zarr", ".zip", ".nc"])
@pytest.mark.parametrize("broken", ["write", "put"])
def test_a_full_disk_leaves_the_old_file(fit, fits, suffix, broken, tmp_path, monkeypatch):
    path = tmp_path / f"fit{suffix}"
    save_fit(fit, path)
    before = contents(path)

    def full(self, *args, **kwargs):
        if broken == "write" and kwargs.get("group") != "posterior":
            return written(self, *args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    if broken == "write":
        name = "to_netcdf" if suffix == ".nc" else "to_zarr"
        written = getattr(xr.Dataset, name)
        monkeypatch.setattr(xr.Dataset, name, full)
    else:
        move = "rename" if suffix == ".zarr" else "replace"
        renamed = getattr(Path, move)

        def fail_once(self, target):
            return full(self) if ".tmp" in self.name else renamed(self, target)

        monkeypatch.setattr(Path, move, fail_once)
    with pytest.raises(HmlmError, match=f"fit{suffix}' could not be written .*No space left"):
        save_fit(fits("binomial"), path)
    monkeypatch.undo()
    assert contents(path) == before
    assert os.listdir(tmp_path) == [path.name]
    same(fit, load_fit(path))


def test_a_killed_process_leaves_the_old_file(saved, tmp_path):
    before = contents(saved)
    code = (
        "import os, sys, hmlm\nfrom hmlm import storage_writer\n"
        "from hmlm.storage import save_fit\n"
        "storage_writer.put_made = lambda made, target: os._exit(9)\n"
        "data = hmlm.load_dataset('sleepstudy')\n"
        "fit = hmlm.Model('Reaction ~ Days + (1 | Subject)', data).fit(hmlm.REML())\n"
        "save_fit(fit, sys.argv[1])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, saved], check=False)
    assert run.returncode == 9
    assert contents(saved) == before
    load_fit(saved)


def test_a_process_killed_between_two_renamings_is_explained(saved):
    aside = saved.with_name(f".{saved.name}.0123456789ab.old")
    saved.rename(aside)
    with pytest.raises(HmlmError, match=r"no file .*set aside as '.*0123456789ab\.old': rename it"):
        load_fit(saved)


def test_a_fit_replaces_an_earlier_one(fits, tmp_path):
    for suffix in (".zarr", ".zip", ".nc"):
        for case in ("gaussian", "binomial"):
            save_fit(fits(case), tmp_path / f"fit{suffix}")
            assert load_fit(tmp_path / f"fit{suffix}").design.spec.outcome == (
                fits(case).design.spec.outcome
            )


def test_a_loaded_fit_can_be_saved_over_its_own_file(saved, fit):
    again = load_fit(saved)
    save_fit(again, saved)
    same(fit, again)
    same(fit, load_fit(saved))


def test_what_is_not_ours_is_left_alone(fit, tmp_path):
    folder = tmp_path / "thesis.zarr"
    folder.mkdir()
    (folder / "chapter.txt").write_text("work of years")
    other = tmp_path / "other.zarr"
    xr.Dataset({"a": (("x",), [1.0])}).to_zarr(other, zarr_format=3, consolidated=False)
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    text = tmp_path / "notes.nc"
    text.write_text("notes")
    for path in (folder, other, archive, text):
        before = contents(path)
        with pytest.raises(HmlmError, match=f"{path.name}' is there already and is no file of"):
            save_fit(fit, path)
        assert contents(path) == before
        with pytest.raises(HmlmError, match=path.name):
            load_fit(path)


def test_paths_that_cannot_be_are_refused(fit, tmp_path):
    with pytest.raises(HmlmError, match=r"end it in \.zarr"):
        save_fit(fit, tmp_path / "fit.pkl")
    with pytest.raises(HmlmError, match="there is no folder"):
        save_fit(fit, tmp_path / "none" / "fit.zarr")
    with pytest.raises(HmlmError, match=r"there is no file '.*fit\.zarr'"):
        load_fit(tmp_path / "fit.zarr")
    with pytest.raises(HmlmError, match="str is no fit of"):
        save_fit("fit", tmp_path / "fit.zarr")


def test_a_newer_format_is_refused(saved):
    head = json.loads((saved / "zarr.json").read_text())
    head["attributes"] |= {"hmlm_format": 2, "hmlm_version": "9.0"}
    (saved / "zarr.json").write_text(json.dumps(head))
    with pytest.raises(HmlmError, match=r"fit\.zarr' has format 2, written by hmlm 9\.0.*update"):
        load_fit(saved)


@pytest.mark.parametrize("suffix", [".zip", ".nc"])
def test_a_file_that_is_cut_off_is_refused(fit, suffix, tmp_path):
    path = tmp_path / f"fit{suffix}"
    save_fit(fit, path)
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.7, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(HmlmError, match=f"fit{suffix}' is (damaged|no file of hmlm)"):
            load_fit(path)


def test_every_damaged_or_missing_piece_is_noticed(saved, record_property):
    tried = 0
    for file in sorted(p for p in saved.rglob("*") if p.is_file() and "c" in p.parts):
        group, name = file.relative_to(saved).parts[:2]
        labels = ("chain", "draw", "term", "Subject", "Subject_term", "Subject_term_")
        if group == "observed_data" or name in labels:
            continue  # for other tools
        whole = file.read_bytes()
        middle = len(whole) // 2
        for changed in (None, whole[:middle], whole[:middle] + b"\x00\xff" + whole[middle + 2 :]):
            if changed is None:
                file.unlink()
            elif changed == whole:
                continue
            else:
                file.write_bytes(changed)
            with pytest.raises(HmlmError, match=r"fit\.zarr' is damaged"):
                load_fit(saved).variable("b_Subject")
            tried += 1
        file.write_bytes(whole)
    load_fit(saved).variable("b_Subject")
    record_property("trust", {"what": "pieces missing or damaged", "tried and refused": tried})


def rewrite(path, **changes):
    """Change the description of a file, checksum and all, as somebody who means harm would."""
    place = path / "hmlm" / "description"
    with xr.open_dataset(path, engine="zarr", group="hmlm", consolidated=False, chunks=None) as old:
        about = json.loads(old["description"].to_numpy().tobytes())
    text = json.dumps({**about, **changes}).encode()
    shutil.rmtree(place)
    xr.Dataset({"description": (("byte",), np.frombuffer(text, dtype=np.uint8))}).to_zarr(
        path, group="hmlm", mode="w", zarr_format=3, consolidated=False
    )
    head = json.loads((path / "zarr.json").read_text())
    head["attributes"]["description_sha256"] = hashlib.sha256(text).hexdigest()
    (path / "zarr.json").write_text(json.dumps(head))


@pytest.mark.parametrize(
    "changes",
    [
        {"formula": "Reaction ~ __import__('os').getcwd() + (1 | Subject)"},
        {"formula": "Reaction ~ Days + (1 | Subject)"},
        {"columns": ["Reaction", "nothing"]},
        {"method": {"$Popen": {"args": "true"}}},
        {"method": {"$NUTS": {"nonsense": 1}}},
        {"averages": [0.0]},
        {"kind": "other"},
        {"status": 3, "table": {}},
    ],
)
def test_a_file_that_was_tampered_with_is_refused(saved, changes):
    rewrite(saved)
    load_fit(saved)
    rewrite(saved, **changes)
    with pytest.raises(HmlmError, match=r"fit\.zarr'"):
        load_fit(saved)


def test_other_data_are_refused(saved, sleepstudy):
    changed = sleepstudy.copy()
    changed.loc[[5, 9], "Reaction"] += 1.0
    for other, words in [
        (changed, "'Reaction' differs in 2 rows, the first being row 5"),
        (sleepstudy.iloc[:-1], "179 complete rows, and the fit has 180"),
        (sleepstudy.drop(columns="Days"), "no column 'Days'"),
        (sleepstudy.assign(Days=sleepstudy["Days"].astype(str)), "'Days'"),
    ]:
        with pytest.raises(DataError, match=rf"not those of '.*fit\.zarr'.*{words}"):
            load_fit(saved, data=other)
    load_fit(saved, data=sleepstudy)


def test_tables_come_back_exactly():
    table = every_kind()
    table["text"] = pd.Series(["ä", None, "b;c"] * 40, dtype="str")
    table["object"] = pd.Series(["x", "y"] * 60, dtype=object)
    table["small"] = np.arange(120, dtype=np.int8)
    table["half"] = np.linspace(0, 1, 120).astype(np.float32)
    table["whole levels"] = pd.Categorical([3, 1, 2, 3] * 30, [3, 2, 1], ordered=True)
    arrays, columns = pack_frame(table)
    again = unpack_frame(arrays, json.loads(json.dumps(columns)))
    pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_values_come_back_exactly():
    values = {
        "a": (1, 2.5, float("inf"), None, True),
        "b": [np.float64(0.1)],
        "": hmlm.Prior("flat"),
    }
    packed = json.loads(json.dumps(pack_value(values), allow_nan=False))
    assert unpack_value(packed, {}) == values
    with pytest.raises(HmlmError, match="cannot be saved"):
        pack_value({1, 2})


def test_every_method_can_be_loaded():
    from hmlm.retrieval import _classes

    public = [getattr(hmlm, name) for name in hmlm.__all__]
    methods = {m.__name__ for m in public if isinstance(m, type) and hasattr(m, "run")}
    assert methods <= set(_classes())
