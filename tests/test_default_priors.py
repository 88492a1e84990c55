"""Default priors from plain scales of the data, and the user's in their place."""

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm import Prior
from hmlm.default_priors import resolve_priors
from hmlm.errors import DataError, PriorError

SLOPES = "y ~ x + f + (x | g)"


def resolved(formula, frame, pooling="partial", weights=None, **priors):
    model = hmlm.Model(formula, frame, priors=priors, weights=weights)
    return resolve_priors(model.with_pooling(pooling).design)


def parameters(priors):
    return {e.parameter: tuple(e.prior.parameters.values()) for e in priors.entries}


def sources(priors):
    return {e.parameter: e.source for e in priors.entries}


def about(prior, *values):
    assert tuple(prior.parameters.values()) == pytest.approx(values, rel=1e-12)


def test_defaults_of_the_alcohol_study(alcohol):
    priors = resolved("alcuse ~ coa + peer + time + (time | id)", alcohol)
    y, sd = alcohol["alcuse"], alcohol["alcuse"].std()
    assert [p.name for p in priors.beta] == ["normal"] * 4
    about(priors.beta[0], y.mean(), 2.5 * sd)
    for prior, x in zip(priors.beta[1:], ["coa", "peer", "time"], strict=True):
        about(prior, 0, 2.5 * sd / alcohol[x].std())
    intercept, slope = priors.sd["id"]
    assert intercept.name == slope.name == "half-student-t"
    # time has mean 1: lines that differ by sd(y) there differ by more at 0.
    about(intercept, 4, sd * np.sqrt(1 + (1 / alcohol["time"].std()) ** 2))
    about(slope, 4, sd / alcohol["time"].std())
    assert priors.cor["id"] == Prior("lkj", eta=2)
    about(priors.sigma, 4, sd)
    assert priors.b == {}
    assert priors.centered_intercept
    assert priors.constant.tolist() == [1, 0, 0, 0]
    means = [0, alcohol["coa"].mean(), alcohol["peer"].mean(), 1]
    assert priors.x_means == pytest.approx(means)


def test_table_shows_every_prior_with_its_source(alcohol):
    model = hmlm.Model(
        "alcuse ~ coa + time + (time | id)", alcohol, priors={"coa": Prior("normal", sigma=1)}
    )
    table = resolve_priors(model.design).table()
    assert list(table) == ["parameter", "prior", "source", "note"]
    assert table["parameter"].tolist() == [
        "Intercept",
        "coa",
        "time",
        "sd_id[Intercept]",
        "sd_id[time]",
        "cor_id",
        "sigma",
    ]
    assert table["source"].tolist() == ["default", "user", *["default"] * 5]
    assert table.loc[1, "prior"] == "normal(mu=0, sigma=1)"
    assert table.loc[0, "note"].startswith("on the expected alcuse at the average")
    assert model.priors.equals(table)


@pytest.mark.parametrize("pooling", ["partial", "complete", "none"])
@pytest.mark.parametrize("formula", [SLOPES, "y ~ 0 + f + x + (1 | g)", "y ~ 0 + x + (0 + x | g)"])
def test_defaults_follow_the_units_of_the_outcome(table, formula, pooling):
    before = parameters(resolved(formula, table, pooling))
    after = parameters(resolved(formula, table.assign(y=1000 * table["y"]), pooling))
    assert after.keys() == before.keys()
    for name in before:
        if name.startswith("cor"):
            assert after[name] == before[name]
        else:  # mu or nu comes first, the scale last
            assert after[name][-1] == pytest.approx(1000 * before[name][-1])


@pytest.mark.parametrize("formula", [SLOPES, "y ~ 0 + f + x + (1 | g)"])
def test_defaults_of_population_do_not_depend_on_where_x_has_its_zero(table, formula):
    """The prior of the expected outcome in every row stays as it was."""
    before = resolved(formula, table)
    after = resolved(formula, table.assign(x=table["x"] + 2000))
    assert after.beta[-1].parameters["sigma"] == pytest.approx(before.beta[-1].parameters["sigma"])
    for frame, priors in ((table, before), (table.assign(x=table["x"] + 2000), after)):
        X = hmlm.Model(formula, frame).design.X
        centred = np.eye(len(priors.beta)) + np.outer(priors.constant, priors.x_means)
        to_rows = X @ np.linalg.inv(centred)
        mu = [p.parameters["mu"] for p in priors.beta]
        sigma = [p.parameters["sigma"] for p in priors.beta]
        mean, sd = to_rows @ mu, np.sqrt(to_rows**2 @ np.square(sigma))
        if priors is before:
            expected = mean, sd
    assert mean == pytest.approx(expected[0])
    assert sd == pytest.approx(expected[1], rel=1e-9)


def test_level_means_stand_for_the_intercept(table):
    table["y"] += 50
    priors = resolved("y ~ 0 + f + x + (1 | g)", table)
    y = table["y"]
    for prior in priors.beta[:3]:
        about(prior, y.mean(), 2.5 * y.std())
    about(priors.beta[3], 0, 2.5 * y.std() / table["x"].std())
    assert priors.constant == pytest.approx([1, 1, 1, 0])
    assert priors.x_means == pytest.approx([0, 0, 0, table["x"].mean()])


def test_slope_through_the_origin_carries_the_mean(table):
    table["y"] += 50
    priors = resolved("y ~ 0 + x + (1 | g)", table)
    rms = np.sqrt((table["y"] ** 2).mean() / (table["x"] ** 2).mean())
    about(priors.beta[0], 0, 2.5 * rms)
    assert not priors.centered_intercept
    assert not priors.x_means.any()


def test_sd_of_level_means_is_on_the_scale_of_the_outcome(table):
    priors = resolved("y ~ x + (0 + f | g)", table)
    for prior in priors.sd["g"]:
        about(prior, 4, table["y"].std())


def test_sd_of_a_lone_slope(table):
    (prior,) = resolved("y ~ x + (0 + x | g)", table).sd["g"]
    about(prior, 4, table["y"].std() / table["x"].std())


def test_uncorrelated_effects_have_no_lkj(table):
    assert resolved("y ~ x + (x || g)", table).cor == {}


def test_offset_is_taken_off_first(table):
    plain = parameters(resolved(SLOPES, table))
    moved = table.assign(y=table["y"] + 100 * table["z"])
    moved["z"] *= 100
    shifted = parameters(resolved("y ~ x + f + offset(z) + (x | g)", moved))
    assert shifted == {k: pytest.approx(v) for k, v in plain.items()}


def test_offset_that_is_the_outcome_leaves_nothing_to_explain(table):
    with pytest.raises(DataError, match="nothing to explain"):
        resolved("y ~ x + offset(z) + (1 | g)", table.assign(y=table["z"] + 3))


def test_sigma_is_that_of_a_row_of_weight_one(table):
    table["w"] = 4.0
    about(resolved(SLOPES, table, weights="w").sigma, 4, 2 * table["y"].std())


def test_no_pooling_gives_every_group_the_rules_of_the_population(sleepstudy):
    priors = resolved("Reaction ~ Days + (Days | Subject)", sleepstudy, "none")
    y, x = sleepstudy["Reaction"], sleepstudy["Days"]
    intercept, slope = priors.b["Subject"]
    about(intercept, y.mean(), 2.5 * y.std() * np.sqrt(1 + (x.mean() / x.std()) ** 2))
    about(slope, 0, 2.5 * y.std() / x.std())
    assert priors.beta == ()
    assert priors.sd == priors.cor == {}


def test_no_pooling_of_two_factors_holds_the_mean_once(table):
    priors = resolved("y ~ 1 + (1 | g) + (1 | h)", table.assign(y=table["y"] + 50), "none")
    means = [priors.b[g][0].parameters["mu"] for g in ("g", "h")]
    assert means == pytest.approx([table["y"].mean() + 50, 0])


def test_slopes_beside_own_intercepts_are_no_slopes_through_the_origin(table):
    priors = resolved("y ~ x + (1 | g)", table.assign(y=table["y"] + 50), "none")
    about(priors.beta[0], 0, 2.5 * table["y"].std() / table["x"].std())


def test_user_prior_of_the_intercept_is_at_zero(table):
    priors = resolved(SLOPES, table, Intercept=Prior("normal", mu=1, sigma=2))
    assert priors.beta[0] == Prior("normal", mu=1, sigma=2)
    assert not priors.centered_intercept
    assert not priors.constant.any()
    assert not priors.x_means.any()


def test_key_of_a_factor_is_for_all_its_levels(table):
    wide, narrow = Prior("normal", sigma=9), Prior("normal", sigma=1)
    priors = resolved(SLOPES, table, **{"f": wide, "f[hi]": narrow})
    assert [priors.beta[k] for k in (2, 3)] == [wide, narrow]
    crossed = resolved("y ~ f * k + (1 | g)", table, **{"f:k": narrow})
    assert [e.parameter for e in crossed.entries if e.source == "user"] == [
        "f[mid]:k[v]",
        "f[hi]:k[v]",
    ]


@pytest.mark.parametrize("key", ["C(k)", "k", "C(k)[v]"])
def test_key_of_a_factor_inside_c(table, key):
    prior = Prior("student-t", nu=3, sigma=1)
    assert resolved("y ~ C(k) + (1 | g)", table, **{key: prior}).beta[1] == prior


def test_keys_of_group_terms(table):
    wide, narrow = Prior("half-normal", sigma=9), Prior("exponential", lam=1)
    tight = Prior("lkj", eta=8)
    formula = "y ~ x + (x | g) + (x | h)"
    priors = resolved(formula, table, sd=wide, sd_h=narrow, cor=tight, cor_g=Prior("lkj", eta=1))
    assert priors.sd == {"g": (wide, wide), "h": (narrow, narrow)}
    assert priors.cor == {"g": Prior("lkj", eta=1), "h": tight}


def test_user_prior_of_sigma(table):
    prior = Prior("uniform", lower=0, upper=10)
    assert resolved(SLOPES, table, sigma=prior).sigma == prior


@pytest.mark.parametrize("pooling", ["complete", "none"])
def test_priors_travel_to_the_other_poolings(table, pooling):
    slope = Prior("normal", sigma=1)
    given = {"x": slope, "sd": Prior("half-normal", sigma=1), "cor_g": Prior("lkj", eta=4)}
    priors = resolved("y ~ x + (x | g)", table, pooling, **given)
    assert (priors.beta[1] if pooling == "complete" else priors.b["g"][1]) == slope
    assert sources(priors)["x" if pooling == "complete" else "b_g[x]"] == "user"


def test_priors_of_absorbed_columns_travel_too(alcohol):
    priors = resolved(
        "alcuse ~ coa + time + (time | id)", alcohol, "none", coa=Prior("normal", sigma=1)
    )
    assert priors.beta == ()
    assert set(sources(priors).values()) == {"default"}


@pytest.mark.parametrize(
    ("formula", "key", "words"),
    [
        (SLOPES, "xx", "no parameter 'xx'.*Known: Intercept, x, f\\[mid\\], f, "),
        (SLOPES, "intercept", "Did you mean 'Intercept'"),
        (SLOPES, "sd_h", "no parameter 'sd_h'.*Did you mean 'sd_g'"),
        ("y ~ x", "sd", "no parameter 'sd'"),
        ("y ~ x + (x || g)", "cor", "no parameter 'cor'"),
        ("y ~ 0 + x + (1 | g)", "Intercept", "no parameter 'Intercept'"),
    ],
)
def test_unknown_key_lists_the_known_ones(table, formula, key, words):
    with pytest.raises(PriorError, match=words):
        resolved(formula, table, **{key: Prior("half-normal", sigma=1)})


@pytest.mark.parametrize(
    ("key", "prior", "words"),
    [
        ("sd", Prior("normal", sigma=1), "'sd' must cover positive.*use half-normal"),
        ("sd_g", Prior("student-t", nu=3, sigma=1), "'sd_g' must.*use half-student-t"),
        ("sigma", Prior("cauchy", beta=1), "'sigma' must.*use half-cauchy"),
        ("sigma", Prior("uniform", lower=-1, upper=1), "lower >= 0"),
        ("sigma", Prior("flat"), "half-flat"),
        ("sd", Prior("lkj", eta=1), "half-normal"),
        ("cor", Prior("normal", sigma=1), "'cor' must be lkj"),
        ("cor_g", Prior("half-normal", sigma=1), "'cor_g' must be lkj"),
        ("x", Prior("lkj", eta=1), "'x' cannot be lkj"),
    ],
)
def test_prior_that_its_parameter_cannot_have(table, key, prior, words):
    with pytest.raises(PriorError, match=words):
        resolved(SLOPES, table, **{key: prior})


def test_no_default_is_flat_or_without_bounds_on_its_scale(table):
    for formula in (SLOPES, "y ~ 0 + x + (0 + x | g)", "y ~ 1 + (1 | g/h)"):
        for pooling in ("partial", "complete", "none"):
            for entry in resolved(formula, table, pooling).entries:
                assert "flat" not in entry.prior.name
                assert all(np.isfinite(v) for v in entry.prior.parameters.values())
                assert entry.note


def test_arrays_are_read_only(table):
    priors = resolved(SLOPES, table)
    for array in (priors.constant, priors.x_means):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5.0


def test_model_without_population_terms(table):
    priors = resolved("y ~ 0 + (1 | g)", table)
    assert priors.beta == ()
    assert isinstance(priors.table(), pd.DataFrame)
