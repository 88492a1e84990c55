"""Simulation-based calibration: right posteriors pass, a planted bug is caught."""

import matplotlib as mpl
import numpy as np
import pytest

import hmlm
from hmlm.calibration import calibrate
from hmlm.errors import HmlmError, PriorError
from hmlm.plots.calibration_ranks import plot_calibration_ranks
from hmlm.study import make_study

mpl.use("Agg")
NORMAL, HALF = hmlm.Prior("normal", sigma=1), hmlm.Prior("half-normal", sigma=1)
PRIORS = {"Intercept": NORMAL, "x": NORMAL, "sd": HALF, "sigma": HALF}
SHORT = hmlm.NUTS(draws=200, tune=250, chains=1, cores=1)
FORMULA = "y ~ x + (1 | g)"


def run(n, **changes):
    settings = {
        "formula": FORMULA,
        "frame": make_study(groups={"g": 8}, per_group=5, predictors={"x": "normal"}),
        "priors": PRIORS,
        "method": SHORT,
        "progressbar": False,
        "random_seed": 11,
        **changes,
    }
    return calibrate(n_simulations=n, **settings)


def variance_for_sd(design, truth, rng):
    """Draw outcomes with a planted bug: the residual sd is taken for a variance."""
    b = truth["b_g"][0, :, 0][design.blocks[0].index]
    noise = np.sqrt(truth["sigma"][0]) * rng.standard_normal(len(b))
    return design.X @ truth["beta"][0] + b + noise


@pytest.fixture(scope="module")
def gaussian():
    return run(100, prob=0.99)


@pytest.fixture(scope="module")
def broken():
    return run(60, simulator=variance_for_sd)


def assert_calibrated(found, what):
    """Hold every quantity of a hundred simulations in its 99% band, and return the figures."""
    assert len(found.ranks) == 100
    assert found.prob == 0.99
    assert list(found.table["quantity"])[-1] == "log_likelihood"
    assert found.table["inside"].all()
    assert (found.table["p_value"] > 1e-3).all()
    return {
        "what": what,
        "simulations": len(found.ranks),
        "quantities": len(found.table),
        "outside of their 99% bands": int((~found.table["inside"]).sum()),
        "smallest p": float(found.table["p_value"].min()),
    }


def test_gaussian_model_is_calibrated(gaussian, record_property):
    record_property("trust", assert_calibrated(gaussian, f"`{FORMULA}`, gaussian"))


def test_binomial_model_is_calibrated(record_property):
    frame = make_study(groups={"g": 8}, per_group=5, predictors={"x": "normal"}).make_frame(1)
    frame["n"] = 8
    priors = {k: v for k, v in PRIORS.items() if k != "sigma"}
    options = {"formula": "p(y, n) ~ x + (1 | g)", "family": "binomial", "prob": 0.99}
    options["random_seed"] = 12
    found = run(100, frame=frame, priors=priors, **options)
    what = "`{formula}`, {family}".format(**options)
    record_property("trust", assert_calibrated(found, what))


def test_poisson_model_is_calibrated(record_property):
    small, half = hmlm.Prior("normal", sigma=0.5), hmlm.Prior("half-normal", sigma=0.5)
    priors = {"Intercept": NORMAL, "x": small, "sd": half, "cor": hmlm.Prior("lkj", eta=2)}
    options = {"formula": "y ~ x + (x | g)", "family": "poisson", "prob": 0.99}
    what = "`{formula}`, {family}".format(**options)
    record_property("trust", assert_calibrated(run(100, priors=priors, **options), what))


def test_an_sd_taken_for_a_variance_is_caught(broken):
    assert "sigma" in broken.suspects
    assert "log_likelihood" in broken.suspects
    p = broken.table.set_index("quantity")["p_value"]
    assert p["log_likelihood"] < 1e-6
    assert "Outside of what chance explains" in str(broken)


def test_draws_are_thinned_to_near_independence(gaussian):
    assert 9 <= gaussian.n_draws <= 200
    assert gaussian.ranks.to_numpy().max() <= gaussian.n_draws
    assert gaussian.ranks.shape == gaussian.true_values.shape == (100, 5)
    few = gaussian.diagnostics["min_ess"] < 0.9 * gaussian.n_draws
    assert few.mean() <= 0.15


def test_group_effects_can_be_ranked():
    found = run(3, effects=True)
    assert sum(name.startswith("b_g[") for name in found.ranks) == 8


def test_priors_must_not_depend_on_the_outcome():
    with pytest.raises(PriorError, match=r"sd_g\[Intercept\], sigma are scaled by the outcome"):
        run(3, priors={"Intercept": NORMAL, "x": NORMAL})
    with pytest.raises(PriorError, match="flat"):
        run(3, priors={**PRIORS, "x": hmlm.Prior("flat")})


def test_failures_are_counted_and_not_hidden():
    def constant(design, truth, rng):
        return np.zeros(len(design.y)) if rng.random() < 0.5 else rng.normal(size=len(design.y))

    found = run(8, simulator=constant)
    assert 0 < found.failures.sum() < 7
    assert len(found.ranks) == 8 - found.failures.sum()
    with pytest.raises(HmlmError, match="4 of 4 simulations failed"):
        run(4, simulator=lambda design, truth, rng: np.zeros(len(design.y)))


def test_a_simulator_must_return_the_rows():
    with pytest.raises(HmlmError, match="returned shape"):
        run(2, simulator=lambda design, truth, rng: 1.0)


def test_figure_of_ranks(broken):
    axes = plot_calibration_ranks(broken)
    assert axes.shape == (2, 4)
    assert sum(ax.get_visible() for ax in axes.flat) == 5
    mpl.pyplot.close(axes[0, 0].figure)
    axes = plot_calibration_ranks(broken, "sigma")
    assert axes[0, 0].get_title(loc="left") == "sigma"
    mpl.pyplot.close(axes[0, 0].figure)
    with pytest.raises(HmlmError, match="was not ranked"):
        plot_calibration_ranks(broken, "tau")
