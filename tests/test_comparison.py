"""Fits side by side: one row a parameter, one block of columns a fit."""

import numpy as np
import pandas as pd
import pytest
from support import make

from hmlm.comparison import Comparison, compare, side_by_side
from hmlm.errors import HmlmError
from hmlm.fitting.maximum_likelihood import ML, REML
from hmlm.fitting.ols import OLS

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def comparison(sleepstudy_pooled, sleepstudy_alone, sleepstudy_reml):
    return compare(sleepstudy_pooled, sleepstudy_alone, sleepstudy_reml)


def test_one_row_a_parameter_and_one_block_a_fit(comparison):
    assert list(comparison.index.names) == ["component", "group", "level", "term"]
    assert list(comparison.columns.names) == ["fit", "figure"]
    fits = list(dict.fromkeys(comparison.columns.get_level_values("fit")))
    assert fits == ["OLS (complete pooling)", "OLS (no pooling)", "REML"]
    assert not comparison.index.duplicated().any()
    assert list(comparison["REML"]) == [
        "estimate",
        "std_error",
        "lower",
        "upper",
        "df",
        "p_value",
    ]


def test_rows_come_population_first_and_groups_last(comparison):
    components = comparison.index.get_level_values("component")
    assert components.unique().tolist() == ["population", "sd", "cor", "residual", "total"]
    assert (components == "total").sum() == 36
    terms = comparison.loc["population"].index.get_level_values("term")
    assert terms.tolist() == ["Intercept", "Days"]


def test_figures_are_those_of_the_fits(comparison, sleepstudy_pooled, sleepstudy_reml):
    at = ("population", "", "", "Days")
    for fit in (sleepstudy_pooled, sleepstudy_reml):
        block = comparison[fit.label].loc[at]
        assert block["estimate"] == fit.estimates["beta"][1]
        assert block["std_error"] == fit.std_errors["beta"][1]
    assert comparison["REML"].loc[("sd", "Subject", "", "Days"), "estimate"] == pytest.approx(
        5.922, abs=1e-3
    )


def test_a_fit_without_a_parameter_leaves_its_cells_blank(comparison):
    pooled = comparison["OLS (complete pooling)"]
    assert pooled.loc["sd"].isna().all(axis=None)
    assert pooled.loc["total"]["estimate"].notna().all()
    alone = comparison["OLS (no pooling)"]
    assert alone.loc["population"].isna().all(axis=None)
    assert alone.loc["total"]["estimate"].notna().all()


def test_totals_shrink_from_no_pooling_towards_complete_pooling(comparison):
    slopes = comparison.xs("Days", level="term").loc["total"]
    spread = {fit: slopes[fit]["estimate"].std() for fit in ("OLS (no pooling)", "REML")}
    assert spread["REML"] < spread["OLS (no pooling)"]


def test_lines_of_groups_compare_where_there_are_group_predictors(alcohol_reml, alcohol_alone):
    both = compare(alcohol_reml, alcohol_alone)
    line = both.loc["line"]
    assert line["REML"]["estimate"].notna().all()
    text = str(both)
    assert "Groups: own intercept and slopes, group-level predictors included." in text


def test_long_form_is_tidy(comparison):
    tidy = comparison.tidy
    assert list(tidy["fit"].unique()) == ["OLS (complete pooling)", "OLS (no pooling)", "REML"]
    assert "total" in set(tidy["component"])
    wide = comparison["REML"]["estimate"].dropna()
    long = tidy[tidy["fit"] == "REML"].set_index(list(comparison.index.names))["estimate"]
    pd.testing.assert_series_equal(long.loc[wide.index], wide)


def test_groups_may_be_left_out(sleepstudy_reml, sleepstudy_ml):
    table = compare(sleepstudy_reml, sleepstudy_ml, groups=False)
    components = table.index.get_level_values("component").unique()
    assert components.tolist() == ["population", "sd", "cor", "residual"]
    assert len(table) == 6


def test_fits_of_one_name_are_told_apart(sleepstudy):
    line = REML().run(make(SLEEP, sleepstudy))
    level = REML().run(make("Reaction ~ Days + (1 | Subject)", sleepstudy))
    table = compare(line, level)
    assert table.columns.get_level_values("fit").unique().tolist() == ["REML", "REML (2)"]
    assert np.isnan(table["REML (2)"].loc[("cor", "Subject", "", "Intercept, Days"), "estimate"])


def test_printed_table_is_cut_after_a_dozen_groups(comparison):
    text = str(comparison)
    assert repr(comparison) == text
    assert "... and 24 more rows of groups: .table(group_rows=None)." in text
    assert "Groups: population + group effect." in text
    assert text.splitlines()[0] == SLEEP
    full = comparison.table(group_rows=None)
    assert len(full.rows) == len(comparison)
    assert all(len(row) == len(full.header) for row in full.rows)
    assert sum(width for _, width in full.over) == len(full.header)
    assert "nan" not in text.lower()


def test_printed_table_goes_to_html_markdown_and_latex(comparison, tmp_path):
    assert comparison._repr_html_().startswith("<table>")
    assert comparison.to_markdown().startswith(f"**{SLEEP}**")
    assert comparison.to_latex().startswith(r"\begin{tabular}")
    place = tmp_path / "table.tex"
    assert comparison.to_latex(place) == place.read_text(encoding="utf-8")
    assert comparison.to_markdown(group_rows=0).count("\n") < comparison.to_markdown().count("\n")


def test_it_is_a_data_frame(comparison):
    assert isinstance(comparison, Comparison)
    assert isinstance(comparison, pd.DataFrame)
    assert not isinstance(comparison["REML"], Comparison)
    assert not isinstance(comparison.iloc[:2], Comparison)
    assert comparison.attrs["formula"] == SLEEP


def test_one_fit_is_enough_and_none_is_not(sleepstudy_reml):
    assert len(compare(sleepstudy_reml, groups=False)) == 6
    with pytest.raises(HmlmError, match="compare needs at least one fit"):
        compare()


def test_reml_fits_with_other_fixed_effects_do_not_compare(sleepstudy):
    small = make("Reaction ~ 1 + (1 | Subject)", sleepstudy)
    large = make("Reaction ~ Days + (1 | Subject)", sleepstudy)
    with pytest.raises(HmlmError, match=r"REML likelihoods .* do not compare: .*hmlm.ML\(\)"):
        compare(REML().run(small), REML().run(large))
    both = compare(ML().run(small), ML().run(large), groups=False)
    assert np.isnan(both["ML"].loc[("population", "", "", "Days"), "estimate"])
    # one REML fit beside others of other methods is fine
    compare(REML().run(small), ML().run(large))


def test_fits_of_other_data_do_not_compare(sleepstudy, sleepstudy_reml, alcohol_reml):
    with pytest.raises(HmlmError, match="different outcomes do not compare: Reaction, alcuse"):
        compare(sleepstudy_reml, alcohol_reml)
    shorter = OLS().run(make(SLEEP, sleepstudy.iloc[:170], "complete"))
    with pytest.raises(HmlmError, match=r"different numbers of rows \(REML: 180, OLS .*: 170\)"):
        compare(sleepstudy_reml, shorter)


@pytest.mark.parametrize("prob", [0, 1, 95])
def test_probability_is_checked(prob, sleepstudy_reml):
    with pytest.raises(HmlmError, match="prob must lie between 0 and 1"):
        compare(sleepstudy_reml, prob=prob)


def test_side_by_side_needs_a_group_term(sleepstudy):
    with pytest.raises(HmlmError, match=r"no group term: add one, such as \(1 \| group\)"):
        side_by_side("Reaction ~ Days", sleepstudy)


@pytest.mark.parametrize(
    ("formula", "fits"),
    [
        ("y ~ x + (x | g)", ["OLS (complete pooling)", "OLS (no pooling)", "REML", "ML"]),
        ("y ~ x + (1 | g) + (1 | h)", ["OLS (complete pooling)", "OLS (no pooling)", "REML", "ML"]),
        (
            "y ~ x + (x | g) + (1 | g:h)",
            ["OLS (complete pooling)", "OLS (no pooling)", "REML", "ML"],
        ),
        ("y ~ x + (x + z | g) + (1 | `my group`)", ["OLS (complete pooling)", "REML", "ML"]),
    ],
)
def test_side_by_side_leaves_out_what_the_rows_cannot_bear(formula, fits, table, monkeypatch):
    monkeypatch.setattr("hmlm.comparison.NUTS", ML)  # a quick last method
    table["my group"] = np.arange(60) % 45
    compared = side_by_side(formula, table)
    assert compared.columns.get_level_values("fit").unique().tolist() == fits


def test_side_by_side_fits_every_way(sleepstudy):
    table = side_by_side(SLEEP, sleepstudy, random_seed=1, progressbar=False)
    fits = table.columns.get_level_values("fit").unique().tolist()
    assert fits == ["OLS (complete pooling)", "OLS (no pooling)", "REML", "NUTS"]
    slope = table.loc[("population", "", "", "Days")]
    assert slope["NUTS"]["estimate"] == pytest.approx(slope["REML"]["estimate"], abs=0.3)
    assert list(table["NUTS"]) == [
        "estimate",
        "std_error",
        "lower",
        "upper",
        "ess_bulk",
        "r_hat",
    ]
    assert table["NUTS"].loc[("sd", "Subject", "", "Days"), "r_hat"] < 1.02
    text = str(table)
    for head in ("mean", "ESS", "R-hat", "std.error"):
        assert head in text
