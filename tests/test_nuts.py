"""Sampling: draws agree with what is known, come back as designed, and say when they are bad."""

import arviz
import numpy as np
import pytest
import xarray as xr
from support import recorded, recorded_fixed, simulate

import hmlm
from hmlm import NUTS, OLS, Prior
from hmlm.errors import HmlmError
from hmlm.fitting.diagnostics import diagnose

SHORT = {"draws": 100, "tune": 200, "chains": 2}


@pytest.fixture(scope="session")
def sleep_model(sleepstudy):
    return hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)


@pytest.fixture(scope="session")
def sleep_pymc(sleep_model):
    return sleep_model.fit(NUTS(engine="pymc"), random_seed=1, progressbar=False)


@pytest.fixture(scope="session")
def sleep_kernel(sleep_model):
    return sleep_model.fit(NUTS(engine="kernel"), random_seed=2, progressbar=False)


@pytest.fixture(scope="session")
def alcohol_kernel(alcohol):
    model = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol)
    return model.fit(random_seed=1, progressbar=False)


@pytest.fixture(scope="session")
def alone_pymc(sleep_model):
    return sleep_model.with_pooling("none").fit(
        NUTS(engine="pymc", draws=500), random_seed=1, progressbar=False
    )


slow = pytest.mark.slow  # a PyMC model takes ten seconds to compile


@pytest.fixture(
    params=[
        pytest.param("sleep_pymc", marks=slow),
        "sleep_kernel",
        "alcohol_kernel",
        pytest.param("alone_pymc", marks=slow),
    ]
)
def fit(request):
    return request.getfixturevalue(request.param)


def posterior(fit):
    return fit.draws["posterior"].dataset


def away(fit, name, value):
    """Return how many Monte Carlo standard errors the posterior means are from a value."""
    draws = posterior(fit)[name].to_numpy()
    error = arviz.mcse(draws, chain_axis=0, draw_axis=1)
    return np.abs(draws.mean(axis=(0, 1)) - value) / error


# Exact.


@slow
def test_known_sigma_gives_the_normal_posterior():
    """With sigma known and normal priors the posterior of beta is normal, in closed form."""
    frame, _ = simulate(11, groups=20, size=3)
    given = {
        "Intercept": Prior("normal", mu=1, sigma=0.5),
        "x": Prior("normal", mu=0, sigma=0.3),
        "sigma": Prior("uniform", lower=1.4999, upper=1.5001),
    }
    model = hmlm.Model("y ~ x + (1 | g)", frame, priors=given).with_pooling("complete")
    fit = model.fit(NUTS(engine="pymc"), random_seed=4, progressbar=False)
    X, y = fit.design.X, fit.design.y
    precision = X.T @ X / 1.5**2 + np.diag([1 / 0.25, 1 / 0.09])
    covariance = np.linalg.inv(precision)
    mean = covariance @ (X.T @ y / 1.5**2 + np.array([1 / 0.25, 0]))
    assert (away(fit, "beta", mean) < 4).all()
    draws = posterior(fit)["beta"].to_numpy().reshape(-1, 2)
    assert np.cov(draws.T) == pytest.approx(covariance, rel=0.12)
    assert set(posterior(fit)) == {"beta", "sigma"}


# Agreement.


@slow
def test_both_engines_sample_one_posterior(sleep_pymc, sleep_kernel):
    for name in ("beta", "sd_Subject", "sigma", "b_Subject"):
        first, second = (posterior(f)[name].to_numpy() for f in (sleep_pymc, sleep_kernel))
        error = np.hypot(*(arviz.mcse(d, chain_axis=0, draw_axis=1) for d in (first, second)))
        assert (np.abs(first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))) < 4.5 * error).all()
        spread = first.std(axis=(0, 1)) / second.std(axis=(0, 1))
        assert np.abs(np.log(spread)).max() < 0.15


@pytest.mark.parametrize(
    "name", ["sleep_kernel", pytest.param("sleep_pymc", marks=slow), "alcohol_kernel"]
)
def test_posterior_is_near_the_restricted_likelihood(request, name):
    """Weak priors and many groups: means within a third of a standard error of R's REML."""
    fit = request.getfixturevalue(name)
    fixed = recorded_fixed(recorded("alcohol_reml" if "alcohol" in name else "sleepstudy_reml"))
    beta = posterior(fit)["beta"].mean(("chain", "draw")).to_numpy()
    assert (np.abs(beta - fixed["estimate"]) < fixed["std_error"] / 3).all()
    ratio = posterior(fit)["beta"].std(("chain", "draw")).to_numpy() / fixed["std_error"]
    assert ratio.between(0.85, 1.25).all()


@slow
def test_no_pooling_is_near_least_squares_in_every_group(alone_pymc):
    ols = OLS().run(alone_pymc.design)
    means = posterior(alone_pymc)["b_Subject"].mean(("chain", "draw")).to_numpy()
    error = ols.std_errors["b_Subject"]
    assert np.abs((means - ols.estimates["b_Subject"]) / error).max() < 0.4


# Recovery.


def test_simulated_parameters_are_recovered():
    frame, b = simulate(7, groups=60, size=8)
    fit = hmlm.Model("y ~ x + (x | g)", frame).fit(random_seed=5, progressbar=False)
    truth = {"beta": (2.0, -0.7), "sd_g": (0.8, 0.5), "sigma": 0.6}
    for name, value in truth.items():
        draws = posterior(fit)[name]
        z = (draws.mean(("chain", "draw")) - np.array(value)) / draws.std(("chain", "draw"))
        assert (np.abs(z) < 3).all()
    draws = posterior(fit)["b_g"]
    low, high = draws.quantile([0.05, 0.95], ("chain", "draw")).to_numpy()
    assert np.mean((low < b) & (b < high)) == pytest.approx(0.9, abs=0.08)


# What comes back.


def test_variables_dims_and_coords_are_those_of_the_design(fit):
    design, found = fit.design, posterior(fit)
    assert list(found) == list(design.dims)
    for name, dims in design.dims.items():
        assert found[name].dims == ("chain", "draw", *dims)
        assert np.isfinite(found[name]).all()
    used = {d for dims in design.dims.values() for d in dims}
    assert set(found.coords) == {"chain", "draw", *used}
    for dim in used:
        assert found[dim].to_numpy().tolist() == list(design.coords[dim])


def test_arviz_takes_the_draws_as_they_are(fit):
    table = arviz.summary(fit.draws, var_names=["sigma"])
    assert table["r_hat"].astype(float).max() < 1.02
    assert {"posterior", "sample_stats", "observed_data"} <= set(fit.draws.children)
    assert fit.draws["observed_data"]["y"].to_numpy() == pytest.approx(fit.design.y)
    assert arviz.bfmi(fit.draws)["energy"].min() > 0.3
    assert fit.draws["posterior"].attrs["formula"] == fit.design.spec.formula


def test_model_is_the_one_that_was_sampled(fit):
    assert set(fit.design.dims) <= set(fit.model.named_vars)
    assert fit.model is fit.model
    assert fit.draws is fit.draws


def test_correlations_are_correlation_matrices(fit):
    for name in (n for n in fit.design.dims if n.startswith("cor_")):
        R = posterior(fit)[name].to_numpy()
        assert np.diagonal(R, axis1=2, axis2=3) == pytest.approx(1.0)
        assert np.array_equal(R[..., 0, 1], R[..., 1, 0])
        assert (np.abs(R[..., 0, 1]) < 1).all()


def test_status_of_good_draws(fit):
    assert fit.status.converged
    assert fit.status.problems == ()
    assert fit.status.numbers["divergences"] == 0
    assert fit.status.numbers["max_r_hat"] < 1.01
    assert fit.seconds > 0


@slow
def test_status_names_the_form_of_the_group_effects(sleep_pymc):
    assert any("Subject centred" in note for note in sleep_pymc.status.notes)


@pytest.mark.parametrize("engine", ["kernel", pytest.param("pymc", marks=slow)])
def test_same_seed_gives_the_same_draws(engine):
    frame, _ = simulate(2, groups=8, size=4)
    model = hmlm.Model("y ~ 1 + (1 | g)", frame)
    first, again, other = (
        posterior(model.fit(NUTS(engine=engine, cores=cores, **SHORT), seed, progressbar=False))
        for seed, cores in ((3, 2), (3, 1), (4, 2))
    )
    assert first.equals(again)
    assert not first.equals(other)


# Settings.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"draws": 0}, "draws must be a whole number, at least 1"),
        ({"draws": 10.5}, "draws must be a whole number"),
        ({"tune": -1}, "tune must be"),
        ({"chains": 0}, "chains must be"),
        ({"chains": True}, "chains must be"),
        ({"max_treedepth": 0}, "max_treedepth must be"),
        ({"cores": 0}, "cores must be"),
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1"),
        ({"engine": "stan"}, "engine is 'auto', 'kernel' or 'pymc'"),
    ],
)
def test_settings_out_of_range(settings, words):
    with pytest.raises(HmlmError, match=words):
        NUTS(**settings)


@pytest.mark.parametrize("seed", [-1, 1.5, "one", True])
def test_seed_that_is_none(sleep_model, seed):
    with pytest.raises(HmlmError, match="random_seed must"):
        sleep_model.fit(NUTS(), random_seed=seed)


@slow
def test_factor_called_sample_is_sampled_without_a_warning():
    """ArviZ warns of a dimension of that name, which pastes and penicillin have."""
    frame, _ = simulate(2, groups=8, size=4)
    model = hmlm.Model("y ~ 1 + (1 | sample)", frame.rename(columns={"g": "sample"}))
    fit = model.fit(NUTS(engine="pymc", **SHORT), random_seed=1, progressbar=False)
    assert posterior(fit)["b_sample"].dims == ("chain", "draw", "sample", "sample_term")


def test_centered_that_names_no_factor(sleep_model):
    with pytest.raises(HmlmError, match="no grouping factor"):
        sleep_model.fit(NUTS(engine="pymc", centered={"subject": True}))


def test_kernel_says_what_it_does_not_cover(sleep_model):
    model = sleep_model.with_priors(Days=Prior("uniform", lower=-5, upper=50))
    with pytest.raises(HmlmError, match="does not cover this model"):
        model.fit(NUTS(engine="kernel"))


# Diagnosis, on draws that are bad in a known way.


def dataset(draws):
    return xr.Dataset({"beta": (("chain", "draw", "term"), draws)}, coords={"term": ["a", "b"]})


@pytest.fixture
def draws():
    return np.random.default_rng(1).normal(size=(4, 1000, 2))


@pytest.fixture
def stats():
    return {
        "diverging": np.zeros((4, 1000), dtype=bool),
        "energy": np.random.default_rng(2).normal(size=(4, 1000)),
        "depth": np.full((4, 1000), 3),
    }


def only(status):
    assert not status.converged
    (problem,) = status.problems
    return problem


def test_nothing_wrong_with_independent_draws(draws, stats):
    status = diagnose(dataset(draws), stats, 10, ["a note"])
    assert status.converged
    assert status.problems == ()
    assert status.notes == ("a note",)


def test_divergences(draws, stats):
    stats["diverging"][0, :3] = True
    problem = only(diagnose(dataset(draws), stats, 10))
    assert problem.startswith("3 divergences in 4,000 draws")
    assert "target_accept" in problem


def test_chains_that_disagree(draws, stats):
    draws[0, :, 1] += 0.5
    status = diagnose(dataset(draws), stats, 10)
    assert not status.converged
    assert "R-hat above 1.01 for 1 parameter" in status.problems[0]
    assert "beta[b]" in status.problems[0]
    assert status.numbers["max_r_hat"] > 1.01


def test_draws_that_hang_together(draws, stats):
    slow = np.cumsum(draws[:, :, 0], axis=1)
    draws[:, :, 0] = slow - slow.mean(axis=1, keepdims=True)
    text = str(diagnose(dataset(draws), stats, 10))
    assert "Bulk effective sample size below 400 for 1 parameter" in text
    assert "Tail effective sample size below 400" in text
    assert "beta[a]" in text


def test_energy_that_moves_slowly(draws, stats):
    stats["energy"] = np.cumsum(stats["energy"], axis=1)
    assert "BFMI below 0.3 in 4 chains" in only(diagnose(dataset(draws), stats, 10))


def test_trees_that_stop_at_the_limit(draws, stats):
    stats["depth"][0, 0] = 10
    assert "Raise max_treedepth" in only(diagnose(dataset(draws), stats, 10))


def test_one_chain(draws):
    assert "One chain cannot be checked" in only(diagnose(dataset(draws[:1]), {}, 10))


def test_too_few_draws(draws, stats):
    short = {k: v[:, :3] for k, v in stats.items()}
    assert "3 draws a chain cannot be checked" in only(diagnose(dataset(draws[:, :3]), short, 10))


def test_parameter_that_never_moved(draws):
    draws[:, :, 1] = 2.0
    assert "1 parameter never moved (beta[b])" in only(diagnose(dataset(draws), {}, 10))


def test_chains_that_each_stand_still(draws):
    draws[:, :, 1] = np.arange(4)[:, None]
    status = diagnose(dataset(draws), {}, 10)
    assert "up to inf: beta[b]" in status.problems[0]


def test_draws_that_are_no_numbers(draws):
    draws[0, 500:, 1] = np.nan
    assert "not all numbers (beta[b])" in only(diagnose(dataset(draws), {}, 10))


def test_structural_zeros_of_a_correlation_matrix_are_no_stuck_parameters(draws):
    R = np.zeros((4, 1000, 3, 3)) + np.eye(3)
    R[..., 1, 0] = R[..., 0, 1] = np.tanh(draws[:, :, 0])
    terms = ["a", "b", "c"]
    data = xr.Dataset(
        {"cor_g": (("chain", "draw", "g_term", "g_term_"), R)},
        coords={"g_term": terms, "g_term_": terms},
    )
    assert diagnose(data, {}, 10).converged
