"""Predictions of every family, of new groups and averaged over groups, against simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from support import simulate

import hmlm
from hmlm.averaging import average_mean, average_mean_slope, average_outcome, normal_nodes
from hmlm.errors import DataError, HmlmError
from hmlm.expectation import category_probabilities, draw_outcomes, expected_outcome
from hmlm.families import get_family
from hmlm.links import from_link
from hmlm.new_rows import group_modes, new_rows
from hmlm.prediction import chosen_draws, linear_predictors, new_groups, predict_bayes

SHORT = hmlm.NUTS(draws=200, tune=300, chains=2)
FAMILIES = {
    "gaussian": "y ~ x + (x | g); sigma ~ x",
    "student-t": "y ~ x + (1 | g)",
    "bernoulli": "y ~ x + (x | g)",
    "bernoulli(probit)": "y ~ x + (x | g)",
    "binomial": "p(y, n) ~ x + (1 | g)",
    "beta-binomial": "p(y, n) ~ x + (1 | g)",
    "poisson": "y ~ x + (1 | g)",
    "negative-binomial": "y ~ x + (1 | g); alpha ~ x",
    "gamma": "y ~ x + (1 | g)",
    "lognormal": "y ~ x + (1 | g)",
    "beta": "y ~ x + (1 | g)",
    "ordinal": "y ~ x + (x | g)",
    "ordinal(probit)": "y ~ x + (1 | g)",
    "categorical": "y ~ x + (1 | g)",
    "zero-inflated-poisson": "y ~ x + (1 | g); zi ~ 1 + (1 | g)",
    "zero-inflated-negative-binomial": "y ~ x + (1 | g)",
    "hurdle-poisson": "y ~ x + (1 | g); hu ~ 1 + (1 | g)",
    "hurdle-negative-binomial": "y ~ x + (1 | g)",
}


def outcome(name, rng, eta, n):
    family = get_family(name)
    if family.outcome == "ordered":
        return np.digitize(eta + rng.logistic(size=len(eta)), [-1.0, 1.0])
    if family.outcome == "category":
        return rng.choice(["a", "b", "c"], len(eta))
    values = {k: np.full((1, 1), v) for k, v in PARAMETERS.items()}
    y = draw_outcomes(family, eta[None], values, rng, n)[0]
    return np.clip(y, 0.01, 0.99) if family.outcome == "unit" else y


PARAMETERS = {"sigma": 0.6, "nu": 8.0, "alpha": 3.0, "phi": 6.0, "zi": 0.3, "hu": 0.3}


@pytest.fixture(scope="module")
def fits():
    made = {}

    def fit(name):
        if name not in made:
            frame, b = simulate(3, groups=12, size=10, beta=(0.4, 0.5), sd=(0.6, 0.3))
            g = np.repeat(np.arange(12), 10)
            eta = 0.4 + b[g, 0] + (0.5 + b[g, 1]) * frame["x"].to_numpy()
            frame["n"] = 5 + np.arange(len(frame)) % 4
            trials = frame["n"].to_numpy(float) if "bino" in name and "neg" not in name else None
            frame["y"] = outcome(name, np.random.default_rng(4), eta, trials)
            model = hmlm.Model(FAMILIES[name], frame, family=name)
            made[name] = model.fit(SHORT, random_seed=1, progressbar=False)
        return made[name]

    return fit


def flat(fit, name):
    draws = fit.variable(name)
    return draws.reshape(-1, *draws.shape[2:])


def simulated_expectation(fit, row, b, others):
    """What a family expects of one row in every draw, given effects of new groups (S, M, q)."""
    design, family = fit.design, fit.design.spec.family
    x = np.array([1.0, row])
    etas = []
    for p in design.predictors:
        lead = x[1:] if family.outcome == "ordered" and not p.name else x[: len(p.terms)]
        eta = (flat(fit, p.named("beta")) @ lead)[:, None]
        own = b if not p.name else others.get(p.name)
        if own is not None:
            eta = eta + own @ x[: own.shape[-1]]
        etas.append(eta)
    if family.outcome in ("ordered", "category"):
        cuts = flat(fit, "cutpoints")[:, None] if family.outcome == "ordered" else None
        return category_probabilities(family, etas, cuts).mean(axis=1)
    values = {n: flat(fit, n)[:, None] for n in design.parameters}
    for p, eta in zip(design.predictors[1:], etas[1:], strict=True):
        values[p.name] = from_link("logit" if p.name in ("zi", "hu") else "log", eta)
    return expected_outcome(family, etas[0], values).mean(axis=1)


def effects(fit, rng, size, prefix=""):
    """Draw effects of new groups directly from sds and correlations."""
    sd = flat(fit, f"{prefix}sd_g")
    q = sd.shape[1]
    z = rng.standard_normal((len(sd), size // 2, q))
    z = np.concatenate([z, -z], axis=1)
    if q > 1:
        z = z @ np.swapaxes(np.linalg.cholesky(flat(fit, f"{prefix}cor_g")), 1, 2)
    return z * sd[:, None]


@pytest.mark.parametrize("name", FAMILIES)
def test_average_over_groups_is_that_of_simulated_groups(name, fits):
    fit = fits(name)
    rng = np.random.default_rng(8)
    b = effects(fit, rng, 2000)
    others = {}
    for p in fit.design.predictors[1:]:
        if p.blocks:
            others[p.name] = effects(fit, rng, 2000, f"{p.name}_")
            rng.shuffle(others[p.name], axis=1)
    table = fit.predict({"x": [0.7]}, groups="average")
    brute = simulated_expectation(fit, 0.7, b, others)
    expected = brute.reshape(len(brute), -1).mean(axis=0)
    np.testing.assert_allclose(table["estimate"], expected, rtol=6e-3)
    spread = brute.reshape(len(brute), -1).std(axis=0, ddof=1)
    np.testing.assert_allclose(table["std_error"], spread, rtol=0.06)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_prediction_of_every_family(name, fits):
    fit = fits(name)
    family = fit.design.spec.family
    n = len(fit.design.y)
    mean = fit.predict()
    wide = family.outcome in ("ordered", "category")
    assert len(mean) == n * (3 if wide else 1)
    assert np.isfinite(mean[["estimate", "std_error", "lower", "upper"]]).all(axis=None)
    assert (mean["lower"] <= mean["upper"]).all()
    linear = fit.predict(kind="linear")
    assert len(linear) == n * (2 if family.outcome == "category" else 1)
    response = fit.predict(kind="response", random_seed=1)
    assert fit.predict(kind="response", random_seed=1).equals(response)
    if wide:
        sums = mean.groupby(level=0)["estimate"].sum()
        np.testing.assert_allclose(sums, 1.0)
        assert list(mean["category"][:3]) == list(fit.design.categories)
        seen = response
        scale = 1.0
    else:
        seen = response
        scale = fit.design.trials if fit.design.trials is not None else 1.0
    # Outcomes have the mean that they should, within Monte Carlo error.
    away = (seen["estimate"] - scale * mean["estimate"]) / (seen["std_error"] / np.sqrt(400) + 1e-9)
    assert np.abs(away[seen["std_error"] > 0]).mean() < 1.3
    new = pd.DataFrame({"x": [0.0, 1.0], "g": ["new", "new"], "n": [4, 4]})
    for kind in ("mean", "linear", "response"):
        for groups in ("population", "new"):
            assert fit.predict(new, kind=kind, groups=groups, random_seed=2).notna().all(axis=None)


@pytest.mark.parametrize("name", ["poisson", "negative-binomial"])
@pytest.mark.parametrize("mu", [0.05, 1.0, 40.0])
def test_hurdle_counts_have_the_truncated_distribution(name, mu):
    family = get_family(f"hurdle-{name}")
    values = {"hu": np.full((1, 1), 0.25), "alpha": np.full((1, 1), 1.7)}
    eta = np.full((1, 40_000), np.log(mu))
    y = draw_outcomes(family, eta, values, np.random.default_rng(1))[0]
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    k = np.arange(1, int(y.max()) + 1)
    p = (
        stats.poisson.pmf(k, mu)
        if name == "poisson"
        else stats.nbinom.pmf(k, 1.7, 1.7 / (1.7 + mu))
    )
    zero = (
        stats.poisson.pmf(0, mu)
        if name == "poisson"
        else stats.nbinom.pmf(0, 1.7, 1.7 / (1.7 + mu))
    )
    share = np.array([np.mean(y[y > 0] == v) for v in k])
    assert np.abs(share - p / (1 - zero)).max() < 0.012
    assert y.mean() == pytest.approx(
        float(expected_outcome(family, eta[:, :1], values)[0, 0]), rel=0.03
    )


def test_hurdle_of_a_mean_of_zero_expects_one():
    family = get_family("hurdle-poisson")
    assert expected_outcome(family, np.array([-800.0]), {"hu": np.array(0.5)}) == pytest.approx(0.5)


# --- averages in closed form and by quadrature


@pytest.mark.parametrize("link", ["identity", "log", "probit", "logit", "cloglog"])
def test_average_mean_and_its_slope(link):
    eta, variance = np.array([-1.0, 0.3, 2.0]), np.array([0.2, 1.0, 2.0])
    b = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)[:, None] * np.sqrt(variance)
    brute = from_link(link, eta + b).mean(axis=0)
    np.testing.assert_allclose(average_mean(link, eta, variance), brute, rtol=2e-4)
    step = 1e-5
    slope = (
        average_mean(link, eta + step, variance) - average_mean(link, eta - step, variance)
    ) / (2 * step)
    np.testing.assert_allclose(average_mean_slope(link, eta, variance), slope, rtol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_nodes_average_over_normal_variables(dimensions):
    points, weights = normal_nodes(dimensions)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights @ points, 0.0, atol=0.01)
    np.testing.assert_allclose((points.T * weights) @ points, np.eye(dimensions), atol=0.02)


def test_average_of_a_gaussian_is_the_population(fits):
    fit = fits("gaussian")
    new = {"x": [0.0, 1.0]}
    expected = fit.predict(new, groups="population")
    pd.testing.assert_frame_equal(fit.predict(new, groups="average"), expected)


def test_averages_that_do_not_exist():
    frame, _ = simulate(1, groups=8, size=8)
    frame["y"] = np.exp(frame["y"])
    model = hmlm.Model("y ~ x + (1 | g); sigma ~ 1 + (1 | g)", frame, family="lognormal")
    fit = model.fit(hmlm.NUTS(draws=50, tune=100, chains=1), random_seed=1, progressbar=False)
    with pytest.raises(HmlmError, match="average outcome is infinite"):
        fit.predict({"x": [0.0]}, groups="average")
    with pytest.raises(HmlmError, match="use groups='new' with kind='response'"):
        fit.predict({"x": [0.0]}, groups="average", kind="response")
    inverse = hmlm.Model("y ~ 1 + (1 | g)", frame, family="gamma", link="inverse")
    fit = inverse.fit(hmlm.Laplace())
    with pytest.raises(HmlmError, match="under an inverse link"):
        fit.predict({"x": [0.0]}, groups="average")
    eta = np.ones((1, 1))
    with pytest.raises(HmlmError, match="under an inverse link"):
        average_outcome(fit.design.spec.family, [""], [eta], [eta], lambda etas, _: etas[0])


def test_classical_averages_over_groups():
    cbpp = hmlm.load_dataset("cbpp")
    for link in ("logit", "probit"):
        model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, "binomial", link=link)
        fit = model.fit(hmlm.Laplace())
        new = {"period": ["1", "4"]}
        table = fit.predict(new, groups="average")
        eta = fit.predict(new, groups="population", kind="linear")
        sd = float(fit.estimates["sd_herd"][0])
        b = sd * stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None]

        def average(at, b=b, link=link):
            return from_link(link, np.asarray(at) + b).mean(axis=0)

        np.testing.assert_allclose(table["estimate"], average(eta["estimate"]), rtol=1e-4)
        np.testing.assert_allclose(table["lower"], average(eta["lower"]), rtol=1e-4)
        step = 1e-4
        slope = (average(eta["estimate"] + step) - average(eta["estimate"] - step)) / (2 * step)
        np.testing.assert_allclose(table["std_error"], slope * eta["std_error"], rtol=1e-3)
        assert (table["estimate"] > special.expit(-99)).all()


# --- new groups


def test_new_groups_have_the_covariance_of_the_population(fits):
    fit = fits("bernoulli")
    new = pd.DataFrame({"x": [0.0, 1.0, 0.0], "g": ["u", "u", "v"]})
    rows = new_rows(fit.design, new, "new")
    posterior = chosen_draws(fit, rows.modes)
    assert "b_g" not in posterior
    # The same draw of D many times, so that the covariance over draws is D.
    fixed = {k: np.repeat(v[:1], 40_000, axis=0) for k, v in posterior.items()}
    fresh = new_groups(fit.design, fixed, rows, np.random.default_rng(1))
    sd, cor = fixed["sd_g"][0], fixed["cor_g"][0]
    D = np.outer(sd, sd) * cor
    for j in range(2):
        drawn = np.cov(fresh["b_g"][:, j].T)
        np.testing.assert_allclose(drawn, D, atol=0.04 * np.sqrt(np.outer(*[np.diag(D)] * 2)).max())
    across = np.cov(fresh["b_g"][:, 0, 0], fresh["b_g"][:, 1, 0])[0, 1]
    assert abs(across) < 0.03 * D[0, 0]
    (eta,) = linear_predictors(fit.design, fixed, rows, slice(None), fresh)
    slopes = fixed["beta"][:, 1] + fresh["b_g"][:, 0, 1]
    np.testing.assert_allclose(eta[:, 1] - eta[:, 0], slopes, rtol=1e-9)


def test_many_new_groups_are_drawn_one_by_one(fits, monkeypatch):
    fit = fits("bernoulli")
    new = pd.DataFrame({"x": np.zeros(40), "g": np.tile([f"n{i}" for i in range(20)], 2)})
    monkeypatch.setattr("hmlm.prediction.HELD_EFFECTS", 10)
    monkeypatch.setattr("hmlm.prediction.NUMBERS_AT_ONCE", 400 * 7)  # levels in many pieces
    table = fit.predict(new, groups="new", random_seed=3)
    np.testing.assert_array_equal(table[:20], table[20:])
    assert table["estimate"].nunique() == 20
    rows = new_rows(fit.design, new, "new")
    posterior = {
        k: np.repeat(v[:1], 20_000, axis=0) for k, v in chosen_draws(fit, rows.modes).items()
    }
    draw = new_groups(fit.design, posterior, rows, np.random.default_rng(1))["b_g"]
    b = draw(np.array([4, 11]))
    D = np.outer(posterior["sd_g"][0], posterior["sd_g"][0]) * posterior["cor_g"][0]
    np.testing.assert_allclose(np.cov(b[:, 0].T), D, atol=0.04 * D.max())
    np.testing.assert_array_equal(draw(np.array([11]))[:, 0], b[:, 1])


@pytest.fixture(scope="module")
def nested():
    """Intercepts of batches and casks, sampled."""
    rng = np.random.default_rng(6)
    frame = pd.DataFrame({"school": np.repeat(list("ABCDEF"), 12)})
    frame["class"] = np.tile(np.repeat(["k1", "k2", "k3"], 4), 6)
    school = dict(zip("ABCDEF", 4 * rng.standard_normal(6), strict=True))
    own = {k: rng.standard_normal() for k in set(zip(frame["school"], frame["class"], strict=True))}
    pairs = zip(frame["school"], frame["class"], strict=True)
    frame["y"] = [school[s] + own[s, c] + 0.5 * rng.standard_normal() for s, c in pairs]
    return hmlm.Model("y ~ 1 + (1 | school/class)", frame)


def test_new_class_of_a_known_school(nested):
    new = {"school": ["A", "A"], "class": ["k1", "k9"]}
    for method in (SHORT, hmlm.REML()):
        fit = nested.fit(method, random_seed=1, progressbar=False)
        words = r"1 level of 'school:class' in 1 row .*: A:k9\. Their 'school' is known, and "
        with pytest.raises(DataError, match=words + r"'class' is new in it: pass groups=\{'school"):
            fit.predict(new)
        with pytest.raises(DataError, match=r"'school' in 1 row were not .*: Z\. Pass groups="):
            fit.predict({"school": ["Z"], "class": ["k1"]})
        drawn = fit.predict(new, groups={"school:class": "new"}, random_seed=1)
        only = fit.predict(new, groups={"school:class": "population"})
        both = fit.predict(new, groups="new", random_seed=1)
        np.testing.assert_allclose(drawn["estimate"], only["estimate"], atol=0.25)
        assert (only["std_error"] < drawn["std_error"]).all()
        assert (drawn["std_error"] < both["std_error"]).all()
        known = fit.predict({"school": ["A"], "class": ["k1"]})
        assert known["std_error"][0] < drawn["std_error"][0]


def test_modes_of_groups(nested):
    design = nested.design
    assert group_modes(design, {"school:class": "new"}) == {
        "school": "include",
        "school:class": "new",
    }
    with pytest.raises(HmlmError, match="'clas', which is no grouping factor"):
        group_modes(design, {"clas": "new"})
    with pytest.raises(HmlmError, match=r"groups is 'include', .* not 'old'"):
        group_modes(design, {"school": "old"})


def test_left_out_groups_are_not_read(nested):
    fit = nested.fit(hmlm.REML())
    new = {"school": [None], "class": ["k1"]}
    assert fit.predict(new, groups="population")["estimate"].notna().all()
    with pytest.raises(DataError, match="column 'school' is missing in 1 row"):
        fit.predict(new)


# --- trials, weights and known standard errors


def test_new_outcomes_need_trials_weights_and_standard_errors(fits):
    fit = fits("binomial")
    with pytest.raises(DataError, match="new outcomes need the column 'n'"):
        fit.predict({"x": [0.0]}, groups="population", kind="response")
    with pytest.raises(DataError, match=r"'n' .* no number of trials in 1 row"):
        fit.predict({"x": [0.0], "n": [2.5]}, groups="population", kind="response")
    many = {"x": [0.0], "n": [1000]}
    response = fit.predict(many, groups="population", kind="response", random_seed=1)
    mean = fit.predict({"x": [0.0]}, groups="population")
    np.testing.assert_allclose(response["estimate"] / 1000, mean["estimate"], rtol=0.02)
    frame, _ = simulate(2, groups=8, size=6)
    weighted = hmlm.Model("y ~ x + (1 | g)", frame.assign(w=2.0), weights="w").fit(hmlm.REML())
    with pytest.raises(DataError, match="new outcomes need the column 'w'"):
        weighted.predict({"x": [0.0]}, groups="population", kind="response")
    with pytest.raises(DataError, match="'w' of the new data is not positive in 1 row: weights"):
        weighted.predict({"x": [0.0], "w": [0]}, groups="population", kind="response")
    narrow, wide = (
        weighted.predict({"x": [0.0], "w": [w]}, groups="population", kind="response")["std_error"]
        for w in (4.0, 1.0)
    )
    sigma2 = float(weighted.estimates["sigma"]) ** 2
    np.testing.assert_allclose(wide**2 - narrow**2, 0.75 * sigma2)


def test_known_standard_errors_are_those_of_new_outcomes():
    schools = hmlm.load_dataset("eight_schools")
    fit = hmlm.Model("y ~ 1 + (1 | school)", schools, se="sigma").fit(
        SHORT, random_seed=1, progressbar=False
    )
    new = {"school": ["A", "A"], "sigma": [1e-6, 100.0]}
    response = fit.predict(new, kind="response", random_seed=1)
    mean = fit.predict({"school": ["A", "A"]})
    np.testing.assert_allclose(response["std_error"][0], mean["std_error"][0], rtol=1e-3)
    assert response["std_error"][1] == pytest.approx(100.0, rel=0.15)


def test_predict_bayes_is_the_method(fits):
    fit = fits("poisson")
    pd.testing.assert_frame_equal(
        predict_bayes(fit, None, "mean", "include", 0.9, None), fit.predict(prob=0.9)
    )
