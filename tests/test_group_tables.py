"""Estimates of groups, part by part: the same figures, in memory that does not grow."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pandas.testing import assert_frame_equal

import hmlm
from hmlm.errors import HmlmError
from hmlm.fitting import bayes_fit
from hmlm.likelihoods import effect_draws
from hmlm.likelihoods.effect_draws import draw_effect_parts, draw_effects
from hmlm.likelihoods.gaussian import gaussian_sums

MODELS = {
    "shared designs": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "own designs": ("radon", "log_radon ~ floor + log_uranium + (floor | county)"),
    "nested": ("egsingle", "math ~ year + (year | school) + (year | child)"),
}


@pytest.fixture(scope="module")
def fits():
    method = hmlm.NUTS(draws=500, tune=300, chains=2)
    return {
        name: hmlm.Model(formula, hmlm.load_dataset(data)).fit(
            method, random_seed=1, progressbar=False
        )
        for name, (data, formula) in MODELS.items()
    }


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
@pytest.mark.parametrize("name", MODELS)
def test_parts_are_the_whole(name, at_once, monkeypatch):
    """With the same normals, drawing part by part is drawing all: each group has its own."""
    data, formula = MODELS[name]
    design = hmlm.Model(formula, hmlm.load_dataset(data)).design
    sums = gaussian_sums(design)
    rng = np.random.default_rng(1)
    parameters = {"beta": rng.normal(size=(2, len(design.terms))), "sigma": np.array([1.0, 2.0])}
    for block in design.blocks:
        q = len(block.columns)
        parameters[f"sd_{block.group}"] = rng.uniform(0.5, 2, (2, q))
        parameters[f"cor_{block.group}"] = np.tile(np.eye(q) * 0.6 + 0.4, (2, 1, 1))

    class Zero:
        def standard_normal(self, shape):
            return np.zeros(shape)

    whole = draw_effects(design, sums, parameters, Zero())
    monkeypatch.setattr(effect_draws.np.random, "default_rng", lambda seed: Zero())
    seen = {block.group: [] for block in design.blocks}
    for part in draw_effect_parts(design, sums, parameters, 1, at_once):
        for group, (places, effects) in part.items():
            seen[group].append(places)
            np.testing.assert_allclose(effects, whole[f"b_{group}"][:, places], rtol=1e-12)
    for block in design.blocks:
        places = np.sort(np.concatenate(seen[block.group]))
        assert places.tolist() == list(range(len(block.levels)))
    if at_once == 1:
        assert len(seen[design.blocks[-1].group]) > 1


@pytest.mark.parametrize("kind", ["total", "group", "line"])
@pytest.mark.parametrize("name", MODELS)
def test_drawn_parts_agree_with_tidy(fits, name, kind, monkeypatch):
    fit = fits[name]
    block = max(fit.design.blocks, key=lambda b: len(b.levels))
    direct = pd.concat(hmlm.iterate_groups(fit, kind=kind)).set_index(["level", "term"])
    monkeypatch.setattr(bayes_fit, "LARGEST_VARIABLE", 0)
    parts = list(hmlm.iterate_groups(fit, kind=kind, at_once=11))
    assert len(parts) > 1
    drawn = pd.concat(parts).set_index(["level", "term"]).loc[direct.index]
    assert len(drawn) == len(block.levels) * len(block.columns)
    z = (drawn["estimate"] - direct["estimate"]) / direct["std_error"]
    assert np.sqrt((z**2).mean()) < 0.06  # a thousand draws on either side
    assert np.sqrt((np.log(drawn["std_error"] / direct["std_error"]) ** 2).mean()) < 0.06


def test_random_numbers_of_parts_differ(fits, monkeypatch):
    monkeypatch.setattr(bayes_fit, "LARGEST_VARIABLE", 0)
    fit = fits["shared designs"]
    first, again = (pd.concat(hmlm.iterate_groups(fit, at_once=5)) for _ in range(2))
    assert_frame_equal(first, again)


def test_files_hold_what_is_iterated(fits, tmp_path):
    fit = fits["nested"]
    expected = pd.concat(hmlm.iterate_groups(fit, "school"), ignore_index=True)
    path = hmlm.write_groups(fit, tmp_path / "schools.parquet", "school", at_once=20)
    assert_frame_equal(pd.read_parquet(path), expected, check_dtype=False)
    path = hmlm.write_groups(fit, tmp_path / "schools.zarr", "school", at_once=20)
    with xr.open_zarr(path, consolidated=False) as found:
        values = found["estimate"].sel(term="year").to_series()
        term = expected[expected["term"] == "year"].set_index("level")["estimate"]
        assert values.to_numpy() == pytest.approx(term.loc[values.index].to_numpy())
    # What is there is replaced, and nothing is left beside it.
    hmlm.write_groups(fit, path, "school")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["schools.parquet", "schools.zarr"]


def test_failure_leaves_the_old_file(fits, tmp_path, monkeypatch):
    path = hmlm.write_groups(fits["nested"], tmp_path / "a.parquet", "school")
    before = path.read_bytes()

    def broken(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", broken)
    with pytest.raises(HmlmError, match="no space left"):
        hmlm.write_groups(fits["nested"], path, "school")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_folder_of_others_is_left_alone(fits, tmp_path):
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "letter.txt").write_text("dear")
    with pytest.raises(HmlmError, match="left alone"):
        hmlm.write_groups(fits["nested"], tmp_path / "mine.zarr", "school")
    assert (tmp_path / "mine.zarr" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "a.csv"}, "end it in .parquet or .zarr"),
        ({"path": "nowhere/a.parquet"}, "there is no folder"),
        ({"group": "class"}, "no groups 'class', but"),
        ({"kind": "ranef"}, "kind is one of"),
        ({"at_once": 0}, "at_once must be a whole number"),
    ],
)
def test_wrong_arguments_are_explained(fits, tmp_path, arguments, words):
    path = tmp_path / arguments.pop("path", "a.parquet")
    with pytest.raises(HmlmError, match=words):
        hmlm.write_groups(fits["nested"], path, **arguments)


@pytest.mark.slow
def test_memory_does_not_grow_with_groups(monkeypatch):
    monkeypatch.setattr(bayes_fit, "LARGEST_VARIABLE", 2**26)
    rng = np.random.default_rng(0)
    J = 50_000
    g = np.repeat(np.arange(J), 3)
    y = rng.normal(size=J)[g] + rng.normal(size=len(g))
    model = hmlm.Model("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g}))
    fit = model.fit(hmlm.NUTS(draws=500, tune=300), random_seed=1, progressbar=False)
    with pytest.raises(HmlmError, match="would take"):
        fit.tidy()
    tracemalloc.start()
    rows = sum(len(part) for part in hmlm.iterate_groups(fit, at_once=1_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == J
    assert peak < 2**30 / 8  # all draws at once are 0.75 GiB
