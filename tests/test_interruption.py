"""Ctrl-C while sampling: what was drawn comes back, and says so."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import nutpie
import pytest

import hmlm
from hmlm import NUTS, Gibbs
from hmlm.fitting import gibbs
from hmlm.fitting.interruption import SamplingInterrupted, find_interruption

SHORT = {"draws": 100, "tune": 200, "chains": 2}
FORMULA = "Reaction ~ Days + (Days | Subject)"
PRIORS = {
    "Intercept": hmlm.Prior("normal", mu=250, sigma=50),
    "Days": hmlm.Prior("normal", mu=10, sigma=10),
    "sd": hmlm.Prior("half-normal", sigma=20),
    "sigma": hmlm.Prior("half-normal", sigma=30),
}

METHODS = {
    "kernel": (FORMULA, "sleepstudy", {}, NUTS(**SHORT)),
    "rows": (
        "p(incidence, size) ~ period + (1 | herd)",
        "cbpp",
        {"family": "binomial"},
        NUTS(**SHORT),
    ),
    "pymc": (FORMULA, "sleepstudy", {}, NUTS(engine="pymc", **SHORT)),
}
ROADS = ["kernel", "rows", pytest.param("pymc", marks=pytest.mark.slow)]


def model_of(road):
    formula, data, options, method = METHODS[road]
    return hmlm.Model(formula, hmlm.load_dataset(data), **options), method


@pytest.fixture
def interrupt(monkeypatch):
    """Have nutpie return chains of given lengths, as it does when it is interrupted."""
    whole = nutpie.sample

    def cut_to(*lengths):
        def cut(*args, **kwargs):
            tree = whole(*args, **kwargs)
            for name in ("posterior", "sample_stats"):
                for values in tree[name].dataset.values():
                    for chain, n in enumerate(lengths):
                        # nutpie blanks what has blanks, and leaves zeros in whole numbers.
                        values.to_numpy()[chain, n:] = np.nan if values.dtype == float else 0
            return tree

        monkeypatch.setattr(nutpie, "sample", cut)

    return cut_to


@pytest.mark.parametrize("road", ROADS)
def test_what_was_drawn_comes_back(road, interrupt, monkeypatch, capsys, tmp_path, record_property):
    model, method = model_of(road)
    whole = model.fit(method, random_seed=1, progressbar=False)
    interrupt(60, 75)
    fit = model.fit(method, random_seed=1, progressbar=False)
    assert capsys.readouterr().out == ""
    for name in whole._parameters:
        assert np.array_equal(fit.variable(name), whole.variable(name)[:, :60])
    n = sum(fit.variable(name).size for name in whole._parameters)
    what = "NUTS, stopped, beside the whole run"
    record_property("trust", {"what": what, "samplers": 1, "numbers, the same to the last bit": n})
    assert fit._stats["diverging"].shape == (2, 60)
    assert fit.status.problems[0] == (
        "Sampling was interrupted after 60 of 100 draws a chain: draw more with "
        "fit.extend(draws=40), or fit again."
    )
    assert not fit.status.converged  # 120 draws are too few to say
    assert np.isfinite(fit.predict()["estimate"]).all()
    group = fit.design.blocks[0].group
    assert fit.variable(f"b_{group}").shape[:2] == (2, 60)
    fit.save(tmp_path / "fit.zip")
    again = hmlm.load_fit(tmp_path / "fit.zip")
    assert again.status.problems == fit.status.problems
    assert np.array_equal(again.variable(f"b_{group}"), fit.variable(f"b_{group}"))
    monkeypatch.undo()
    longer = again.extend(draws=300, progressbar=False)
    assert longer.variable("beta").shape[:2] == (2, 360)
    assert longer.variable(f"b_{group}").shape[:2] == (2, 360)
    assert np.array_equal(longer.variable("beta")[:, :60], fit.variable("beta"))
    assert not [p for p in longer.status.problems if "interrupted" in p]
    assert "Sampling was interrupted after 60 of 100 draws a chain." in longer.status.notes


def test_the_progress_bar_is_followed_by_a_sentence(interrupt, capsys):
    model, method = model_of("kernel")
    interrupt(60, 75)
    model.fit(method, random_seed=1)
    assert "Sampling was interrupted after 60 of 100 draws a chain." in capsys.readouterr().out


def test_draws_that_suffice_count_as_converged(interrupt):
    model, _ = model_of("kernel")
    interrupt(900, 950, 980, 990)
    fit = model.fit(random_seed=1, progressbar=False)
    assert fit.status.converged
    (problem,) = fit.status.problems
    assert "after 900 of 1,000 draws" in problem


def test_chains_that_had_hardly_begun_are_left_out(interrupt, monkeypatch):
    """Two processors, four chains: two are complete, and two have begun."""
    model, _ = model_of("kernel")
    interrupt(1000, 900, 7, 0)
    fit = model.fit(random_seed=1, progressbar=False)
    assert fit.variable("beta").shape[:2] == (2, 900)
    assert not fit.status.converged
    assert "in 2 of 4 chains, and the others are left out" in fit.status.problems[0]
    monkeypatch.undo()
    assert fit.extend(draws=100, progressbar=False).variable("beta").shape[:2] == (2, 1000)


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0), (1, 1)])
def test_interrupted_tuning_goes_on_as_an_interrupt(lengths, interrupt):
    model, method = model_of("kernel")
    interrupt(*lengths)
    with pytest.raises(KeyboardInterrupt, match=r"tuned.*nothing to return") as caught:
        model.fit(method, random_seed=1, progressbar=False)
    assert not isinstance(caught.value, SamplingInterrupted)


@pytest.mark.parametrize(
    ("lengths", "kept", "n"),
    [
        ([100, 100], None, 0),
        ([100, 99], (0, 1), 99),
        ([2, 100], (0, 1), 2),
        ([1, 100], (1,), 100),
        ([0, 0, 50, 0], (2,), 50),
        ([30, 100, 49, 50], (1, 3), 50),
        ([100, 40, 30, 20], (0, 1), 40),
    ],
)
def test_which_draws_are_of_use(lengths, kept, n):
    found = find_interruption(np.array(lengths), 100)
    assert (found and found.kept) == kept
    assert kept is None or found.n == n


def test_an_interrupted_extension_is_joined_to_the_fit(interrupt):
    model, method = model_of("kernel")
    fit = model.fit(method, random_seed=1, progressbar=False)
    interrupt(30, 35)
    longer = fit.extend(draws=50, progressbar=False)
    assert longer.variable("beta").shape[:2] == (2, 130)
    assert "after 30 of 50 draws a chain" in longer.status.problems[0]
    assert any(note.startswith("30 draws a chain added to 100") for note in longer.status.notes)
    interrupt(30, 0)
    with pytest.raises(KeyboardInterrupt, match="the fit is as it was"):
        fit.extend(draws=50, progressbar=False)


def test_a_loop_over_fits_ends_with_the_interrupt(interrupt, sleepstudy):
    """Otherwise one would have to interrupt every one of its fits."""
    model, method = model_of("kernel")
    interrupt(60, 75)
    with pytest.raises(SamplingInterrupted, match="after 60 of 100") as caught:
        method.run(model.design, random_seed=1, progressbar=False)
    assert caught.value.fit.variable("beta").shape[:2] == (2, 60)
    with pytest.raises(KeyboardInterrupt):
        hmlm.calibrate(FORMULA, sleepstudy, PRIORS, 10, method, progressbar=False)
    with pytest.raises(KeyboardInterrupt):
        hmlm.impute_fit(FORMULA, [sleepstudy] * 2, method=method, progressbar=False)


def stop_gibbs(monkeypatch, after):
    """Have an iteration of the Gibbs sampler raise what Ctrl-C raises."""
    steps, done = gibbs.iterate, []

    def iterate(*args):
        steps(*args)
        done.append(None)
        if len(done) > after:
            raise KeyboardInterrupt

    monkeypatch.setattr(gibbs, "iterate", iterate)


def test_gibbs_returns_what_was_drawn(sleepstudy, monkeypatch, tmp_path, record_property):
    model = hmlm.Model(FORMULA, sleepstudy)
    method = Gibbs(draws=100, tune=50, chains=2)
    whole = model.fit(method, random_seed=1, progressbar=False)
    stop_gibbs(monkeypatch, after=50 + 70)
    fit = model.fit(method, random_seed=1, progressbar=False)
    monkeypatch.undo()
    names = ("beta", "sigma", "b_Subject")
    for name in names:
        assert np.array_equal(fit.variable(name), whole.variable(name)[:, :70])
    n = sum(fit.variable(name).size for name in names)
    what = "Gibbs, stopped, beside the whole run"
    record_property("trust", {"what": what, "samplers": 1, "numbers, the same to the last bit": n})
    assert "after 70 of 100 draws a chain" in fit.status.problems[0]
    assert fit.extend(draws=30, progressbar=False).variable("b_Subject").shape[1] == 100
    fit.save(tmp_path / "fit.nc")
    assert hmlm.load_fit(tmp_path / "fit.nc").status.problems == fit.status.problems
    stop_gibbs(monkeypatch, after=51)
    with pytest.raises(KeyboardInterrupt, match="while it was tuned"):
        model.fit(method, random_seed=1, progressbar=False)


CHILD = """
import sys, hmlm, nutpie
from hmlm.fitting import gibbs
sleep, cbpp = hmlm.load_dataset("sleepstudy"), hmlm.load_dataset("cbpp")
for module, name in ((nutpie, "sample"), (gibbs, "start")):
    def tell(*args, whole=getattr(module, name), **kwargs):
        print("sampling", flush=True)
        return whole(*args, **kwargs)
    setattr(module, name, tell)
long = 3_000_000
for road in sys.argv[1:]:
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep)
    if road == "rows":
        model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, family="binomial")
    if road == "gibbs":
        method = hmlm.Gibbs(draws=100_000, tune=20, chains=2)
    else:
        engine = "pymc" if road == "pymc" else "auto"
        tune = long if road == "tuning" else 50
        method = hmlm.NUTS(draws=long, tune=tune, chains=2, engine=engine)
    try:
        fit = model.fit(method, random_seed=1, progressbar=False)
    except KeyboardInterrupt as stop:
        print(f"interrupt: {stop}", flush=True)
        continue
    print(fit.status.problems[0], fit.variable("beta").shape[1], sep="|", flush=True)
"""


@pytest.mark.parametrize(
    "roads",
    [["kernel", "rows", "gibbs", "tuning"], pytest.param(["pymc"], marks=pytest.mark.slow)],
)
def test_a_real_interrupt(roads, record_property):
    """A signal from outside, as of Ctrl-C, to a process that samples."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *roads], stdout=subprocess.PIPE, text=True, process_group=0
    )
    timer = threading.Timer(600, child.kill)
    timer.start()
    draws = []
    try:
        for road in roads:
            assert child.stdout.readline() == "sampling\n"
            time.sleep(1.0)
            child.send_signal(signal.SIGINT)
            said = child.stdout.readline()
            if road == "tuning":
                assert said.startswith("interrupt: sampling was interrupted while it was tuned")
            else:
                problem, n = said.split("|")
                assert int(n) >= 2
                draws.append(int(n))
                assert problem.startswith(f"Sampling was interrupted after {int(n):,} of ")
        assert child.wait() == 0
    finally:
        timer.cancel()
        child.kill()
        child.stdout.close()
        child.wait()
    kept = {"signals sent": len(roads), "fits returned": len(draws), "least draws kept": min(draws)}
    record_property("trust", {"what": "Ctrl-C from outside after a second", **kept})
