"""Variance by level, intraclass correlations, explained variance and evidence on correlations."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from support import effect_covariance, recorded_fit, simulate

import hmlm
from hmlm.errors import HmlmError
from hmlm.prior_overlap import correlation_evidence
from hmlm.r_squared import explained_variance
from hmlm.variance import design_effect, intraclass_correlation, split_variance
from hmlm.variance_parts import outcome_variance

FAST = hmlm.NUTS(draws=400, chains=2)


def sample(formula, data, family="gaussian", **kwargs):
    model = hmlm.Model(formula, data, family, **kwargs)
    return model.fit(FAST, random_seed=3, progressbar=False)


def number(table, column="estimate", **where):
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return float(table[column].iloc[0])


@pytest.fixture(scope="module")
def sleep_draws(sleepstudy):
    return sample("Reaction ~ Days + (Days | Subject)", sleepstudy)


@pytest.fixture(scope="module")
def counts():
    """Counts of 40 groups of 10 rows under a log link, with their truth."""
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(40), 10), rng.normal(size=400)
    y = rng.poisson(np.exp(0.7 + 0.4 * x + 0.6 * rng.normal(size=40)[g]))
    return pd.DataFrame({"y": y, "x": x, "g": g})


@pytest.fixture(scope="module")
def counts_fit(counts):
    return hmlm.Model("y ~ x + (1 | g)", counts, "poisson").fit(hmlm.Laplace())


@pytest.fixture(scope="module")
def counts_draws(counts):
    return sample("y ~ x + (1 | g)", counts, "poisson")


@pytest.fixture(scope="module")
def radon_draws(radon):
    return sample("log_radon ~ floor + log_uranium + (floor | county)", radon)


def test_dyestuff_as_published():
    fit = recorded_fit("dyestuff_reml")  # Bates et al. (2015): 1764.05 and 2451.25
    table = intraclass_correlation(fit)
    expected = 1764.05 / (1764.05 + 2451.25)
    assert table["estimate"].to_numpy() == pytest.approx([expected] * 2, abs=1e-6)
    assert table[["lower", "upper", "std_error"]].isna().all(axis=None)
    effects = design_effect(fit)
    assert effects["rows"].tolist() == [30] + [5] * 6
    assert effects["design_effect"].to_numpy() == pytest.approx([1 + 4 * expected] * 7, abs=1e-6)
    assert effects["effective_size"].iloc[1] == pytest.approx(5 / (1 + 4 * expected), abs=1e-6)


@pytest.mark.parametrize(
    ("formula", "marginal", "conditional"),
    [
        # r.squaredGLMM of MuMIn and r2_nakagawa of performance.
        ("Reaction ~ Days + (1 | Subject)", 0.27989, 0.70426),
        ("Reaction ~ Days + (Days | Subject)", 0.27865, 0.79922),
    ],
)
def test_r2_of_nakagawa_as_published(sleepstudy, formula, marginal, conditional):
    table = explained_variance(hmlm.Model(formula, sleepstudy).fit(hmlm.REML()))
    assert table["measure"].tolist() == ["marginal", "conditional"]
    assert table["estimate"].to_numpy() == pytest.approx([marginal, conditional], abs=2e-5)


def test_slopes_count_by_their_average_contribution(sleepstudy_reml):
    design, estimates = sleepstudy_reml.design, sleepstudy_reml.estimates
    D = effect_covariance(estimates, "Subject")
    Z = design.blocks[0].Z
    by_row = [z @ D @ z for z in Z]
    table = split_variance(sleepstudy_reml)
    assert table["component"].tolist() == ["population", "group", "residual", "total"]
    assert number(table, component="group") == pytest.approx(np.mean(by_row))
    fixed = (design.X @ estimates["beta"]).var(ddof=1)
    assert number(table, component="population") == pytest.approx(fixed)
    assert table["share"].iloc[:3].sum() == pytest.approx(1.0)
    assert table["estimate"].iloc[:3].sum() == pytest.approx(number(table, component="total"))


def test_intraclass_correlation_at_values_of_the_slope(sleepstudy_reml):
    D = effect_covariance(sleepstudy_reml.estimates, "Subject")
    s2 = float(sleepstudy_reml.estimates["sigma"]) ** 2
    table = intraclass_correlation(sleepstudy_reml, at={"Days": [0, 4.5, 9]})
    expected = [z @ D @ z / (z @ D @ z + s2) for z in np.array([[1, 0], [1, 4.5], [1, 9]])]
    assert table["estimate"].to_numpy() == pytest.approx(expected)
    assert table["at"].tolist() == ["Days=0", "Days=4.5", "Days=9"]
    assert set(table["kind"]) == {"adjusted"}


@pytest.mark.parametrize(
    ("at", "match"),
    [
        ({"Day": 3}, "does not vary by group. Did you mean 'Days'"),
        ({"Days": "x"}, "a number"),
        ({}, "empty"),
        ({"Days": []}, "empty"),
    ],
)
def test_at_is_checked(sleepstudy_reml, at, match):
    with pytest.raises(HmlmError, match=match):
        intraclass_correlation(sleepstudy_reml, at=at)


def test_at_without_slopes_is_to_be_left_out(dyestuff2_reml):
    with pytest.raises(HmlmError, match="no column does: leave at out"):
        intraclass_correlation(dyestuff2_reml, at={"Day": 3})


def test_nested_factors_share_levels_above(pastes_reml):
    batch, cask = (float(pastes_reml.estimates[f"sd_{g}"][0]) ** 2 for g in ("batch", "batch:cask"))
    s2 = float(pastes_reml.estimates["sigma"]) ** 2
    table = intraclass_correlation(pastes_reml, "batch:cask").set_index("kind")["estimate"]
    assert table["adjusted"] == pytest.approx(cask / (batch + cask + s2))
    assert table["same level"] == pytest.approx((batch + cask) / (batch + cask + s2))
    assert "same level" not in set(intraclass_correlation(pastes_reml, "batch")["kind"])


def test_unequal_sizes_count_as_kish_has_it(radon_reml):
    rho = number(intraclass_correlation(radon_reml), kind="adjusted")
    n = radon_reml.design.blocks[0].sizes
    whole = design_effect(radon_reml).iloc[0]
    deff = 1 + ((n**2).sum() / n.sum() - 1) * rho
    assert whole["design_effect"] == pytest.approx(deff)
    assert whole["effective_size"] == pytest.approx(n.sum() / deff)


def test_counts_by_each_method(counts_fit):
    beta, sd = counts_fit.estimates["beta"], float(counts_fit.estimates["sd_g"][0])
    mean = np.exp(counts_fit.design.X @ beta + sd**2 / 2).mean()
    expected = {
        "delta": 1 / mean,
        "lognormal": np.log1p(1 / mean),
        "trigamma": float(special.polygamma(1, mean)),
    }
    found = {
        m: number(split_variance(counts_fit, method=m), component="residual") for m in expected
    }
    assert found == pytest.approx(expected, rel=1e-6)
    default = number(split_variance(counts_fit), component="residual")
    assert default == pytest.approx(expected["lognormal"], rel=1e-6)
    fixed = (counts_fit.design.X @ beta).var(ddof=1)
    total = fixed + sd**2 + default
    r2 = explained_variance(counts_fit)["estimate"].to_numpy()
    assert r2 == pytest.approx([fixed / total, (fixed + sd**2) / total])


@pytest.mark.parametrize(
    ("link", "latent"), [("logit", np.pi**2 / 3), ("probit", 1.0), ("cloglog", np.pi**2 / 6)]
)
def test_latent_variance_of_each_link(link, latent):
    cbpp = hmlm.load_dataset("cbpp")
    formula = "p(incidence, size) ~ period + (1 | herd)"
    fit = hmlm.Model(formula, cbpp, "binomial", link=link).fit(hmlm.Laplace())
    table = split_variance(fit)
    assert number(table, component="residual") == pytest.approx(latent)
    between = float(fit.estimates["sd_herd"][0]) ** 2
    rho = number(intraclass_correlation(fit), kind="adjusted")
    assert rho == pytest.approx(between / (between + latent))
    delta = number(split_variance(fit, method="delta"), component="residual")
    assert delta > latent  # some 1 / (p (1 - p)) with p about 0.1
    with pytest.raises(HmlmError, match=r"no\s+method 'lognormal'"):
        split_variance(fit, method="lognormal")


@pytest.mark.parametrize(
    ("family", "link", "parameters", "draw"),
    [
        ("negative-binomial", None, {"alpha": 2.0}, lambda m: stats.nbinom(2, 2 / (2 + m))),
        ("gamma", "log", {"alpha": 3.0}, lambda m: stats.gamma(3, scale=m / 3)),
        ("student-t", None, {"sigma": 2.0, "nu": 5.0}, lambda m: stats.t(5, np.log(m), 2)),
        ("lognormal", None, {"sigma": 0.5}, lambda m: stats.lognorm(0.5, scale=m)),
        ("poisson", None, {}, stats.poisson),
    ],
)
def test_variance_of_outcomes(family, link, parameters, draw):
    family = hmlm.families.get_family(family, link)
    eta = np.log(np.array([0.7, 2.0]))
    found = outcome_variance(family, eta, {k: np.asarray(v) for k, v in parameters.items()})
    assert found == pytest.approx(draw(np.exp(eta)).var())


@pytest.mark.parametrize("name", ["hurdle-poisson", "zero-inflated-negative-binomial", "beta"])
def test_variance_of_outcomes_by_simulation(name):
    from hmlm.expectation import draw_outcomes

    family = hmlm.families.get_family(name)
    parameters = {"alpha": 2.0, "zi": 0.3, "hu": 0.3, "phi": 4.0}
    values = {k: np.asarray(parameters[k]) for k in family.parameters}
    eta = np.full((200_000, 1), 0.6)
    drawn = draw_outcomes(family, eta, values, np.random.default_rng(2))
    assert float(outcome_variance(family, eta[:1], values).item()) == pytest.approx(
        drawn.var(), rel=0.03
    )


def test_truth_lies_in_the_intervals_of_draws():
    frame, _ = simulate(5, groups=80, size=8)
    fit = sample("y ~ x + (x | g)", frame)
    x = frame["x"].to_numpy()
    truth = {"group": np.mean(0.64 + 2 * 0.16 * x + 0.25 * x**2), "residual": 0.36}
    truth["population"] = (0.7**2) * x.var(ddof=1)
    table = split_variance(fit)
    for component, value in truth.items():
        assert number(table, "lower", component=component) < value
        assert value < number(table, "upper", component=component)
    rho = truth["group"] / (truth["group"] + 0.36)
    adjusted = intraclass_correlation(fit).query("kind == 'adjusted'").iloc[0]
    assert adjusted["lower"] < rho < adjusted["upper"]
    assert (table["share_lower"] <= table["share"]).all()


def test_bayes_and_classical_agree_on_counts(counts_fit, counts_draws):
    ours, theirs = split_variance(counts_draws), split_variance(counts_fit)
    assert ours["share"].to_numpy() == pytest.approx(theirs["share"].to_numpy(), abs=0.04)
    assert explained_variance(counts_draws)["measure"].tolist() == [
        "marginal",
        "conditional",
        "bayes",
        "level",
    ]


def test_bayesian_r2_draw_by_draw(sleep_draws, sleepstudy):
    draws = sleep_draws._flat_draws("include")
    design, block = sleep_draws.design, sleep_draws.design.blocks[0]
    mu = draws["beta"] @ design.X.T
    mu += np.einsum("nk,snk->sn", block.Z, draws["b_Subject"][:, block.index])
    fitted, s2 = mu.var(axis=1, ddof=1), draws["sigma"] ** 2
    table = explained_variance(sleep_draws, prob=0.8)
    row = table[table["measure"] == "bayes"].iloc[0]
    r2 = fitted / (fitted + s2)
    assert row[["estimate", "std_error"]].tolist() == pytest.approx([r2.mean(), r2.std(ddof=1)])
    assert row[["lower", "upper"]].tolist() == pytest.approx(np.quantile(r2, [0.1, 0.9]).tolist())
    error = (design.y - mu).var(axis=1, ddof=1).mean()
    level = table[(table["measure"] == "level") & (table["group"] == "")].iloc[0]
    assert level["estimate"] == pytest.approx(1 - error / design.y.var(ddof=1))


def test_bayesian_r2_of_counts_uses_their_variance(counts_draws):
    draws = counts_draws._flat_draws("include")
    design, block = counts_draws.design, counts_draws.design.blocks[0]
    mu = np.exp(draws["beta"] @ design.X.T + draws["b_g"][:, block.index, 0])
    fitted = mu.var(axis=1, ddof=1)
    r2 = (fitted / (fitted + mu.mean(axis=1))).mean()
    assert number(explained_variance(counts_draws), measure="bayes") == pytest.approx(r2)


def test_group_level_predictor_explains_the_intercepts(radon_draws):
    """Gelman and Pardoe (2006) find that uranium explains most of what counties differ in."""
    table = explained_variance(radon_draws)
    level = table[(table["measure"] == "level") & (table["group"] == "county")]
    draws, block = radon_draws._flat_draws("include"), radon_draws.design.blocks[0]
    uranium = np.zeros(len(block.levels))
    uranium[block.index] = radon_draws.design.X[:, 2]
    b = draws["b_county"][:, :, 0]
    theta = b + draws["beta"][:, 2:] * uranium
    expected = 1 - b.var(axis=1, ddof=1).mean() / theta.var(axis=1, ddof=1).mean()
    assert level["estimate"].tolist() == pytest.approx([expected, 0.0], abs=1e-9)
    assert expected > 0.5


def test_modelled_sigma_is_averaged_over_the_rows(sleepstudy):
    fit = sample("Reaction ~ Days + (1 | Subject); sigma ~ Days", sleepstudy)
    draws = fit._flat_draws("include")
    sigma = np.exp(draws["sigma_beta"] @ fit.design.distributional[0].X.T)
    found = number(split_variance(fit), component="residual")
    assert found == pytest.approx((sigma**2).mean())


def test_known_standard_errors_are_the_residual():
    schools = hmlm.load_dataset("eight_schools")
    fit = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", schools).fit(hmlm.REML())
    found = number(split_variance(fit), component="residual")
    assert found == pytest.approx((schools["sigma"] ** 2).mean())


def test_categories_are_split_one_by_one(counts):
    frame = counts.assign(k=np.minimum(counts["y"], 2))
    table = split_variance(sample("k ~ x + (1 | g)", frame, "categorical"))
    assert list(dict.fromkeys(table["term"])) == ["mu_1", "mu_2"]
    residual = table.loc[table["component"] == "residual", "estimate"]
    assert residual.tolist() == pytest.approx([np.pi**2 / 3] * 2)


def test_complete_pooling_has_no_groups_and_no_pooling_no_variance(
    sleepstudy_pooled, sleepstudy_alone
):
    table = split_variance(sleepstudy_pooled)
    assert table["component"].tolist() == ["population", "residual", "total"]
    for use in (intraclass_correlation, design_effect):
        with pytest.raises(HmlmError, match="complete pooling"):
            use(sleepstudy_pooled)
    for use in (split_variance, explained_variance, intraclass_correlation):
        with pytest.raises(HmlmError, match="under no pooling"):
            use(sleepstudy_alone)


def test_singular_fit_has_no_share_between_groups(dyestuff2_reml):
    assert number(intraclass_correlation(dyestuff2_reml), kind="adjusted") == 0.0


def test_wrong_words_are_named(sleepstudy_reml):
    with pytest.raises(HmlmError, match="Did you mean 'Subject'"):
        intraclass_correlation(sleepstudy_reml, "Subjct")
    with pytest.raises(HmlmError, match="between 0 and 1"):
        split_variance(sleepstudy_reml, prob=95)
    with pytest.raises(HmlmError, match="there already"):
        split_variance(sleepstudy_reml, method="delta")


def test_correlation_beside_its_prior(sleep_draws):
    table = correlation_evidence(sleep_draws)
    (row,) = table.to_dict("records")
    r = sleep_draws.variable("cor_Subject")[..., 0, 1].ravel()
    assert row["estimate"] == pytest.approx(r.mean())
    # LKJ(2) of two effects: (r + 1) / 2 is beta(2, 2), with sd 2 sqrt(1/20).
    assert row["prior_std_error"] == pytest.approx(2 * np.sqrt(0.05))
    assert row["prior_upper"] == pytest.approx(2 * stats.beta(2, 2).ppf(0.975) - 1)
    assert row["positive"] == pytest.approx((r > 0).mean())
    assert 0.5 < row["overlap"] < 0.9
    assert not row["moved"]


def test_data_that_speak_move_the_correlation():
    frame, _ = simulate(5, groups=150, size=10, cor=0.9)
    (row,) = correlation_evidence(sample("y ~ x + (x | g)", frame)).to_dict("records")
    assert row["moved"]
    assert row["lower"] < 0.9 < row["upper"]


def test_overlap_of_known_densities():
    from hmlm.prior_overlap import _overlap

    rng = np.random.default_rng(1)
    assert _overlap(rng.random(4000)) == pytest.approx(1.0, abs=0.03)
    crossing = stats.beta(3, 3)  # against the uniform density
    grid = (np.arange(20_000) + 0.5) / 20_000
    exact = np.minimum(crossing.pdf(grid), 1).mean()
    assert _overlap(crossing.rvs(4000, random_state=rng)) == pytest.approx(exact, abs=0.03)


def test_evidence_needs_a_prior_and_a_correlation(sleepstudy_reml, counts_draws):
    with pytest.raises(HmlmError, match="has no priors"):
        correlation_evidence(sleepstudy_reml)
    with pytest.raises(HmlmError, match="no correlated effects"):
        correlation_evidence(counts_draws)
