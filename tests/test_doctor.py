"""The doctor finds the sd, group, predictor or prior behind unhappy sampling, and treats it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm.errors import HmlmError
from hmlm.fitting.diagnostics import diagnose, divergent_ranks
from hmlm.fitting.doctor import examine
from hmlm.fitting.treatment import remedies, treat, treatment_table

QUIET = {"random_seed": 1, "progressbar": False}


def found(fit, finding):
    """Return the rows of one kind of finding."""
    table = examine(fit).findings
    return table[table["finding"] == finding]


def yes_or_no(groups, size, spread, seed=3):
    """Draw a table of yes/no outcomes in small groups."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    b = spread * rng.normal(size=groups)
    y = rng.binomial(1, 1 / (1 + np.exp(-b[g])))
    return pd.DataFrame({"g": g, "y": y, "z": y * (rng.random(len(g)) < 0.3)})


@pytest.fixture(scope="session")
def schools_centred():
    """Eight schools in the centred parametrisation of the PyMC model: the classical funnel."""
    schools = hmlm.load_dataset("eight_schools")
    model = hmlm.Model("y ~ 1 + (1 | school)", schools, se="sigma")
    method = hmlm.NUTS(engine="pymc", centered=True, draws=500, tune=200, target_accept=0.6)
    return model.fit(method, **QUIET)


@pytest.fixture(scope="module")
def funnel():
    """Groups of three yes/no outcomes, centred, with a predictor that separates."""
    model = hmlm.Model("y ~ z + (1 | g)", yes_or_no(40, 3, 0.3), family="bernoulli")
    method = hmlm.NUTS(centered=True, draws=500, tune=150, target_accept=0.6)
    return model.fit(method, **QUIET)


@pytest.fixture(scope="module")
def healthy(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    return model.fit(hmlm.NUTS(draws=500, tune=500), **QUIET)


def test_ranks_of_divergent_draws():
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(4, 500, 2))
    diverging = rng.random((4, 500)) < 0.05
    draws[diverging, 0] -= 3
    below, z = divergent_ranks(draws, diverging)
    assert below[0] > 0.95
    assert z[0] > 10
    assert below[1] == pytest.approx(0.5, abs=0.1)
    assert abs(z[1]) < 3
    assert np.isnan(divergent_ranks(draws, np.zeros((4, 500), dtype=bool))[0]).all()


def test_status_says_where_draws_diverge():
    import xarray as xr

    rng = np.random.default_rng(1)
    sd = rng.gamma(2.0, size=(4, 500, 1))
    data = xr.Dataset({"sd_g": (("chain", "draw", "g_term"), sd)})
    data = data.assign_coords(g_term=["Intercept"])
    anywhere = {"diverging": np.arange(2000).reshape(4, 500) % 100 == 0}
    assert "They lie" not in diagnose(data, anywhere, 10).problems[0]
    near_zero = {"diverging": sd[:, :, 0] < 0.15}
    assert (
        "They lie where sd_g[Intercept] is near zero" in diagnose(data, near_zero, 10).problems[0]
    )


def test_the_sd_and_the_group_behind_divergences(healthy):
    """Divergences put where one sd is small and the effect of one subject is large."""
    sd = healthy.variable("sd_Subject")[:, :, 1]
    effect = healthy.variable("b_Subject")[:, :, 4, 0]
    where = (sd < np.quantile(sd, 0.3)) & (effect > np.quantile(effect, 0.8))
    bad = replace(healthy, _stats={**healthy._stats, "diverging": where})
    row = found(bad, "sd near zero where draws diverge").iloc[0]
    assert row["where"] == "sd_Subject[Days]"
    assert row["strength"] > 0.8
    assert "centered=False" in row["remedy"]
    row = found(bad, "group effect extreme where draws diverge").iloc[0]
    level = healthy.design.blocks[0].levels[4]
    assert row["where"] == f"b_Subject[{level}, Intercept]"


def test_a_parameter_that_is_extreme_where_draws_diverge(healthy):
    slope = healthy.variable("beta")[:, :, 1]
    bad = replace(healthy, _stats={**healthy._stats, "diverging": slope > np.quantile(slope, 0.97)})
    row = found(bad, "parameter extreme where draws diverge").iloc[0]
    assert row["where"] == "Days"
    assert "larger in divergent draws" in row["evidence"]


def test_the_sd_behind_energy(healthy):
    energy = np.cumsum(np.random.default_rng(2).normal(size=(4, 500)), axis=1)
    parameters = {**healthy._parameters, "sigma": np.exp(energy / 50)}
    bad = replace(healthy, _stats={**healthy._stats, "energy": energy}, _parameters=parameters)
    row = found(bad, "energy moves with a parameter").iloc[0]
    assert row["where"] == "sigma"
    assert row["strength"] > 0.95


def test_a_chain_that_stands_apart(healthy):
    sigma = healthy.variable("sigma").copy()
    sigma[2] = 12.0
    bad = replace(healthy, _parameters={**healthy._parameters, "sigma": sigma})
    row = found(bad, "chains apart").iloc[0]
    assert row["where"] == "sigma"
    assert "Chain 2 stands still at 12" in row["evidence"]


def test_a_funnel_mixes_slowly(schools_centred):
    row = found(schools_centred, "slow mixing").iloc[0]
    assert row["strength"] < 0.2


def test_a_healthy_fit_has_no_findings(healthy):
    diagnosis = examine(healthy)
    assert diagnosis.healthy
    assert diagnosis.findings.empty
    assert "no problems" in str(diagnosis)


def test_a_predictor_that_separates(funnel):
    row = found(funnel, "separation by a predictor").iloc[0]
    assert row["where"] == "z"
    assert "predicted perfectly" in row["evidence"]


def test_groups_with_one_kind_of_outcome():
    model = hmlm.Model("y ~ 1 + (1 | g)", yes_or_no(40, 3, 2.0), family="bernoulli")
    fit = model.fit(hmlm.NUTS(draws=200, tune=300), **QUIET)
    row = found(fit, "groups without variation").iloc[0]
    assert row["where"] == "g"
    assert "all 0 in" in row["evidence"]
    assert "all 1 in" in row["evidence"]


def test_a_predictor_far_from_zero():
    """Lines that meet where the data are: 2000 years from the intercept."""
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(20), 10)
    year = np.tile(np.arange(2000.0, 2010.0), 20)
    slope = rng.normal(0.5, 0.4, 20)
    y = rng.normal(0, 1, 20)[g] + slope[g] * (year - 2004.5) + rng.normal(size=200)
    model = hmlm.Model("y ~ year + (year | g)", pd.DataFrame({"y": y, "year": year, "g": g}))
    fit = model.fit(hmlm.NUTS(draws=200, tune=400), **QUIET)
    row = found(fit, "predictor far from zero").iloc[0]
    assert row["where"] == "year"
    assert "year - 2004" in row["remedy"]


def test_a_parameter_that_only_its_prior_knows():
    """Two levels of a factor say next to nothing about their sd."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.repeat(["a", "b"], 20), "y": rng.normal(size=40)})
    tight = {"sd": hmlm.Prior("half-normal", sigma=0.05)}
    fit = hmlm.Model("y ~ 1 + (1 | g)", data, priors=tight).fit(hmlm.NUTS(draws=500), **QUIET)
    rows = found(fit, "posterior as wide as the prior")
    assert list(rows["where"]) == ["sd_g[Intercept]"]
    assert rows["strength"].iloc[0] == pytest.approx(1, abs=0.25)


def test_a_classical_fit_has_nothing_to_examine(sleepstudy_reml):
    with pytest.raises(HmlmError, match="no draws to examine"):
        examine(sleepstudy_reml)


def test_integration_treats_the_funnel_of_eight_schools(schools_centred):
    better = treat(schools_centred)
    assert better.status.converged
    table = treatment_table(better)
    assert table["try"].iloc[1].startswith("group effects integrated out")
    assert table["divergences"].iloc[1] == 0
    assert table["min_ess"].iloc[1] > table["min_ess"].iloc[0]
    notes = str(better.status)
    assert "Treatment: group effects integrated out" in notes
    assert "divergences" in notes
    # The fit that was treated is as it was.
    assert not schools_centred.status.converged
    assert better.draws["posterior"]["b_school"].shape == (4, 500, 8, 1)


def test_another_way_to_write_effects_treats_the_funnel_of_rows(funnel):
    better = treat(funnel)
    assert better.status.numbers["divergences"] == 0
    assert treatment_table(better)["try"].iloc[1] == "group effects centred as far as the data say"


def test_patience_treats_short_chains(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy)
    fit = model.fit(hmlm.NUTS(draws=40, tune=200), **QUIET)
    assert not fit.status.converged
    better = treat(fit, random_seed=4)
    assert better.method.draws == 1000
    assert better.status.converged


def test_remedies_in_order_of_promise(funnel):
    numbers = {**funnel.status.numbers, "divergences": 20.0}
    funnel = replace(funnel, status=replace(funnel.status, numbers=numbers))
    words = [w for w, _ in remedies(funnel)]
    assert words[0] == "group effects centred as far as the data say"
    assert words[1] == "target_accept=0.99, longer tuning"
    assert "group effects not centred" in words
    assert [m.target_accept for _, m in remedies(funnel)][1] == 0.99


def test_nothing_to_treat(healthy):
    same = treat(healthy)
    assert "nothing to treat" in same.status.notes[-1]
    np.testing.assert_array_equal(same.variable("beta"), healthy.variable("beta"))
    with pytest.raises(HmlmError, match="no remedies were tried"):
        treatment_table(same)


def test_only_a_sampler_of_ours_is_treated(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy)
    fit = model.fit(hmlm.Gibbs(draws=50, tune=50), **QUIET)
    with pytest.raises(HmlmError, match=r"remedies are those of hmlm\.NUTS"):
        treat(fit)
