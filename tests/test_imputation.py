"""Missing values: completed data sets combined by Rubin's rules, and missing outcomes predicted."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from support import simulate

import hmlm
from hmlm.data import make_grouped_data
from hmlm.design import make_design
from hmlm.errors import DataError, HmlmError
from hmlm.formula import parse_formula
from hmlm.imputation import impute_fit
from hmlm.missing_outcomes import predict_missing
from hmlm.pooled_fit import combine_estimates
from hmlm.spec import with_pooling
from hmlm.table_columns import read_data

FAST = hmlm.NUTS(draws=300, chains=2)
SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep_sets(sleepstudy):
    """Six completed data sets: 18 of the 180 outcomes are lost and filled in with noise."""
    rng = np.random.default_rng(5)
    lost = rng.permutation(len(sleepstudy))[:18]
    sets = []
    for _ in range(6):
        own = sleepstudy.copy()
        own.loc[lost, "Reaction"] += rng.normal(0, 40, len(lost))
        sets.append(own)
    return sets


@pytest.fixture(scope="module")
def pooled(sleep_sets):
    return impute_fit(SLEEP, sleep_sets, method=hmlm.REML())


@pytest.fixture(scope="module")
def pooled_draws(sleep_sets):
    return impute_fit(SLEEP, sleep_sets[:3], method=FAST, random_seed=2)


@pytest.fixture(scope="module")
def holed(sleepstudy):
    """The sleep study without ten outcomes, one of them of a subject seen nowhere else."""
    frame = sleepstudy.assign(Subject=sleepstudy["Subject"].astype(str), Days2=1.0)
    frame.loc[[3, 17, 44, 45, 90, 121, 150, 177, 179], "Reaction"] = np.nan
    frame.loc[60, ["Reaction", "Subject"]] = [np.nan, "new"]
    frame.loc[100, "Days"] = np.nan
    frame.loc[101, ["Days", "Reaction"]] = np.nan
    return frame


def kept_aside(formula, frame, family="gaussian", pooling="partial"):
    """Make the design of a model that keeps rows aside, as missing="impute" does."""
    spec = with_pooling(parse_formula(formula, family), pooling)
    return make_design(spec, read_data(spec, frame, "impute"))


def test_rubins_rules_by_hand(pooled):
    estimates = np.array([fit.estimates["beta"] for fit in pooled.fits])
    variances = np.array([np.diag(fit.vcov) for fit in pooled.fits])
    table = pooled.tidy(groups=False)
    table = table[table["component"] == "population"].reset_index()
    for k in range(2):
        Q, U, m = estimates[:, k], variances[:, k].mean(), 6
        B = Q.var(ddof=1)
        T = U + (1 + 1 / m) * B
        nu = np.mean([fit.df[k] for fit in pooled.fits])
        share = (1 + 1 / m) * B / T
        old = (m - 1) / share**2
        observed = (nu + 1) / (nu + 3) * nu * (1 - share)
        df = old * observed / (old + observed)
        r = (1 + 1 / m) * B / U
        row = table.iloc[k]
        assert row["estimate"] == pytest.approx(Q.mean())
        assert row["std_error"] == pytest.approx(np.sqrt(T))
        assert row["df"] == pytest.approx(df)
        assert row["riv"] == pytest.approx(r)
        assert row["fmi"] == pytest.approx((r + 2 / (df + 3)) / (r + 1))
        half = stats.t.ppf(0.975, df) * np.sqrt(T)
        assert row[["lower", "upper"]].tolist() == pytest.approx([Q.mean() - half, Q.mean() + half])
        p_value = 2 * stats.t.sf(abs(Q.mean()) / np.sqrt(T), df)
        assert row["p_value"] == pytest.approx(p_value)


def test_sds_are_averages_without_standard_errors(pooled):
    table = pooled.tidy(groups=False)
    sds = table[table["component"] == "sd"]
    expected = np.mean([fit.estimates["sd_Subject"] for fit in pooled.fits], axis=0)
    assert sds["estimate"].to_numpy() == pytest.approx(expected)
    assert sds[["std_error", "fmi", "riv"]].isna().all(axis=None)


def test_groups_are_combined_too(pooled):
    table = pooled.tidy()
    rows = table[(table["component"] == "total") & (table["level"] == "309")]
    said = [fit.describe("total_Subject", 0.95) for fit in pooled.fits]
    found = combine_estimates([n.estimate[1] for n in said], [n.std_error[1] for n in said])
    assert rows["estimate"].to_numpy() == pytest.approx(found["estimate"])
    assert rows["std_error"].to_numpy() == pytest.approx(found["std_error"])
    assert rows["riv"].to_numpy() == pytest.approx(found["riv"])
    assert (rows["fmi"] > 0).all()


def test_nothing_missing_is_the_fit_itself(sleepstudy, sleepstudy_reml):
    fit = impute_fit(SLEEP, [sleepstudy] * 3, method=hmlm.REML())
    table, own = fit.tidy(), sleepstudy_reml.tidy()
    for column in ("estimate", "std_error"):
        pd.testing.assert_series_equal(table[column], own[column], rtol=1e-6)
    assert (table["riv"].dropna() < 1e-20).all()


def test_degrees_of_freedom_at_the_ends():
    none = combine_estimates([1.0, 1.0], [0.5, 0.5])
    assert none["df"] == np.inf
    assert (none["riv"], none["fmi"]) == (0.0, 0.0)
    # Many degrees of freedom of complete data: Rubin's own (m - 1) (1 + 1 / r)^2.
    found = combine_estimates([1.0, 2.0, 3.0, 5.0], [1.0] * 4)
    r = 1.25 * np.var([1, 2, 3, 5], ddof=1)
    assert found["df"] == pytest.approx(3 * (1 + 1 / r) ** 2)
    blank = combine_estimates([1.0, 2.0], [np.nan, 1.0])
    assert np.isnan([blank[k] for k in ("std_error", "df", "riv", "fmi")]).all()


def test_draws_are_put_together(pooled_draws):
    combined = pooled_draws.combined
    assert combined.variable("beta").shape == (6, 300, 2)
    assert combined.variable("b_Subject").shape == (6, 300, 18, 2)
    assert np.array_equal(
        pooled_draws.variable("sigma")[2:4], pooled_draws.fits[1].variable("sigma")
    )
    table = pooled_draws.tidy(groups=False)
    means = [fit.describe("beta", 0.95).estimate for fit in pooled_draws.fits]
    assert table["estimate"].iloc[:2].to_numpy() == pytest.approx(np.mean(means, axis=0))
    assert (table["fmi"].iloc[:2] > 0).all()
    # Convergence is that of the single fits.
    r_hat = [fit.describe("beta", 0.95).r_hat for fit in pooled_draws.fits]
    assert table["r_hat"].iloc[:2].to_numpy() == pytest.approx(np.max(r_hat, axis=0))
    assert combined.draws["posterior"].sizes["chain"] == 6


def test_each_data_set_has_its_own_seed(sleepstudy):
    fit = impute_fit(SLEEP, [sleepstudy] * 2, method=FAST, random_seed=2)
    first, second = (f.variable("sigma") for f in fit.fits)
    assert not np.array_equal(first, second)
    again = impute_fit(SLEEP, [sleepstudy] * 2, method=FAST, random_seed=2)
    assert np.array_equal(fit.variable("sigma"), again.variable("sigma"))


def test_missing_predictor_is_recovered():
    """Values lost at random and imputed from their distribution given the rest give beta back."""
    rng = np.random.default_rng(11)
    frame, _ = simulate(2, groups=60, size=8, sd=(0.8, 0.01))
    frame["w"] = 0.5 * frame["x"] + rng.normal(size=len(frame))
    frame["y"] += 1.0 * frame["w"]
    lost = rng.random(len(frame)) < 0.3
    X = np.column_stack([np.ones(len(frame)), frame[["x", "y"]]])
    X = np.column_stack([X, X[:, 1] * 0 + frame.groupby("g")["y"].transform("mean")])
    coef, rss, *_ = np.linalg.lstsq(X[~lost], frame["w"][~lost], rcond=None)
    sd = float(np.sqrt(rss[0] / (~lost).sum()))
    sets = [
        frame.assign(w=np.where(lost, X @ coef + rng.normal(0, sd, len(frame)), frame["w"]))
        for _ in range(8)
    ]
    fit = impute_fit("y ~ x + w + (1 | g)", sets, method=hmlm.REML())
    row = fit.tidy(groups=False).set_index("term").loc["w"]
    assert row["lower"] < 1.0 < row["upper"]
    whole = hmlm.Model("y ~ x + w + (1 | g)", frame).fit(hmlm.REML())
    assert row["std_error"] > np.sqrt(whole.vcov[2, 2])
    assert 0.05 < row["fmi"] < 0.7


def test_ratios_and_other_families():
    cbpp = hmlm.load_dataset("cbpp")
    sets = [cbpp, cbpp.assign(incidence=cbpp["incidence"].where(cbpp.index != 5, 1))]
    formula = "p(incidence, size) ~ period + (1 | herd)"
    fit = impute_fit(formula, sets, "binomial", method=hmlm.Laplace())
    link = fit.tidy(groups=False).set_index("term")
    ratio = fit.tidy(groups=False, scale="ratio").set_index("term")
    assert ratio["estimate"]["period[2]"] == pytest.approx(np.exp(link["estimate"]["period[2]"]))
    assert ratio["fmi"]["period[2]"] == pytest.approx(link["fmi"]["period[2]"])


def test_predictions_are_combined(pooled, pooled_draws, sleepstudy):
    rows = sleepstudy.head(4)
    table = pooled.predict(rows)
    own = [fit.predict(rows) for fit in pooled.fits]
    found = combine_estimates([t["estimate"] for t in own], [t["std_error"] for t in own])
    assert table["std_error"].to_numpy() == pytest.approx(found["std_error"])
    assert pooled_draws.predict(rows)["estimate"].to_numpy() == pytest.approx(
        table["estimate"].to_numpy(), abs=12
    )
    with pytest.raises(HmlmError, match="pass new_data"):
        pooled.predict(None)


def test_status_says_which_data_set(sleep_sets):
    singular = sleep_sets[0].assign(Reaction=np.random.default_rng(1).normal(size=180))
    fit = impute_fit("Reaction ~ 1 + (1 | Subject)", [sleep_sets[1], singular], method=hmlm.REML())
    assert any(text.startswith("Data set 2: ") for text in fit.status.problems + fit.status.notes)
    assert "2 data sets" in fit.label


def test_data_sets_must_match(sleepstudy, pooled):
    method = hmlm.REML()
    with pytest.raises(DataError, match="list of completed"):
        impute_fit(SLEEP, sleepstudy, method=method)
    with pytest.raises(DataError, match="1 data set cannot"):
        impute_fit(SLEEP, [sleepstudy], method=method)
    holes = sleepstudy.copy()
    holes.loc[[1, 2], "Reaction"] = np.nan
    with pytest.raises(DataError, match=r"data set 2 of 2 .* 2 rows, in Reaction \(2\)"):
        impute_fit(SLEEP, [sleepstudy, holes], method=method)
    with pytest.raises(DataError, match="170 rows rather than 180"):
        impute_fit(SLEEP, [sleepstudy, sleepstudy.iloc[10:]], method=method)
    other = sleepstudy.assign(Subject=sleepstudy["Subject"].astype(str).replace("308", "999"))
    with pytest.raises(DataError, match="other levels of 'Subject'"):
        impute_fit(SLEEP, [sleepstudy.assign(Subject=sleepstudy["Subject"].astype(str)), other])
    with pytest.raises(HmlmError, match="have no draws"):
        _ = pooled.combined


def test_rows_that_lack_their_outcome_alone_are_kept_aside(holed):
    design = kept_aside(SLEEP, holed)
    data = design.data
    assert data.held.index.tolist() == [3, 17, 44, 45, 60, 90, 121, 150, 177, 179]
    assert (data.n_rows, data.n_held, data.n_dropped, len(design.y)) == (180, 10, 2, 168)
    assert dict(data.missing) == {"Reaction": 1, "Days": 2}
    assert design.notes[0] == (
        "2 of 180 rows left out because of missing values in Reaction (1), Days (2). 10 of 180 "
        "rows kept aside to be predicted because their outcome alone is missing."
    )
    dropped = read_data(design.spec, holed)
    assert dropped.held is None
    assert dropped.n_dropped == 12
    with pytest.raises(HmlmError, match="'drop' or 'impute'"):
        read_data(design.spec, holed, "fill")


def test_complete_tables_keep_nothing_aside(sleepstudy):
    data = make_grouped_data(sleepstudy, ["Reaction"], ["Subject"], hold=["Reaction"])
    assert data.held is None
    assert data.missing_note == ""


def test_missing_outcomes_are_predicted_from_both_doors(holed):
    design = kept_aside(SLEEP, holed)
    fit = hmlm.REML().run(design)
    table = predict_missing(fit)
    assert table["row"].tolist() == design.data.held.index.tolist()
    assert table["Subject"].tolist() == holed["Subject"][table["row"]].tolist()
    assert table["new_group"].tolist() == [False] * 4 + [True] + [False] * 5
    pd.testing.assert_frame_equal(predict_missing(fit, holed), table)
    pd.testing.assert_frame_equal(predict_missing(fit, pl.from_pandas(holed)), table)
    known = table[~table["new_group"]]
    own = fit.predict(design.data.held.drop(index=60), kind="response")
    for column in ("estimate", "std_error", "lower", "upper"):
        assert known[column].to_numpy() == pytest.approx(own[column].to_numpy())
    fresh = fit.predict(design.data.held.loc[[60]], kind="response", groups="new")
    row = table[table["new_group"]].iloc[0]
    assert row[list(fresh)].tolist() == pytest.approx(fresh.iloc[0].tolist())


def test_draws_predict_new_groups_beside_known_ones(holed):
    design = kept_aside(SLEEP, holed)
    fit = FAST.run(design, random_seed=1, progressbar=False)
    table = predict_missing(fit, random_seed=4)
    classical = predict_missing(hmlm.REML().run(design))
    assert table["estimate"].to_numpy() == pytest.approx(classical["estimate"].to_numpy(), abs=12)
    ratio = table["std_error"] / classical["std_error"]
    assert ratio.between(0.85, 1.4).all()
    mean = predict_missing(fit, kind="mean", random_seed=4)
    assert (mean["std_error"] < table["std_error"]).all()
    again = predict_missing(fit, random_seed=4)
    pd.testing.assert_frame_equal(table, again)


def test_intervals_hold_the_lost_outcomes():
    frame, _ = simulate(9, groups=50, size=8)
    rng = np.random.default_rng(3)
    whole = frame["y"].to_numpy()
    lost = rng.random(len(frame)) < 0.25
    lost |= frame["g"].isin(["g007", "g031"]).to_numpy()
    frame["y"] = frame["y"].where(~lost)
    design = kept_aside("y ~ x + (x | g)", frame)
    table = predict_missing(FAST.run(design, random_seed=1, progressbar=False), random_seed=1)
    assert len(table) == lost.sum()
    inside = (table["lower"] < whole[table["row"]]) & (whole[table["row"]] < table["upper"])
    assert 0.88 < inside.mean() <= 1.0
    new = table[table["new_group"]]
    assert new["std_error"].mean() > 1.2 * table.loc[~table["new_group"], "std_error"].mean()


def test_new_level_of_one_factor_beside_a_known_one():
    pastes = hmlm.load_dataset("pastes")
    alone = (pastes["batch"].astype(str) == "A") & (pastes["cask"].astype(str) == "a")
    frame = pastes.assign(strength=pastes["strength"].where(~alone))
    formula = "strength ~ 1 + (1 | batch/cask)"
    fit = hmlm.Model(formula, frame).fit(hmlm.REML())
    table = predict_missing(fit, frame)
    assert table["batch:cask"].tolist() == ["A:a"] * 2
    mode = fit.estimates["b_batch"][0, 0]
    assert table["estimate"].to_numpy() == pytest.approx([fit.estimates["beta"][0] + mode] * 2)
    draws = hmlm.Model(formula, frame).fit(FAST, random_seed=1, progressbar=False)
    ours = predict_missing(draws, frame, random_seed=1)
    assert ours["estimate"].to_numpy() == pytest.approx(table["estimate"].to_numpy(), abs=0.6)
    # The two rows of a cask share its effect.
    assert ours["std_error"].to_numpy() == pytest.approx([ours["std_error"][0]] * 2, rel=0.15)


@pytest.mark.parametrize("family", ["poisson", "ordinal", "bernoulli"])
def test_missing_outcomes_of_other_families(family):
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(20), 8)
    y = rng.poisson(np.exp(0.3 + 0.5 * rng.normal(size=20)[g])).astype(float)
    y = np.minimum(y, 1 if family == "bernoulli" else 3)
    y[[5, 77]] = np.nan
    frame = pd.DataFrame({"y": y, "g": g})
    design = kept_aside("y ~ 1 + (1 | g)", frame, family)
    table = predict_missing(FAST.run(design, random_seed=1, progressbar=False), random_seed=1)
    assert set(table["row"]) == {5, 77}
    if family == "ordinal":
        assert table["category"].tolist() == ["0", "1", "2", "3"] * 2
        assert table.groupby("row")["estimate"].sum().tolist() == pytest.approx([1.0, 1.0])
    else:
        assert len(table) == 2
        assert (table["lower"] % 1 == 0).all()


def test_outcome_that_is_computed(holed):
    design = kept_aside("log(Reaction) ~ Days + (1 | Subject)", holed)
    assert design.data.n_held == 10
    table = predict_missing(hmlm.REML().run(design))
    assert table["estimate"].between(5, 6.5).all()


def test_what_cannot_be_predicted_is_said(holed, sleepstudy, sleepstudy_reml):
    with pytest.raises(DataError, match="missing='impute'"):
        predict_missing(sleepstudy_reml)
    with pytest.raises(DataError, match="in no row"):
        predict_missing(sleepstudy_reml, sleepstudy)
    alone = hmlm.OLS().run(kept_aside(SLEEP, holed, pooling="none"))
    with pytest.raises(HmlmError, match=r"1 level of 'Subject' \(new\) occur"):
        predict_missing(alone)
    together = hmlm.OLS().run(kept_aside(SLEEP, holed, pooling="complete"))
    assert len(predict_missing(together)) == 10
