"""Average predictions, comparisons and slopes: against brute force, dense algebra and draws."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import special, stats
from support import effect_covariance, simulate

import hmlm
from hmlm.classical_prediction import joint_errors, linear_rows
from hmlm.data_grid import grid_of
from hmlm.errors import DataError, HmlmError
from hmlm.marginal import average_predictions, average_slopes, compare_predictions
from hmlm.new_rows import new_rows

SHORT = hmlm.NUTS(draws=200, tune=300, chains=2)
FIGURES = ["estimate", "std_error", "lower", "upper"]


@pytest.fixture(scope="module")
def binary():
    """A logit model with a factor, a number with a spline-free curve, and correlated effects."""
    frame, b = simulate(5, groups=15, size=12, beta=(-0.3, 0.8), sd=(0.7, 0.4))
    rng = np.random.default_rng(2)
    frame["f"] = rng.choice(["lo", "mid", "hi"], len(frame))
    g = np.repeat(np.arange(15), 12)
    eta = -0.3 + b[g, 0] + (0.8 + b[g, 1]) * frame["x"] + 0.6 * (frame["f"] == "hi")
    frame["y"] = rng.random(len(frame)) < special.expit(eta)
    frame["site"] = np.where(g < 7, "north", "south")
    return hmlm.Model("y ~ f + poly(x, 2) + site + (x | g)", frame, family="bernoulli")


@pytest.fixture(scope="module")
def bayes(binary):
    return binary.fit(SHORT, random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def classical(binary):
    return binary.fit(hmlm.Laplace())


@pytest.fixture(scope="module", params=["bayes", "classical"])
def fit(request):
    return request.getfixturevalue(request.param)


def draws_of(fit, frame):
    """Draws of the probability in every row, by hand: (draws, rows)."""
    X = fit.design.encoding.again(frame)[0]
    flat = {n: fit.variable(n).reshape(400, *fit.variable(n).shape[2:]) for n in ("beta", "b_g")}
    at = fit.design.data.levels["g"].get_indexer(frame["g"])
    Z = np.column_stack([np.ones(len(frame)), frame["x"]])
    eta = flat["beta"] @ X.T + np.einsum("nk,snk->sn", Z, flat["b_g"][:, at])
    return special.expit(eta)


def check_draws(row, draws):
    np.testing.assert_allclose(row["estimate"], draws.mean(), rtol=1e-9)
    np.testing.assert_allclose(row["std_error"], draws.std(ddof=1), rtol=1e-9)
    np.testing.assert_allclose(
        [row["lower"], row["upper"]], np.quantile(draws, [0.025, 0.975]), rtol=1e-9
    )


# --- posteriors: the same from draws by hand


def test_average_predictions_are_averages_of_draws(bayes):
    frame = bayes.design.data.frame
    p = draws_of(bayes, frame)
    whole = average_predictions(bayes)
    assert list(whole.columns) == [*FIGURES, "prob"]
    check_draws(whole.iloc[0], p.mean(axis=1))
    table = average_predictions(bayes, by=["site", "f"])
    assert list(table.columns[:2]) == ["site", "f"]
    assert len(table) == 6
    for _, row in table.iterrows():
        own = ((frame["site"] == row["site"]) & (frame["f"] == row["f"])).to_numpy()
        check_draws(row, p[:, own].mean(axis=1))


def test_comparisons_are_of_the_same_rows(bayes):
    frame = bayes.design.data.frame
    hi, lo = (draws_of(bayes, frame.assign(f=v)) for v in ("mid", "hi"))
    for comparison, label in [
        ("difference", "mid - hi"),
        ("ratio", "mid / hi"),
        ("log odds ratio", "mid / hi"),
    ]:
        table = compare_predictions(bayes, {"f": ("hi", "mid")}, "site", comparison=comparison)
        assert table["contrast"].tolist() == [label, label]
        for _, row in table.iterrows():
            own = (frame["site"] == row["site"]).to_numpy()
            a, b = hi[:, own].mean(axis=1), lo[:, own].mean(axis=1)
            expected = {"difference": a - b, "ratio": a / b}
            check_draws(row, expected.get(comparison, special.logit(a) - special.logit(b)))


def test_slopes_are_derivatives(bayes):
    frame = bayes.design.data.frame
    inner = frame["x"].between(frame["x"].min() + 0.01, frame["x"].max() - 0.01)
    some = frame[inner].reset_index(drop=True)
    step = 1e-5
    up, down = (draws_of(bayes, some.assign(x=some["x"] + s)) for s in (step, -step))
    table = average_slopes(bayes, "x", new_data=some)
    slopes = ((up - down) / (2 * step)).mean(axis=1)
    np.testing.assert_allclose(table["estimate"], slopes.mean(), rtol=1e-5)
    np.testing.assert_allclose(table["std_error"], slopes.std(ddof=1), rtol=1e-5)


# --- classical fits: the delta method with a numerical Jacobian


def numerical_errors(fit, function):
    """Standard error by the delta method: function of beta and b, one grouping factor."""
    effects = fit.effects["g"]
    beta, modes = fit.estimates["beta"], effects.modes
    J, q = modes.shape
    step = 1e-5

    def slope(direction, size):
        found = []
        for k in range(size):
            moved = np.zeros(size)
            moved[k] = step
            plus = (
                [beta + moved, modes]
                if direction == "beta"
                else [beta, modes + moved.reshape(J, q)]
            )
            minus = (
                [beta - moved, modes]
                if direction == "beta"
                else [beta, modes - moved.reshape(J, q)]
            )
            found.append((function(*plus) - function(*minus)) / (2 * step))
        return np.array(found)

    by_beta, by_b = slope("beta", len(beta)), slope("b", J * q)
    C = np.zeros((J * q, J * q))
    for j in range(J):
        C[j * q : (j + 1) * q, j * q : (j + 1) * q] = effects.covariance[j]
    gain = effects.gain.reshape(J * q, -1)
    joint = np.block(
        [[fit.vcov, -fit.vcov @ gain.T], [-gain @ fit.vcov, C + gain @ fit.vcov @ gain.T]]
    )
    jacobian = np.concatenate([by_beta, by_b])
    return float(np.sqrt(jacobian @ joint @ jacobian))


@pytest.mark.parametrize("comparison", ["difference", "ratio", "log odds ratio"])
def test_classical_comparisons_have_delta_method_errors(classical, comparison):
    frame = classical.design.data.frame
    at = classical.design.data.index["g"]
    Z = np.column_stack([np.ones(len(frame)), frame["x"]])

    def average(level, beta, b):
        X = classical.design.encoding.again(frame.assign(f=level))[0]
        return special.expit(X @ beta + np.einsum("nk,nk->n", Z, b[at])).mean()

    def function(beta, b):
        high, low = average("lo", beta, b), average("hi", beta, b)
        if comparison == "difference":
            return high - low
        return high / low if comparison == "ratio" else special.logit(high) - special.logit(low)

    row = compare_predictions(classical, {"f": ("hi", "lo")}, comparison=comparison).iloc[0]
    value = function(classical.estimates["beta"], classical.effects["g"].modes)
    error = numerical_errors(classical, function)
    assert row["estimate"] == pytest.approx(value, rel=1e-9)
    assert row["std_error"] == pytest.approx(error, rel=1e-6)
    z = stats.norm.ppf(0.975)
    if comparison == "ratio":
        bounds = value * np.exp(np.array([-z, z]) * error / value)
    else:
        bounds = value + np.array([-z, z]) * error
    np.testing.assert_allclose(row[["lower", "upper"]].astype(float), bounds, rtol=1e-5)


def test_classical_slopes_have_delta_method_errors(classical):
    frame = classical.design.data.frame
    at = classical.design.data.index["g"]
    step = 1e-4

    def average(shift, beta, b):
        x = frame["x"] + shift
        X = classical.design.encoding.again(frame.assign(x=x))[0]
        Z = np.column_stack([np.ones(len(frame)), x])
        return special.expit(X @ beta + np.einsum("nk,nk->n", Z, b[at])).mean()

    def function(beta, b):
        return (average(step, beta, b) - average(-step, beta, b)) / (2 * step)

    row = average_slopes(classical, "x").iloc[0]
    value = function(classical.estimates["beta"], classical.effects["g"].modes)
    assert row["estimate"] == pytest.approx(value, rel=1e-4)
    assert row["std_error"] == pytest.approx(numerical_errors(classical, function), rel=1e-4)


def test_gaussian_averages_have_the_errors_of_linear_functions(sleepstudy_reml):
    row = average_slopes(sleepstudy_reml, "Days", groups="population").iloc[0]
    fixed = sleepstudy_reml.estimates["beta"][1], np.sqrt(sleepstudy_reml.vcov[1, 1])
    np.testing.assert_allclose(row[["estimate", "std_error"]].astype(float), fixed, rtol=1e-6)
    totals = sleepstudy_reml.describe("total_Subject", 0.95)
    own = average_slopes(sleepstudy_reml, "Days", by="Subject")
    np.testing.assert_allclose(own["estimate"], totals.estimate[:, 1], rtol=1e-6)
    np.testing.assert_allclose(own["std_error"], totals.std_error[:, 1], rtol=1e-6)


def test_new_groups_share_their_effects_in_a_comparison(sleepstudy_reml):
    row = compare_predictions(sleepstudy_reml, {"Days": (0, 9)}, groups="new").iloc[0]
    D = effect_covariance(sleepstudy_reml.estimates, "Subject")
    # 18 new subjects: the average of their slopes varies by D / 18.
    variance = 81 * (sleepstudy_reml.vcov[1, 1] + D[1, 1] / 18)
    assert row["std_error"] == pytest.approx(np.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize(
    ("formula", "data", "family"),
    [
        ("strength ~ 1 + (1 | batch/cask)", "pastes", "gaussian"),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin", "gaussian"),
        ("y ~ x + (1 | g) + (1 | h)", None, "poisson"),
    ],
)
def test_effects_of_several_factors_vary_together(formula, data, family):
    """The joint covariance is that of Henderson's equations, and its blocks those of the fit."""
    if data is None:
        rng = np.random.default_rng(4)
        frame = pd.DataFrame({"x": rng.normal(size=80), "g": np.repeat(list("abcdefgh"), 10)})
        frame["h"] = np.tile(list("pqrst"), 16)
        mu = np.exp(0.5 + 0.3 * frame["x"] + 0.5 * rng.normal(size=8).repeat(10))
        frame["y"] = rng.poisson(mu)
    else:
        frame = hmlm.load_dataset(data)
    method = hmlm.REML() if family == "gaussian" else hmlm.Laplace()
    fit = hmlm.Model(formula, frame, family=family).fit(method)
    design = fit.design
    Z = np.hstack([np.eye(len(b.levels))[b.index] for b in design.blocks])
    sds = [float(fit.estimates[f"sd_{b.group}"][0]) for b in design.blocks]
    precision = np.repeat([s**-2.0 for s in sds], [len(b.levels) for b in design.blocks])
    w = float(fit.estimates["sigma"]) ** -2.0 if family == "gaussian" else fit.fitted
    w = np.broadcast_to(w, len(design.y))
    C = np.linalg.inv(Z.T @ (w[:, None] * Z) + np.diag(precision))
    gain = C @ Z.T @ (w[:, None] * design.X)
    lead = design.X - Z @ gain
    expected = np.einsum("nq,qr,nr->n", Z, C, Z) + np.einsum("np,pr,nr->n", lead, fit.vcov, lead)
    rows = new_rows(design, None, "include")
    linear = linear_rows(fit, rows)
    np.testing.assert_allclose(joint_errors(fit, rows).variance(linear.X, linear.Z), expected, 1e-4)
    table = fit.predict(kind="linear")
    np.testing.assert_allclose(table["std_error"] ** 2, expected, rtol=1e-4)


# --- both kinds of fit


def test_posterior_and_likelihood_agree(bayes, classical):
    for table in (
        lambda f: average_predictions(f, "site"),
        lambda f: compare_predictions(f, groups="average"),
        lambda f: average_slopes(f, "x", groups="population"),
    ):
        first, second = table(bayes), table(classical)
        assert list(first.columns) == list(second.columns)
        away = (first["estimate"] - second["estimate"]) / second["std_error"]
        assert np.abs(away).max() < 0.6
        assert (first["std_error"] / second["std_error"]).between(0.7, 1.6).all()


def test_contrasts_that_can_be_asked_for(fit):
    def labels(variables):
        return compare_predictions(fit, variables, groups="population")["contrast"].tolist()

    assert labels(None) == ["lo - hi", "mid - hi", "(x + 1) - x", "south - north"]
    assert labels({"f": "pairwise"}) == ["lo - hi", "mid - hi", "mid - lo"]
    assert labels({"f": "sequential"}) == ["lo - hi", "mid - lo"]
    assert labels({"x": -0.5}) == ["(x - 0.5) - x"]
    assert labels({"x": "sd"}) == ["(x + sd/2) - (x - sd/2)"]
    assert labels({"x": (0, 1, 2)}) == ["1 - 0", "2 - 0"]
    x = fit.design.data.frame["x"]
    minmax, iqr = (
        compare_predictions(fit, {"x": how}, groups="population")["estimate"][0]
        for how in ("minmax", "iqr")
    )
    ends = compare_predictions(fit, {"x": (x.min(), x.max())}, groups="population")
    assert minmax == pytest.approx(ends["estimate"][0])
    quartiles = tuple(x.quantile([0.25, 0.75]))
    middle = compare_predictions(fit, {"x": quartiles}, groups="population")
    assert iqr == pytest.approx(middle["estimate"][0])


def test_groups_may_be_compared(fit):
    table = compare_predictions(fit, {"g": ("g000", "g003")}, kind="linear")
    frame = fit.design.data.frame
    a, b = (
        average_predictions(fit, new_data=frame.assign(g=g), kind="linear")
        for g in ("g000", "g003")
    )
    np.testing.assert_allclose(table["estimate"], b["estimate"] - a["estimate"], rtol=1e-8)


def test_zero_and_one_are_compared_where_there_is_nothing_else(radon_reml):
    table = compare_predictions(radon_reml, "floor", groups="population")
    assert table["contrast"].tolist() == ["1 - 0"]


def test_splines_are_compared_inside_the_data(table):
    fit = hmlm.Model("y ~ bs(x, df=4) + (1 | g)", table).fit(hmlm.REML())
    slopes = average_slopes(fit, "x")
    assert slopes["estimate"].notna().all()


def test_categories_have_a_row_each():
    frame, _ = simulate(2, groups=10, size=8)
    frame["y"] = np.digitize(frame["y"], [1.5, 2.5])
    fit = hmlm.Model("y ~ x + (1 | g)", frame, family="ordinal").fit(
        SHORT, random_seed=1, progressbar=False
    )
    for groups in ("include", "average", "new"):
        whole = average_predictions(fit, groups=groups, random_seed=1)
        assert whole["category"].tolist() == list(fit.design.categories)
        assert whole["estimate"].sum() == pytest.approx(1.0)
    slopes = average_slopes(fit, "x", by="g")
    assert len(slopes) == 30
    assert slopes.groupby("g")["estimate"].sum().abs().max() < 1e-8


def test_tables_of_any_kind_may_be_averaged_over(fit):
    new = pd.DataFrame({"x": [0.0, 1.0, 0.5], "f": ["hi", "lo", "hi"], "site": ["north"] * 3})
    new["who"] = ["a", "b", "a"]
    table = average_predictions(fit, "who", new, groups="population")
    np.testing.assert_allclose(
        table["estimate"][0],
        fit.predict(new.iloc[[0, 2]], groups="population")["estimate"].mean(),
        rtol=1e-9,
    )
    polars = average_predictions(fit, "who", pl.DataFrame(new), groups="population")
    pd.testing.assert_frame_equal(polars, table)
    dictionary = average_predictions(fit, "who", new.to_dict("list"), groups="population")
    pd.testing.assert_frame_equal(dictionary, table)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: average_predictions(f, "nobody"), "no column 'nobody' to average by"),
        (lambda f: average_predictions(f, kind="response"), "averages are of expected outcomes"),
        (lambda f: average_predictions(f, "prob"), "a column 'prob' of their own"),
        (lambda f: average_predictions(f, groups="all"), "groups is 'include'"),
        (lambda f: compare_predictions(f, "z"), "'z' is no predictor of the model"),
        (lambda f: compare_predictions(f, {"f": ("hi", "no")}), "'no' is no level of 'f'"),
        (lambda f: compare_predictions(f, {"f": "all"}), "'reference', 'pairwise' or 'seq"),
        (lambda f: compare_predictions(f, {"x": "all"}), "'x' is a number: compare it by"),
        (lambda f: compare_predictions(f, {"x": 0}), "cannot be raised by 0"),
        (lambda f: compare_predictions(f, {"x": (1,)}), "two or more finite values"),
        (lambda f: compare_predictions(f, "x", comparison="odds"), "not 'odds'"),
        (
            lambda f: compare_predictions(f, "x", comparison="ratio", kind="linear"),
            "compared by their difference",
        ),
        (lambda f: compare_predictions(f, "g", groups="new"), "'g' is a grouping factor whose"),
        (lambda f: average_slopes(f, "f"), "'f' is a factor, along which"),
        (lambda f: average_slopes(f, "x", new_data={"f": ["hi"]}), "no column 'x' in the new data"),
        (lambda f: grid_of(f, y=1), "'y' is no predictor"),
        (lambda f: grid_of(f, f="no"), "'no' is no level of 'f'"),
        (lambda f: grid_of(f, x=[]), "'x' has no values"),
        (lambda f: grid_of(f, x=range(2000), g=range(2000)), "4,000,000 rows is too large"),
    ],
)
def test_what_cannot_be_asked_for(call, message, classical):
    with pytest.raises(HmlmError, match=message):
        call(classical)


def test_odds_and_missing_values(sleepstudy_reml):
    with pytest.raises(HmlmError, match="gaussian model is no probability"):
        compare_predictions(sleepstudy_reml, "Days", comparison="log odds ratio")
    new = {"Days": [1.0, 2.0], "Subject": ["308", "309"], "k": ["a", None]}
    with pytest.raises(DataError, match="'k' to average by is missing in 1 row"):
        average_predictions(sleepstudy_reml, "k", new)


# --- grids


def test_grids_hold_other_predictors(classical):
    frame = classical.design.data.frame
    grid = grid_of(classical, x=[0, 1], f=["hi", "lo"])
    assert list(grid.columns) == ["x", "f", "site"]
    assert grid["x"].tolist() == [0, 0, 1, 1]
    assert grid["f"].tolist() == ["hi", "lo"] * 2
    assert set(grid["site"]) == {frame["site"].mode()[0]}
    assert grid_of(classical)["x"][0] == pytest.approx(frame["x"].mean())
    assert grid_of(classical, g="g003")["g"].tolist() == ["g003"]
    assert len(classical.predict(grid, groups="average")) == 4


def test_grids_of_typed_columns():
    frame, _ = simulate(2, groups=8, size=6)
    rng = np.random.default_rng(1)
    frame["k"] = pd.Categorical(rng.choice(["u", "v"], 48), ["v", "u"])
    frame["b"] = rng.random(48) > 0.3
    frame["m"] = rng.integers(1, 4, 48)
    frame["a b"] = rng.normal(size=48)
    frame["w"] = 2.0
    model = hmlm.Model("y ~ k + b + C(m) + `a b` + (1 | g)", frame, weights="w")
    fit = model.fit(hmlm.REML())
    grid = grid_of(fit, **{"a b": [0.0, 1.0]})
    assert grid["k"].dtype == fit.design.data.frame["k"].dtype
    assert grid["b"].dtype == bool
    assert set(grid["m"]) == {frame["m"].mode()[0]}
    assert set(grid["w"]) == {2.0}
    difference = np.diff(fit.predict(grid, groups="population")["estimate"])
    beta = dict(zip(fit.design.terms, fit.estimates["beta"], strict=True))
    assert difference[0] == pytest.approx(beta["a b"] if "a b" in beta else beta["`a b`"])
    table = compare_predictions(fit, groups="population")
    assert table["contrast"].tolist() == ["u - v", "True - False", "2 - 1", "3 - 1", "(x + 1) - x"]


def test_a_model_without_predictors_has_a_grid_of_one_row(dyestuff2_reml):
    grid = grid_of(dyestuff2_reml)
    assert len(grid) == 1
    new = dyestuff2_reml.predict(grid, groups="average")
    assert new["estimate"][0] == pytest.approx(dyestuff2_reml.estimates["beta"][0])
    assert len(average_predictions(dyestuff2_reml)) == 1
    with pytest.raises(HmlmError, match="no predictor to compare"):
        compare_predictions(dyestuff2_reml)
