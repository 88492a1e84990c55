"""Priors said as what they imply, against exact quantiles."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import hmlm
from hmlm import Prior
from hmlm.errors import HmlmError, PriorError
from hmlm.families import FAMILIES
from hmlm.implied_priors import imply_priors
from hmlm.implied_quantities import write_number

TAU = 0.8  # of a half-normal prior: its quantiles are known
FORMULAS = {
    "real": "real",
    "positive": "positive",
    "unit": "unit",
    "count": "count",
    "binary": "binary",
    "trials": "p(trials, n)",
    "ordered": "ordered",
    "category": "category",
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(12)
    n = 60
    count = rng.poisson(2, n)
    return pd.DataFrame(
        {
            "x": rng.normal(2, 1, n),
            "g": np.repeat(list("abcdef"), 10),
            "n": 6,
            "real": rng.normal(3, 1, n),
            "positive": rng.gamma(4, 0.5, n),
            "unit": rng.beta(2, 3, n),
            "count": count,
            "binary": np.where(count % 2 == 1, "yes", "no"),
            "trials": np.minimum(count, 4),
            "ordered": np.minimum(count, 3),
            "category": np.array(list("uvwz"))[np.minimum(count, 3)],
        }
    )


def imply(rows, name, link=None, terms="x + (1 | g)", **options):
    outcome = FORMULAS[FAMILIES[name].outcome]
    priors = {"sd": Prior("half-normal", sigma=TAU)} if "(" in terms else {}
    model = hmlm.Model(f"{outcome} ~ {terms}", rows, family=name, link=link, priors=priors)
    return imply_priors(model, random_seed=1, draws=8000, **options)


def pick(table, quantity):
    return table[table["quantity"] == quantity].iloc[0]


def tau(q):
    return stats.halfnorm(scale=TAU).ppf(q)


@pytest.mark.parametrize(
    ("link", "residual"), [("logit", np.pi**2 / 3), ("probit", 1.0), ("cloglog", np.pi**2 / 6)]
)
def test_icc_on_the_latent_scale(rows, link, residual):
    row = pick(imply(rows, "bernoulli", link), "ICC")
    for figure, q in (("median", 0.5), ("lower", 0.05), ("upper", 0.95)):
        assert row[figure] == pytest.approx(tau(q) ** 2 / (tau(q) ** 2 + residual), abs=0.012)
    assert row["group"] == "g"
    assert row["sentence"].startswith("Groups of 'g' hold 0.")


def test_icc_of_known_variances(rows):
    model = hmlm.Model(
        "real ~ 1 + (1 | g)",
        rows,
        priors={
            "sd": Prior("uniform", lower=0.999, upper=1.001),
            "sigma": Prior("uniform", lower=1.999, upper=2.001),
        },
    )
    row = pick(imply_priors(model, draws=500, random_seed=1), "ICC")
    assert row["median"] == pytest.approx(0.2, abs=1e-3)


def test_icc_under_a_log_link_is_nakagawas(rows):
    # Poisson: ln(1 + 1/lambda), with lambda = exp(beta0 + tau^2 / 2).
    model = hmlm.Model(
        "count ~ 1 + (1 | g)",
        rows,
        family="poisson",
        priors={
            "sd": Prior("uniform", lower=0.4999, upper=0.5001),
            "Intercept": Prior("normal", mu=1, sigma=1e-5),
        },
    )
    row = pick(imply_priors(model, draws=500, random_seed=1), "ICC")
    residual = np.log1p(1 / np.exp(1 + 0.125))
    assert row["median"] == pytest.approx(0.25 / (0.25 + residual), abs=1e-3)


def test_icc_with_slopes_is_an_average_over_rows(rows):
    model = hmlm.Model(
        "real ~ x + (x || g)",
        rows,
        priors={
            "sd": Prior("uniform", lower=0.999, upper=1.001),
            "sigma": Prior("uniform", lower=0.999, upper=1.001),
        },
    )
    between = 1 + (rows["x"] ** 2).mean()
    row = pick(imply_priors(model, draws=500, random_seed=1), "ICC")
    assert row["median"] == pytest.approx(between / (between + 1), abs=2e-3)


def test_median_odds_ratio_of_larsen_and_merlo(rows):
    table = imply(rows, "bernoulli")
    row, tails = pick(table, "median ratio"), pick(table, "90th to 10th percentile ratio")
    for figure, q in (("median", 0.5), ("lower", 0.05), ("upper", 0.95)):
        mor = np.exp(np.sqrt(2) * special.ndtri(0.75) * tau(q))
        assert row[figure] == pytest.approx(mor, rel=0.05)
        assert tails[figure] == pytest.approx(np.exp(2 * 1.2815516 * tau(q)), rel=0.1)
    assert "times the odds of a success" in row["sentence"]


def test_median_ratio_is_that_of_groups_drawn_at_random():
    rng = np.random.default_rng(1)
    apart = np.abs(np.subtract(*rng.normal(0, TAU, (2, 200_000))))
    step = np.sqrt(2) * special.ndtri(0.75) * TAU
    assert np.median(apart) == pytest.approx(step, rel=0.01)


@pytest.mark.parametrize(
    ("name", "link", "words"),
    [
        ("gaussian", "identity", "more real than the lower"),
        ("gaussian", "log", "times the expected real of the lower"),
        ("lognormal", "identity", "times the positive of the lower"),
        ("poisson", "log", "times the rate of the lower"),
        ("bernoulli", "probit", "more on the probit scale than the lower"),
        ("beta", "logit", "times the odds of unit of the lower"),
        ("ordinal", "logit", "times the odds of a higher category of the lower"),
        ("ordinal", "cloglog", "times the hazard of a lower category of the lower"),
        ("categorical", "logit", "times the odds of 'v' against 'u' of the lower"),
    ],
)
def test_groups_differ_in_the_unit_of_the_link(rows, name, link, words):
    table = imply(rows, name, link)
    sentence = table[table["quantity"].str.startswith("median")]["sentence"].iloc[0]
    assert words in sentence


@pytest.mark.parametrize(
    ("name", "link"), [(f.name, link) for f in FAMILIES.values() for link in f.links]
)
def test_every_family_and_link(rows, name, link):
    table = imply(rows, name, link)
    assert list(table) == [
        "quantity",
        "group",
        "term",
        "median",
        "lower",
        "upper",
        "prob",
        "sentence",
    ]
    known = table.dropna(subset=["median"])
    assert len(known) == len(table)
    assert (known["lower"] <= known["median"]).all()
    assert (known["median"] <= known["upper"]).all()
    assert table["sentence"].str.endswith(").").all()
    assert not table["sentence"].str.contains("{", regex=False).any()
    icc = known[known["quantity"] == "ICC"]
    assert icc["lower"].min() >= 0
    assert icc["upper"].max() <= 1


def test_expected_outcome_at_average_predictors(rows):
    model = hmlm.Model("real ~ x + (1 | g)", rows)
    row = pick(imply_priors(model, random_seed=1, draws=20_000), "expected outcome")
    prior = model._resolved().beta[0].parameters
    assert row["median"] == pytest.approx(prior["mu"], abs=0.05)
    assert row["upper"] == pytest.approx(prior["mu"] + 1.645 * prior["sigma"], rel=0.03)


def test_probabilities_have_the_labels_of_the_outcome(rows):
    row = pick(imply(rows, "bernoulli"), "probability")
    assert row["term"] == "yes"
    assert "in a typical group, yes has probability" in row["sentence"]
    table = imply(rows, "ordinal")
    own = table[table["quantity"] == "probability"]
    assert list(own["term"]) == ["0", "1", "2", "3"]


def test_correlations_have_lkj_margins(rows):
    model = hmlm.Model("real ~ x + (x | g)", rows, priors={"cor": Prior("lkj", eta=2)})
    row = pick(imply_priors(model, random_seed=1, draws=20_000), "correlation")
    assert row["term"] == "Intercept, x"
    expected = 2 * stats.beta(2, 2).ppf([0.05, 0.95]) - 1
    assert [row["lower"], row["upper"]] == pytest.approx(expected, abs=0.02)


def test_share_outside_the_observed_range(rows):
    y = rows["real"]
    narrow = Prior("normal", mu=float(y.mean()), sigma=1e-6)
    model = hmlm.Model(
        "real ~ 1",
        rows,
        priors={"Intercept": narrow, "sigma": Prior("uniform", lower=1.999, upper=2.001)},
    )
    table = imply_priors(model, random_seed=1, draws=2000)
    own = stats.norm(y.mean(), 2)
    expected = own.cdf(y.min()) + own.sf(y.max())
    assert pick(table, "outside the observed range")["median"] == pytest.approx(expected, abs=0.03)
    assert "below zero" in set(table["quantity"])
    assert pick(table, "below zero")["median"] == pytest.approx(own.cdf(0), abs=0.03)


def test_rows_with_a_period_are_not_aliased(sleepstudy):
    # 180 rows in order, ten days a subject: every part of the rows has all days.
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    table = imply_priors(model, random_seed=2, draws=1000)
    assert list(table["quantity"]) == [
        "ICC",
        "median difference",
        "90th to 10th percentile difference",
        "correlation",
        "expected outcome",
        "outside the observed range",
        "below zero",
    ]


def test_pooling_without_a_population_of_groups(rows):
    model = hmlm.Model("real ~ x + (x | g)", rows)
    for pooling, words in (("none", "one group of its own"), ("complete", "average of the")):
        table = imply_priors(model.with_pooling(pooling), random_seed=1, draws=500)
        assert not {"ICC", "correlation"} & set(table["quantity"])
        assert words in pick(table, "expected outcome")["sentence"]


def test_impossible_means_are_said(rows):
    row = pick(imply(rows, "poisson", "identity"), "impossible mean")
    assert 0 < row["median"] < 1
    assert "negative, which the family cannot have" in row["sentence"]


def test_names_that_are_no_words():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"{a}": rng.normal(size=40), "{g}": np.repeat(list("abcd"), 10)})
    table = imply_priors(hmlm.Model("`{a}` ~ 1 + (1 | `{g}`)", frame), draws=100, random_seed=1)
    assert "Groups of '{g}' hold 0." in table["sentence"][0]


def test_distributional_predictors_have_ratios_of_their_own(rows):
    model = hmlm.Model("real ~ x + (1 | g); sigma ~ 1 + (1 | g)", rows)
    table = imply_priors(model, draws=500, random_seed=1)
    row = table[(table["quantity"] == "median ratio") & (table["term"] == "sigma")].iloc[0]
    assert "times the sigma of the lower" in row["sentence"]


def test_bad_requests(rows):
    model = hmlm.Model("real ~ x + (1 | g)", rows)
    with pytest.raises(HmlmError, match="prob must lie between 0 and 1"):
        imply_priors(model, prob=90)
    with pytest.raises(HmlmError, match="draws must be a positive whole number"):
        imply_priors(model, draws=0)
    with pytest.raises(PriorError, match="prior of 'x' is flat"):
        imply_priors(model.with_priors(x=Prior("flat")))


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-0.001, ".2f", "0.00"),
        (-0.006, ".2f", "-0.01"),
        (1234.5, "", "1,234"),
        (0.1234, "", "0.123"),
    ],
)
def test_numbers_as_they_are_written(value, form, text):
    assert write_number(value, form) == text
