"""Any fit becomes one tidy table: columns, rows, totals and lines of groups."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support import effect_covariance, make, outcome_covariance, simulate

import hmlm
from hmlm.errors import HmlmError
from hmlm.estimates import TIDY_COLUMNS, line_lead, term_label, tidy, total_lead
from hmlm.fitting.maximum_likelihood import REML
from hmlm.fitting.ols import OLS


def rows(table, component, group=None):
    chosen = table[table["component"] == component]
    return chosen if group is None else chosen[chosen["group"] == group]


def test_columns_are_the_contract(alcohol_reml, sleepstudy_pooled, alcohol_alone):
    expected = (
        "fit component group level term estimate std_error lower upper prob interval ess_bulk "
        "r_hat df statistic p_value"
    ).split()
    assert list(TIDY_COLUMNS) == expected
    for fit in (alcohol_reml, sleepstudy_pooled, alcohol_alone):
        table = tidy(fit)
        assert list(table.columns) == expected
        assert table.index.equals(pd.RangeIndex(len(table)))
        assert not table.duplicated(["component", "group", "level", "term"]).any()


def test_rows_of_the_alcohol_study(alcohol_reml):
    table = tidy(alcohol_reml)
    counts = table["component"].value_counts().to_dict()
    assert counts == {
        "population": 4,
        "sd": 2,
        "cor": 1,
        "residual": 1,
        "group": 164,
        "total": 164,
        "line": 164,
    }
    assert rows(table, "population")["term"].tolist() == ["Intercept", "coa", "peer", "time"]
    assert rows(table, "sd")["term"].tolist() == ["Intercept", "time"]
    assert rows(table, "cor")["term"].tolist() == ["Intercept, time"]
    assert rows(table, "residual")["term"].tolist() == ["sigma"]
    group = rows(table, "group", "id")
    assert [str(level) for level in group["level"].iloc[:4]] == ["1", "1", "2", "2"]
    assert group["term"].tolist()[:4] == ["Intercept", "time", "Intercept", "time"]
    assert set(table["fit"]) == {"REML"}


def test_figures_are_those_of_the_fit(alcohol_reml):
    table = tidy(alcohol_reml, prob=0.9)
    population = rows(table, "population")
    np.testing.assert_array_equal(population["estimate"], alcohol_reml.estimates["beta"])
    np.testing.assert_array_equal(population["std_error"], alcohol_reml.std_errors["beta"])
    half = stats.t.ppf(0.95, [163, 79, 79, 163]) * population["std_error"]
    np.testing.assert_allclose(population["upper"] - population["estimate"], half, rtol=1e-10)
    assert set(table["prob"]) == {0.9}
    assert set(table["interval"]) == {"wald"}
    assert rows(table, "cor")["estimate"].item() == alcohol_reml.estimates["cor_id"][0, 1]
    np.testing.assert_array_equal(
        rows(table, "group")["estimate"], alcohol_reml.estimates["b_id"].ravel()
    )


def test_what_no_method_can_say_is_blank(alcohol_reml):
    table = tidy(alcohol_reml)
    for component in ("sd", "cor", "residual"):
        blank = rows(table, component)[["std_error", "lower", "upper", "df", "p_value"]]
        assert blank.isna().all(axis=None)
    assert table[["ess_bulk", "r_hat"]].isna().all(axis=None)
    assert rows(table, "group")[["df", "statistic", "p_value"]].isna().all(axis=None)


def test_totals_are_population_plus_group(sleepstudy_reml):
    table = tidy(sleepstudy_reml)
    total = rows(table, "total")["estimate"].to_numpy().reshape(18, 2)
    expected = sleepstudy_reml.estimates["beta"] + sleepstudy_reml.estimates["b_Subject"]
    np.testing.assert_allclose(total, expected)
    assert "line" not in set(table["component"])  # the total is the line already


def test_complete_pooling_gives_every_group_the_population(sleepstudy_pooled):
    table = tidy(sleepstudy_pooled)
    assert table["component"].unique().tolist() == ["population", "residual", "total"]
    population = rows(table, "population")
    total = rows(table, "total")
    assert len(total) == 36
    for term, group in total.groupby("term"):
        same = population[population["term"] == term].iloc[0]
        assert np.allclose(group["estimate"], same["estimate"])
        assert np.allclose(group["std_error"], same["std_error"])
    assert set(table["fit"]) == {"OLS (complete pooling)"}


def test_no_pooling_has_totals_and_no_deviations(sleepstudy_alone):
    table = tidy(sleepstudy_alone)
    assert table["component"].unique().tolist() == ["residual", "total"]
    assert len(rows(table, "total")) == 36
    assert set(table["fit"]) == {"OLS (no pooling)"}


def test_rows_of_groups_may_be_left_out(alcohol_reml):
    table = tidy(alcohol_reml, groups=False)
    assert table["component"].unique().tolist() == ["population", "sd", "cor", "residual"]


def test_line_holds_what_group_predictors_add(alcohol_reml, alcohol):
    table = tidy(alcohol_reml)
    line = rows(table, "line")["estimate"].to_numpy().reshape(82, 2)
    total = rows(table, "total")["estimate"].to_numpy().reshape(82, 2)
    people = alcohol.groupby("id", observed=True).first()
    added = people[["coa", "peer"]].to_numpy() @ alcohol_reml.estimates["beta"][1:3]
    np.testing.assert_allclose(line[:, 0], total[:, 0] + added)
    np.testing.assert_allclose(line[:, 1], total[:, 1])


def test_line_and_group_fitted_values_agree():
    frame, _ = simulate(1, groups=12, size=6)
    rng = np.random.default_rng(2)
    frame["w"] = rng.normal(size=12)[pd.factorize(frame["g"])[0]]
    fit = REML().run(make("y ~ x * w + (x | g)", frame))
    block = fit.design.blocks[0]
    line = fit.describe("line_g", 0.95).estimate
    np.testing.assert_allclose(
        np.einsum("nk,nk->n", block.Z, line[block.index]), fit.fitted, rtol=1e-10
    )
    # a cross-level interaction shifts the slope, and the main effect the intercept
    lead = line_lead(fit.design, block)
    own = frame.groupby("g")["w"].first().to_numpy()
    one, nothing = np.ones(12), np.zeros(12)
    np.testing.assert_allclose(
        lead[:, 0], np.column_stack([one, nothing, own, nothing]), atol=1e-12
    )
    np.testing.assert_allclose(
        lead[:, 1], np.column_stack([nothing, one, nothing, own]), atol=1e-12
    )


def test_line_is_what_no_pooling_estimates(alcohol_reml, alcohol_alone):
    """With the group predictors in it, the line shrinks towards no pooling as variances grow."""
    line = alcohol_reml.describe("line_id", 0.95).estimate
    alone = alcohol_alone.describe("total_id", 0.95).estimate
    total = alcohol_reml.describe("total_id", 0.95).estimate
    assert np.corrcoef(line[:, 0], alone[:, 0])[0, 1] > 0.9
    assert abs(line - alone)[:, 0].mean() < abs(total - alone)[:, 0].mean()


def test_line_has_the_error_of_its_sum(alcohol_reml):
    design, block = alcohol_reml.design, alcohol_reml.design.blocks[0]
    inverse = np.linalg.inv(outcome_covariance(design, alcohol_reml.estimates))
    D = effect_covariance(alcohol_reml.estimates, "id")
    lead = line_lead(design, block)
    numbers = alcohol_reml.describe("line_id", 0.95)
    for j in (0, 40, 81):
        Z = block.Z * (block.index == j)[:, None]
        conditional = D - D @ Z.T @ inverse @ Z @ D
        gap = lead[j] - D @ Z.T @ inverse @ design.X
        variance = np.diagonal(conditional + gap @ alcohol_reml.vcov @ gap.T)
        np.testing.assert_allclose(numbers.std_error[j], np.sqrt(variance), rtol=1e-7)


def test_total_lead_matches_columns_by_name(table):
    design = make("y ~ z + x + (x + k | g)", table)
    np.testing.assert_array_equal(
        total_lead(design, design.blocks[0]), [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    )


def test_model_without_population_terms_is_tidy(table):
    fit = REML().run(make("y ~ 0 + (1 | g)", table))
    tidied = tidy(fit)
    assert tidied["component"].unique().tolist() == ["sd", "residual", "group", "total"]
    np.testing.assert_allclose(rows(tidied, "total")["estimate"], rows(tidied, "group")["estimate"])
    assert str(fit)


def test_correlations_only_inside_correlated_parts(table):
    fit = REML().run(make("y ~ x + (x + z | g) + (0 + b + `my col` | g)", table))
    terms = rows(tidy(fit), "cor")["term"].tolist()
    assert terms == ["Intercept, x", "Intercept, z", "x, z", "b, my col"]


def test_levels_keep_their_kind():
    frame, _ = simulate(4, groups=5)
    frame["g"] = pd.factorize(frame["g"])[0] * 10
    levels = rows(tidy(REML().run(make("y ~ x + (1 | g)", frame))), "group")["level"]
    assert levels.tolist() == [0, 10, 20, 30, 40]


def test_nested_groups_have_rows_of_each_factor(pastes_reml):
    table = tidy(pastes_reml)
    assert rows(table, "sd")["group"].tolist() == ["batch", "batch:cask"]
    assert len(rows(table, "total", "batch")) == 10
    assert len(rows(table, "total", "batch:cask")) == 30


def test_method_of_a_fit_and_function_are_one(sleepstudy_reml):
    pd.testing.assert_frame_equal(sleepstudy_reml.tidy(0.8), tidy(sleepstudy_reml, 0.8))


@pytest.mark.parametrize("prob", [0, 1, 95, -0.1])
def test_probability_is_checked(prob, sleepstudy_reml):
    with pytest.raises(HmlmError, match="prob must lie between 0 and 1"):
        tidy(sleepstudy_reml, prob)


def test_blank_totals_of_groups_too_small():
    frame, _ = simulate(2, groups=6, size=4)
    frame = frame[(frame["g"] != "g002") | (frame.groupby("g").cumcount() == 0)]
    fit = OLS().run(make("y ~ x + (x | g)", frame, "none"))
    total = rows(tidy(fit), "total").set_index(["level", "term"])["estimate"]
    assert total.isna().sum() == 2
    assert total["g002"].isna().all()


def test_terms_of_categories_have_the_first_that_is_modelled_before_them():
    frame = {"y": list("pqr") * 4, "x": np.arange(12.0), "g": list("abcd") * 3}
    design = hmlm.Model("y ~ x + (1 | g)", frame, "categorical").design
    assert term_label(design, "", "x") == "mu_q_x"
    assert term_label(design, "mu_r", "x") == "mu_r_x"
