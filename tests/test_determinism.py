"""The same seed gives the same numbers, to the last bit, however and wherever a model is fitted."""

import threading

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import hmlm

SHORT = {"draws": 60, "tune": 150, "chains": 2}
MODELS = {
    "gaussian": ("y ~ x + (x | g)", "gaussian"),
    "bernoulli": ("yes ~ x + (1 | g)", "bernoulli"),
    "poisson": ("count ~ x + f + (1 | g)", "poisson"),
}
CONTAINERS = {
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "dict": lambda frame: {name: frame[name].tolist() for name in frame},
    "shuffled columns": lambda frame: frame[sorted(frame, reverse=True)],
    "an index": lambda frame: frame.set_index(pd.Index(np.arange(len(frame))[::-1])),
}


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(8), 6)
    x = rng.normal(size=48)
    level = rng.normal(size=8)[g] + 0.5 * x
    columns = {
        "y": level + rng.normal(size=48),
        "yes": (level + rng.logistic(size=48) > 0).astype(int),
        "count": rng.poisson(np.exp(0.5 + 0.4 * level)),
        "x": x,
        "f": np.array(["a", "b", "c"])[rng.integers(0, 3, 48)],
        "g": np.array(list("abcdefgh"))[g],
    }
    return pd.DataFrame(columns)


def fitted(name, data, seed=5, cores=1):
    formula, family = MODELS[name]
    model = hmlm.Model(formula, data, family)
    return model.fit(hmlm.NUTS(cores=cores, **SHORT), seed, progressbar=False)


def numbers(fit, effects=True):
    """Return every draw of a fit, and predictions for its rows and for a new group."""
    names = [v.name for v in fit.design.variables if effects or v.kind != "group"]
    found = {name: np.asarray(fit.variable(name)) for name in names}
    rows = fit.design.data.frame.head(5)
    return found | {"predictions": fit.predict(rows).to_numpy(dtype=object)}


def check_same(first, second, what):
    assert list(first) == list(second)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
    n = sum(values.size for values in first.values())
    return {"what": what, "fits compared": 1, "numbers, the same to the last bit": n}


@pytest.fixture(scope="module", params=MODELS)
def first(request, frame):
    """A model's name, its fit, and all numbers of it."""
    fit = fitted(request.param, frame)
    return request.param, fit, numbers(fit)


@pytest.mark.parametrize("container", CONTAINERS)
def test_same_seed_same_draws_from_every_container(first, frame, container, record_property):
    name, _, expected = first
    found = numbers(fitted(name, CONTAINERS[container](frame)))
    record_property("trust", check_same(expected, found, f"data: {container}"))


def test_same_seed_same_draws_on_two_cores(first, frame, record_property):
    name, _, expected = first
    found = numbers(fitted(name, frame, cores=2))
    record_property("trust", check_same(expected, found, "two cores"))


def test_other_seed_other_draws(first, frame):
    name, _, expected = first
    other = numbers(fitted(name, frame, seed=6))
    assert not np.array_equal(expected["beta"], other["beta"])
    assert not np.array_equal(expected["b_g"], other["b_g"])


def test_the_global_state_of_numpy_is_neither_read_nor_changed(first, frame, record_property):
    name, _, expected = first
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    figures = check_same(expected, numbers(fitted(name, frame)), "another global seed of NumPy")
    record_property("trust", figures)
    after = np.random.get_state()[1]  # noqa: NPY002
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("effects", [True, False])
def test_saved_fits_give_the_same_draws_and_predictions(first, tmp_path, effects, record_property):
    name, fit, expected = first
    fit.save(tmp_path / "fit.zip", effects=effects)
    again = hmlm.load(tmp_path / "fit.zip")
    if effects or name == "gaussian":  # whose effects are drawn again
        record_property("trust", check_same(expected, numbers(again), "saved and loaded"))
    else:
        assert np.array_equal(expected["beta"], again.variable("beta"))


def test_fits_in_threads_give_what_they_give_alone(first, frame, record_property):
    name, _, expected = first
    found, errors = {}, []
    together = threading.Barrier(2)

    def run(seed):
        try:
            together.wait(30)
            found[seed] = numbers(fitted(name, frame, seed))
        except BaseException as error:  # shown by the test, not lost with the thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    record_property("trust", check_same(expected, found[5], "two threads at once"))
    assert not np.array_equal(expected["beta"], found[6]["beta"])


@pytest.mark.parametrize(
    "method", [hmlm.REML(), hmlm.ML(), hmlm.Gibbs(draws=60, tune=60, chains=2)]
)
def test_other_methods_give_the_same_numbers_from_every_container(
    frame, method, tmp_path, record_property
):
    def run(data):
        fit = hmlm.Model("y ~ x + (x | g)", data).fit(method, 5, progressbar=False)
        return fit, hmlm.tidy(fit)

    fit, expected = run(frame)
    for container in CONTAINERS.values():
        pd.testing.assert_frame_equal(run(container(frame))[1], expected, check_exact=True)
    fit.save(tmp_path / "fit.zip")
    loaded = hmlm.tidy(hmlm.load(tmp_path / "fit.zip"))
    pd.testing.assert_frame_equal(loaded, expected, check_exact=True)
    compared = len(CONTAINERS) + 1
    figures = {
        "what": "tables of REML, ML and Gibbs, from each container and loaded",
        "fits compared": compared,
        "numbers, the same to the last bit": compared * expected.select_dtypes("number").size,
    }
    record_property("trust", figures)
