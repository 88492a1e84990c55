"""Profile likelihood against lme4, brute force, simulated truth, and at every edge."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from support import (
    central_difference,
    dense_log_likelihood,
    effect_covariance,
    make,
    recorded,
    simulate,
)

import hmlm
from hmlm.datasets import load_dataset
from hmlm.errors import HmlmError
from hmlm.fitting.maximum_likelihood import ML, REML
from hmlm.fitting.parameters import chosen_parameters
from hmlm.fitting.profile import profile_intervals, profile_likelihood
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.user_scale import user_scale

FORMULAS = {
    "alcohol": ("alcuse ~ coa + peer + time + (time | id)", "id", "time"),
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "Subject", "Days"),
}


def lme4_name(row, group, slope):
    term = row.term.replace("Intercept", "(Intercept)")
    return {
        "population": term,
        "sd": f"sd_{term}|{group}",
        "cor": f"cor_{slope}.(Intercept)|{group}",
        "residual": "sigma",
    }[row.component]


@pytest.mark.parametrize("method", [ML(), REML()], ids=str)
@pytest.mark.parametrize("data", FORMULAS)
def test_intervals_are_those_of_lme4(data, method):
    formula, group, slope = FORMULAS[data]
    fit = method.run(make(formula, load_dataset(data)))
    record = recorded("profile_intervals_ml")[data]
    theirs = dict(
        zip(record["term"], zip(record["2.5 %"], record["97.5 %"], strict=True), strict=True)
    )
    table = fit.confint("profile")
    assert len(table) == len(theirs)
    for row in table.itertuples():
        lower, upper = theirs[lme4_name(row, group, slope)]
        assert abs(row.lower - lower) < 5e-4 * (upper - lower), row
        assert abs(row.upper - upper) < 5e-4 * (upper - lower), row
    tidy = hmlm.tidy(fit, groups=False)
    np.testing.assert_allclose(table["estimate"], tidy["estimate"])
    keys = ["component", "group", "term"]
    assert table[keys].equals(tidy[keys])
    assert set(table["interval"]) == {"profile"}
    assert set(table["prob"]) == {0.95}


@pytest.mark.parametrize(
    ("data", "formula", "theirs"),
    [
        # Bates, lme4: Mixed-effects Modeling with R (2010), chapter 2
        (
            "penicillin",
            "diameter ~ 1 + (1 | plate) + (1 | sample)",
            {
                "Intercept": (21.2666274, 24.6778176),
                "sd_plate[Intercept]": (0.6335660, 1.1821040),
                "sd_sample[Intercept]": (1.0957893, 3.5562919),
                "sigma": (0.4858454, 0.6294535),
            },
        ),
        (
            "pastes",
            "strength ~ 1 + (1 | batch/cask)",
            {
                "Intercept": (58.6636504, 61.4430161),
                "sd_batch:cask[Intercept]": (2.1579337, 4.0535886),
                "sd_batch[Intercept]": (0.0, 2.9465894),
                "sigma": (0.6520234, 1.0854484),
            },
        ),
    ],
)
def test_crossed_and_nested_factors_as_published(data, formula, theirs):
    fit = ML().run(make(formula, load_dataset(data)))
    table = fit.confint("profile", parameters=list(theirs))
    for row, (lower, upper) in zip(table.itertuples(), theirs.values(), strict=True):
        width = upper - lower
        assert row.lower == pytest.approx(lower, abs=1e-3 * width)
        assert row.upper == pytest.approx(upper, abs=1e-3 * width)


def brute_force(fit, entry, value):
    """Return the lowest dense deviance with one of (sd, sd, cor, sigma) held: no gradient."""
    design = fit.design
    (g,) = (b.group for b in design.blocks)
    at = np.array(
        [*fit.estimates[f"sd_{g}"], fit.estimates[f"cor_{g}"][0, 1], float(fit.estimates["sigma"])]
    )
    X, y = design.X, design.response

    def deviance(free):
        sd1, sd2, r, sigma = np.insert(free, entry, value)
        if min(sd1, sd2, sigma) < 0 or abs(r) > 1:
            return 1e10
        there = {
            f"sd_{g}": np.array([sd1, sd2]),
            f"cor_{g}": np.array([[1.0, r], [r, 1.0]]),
            "sigma": sigma,
        }
        (block,) = design.blocks
        same = block.index[:, None] == block.index[None, :]
        V = same * (block.Z @ effect_covariance(there, g) @ block.Z.T)
        V += sigma**2 * np.eye(len(y))
        beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, y))
        return -2 * dense_log_likelihood(design, {**there, "beta": beta})

    options = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000}
    start = np.delete(at, entry)
    found = optimize.minimize(deviance, start, method="Nelder-Mead", options=options)
    return found.fun - fit.criterion


def test_the_ends_are_where_the_likelihood_ratio_is_by_brute_force():
    frame, _ = simulate(21, groups=12, size=5)
    fit = ML().run(make("y ~ x + (x | g)", frame))
    names = ["sd_g[Intercept]", "sd_g[x]", "cor_g[Intercept, x]", "sigma"]
    table = profile_intervals(fit, prob=0.8, parameters=names)
    quantile = stats.chi2.ppf(0.8, 1)
    for entry, row in enumerate(table.itertuples()):
        assert brute_force(fit, entry, row.lower) == pytest.approx(quantile, abs=1e-4)
        above = brute_force(fit, entry, row.upper)
        if row.component == "cor":  # the data go with a correlation of 1
            assert row.upper == 1.0
            assert above < quantile
        else:
            assert above == pytest.approx(quantile, abs=1e-4)


def lowest_deviance(fit, entry, value):
    """Return the lowest dense deviance with one of (sd, sd, sigma) held, from many starts."""
    design = fit.design
    (block,) = design.blocks
    X, y, sigma = design.X, design.response, float(fit.estimates["sigma"])
    same = block.index[:, None] == block.index[None, :]

    def deviance(free):
        a, b, s, z = np.insert(free, entry, value)
        D = np.array([[a * a, a * b * np.tanh(z)], [a * b * np.tanh(z), b * b]])
        L = np.linalg.cholesky(same * (block.Z @ D @ block.Z.T) + s * s * np.eye(len(y)))
        white_X, white_y = np.linalg.solve(L, X), np.linalg.solve(L, y)
        rest = np.linalg.lstsq(white_X, white_y)[1][0]
        return 2 * np.log(np.diagonal(L)).sum() + rest + len(y) * np.log(2 * np.pi)

    starts = [(a, b, sigma, z) for a in (0.05, 0.6) for b in (0.05, 0.6) for z in (-2.0, 0.0, 2.0)]
    found = (optimize.minimize(deviance, np.delete(s, entry), method="L-BFGS-B") for s in starts)
    return min(f.fun for f in found)


@pytest.mark.parametrize("seed", [0, 8, 14])  # both sds zero; a correlation of one; again both zero
def test_ends_from_an_estimate_on_the_boundary(seed):
    """Where the slope of the other parameters at the estimate leads nowhere."""
    frame, _ = simulate(seed, groups=8, size=4, sd=(0.5, 0.35), sigma=1.0)
    fit = ML().run(make("y ~ x + (x | g)", frame))
    assert min(fit.estimates["sd_g"]) < 1e-6 or abs(fit.estimates["cor_g"][0, 1]) > 0.999
    table = profile_intervals(fit, 0.9, ["sd_g[Intercept]", "sd_g[x]", "sigma"])
    wanted = fit.criterion + stats.chi2.ppf(0.9, 1)
    for entry, row in enumerate(table.itertuples()):
        assert lowest_deviance(fit, entry, row.upper) == pytest.approx(wanted, abs=1e-3)
        if row.lower > 0:
            assert lowest_deviance(fit, entry, row.lower) == pytest.approx(wanted, abs=1e-3)


def test_a_correlation_that_the_data_contradict_has_another_minimum(radon):
    # At a correlation of -0.66 the deviance has two minima, one without varying intercepts.
    fit = ML().run(make("log_radon ~ floor + log_uranium + (floor | county)", radon))
    name = "cor_county[Intercept, floor]"
    row = profile_intervals(fit, parameters=name).iloc[0]
    assert row["upper"] == 1.0
    assert row["lower"] == pytest.approx(-0.66244, abs=1e-4)


@pytest.mark.parametrize(
    "formula", ["y ~ x + (x + z | g)", "y ~ x + (x || g)", "y ~ x + (1 | g) + (1 | h)"]
)
@pytest.mark.parametrize("first", [None, (0, 0, 1)])
def test_gradient_and_curvature_on_the_users_scale(formula, first):
    frame, _ = simulate(3)
    rng = np.random.default_rng(0)
    frame["z"] = rng.normal(size=len(frame))
    frame["h"] = rng.integers(0, 9, len(frame))
    frame["y"] = frame["y"] + rng.normal(size=40)[frame.groupby("g").ngroup()] * frame["z"]
    sums = gaussian_sums(make(formula, frame))
    point, theta, _ = best_point(sums, reml=False)
    scale, phi = user_scale(sums, theta, point.sigma2, first)
    deviance, gradient = scale.deviance(phi)
    assert deviance == pytest.approx(point.deviance, abs=1e-8)
    assert np.abs(gradient).max() < 1e-2
    off = phi + 0.1 * rng.normal(size=len(phi))
    numeric = central_difference(lambda p: scale.deviance(p)[0], off, 1e-6)
    np.testing.assert_allclose(scale.deviance(off)[1], numeric, rtol=1e-5, atol=1e-4)
    hessian = np.array(
        [
            (scale.deviance(phi + e)[1] - scale.deviance(phi - e)[1]) / 2e-5
            for e in 1e-5 * np.eye(len(phi))
        ]
    )
    np.testing.assert_allclose(
        scale.hessian(phi), hessian, rtol=1e-3, atol=1e-4 * np.abs(hessian).max()
    )


@pytest.mark.parametrize("parameter", ["x", "sd_g[x]", "cor_g[Intercept, x]", "sigma"])
def test_the_trace_is_a_likelihood(parameter):
    frame, _ = simulate(12, groups=15)
    fit = ML().run(make("y ~ x + (x | g)", frame))
    trace = profile_likelihood(fit, parameter)
    assert trace.attrs == {"parameter": parameter}
    assert list(trace) == ["value", "zeta", "deviance"]
    assert 15 < len(trace) < 40
    assert (np.diff(trace["value"]) > 0).all()
    # Level at the ends where the correlation is one of effects that need not vary.
    assert (np.diff(trace["zeta"]) > (-1e-6 if parameter.startswith("cor") else 0)).all()
    assert trace["deviance"].min() == pytest.approx(fit.criterion, abs=1e-6)
    np.testing.assert_allclose(trace["zeta"] ** 2, trace["deviance"] - fit.criterion, atol=1e-5)
    lower, upper = profile_intervals(fit, 0.9, parameter)[["lower", "upper"]].iloc[0]
    cut = np.interp([-1.644854, 1.644854], trace["zeta"], trace["value"])
    np.testing.assert_allclose(cut, [lower, upper], atol=0.02 * (upper - lower))


def test_a_coefficient_at_its_end_by_an_offset(sleepstudy):
    # With the slope held at an end, the rest refitted, the deviance has risen by the quantile.
    fit = ML().run(make("Reaction ~ Days + (Days | Subject)", sleepstudy))
    row = fit.confint("profile", parameters="Days").iloc[0]
    for end in (row["lower"], row["upper"]):
        frame = sleepstudy.assign(held=end * sleepstudy["Days"])
        held = ML().run(make("Reaction ~ 1 + offset(held) + (Days | Subject)", frame))
        assert held.criterion - fit.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-4)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (x || g)"])
def test_scale_of_predictor_and_outcome_scales_the_intervals(formula):
    frame, _ = simulate(13, groups=20, size=5)
    table = ML().run(make(formula, frame)).confint("profile")
    scaled = frame.assign(x=frame["x"] * 1e6, y=frame["y"] * 1e-4)
    other = ML().run(make(formula, scaled)).confint("profile")
    by = table["term"].map({"x": 1e10}).fillna(1e4).mask(table["component"] == "cor", 1.0)
    for end in ("lower", "upper"):
        np.testing.assert_allclose(
            other[end] * by, table[end], atol=1e-4 * (table["upper"] - table["lower"]).max()
        )


def test_years_as_they_are():
    # The intercept is that of year 0, and its correlation with the slope -0.999999.
    frame, _ = simulate(6)
    frame["x"] = np.tile(np.arange(2018.0, 2024.0), 40)
    plain = ML().run(make("y ~ x + (x | g)", frame)).confint("profile").set_index("term")
    centred = frame.assign(x=frame["x"] - 2020.5)
    other = ML().run(make("y ~ x + (x | g)", centred)).confint("profile").set_index("term")
    for term in ("x", "sigma"):
        np.testing.assert_allclose(
            plain.loc[term, ["lower", "upper"]].to_numpy(dtype=float),
            other.loc[term, ["lower", "upper"]].to_numpy(dtype=float),
            atol=2e-4,
        )


def test_a_variance_estimated_as_zero(dyestuff2_reml):
    # Bates (2010), chapter 1: the profile of an sd whose estimate is zero starts there.
    table = dyestuff2_reml.confint("profile").set_index("component")
    assert table.loc["sd", "lower"] == 0.0
    assert table.loc["sd", "upper"] == pytest.approx(2.084, abs=1e-3)
    trace = profile_likelihood(dyestuff2_reml, "sd_Batch[Intercept]")
    assert trace["value"].iloc[0] == trace["zeta"].iloc[0] == 0.0


def test_no_correlation_with_an_effect_that_does_not_vary():
    rng = np.random.default_rng(0)
    frame, _ = simulate(4, groups=30, size=6, sd=(0.8, 0.0), cor=0.0)
    x = frame["x"] - frame.groupby("g")["x"].transform("mean")
    noise = rng.normal(size=len(frame))
    noise -= (
        x
        * (noise * x).groupby(frame["g"]).transform("sum")
        / (x**2).groupby(frame["g"]).transform("sum")
    )
    frame = frame.assign(x=x, y=rng.normal(size=30)[frame.groupby("g").ngroup()] + noise)
    fit = ML().run(make("y ~ x + (x | g)", frame))
    name = "cor_g[Intercept, x]"
    assert np.isnan(fit.estimates["cor_g"][0, 1]) or fit.estimates["sd_g"][1] < 1e-3
    table = fit.confint("profile", parameters=name)
    assert table[["lower", "upper"]].isna().all(axis=None)
    with pytest.raises(HmlmError, match="has no profile: the variance of one of its effects"):
        profile_likelihood(fit, name)


@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | g) + (1 | h) + (1 | k)", "y ~ 0 + (1 | g)", "y ~ x + (x | k/g)"]
)
def test_weights_and_many_crossed_levels(formula):
    frame, _ = simulate(15, groups=60, size=3)
    rng = np.random.default_rng(5)
    frame["h"] = rng.integers(0, 70, len(frame))
    frame["k"] = frame.groupby("g").ngroup() // 3 if "/" in formula else rng.integers(0, 60, 180)
    frame["w"] = rng.uniform(0.5, 2.0, len(frame))
    fit = ML().run(make(formula, frame, weights="w"))
    names = ["sigma"] if "/" in formula else ["sigma", "sd_g[Intercept]"]
    table = fit.confint("profile", parameters=names)
    assert (table["lower"] <= table["estimate"]).all()
    assert (table["estimate"] < table["upper"]).all()


def test_crossed_factors_have_the_same_profile_in_either_form(monkeypatch):
    frame, _ = simulate(16, groups=20, size=5)
    frame["h"] = np.random.default_rng(6).integers(0, 8, len(frame))
    design = make("y ~ x + (x | g) + (1 | h)", frame)
    dense = ML().run(design).confint("profile", 0.9)
    monkeypatch.setattr(gaussian_sums, "__defaults__", (0,))  # as if of very many levels
    sparse = ML().run(design).confint("profile", 0.9)
    ends = ["lower", "upper"]
    np.testing.assert_allclose(sparse[ends], dense[ends], rtol=1e-4, atol=1e-4)


def test_true_values_lie_inside_as_often_as_they_should():
    # sd 0.8 and sigma 0.6 in 40 samples; each interval misses one in ten (three errors: 0.14).
    inside = np.zeros(2)
    for seed in range(40):
        frame, _ = simulate(100 + seed, groups=20, size=4, sd=(0.8, 0.0), cor=0.0)
        fit = ML().run(make("y ~ x + (1 | g)", frame))
        table = fit.confint("profile", 0.9, parameters=["sd_g[Intercept]", "sigma"])
        inside += (table["lower"] < [0.8, 0.6]) & ([0.8, 0.6] < table["upper"])
    assert (inside / 40 > 0.75).all()


def test_profile_t_judges_coefficients_by_the_t_distribution(sleepstudy):
    fit = REML(df="satterthwaite").run(make("Reaction ~ Days + (Days | Subject)", sleepstudy))
    table = fit.confint("profile-t").set_index("term")
    df = dict(zip(fit.design.terms, fit.df, strict=True))
    for name in ("Intercept", "Days"):
        prob = 2 * stats.norm.cdf(stats.t.ppf(0.975, df[name])) - 1
        plain = fit.confint("profile", prob, parameters=name).iloc[0]
        row = table.query("component == 'population'").loc[name]
        assert (row["lower"], row["upper"]) == pytest.approx((plain["lower"], plain["upper"]))
    sds = fit.confint("profile").query("component != 'population'")
    others = table.query("component != 'population'")
    np.testing.assert_allclose(others[["lower", "upper"]], sds[["lower", "upper"]], rtol=1e-9)
    assert set(table["interval"]) == {"profile-t"}


def test_wald_intervals_are_those_of_the_tidy_table(sleepstudy_reml, sleepstudy_pooled):
    for fit in (sleepstudy_reml, sleepstudy_pooled):
        table = fit.confint(prob=0.9)
        tidy = hmlm.tidy(fit, 0.9, groups=False)
        pd.testing.assert_frame_equal(table, tidy[list(table)])


def test_names_of_parameters(sleepstudy_reml):
    names = [p.name for p in chosen_parameters(sleepstudy_reml.design, None)]
    assert names == [
        "Intercept",
        "Days",
        "sd_Subject[Intercept]",
        "sd_Subject[Days]",
        "cor_Subject[Intercept, Days]",
        "sigma",
    ]
    with pytest.raises(HmlmError, match=r"no parameter 'days'\. Did you mean 'Days'"):
        profile_likelihood(sleepstudy_reml, "days")


def test_what_has_no_profile_is_refused(sleepstudy_pooled, sleepstudy_reml):
    with pytest.raises(HmlmError, match="pools nothing partially"):
        sleepstudy_pooled.confint("profile")
    with pytest.raises(HmlmError, match="profile-t or bootstrap, not 'boot'"):
        sleepstudy_reml.confint("boot")
    for prob in (0, 1, 95):
        with pytest.raises(HmlmError, match="between 0 and 1"):
            sleepstudy_reml.confint("profile", prob)
        with pytest.raises(HmlmError, match="between 0 and 1"):
            profile_likelihood(sleepstudy_reml, "Days", prob)
