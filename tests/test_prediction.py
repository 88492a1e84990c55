"""Predictions of classical fits: variances, new groups, columns that keep their meaning."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from support import effect_covariance, make, outcome_covariance, simulate

from hmlm.errors import DataError, HmlmError
from hmlm.fitting.maximum_likelihood import REML
from hmlm.fitting.ols import OLS


def henderson(fit, X, Z, block):
    """Mean and error variance of X beta + Z b, from the dense covariance of everything.

    Z is M x (J q), by level and effect. Var(Xb - Xbeta^ - Z(b^ - b)) with b^ the BLUP.
    """
    design = fit.design
    V = outcome_covariance(design, fit.estimates)
    inverse = np.linalg.inv(V)
    D = effect_covariance(fit.estimates, block.group)
    J, q = len(block.levels), len(block.columns)
    big_D = np.kron(np.eye(J), D)
    big_Z = np.zeros((len(design.y), J, q))
    big_Z[np.arange(len(design.y)), block.index] = block.Z
    big_Z = big_Z.reshape(len(design.y), J * q)
    vcov = np.linalg.inv(design.X.T @ inverse @ design.X)
    G = vcov @ design.X.T @ inverse  # beta^ = G y
    B = big_D @ big_Z.T @ inverse @ (np.eye(len(design.y)) - design.X @ G)  # b^ = B y
    weights = X @ G + Z @ B
    mean = weights @ design.response
    variance = weights @ V @ weights.T - 2 * weights @ big_Z @ big_D @ Z.T + Z @ big_D @ Z.T
    return mean, np.diagonal(variance)


def place(Z, index, levels):
    big = np.zeros((len(Z), levels, Z.shape[1]))
    big[np.arange(len(Z)), index] = Z
    return big.reshape(len(Z), -1)


def test_known_groups_have_hendersons_variance(sleepstudy_reml):
    block = sleepstudy_reml.design.blocks[0]
    table = sleepstudy_reml.predict()
    mean, variance = henderson(
        sleepstudy_reml, sleepstudy_reml.design.X, place(block.Z, block.index, 18), block
    )
    np.testing.assert_allclose(table["estimate"], mean, rtol=1e-9)
    np.testing.assert_allclose(table["std_error"], np.sqrt(variance), rtol=1e-7)
    np.testing.assert_allclose(table["estimate"], sleepstudy_reml.fitted, rtol=1e-12)


def test_totals_have_hendersons_variance(sleepstudy_reml):
    block = sleepstudy_reml.design.blocks[0]
    numbers = sleepstudy_reml.describe("total_Subject", 0.95)
    eye = np.tile(np.eye(2), (18, 1))
    mean, variance = henderson(
        sleepstudy_reml, eye, place(eye, np.repeat(np.arange(18), 2), 18), block
    )
    np.testing.assert_allclose(numbers.estimate.ravel(), mean, rtol=1e-9)
    np.testing.assert_allclose(numbers.std_error.ravel(), np.sqrt(variance), rtol=1e-7)


def test_population_new_groups_and_new_observations_add_their_variance(sleepstudy_reml):
    new = pd.DataFrame({"Days": [0.0, 4.5, 12.0], "Subject": ["308", "x", "y"]})
    x = np.column_stack([np.ones(3), new["Days"]])
    population = sleepstudy_reml.predict(new, groups="population")
    fixed = np.einsum("np,pr,nr->n", x, sleepstudy_reml.vcov, x)
    np.testing.assert_allclose(population["estimate"], x @ sleepstudy_reml.estimates["beta"])
    np.testing.assert_allclose(population["std_error"] ** 2, fixed)
    D = effect_covariance(sleepstudy_reml.estimates, "Subject")
    group = sleepstudy_reml.predict(new, groups="new")
    between = np.einsum("np,pr,nr->n", x, D, x)
    np.testing.assert_allclose(group["std_error"] ** 2, fixed + between)
    response = sleepstudy_reml.predict(new, groups="new", kind="response", prob=0.8)
    sigma2 = float(sleepstudy_reml.estimates["sigma"]) ** 2
    np.testing.assert_allclose(response["std_error"] ** 2, fixed + between + sigma2)
    half = stats.norm.ppf(0.9) * response["std_error"]
    np.testing.assert_allclose(response["upper"] - response["estimate"], half)
    np.testing.assert_allclose(response["estimate"] - response["lower"], half)
    assert list(response.columns) == ["estimate", "std_error", "lower", "upper"]


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + z + (1 | g)"])
def test_no_pooling_predicts_as_one_regression_with_indicators(formula):
    frame, _ = simulate(2, groups=6, size=7)
    frame["z"] = np.sin(np.arange(len(frame)))
    fit = OLS().run(make(formula, frame, "none"))
    g = pd.factorize(frame["g"])[0]
    own = (g[:, None] == np.arange(6)).astype(float)
    slopes = own * frame[["x"]].to_numpy() if "(x" in formula else frame[["x"]].to_numpy()
    X = np.column_stack([own, slopes, *([frame["z"]] if "z" in formula else [])])
    beta, *_ = np.linalg.lstsq(X, frame["y"].to_numpy())
    sigma2 = float(fit.estimates["sigma"]) ** 2
    variance = np.einsum("np,pr,nr->n", X, sigma2 * np.linalg.inv(X.T @ X), X)
    table = fit.predict()
    np.testing.assert_allclose(table["estimate"], X @ beta, rtol=1e-9)
    np.testing.assert_allclose(table["std_error"], np.sqrt(variance), rtol=1e-9)


def test_no_pooling_of_two_factors_has_no_honest_error(table):
    fit = OLS().run(make("y ~ x + (1 | g) + (1 | h)", table, "none"))
    predicted = fit.predict()
    np.testing.assert_allclose(predicted["estimate"], fit.fitted)
    assert predicted[["std_error", "lower", "upper"]].isna().all(axis=None)


def test_complete_pooling_has_the_textbook_band(sleepstudy_pooled):
    new = pd.DataFrame({"Days": [3.0, 20.0]})
    table = sleepstudy_pooled.predict(new)
    days = sleepstudy_pooled.design.X[:, 1]
    sigma = float(sleepstudy_pooled.estimates["sigma"])
    leverage = 1 / 180 + (new["Days"] - days.mean()) ** 2 / ((days - days.mean()) ** 2).sum()
    np.testing.assert_allclose(table["std_error"], sigma * np.sqrt(leverage), rtol=1e-10)


def test_group_without_an_estimate_is_predicted_as_blank():
    frame, _ = simulate(2, groups=6, size=4)
    frame = frame[(frame["g"] != "g002") | (frame.groupby("g").cumcount() == 0)]
    fit = OLS().run(make("y ~ x + (x | g)", frame, "none"))
    table = fit.predict()
    alone = (frame["g"] == "g002").to_numpy()
    assert table[alone].isna().all(axis=None)
    assert table[~alone].notna().all(axis=None)


def test_no_pooling_has_no_population_of_groups(sleepstudy_alone):
    new = pd.DataFrame({"Days": [1.0], "Subject": ["308"]})
    assert sleepstudy_alone.predict(new)["estimate"].notna().all()
    for groups in ("new", "population"):
        with pytest.raises(HmlmError, match="no population to draw new groups from"):
            sleepstudy_alone.predict(new, groups=groups)


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ scale(x) + (1 | g)",
        "y ~ center(x) + (center(x) | g)",
        "y ~ poly(x, 3) + (1 | g)",
        "y ~ bs(x, df=5) + (1 | g)",
        "y ~ f*x + (1 | g)",
        "y ~ f:k + (1 | g)",
        "y ~ k/x + (1 | g)",
        "y ~ k:(x + f) + (1 | g)",
        "y ~ C(k, Treatment('v')) + (1 | g)",
        "y ~ C(f, Sum) + (1 | g)",
        "y ~ log(z) + I((x + z)*2) + (0 + f | g)",
        "y ~ scale(log(z)) + scale(x) + offset(z) + (1 | g)",
        "y ~ b*x + (b || g)",
        "y ~ `my col` + (1 | g/h) + (0 + `my col` | g)",
        "y ~ x + (1 | g) + (1 | h)",
        "y ~ 0 + (1 | g)",
        "log(z) ~ x + (1 | g)",
    ],
)
def test_columns_keep_the_meaning_of_the_fit(formula, table):
    fit = REML().run(make(formula, table))
    everything = fit.predict()
    some = table.iloc[[41, 3, 17, 3]]
    pd.testing.assert_frame_equal(
        fit.predict(some), everything.iloc[[41, 3, 17, 3]].reset_index(drop=True), rtol=1e-9
    )
    one = fit.predict(some.iloc[[0]].drop(columns="y"))
    np.testing.assert_allclose(one, everything.iloc[[41]], rtol=1e-9)
    shuffled = table.assign(f=pd.Categorical(table["f"].astype(str)))
    np.testing.assert_allclose(fit.predict(shuffled.iloc[:5]), everything.iloc[:5], rtol=1e-9)


def test_polars_and_dicts_predict_as_pandas(table):
    fit = REML().run(make("y ~ f + x + (1 | g)", table))
    new = {"x": [1.0, 2.0], "f": ["hi", "lo"], "g": ["a", "b"]}
    expected = fit.predict(pd.DataFrame(new))
    for data in (new, pl.DataFrame(new)):
        pd.testing.assert_frame_equal(fit.predict(data), expected)


def test_levels_match_by_value_and_by_label(sleepstudy, sleepstudy_reml):
    # the labels of the data set are text; a table read anew may hold them as numbers
    as_numbers = pd.DataFrame({"Days": [1.0, 1.0], "Subject": [308, 372]})
    as_text = pd.DataFrame({"Days": [1.0, 1.0], "Subject": ["308", "372"]})
    pd.testing.assert_frame_equal(
        sleepstudy_reml.predict(as_numbers), sleepstudy_reml.predict(as_text)
    )


def test_categories_that_no_row_has_are_no_new_groups(table):
    table["g"] = pd.Categorical(table["g"])
    fit = REML().run(make("y ~ x + (1 | g)", table[table["g"] != "c"]))
    some = table[table["g"].isin(["a", "e"])]
    np.testing.assert_allclose(
        fit.predict(some)["estimate"], fit.fitted[fit.design.data.frame["g"].isin(["a", "e"])]
    )
    with pytest.raises(DataError, match=r"1 level of 'g' in 10 rows .* of the fit: c"):
        fit.predict(table)


def test_dropped_columns_are_dropped_again(table):
    doubled = table.assign(x2=2 * table["x"])
    fit = REML().run(make("y ~ x + x2 + z + (1 | g)", doubled, collinear="drop"))
    assert fit.design.aliased == ("x2",)
    np.testing.assert_allclose(fit.predict(doubled)["estimate"], fit.fitted)


def test_new_rows_may_leave_the_group_out_where_it_is_not_used(table):
    fit = REML().run(make("y ~ x + (x | g) + (1 | g:h)", table))
    without = pd.DataFrame({"x": [1.0, 2.0]})
    population = fit.predict(without, groups="population")
    np.testing.assert_allclose(
        population["estimate"],
        fit.estimates["beta"][0] + fit.estimates["beta"][1] * without["x"],
    )
    assert (fit.predict(without, groups="new")["std_error"] > population["std_error"]).all()
    with pytest.raises(DataError, match="no column 'g' in the data"):
        fit.predict(without)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g": "zzz"}, r"1 level of 'g' in 2 rows were not in the data of the fit: zzz\. Pass"),
        ({"f": "huge"}, "factor 'f' has levels in the new data .*: huge"),
        ({"k": "w"}, r"(?s)cannot make .* from the new rows.*w"),
        ({"x": np.nan}, "column 'x' is missing in 2 rows of the new data"),
        ({"x": "a lot"}, "column 'x' .*numbers"),
        ({"z": -1.0}, r"'log\(z\)' is not finite in 2 rows"),
        ({"x": np.inf}, "'x' is not finite in 2 rows|column 'x' is infinite"),
    ],
)
def test_new_rows_that_cannot_be_predicted(change, message, table):
    fit = REML().run(make("y ~ f + k + x + log(z) + (1 | g)", table))
    with pytest.raises(DataError, match=message):
        fit.predict(table.iloc[:2].assign(**change))


def test_new_rows_without_a_column(table):
    fit = REML().run(make("y ~ x + z + (1 | g)", table))
    with pytest.raises(DataError, match="no column 'z' in the data"):
        fit.predict(table[["x", "g"]])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"kind": "median"}, "kind is 'mean', 'linear' or 'response'"),
        ({"groups": "all"}, "groups is 'include', 'population', 'new' or 'average'"),
        ({"prob": 95}, "prob must lie between 0 and 1"),
    ],
)
def test_unknown_requests_are_refused(request_, message, sleepstudy_reml):
    with pytest.raises(HmlmError, match=message):
        sleepstudy_reml.predict(**request_)
