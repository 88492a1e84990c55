"""NUTS on the compiled density: nutpie's private entry, its public fallback, and the engines."""

import numpy as np
import pytest
from support import make
from test_kernel import make_posterior

import hmlm
from hmlm.errors import HmlmError
from hmlm.fitting.kernel_sampler import has_private_entry, sample_kernel
from hmlm.fitting.nuts import NUTS

SETTINGS = {
    "draws": 500,
    "tune": 500,
    "chains": 2,
    "cores": 2,
    "target_accept": 0.9,
    "max_treedepth": 10,
    "random_seed": 5,
    "progressbar": False,
}


@pytest.fixture(scope="module")
def sleep_posterior(sleepstudy):
    return make_posterior(make("Reaction ~ Days + (Days | Subject)", sleepstudy))


@pytest.fixture(scope="module")
def kernel_fit(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    return model.fit(NUTS(), random_seed=1, progressbar=False)


def test_nutpie_still_has_the_entry_that_takes_pointers():
    """The contract with nutpie's private module; the pinned series has it."""
    assert has_private_entry()


def test_both_routes_draw_from_the_same_posterior(sleep_posterior):
    compiled = sample_kernel(sleep_posterior, **SETTINGS)
    callback = sample_kernel(sleep_posterior, route="callback", **SETTINGS)
    assert (compiled.route, callback.route) == ("compiled", "callback")
    assert compiled.x.shape == callback.x.shape == (2, 500, sleep_posterior.dim)
    for a, b in zip(np.moveaxis(compiled.x, 2, 0), np.moveaxis(callback.x, 2, 0), strict=True):
        error = np.sqrt((a.var() + b.var()) / 300)
        assert abs(a.mean() - b.mean()) < 4.5 * error


def test_the_same_seed_gives_the_same_draws(sleep_posterior):
    first = sample_kernel(sleep_posterior, **SETTINGS)
    again = sample_kernel(sleep_posterior, **SETTINGS)
    other = sample_kernel(sleep_posterior, **{**SETTINGS, "random_seed": 6})
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)


def test_sampling_is_clean_at_the_defaults(kernel_fit):
    assert kernel_fit.status.converged, str(kernel_fit.status)
    assert kernel_fit.status.numbers["divergences"] == 0
    assert kernel_fit.status.numbers["min_ess_bulk"] > 1500
    assert "group effects integrated out" in str(kernel_fit.status)


def test_group_effects_come_with_the_first_access(kernel_fit):
    draws = kernel_fit.draws["posterior"]
    assert list(draws.dataset.data_vars) == [
        "beta",
        "sd_Subject",
        "cor_Subject",
        "sigma",
        "b_Subject",
    ]
    assert draws["b_Subject"].dims == ("chain", "draw", "Subject", "Subject_term")
    assert kernel_fit.draws is kernel_fit.draws


def test_a_recovered_truth_lies_inside_the_intervals():
    from support import simulate

    frame, _ = simulate(11, groups=80, size=8)
    fit = hmlm.Model("y ~ x + (x | g)", frame).fit(random_seed=3, progressbar=False)
    table = fit.tidy(prob=0.99, groups=False)
    truth = [2.0, -0.7, 0.8, 0.5, 0.4, 0.6]
    inside = (table["lower"] < truth) & (truth < table["upper"])
    assert inside.all(), table[["term", "lower", "upper"]].assign(truth=truth)


def test_complete_pooling_is_sampled_on_the_kernel_too(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy).with_pooling("complete")
    fit = model.fit(random_seed=1, progressbar=False)
    ols = model.fit(hmlm.OLS())
    assert "compiled density" in str(fit.status)
    z = (fit.variable("beta").mean(axis=(0, 1)) - ols.estimates["beta"]) / ols.std_errors["beta"]
    assert np.abs(z).max() < 0.1


def test_the_kernel_asked_for_what_it_does_not_cover_is_an_error(sleepstudy):
    edges = {"Days": hmlm.Prior("uniform", lower=0, upper=20)}
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy, priors=edges)
    with pytest.raises(HmlmError, match="does not cover"):
        model.fit(NUTS(engine="kernel"), progressbar=False)


def test_effects_too_many_for_memory_are_left_out_and_said(kernel_fit, monkeypatch):
    from dataclasses import replace

    from hmlm.fitting import bayes_fit

    monkeypatch.setattr(bayes_fit, "LARGEST_VARIABLE", 100_000)
    fit = replace(kernel_fit, _kept={})
    assert "b_Subject" not in fit.draws["posterior"]
    with pytest.raises(HmlmError, match=r"b_Subject.*groups=False"):
        fit.tidy()
    assert len(fit.tidy(groups=False)) == 6
