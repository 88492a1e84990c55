"""Bad input is refused by `hmlm.Model`, before anything is fitted: what, where, and what to do."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hmlm
from hmlm import Model, Prior


@pytest.fixture
def frame():
    """Twelve rows in three groups."""
    rng = np.random.default_rng(50)
    return pd.DataFrame(
        {
            "score": rng.normal(size=12),
            "hours": rng.normal(size=12),
            "age": np.arange(12.0),
            "school": np.repeat(list("abc"), 4),
        }
    )


def refused(formula, data, *pieces, **settings):
    """Check that a model is refused, with every piece in the message."""
    with pytest.raises(ValueError, match=r"\w") as refusal:
        Model(formula, data, **settings)
    message = str(refusal.value)
    assert type(refusal.value).__module__ == "hmlm.errors"
    missing = [piece for piece in pieces if piece not in message]
    assert not missing, f"{missing} not in: {message}"
    assert len(message) < 600


FORMULA = "score ~ hours + (1 | school)"


def test_empty_frame(frame):
    refused(FORMULA, frame.iloc[:0], "no rows (0 rows)", "check the file or the filter")
    refused(FORMULA, pl.from_pandas(frame).head(0), "no rows (0 rows)")
    refused(FORMULA, pd.DataFrame(), "no column 'score'")


def test_one_group(frame):
    refused(
        FORMULA,
        frame.assign(school="a"),
        "'school' has one level in 12 rows",
        "leave the term (... | school) out",
    )


def test_one_group_after_incomplete_rows(frame):
    frame.loc[4:, "hours"] = np.nan
    refused(FORMULA, frame, "'school' has one level in 4 rows")


def test_missing_column(frame):
    refused(
        "score ~ hors + (1 | school)",
        frame,
        "no column 'hors'",
        "Did you mean 'hours'?",
        "Columns: score, hours, age, school",
    )
    refused("score ~ hours + (1 | skool)", pl.from_pandas(frame), "Did you mean 'school'?")
    refused("scor ~ hours", frame, "no column 'scor'", "Did you mean 'score'?")


def test_string_outcome(frame):
    frame["score"] = [f"{v:.1f} points" for v in frame["age"]]
    refused(
        FORMULA,
        frame,
        "outcome 'score' must hold numbers",
        "12 rows",
        "'0.0 points'",
        "pandas.to_numeric",
    )
    refused("`score` ~ hours", frame, "outcome 'score' must hold numbers")
    refused("I(score) ~ hours", frame, "'I(score)' is no column of numbers")
    refused(FORMULA, frame.assign(score=pd.Categorical(frame["score"])), "type category")


def test_bool_outcome(frame):
    frame["score"] = frame["age"] > 5
    refused(FORMULA, frame, "outcome 'score' is of type bool in 12 rows", "convert it first")


def test_constant_outcome(frame):
    refused(FORMULA, frame.assign(score=3.0), "'score' has the same value in all 12 rows")
    refused("I(age - age) ~ hours", frame, "has the same value in all 12 rows")


@pytest.mark.parametrize("column", ["score", "hours"])
def test_infinite_values(frame, column):
    frame.loc[[1, 3], column] = [np.inf, -np.inf]
    refused(FORMULA, frame, f"column '{column}' is infinite in 2 rows", "make them missing")


def test_constant_predictor(frame):
    refused(
        FORMULA,
        frame.assign(hours=7.0),
        "'hours' has the same value (7) in all 12 rows",
        "leave it out of the formula",
    )
    refused(FORMULA, frame.assign(hours=0.1), "has the same value (0.1) in all 12 rows")
    refused(FORMULA, frame.assign(hours="one"), "'hours' has the same level in all 12 rows")


def test_constant_predictor_among_complete_rows(frame):
    frame["hours"] = np.where(frame["age"] < 6, 1.0, 2.0)
    frame.loc[:5, "score"] = np.nan
    refused(FORMULA, frame, "'hours' has the same value (2) in all 6 rows")


def test_collinear_predictor(frame):
    frame["minutes"] = 60 * frame["hours"]
    refused(
        "score ~ hours + minutes + (1 | school)",
        frame,
        "'minutes' is collinear",
        "12 rows",
        "combination of 'hours'",
        "Leave one of them out",
        "collinear='drop'",
    )
    frame["sum_"] = frame["hours"] + frame["age"] - 3
    refused("score ~ hours + age + sum_", frame, "combination of 'Intercept', 'hours', 'age'")
    frame["same"] = frame["school"]
    refused("score ~ school + same", frame, "'same[b]' is collinear", "'school[b]'")


def test_every_group_of_one_row_with_a_slope(frame):
    frame["school"] = np.arange(12)
    refused(
        "score ~ hours + (hours | school)",
        frame,
        "every group of 'school' has one row",
        "12 rows for 12 groups with 2 effects each",
        "Use (1 | school)",
    )


def test_every_group_of_one_row_with_an_intercept(frame):
    frame["school"] = np.arange(12)
    refused(
        FORMULA, frame, "every group of 'school' has one row", "12 rows for 12 groups", "coarser"
    )


def test_groups_too_small_for_their_effects(frame):
    frame["school"] = np.arange(12) // 2
    refused(
        "score ~ hours + (hours | school)",
        frame,
        "the groups of 'school' have at most 2 rows",
        "12 rows for 6 groups with 2 effects each",
    )


def test_fewer_rows_than_parameters(frame):
    formula = "score ~ hours + age + I(age**2)"
    refused(formula, frame.iloc[:4], "4 rows are too few for 4 population coefficients")
    refused(formula, frame.iloc[:2], "2 rows")
    refused("score ~ C(age)", frame, "12 rows are too few for 12 population coefficients")


def test_duplicate_column_names(frame):
    twice = pd.concat([frame, frame[["hours"]]], axis=1)
    refused(FORMULA, twice, "column 'hours' is there 2 times", "rename one")
    Model("score ~ age + (1 | school)", twice)  # a name that is not used may be there twice


@pytest.mark.parametrize(
    "dates",
    [
        pd.date_range("2024-01-01", periods=12),
        pd.to_timedelta(range(12), unit="D"),
        [dt.date(2024, 1, d) for d in range(1, 13)],
    ],
)
def test_dates(frame, dates):
    frame["hours"] = dates
    refused(FORMULA, frame, "'hours' holds dates or durations in 12 rows", "days since the start")


def test_dates_of_polars(frame):
    days = [dt.date(2024, 1, d) for d in range(1, 13)]
    table = pl.from_pandas(frame).with_columns(hours=pl.Series(days))
    refused(FORMULA, table, "'hours' holds dates or durations in 12 rows")


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([1, "two", 3] * 4, "mixes int, str in 12 rows"),
        ([[1], [2], [3]] * 4, "holds list in 12 rows"),
        ([b"a", b"b", b"c"] * 4, "holds bytes in 12 rows"),
    ],
)
def test_mixed_and_odd_columns(frame, values, kinds):
    frame["hours"] = pd.Series(values, dtype=object)
    refused(FORMULA, frame, f"column 'hours' {kinds}", "all numbers or all text")


def test_complex_numbers(frame):
    refused(FORMULA, frame.assign(hours=frame["hours"] * 1j), "'hours' holds complex numbers")
    mixed = [*frame["hours"].astype(object)[:-1], 1 + 2j]  # a column of objects
    frame["hours"] = pd.Series(mixed, dtype=object)
    refused(FORMULA, frame, "'hours' holds complex numbers")


def test_all_rows_incomplete(frame):
    frame["hours"] = np.nan
    frame.loc[3, "school"] = None
    refused(
        FORMULA,
        frame,
        "no row is complete",
        "12 rows have missing values, in hours (12), school (1)",
        "emptiest column",
    )


def test_missing_groups_are_counted_and_do_not_become_a_group(frame):
    frame.loc[[0, 5], "school"] = None
    model = Model(FORMULA, frame)
    assert len(model.design.y) == 10
    assert model.data.missing_note == (
        "2 of 12 rows left out because of missing values in school (2)."
    )
    assert model.fit(hmlm.REML()).status.notes[-1] == model.data.missing_note


@pytest.mark.parametrize("data", [None, 3, [1, 2], np.ones((3, 2)), object()])
def test_not_a_data_frame(data):
    refused(FORMULA, data, "must be a pandas or polars data frame", type(data).__name__)


def test_a_path_is_that_of_a_file():
    refused(FORMULA, "table.csv", "there is no file 'table.csv'", "check the path")


def test_lazy_frames_are_refused_where_a_frame_in_memory_would_be(frame):
    lazy = pl.from_pandas(frame).lazy()
    refused("score ~ minutes + (1 | school)", lazy, "there is no column 'minutes'")


@pytest.mark.parametrize("formula", [None, 3, {"score": "hours"}, b"score ~ hours"])
def test_formula_that_is_no_text(frame, formula):
    refused(formula, frame, "a formula is text, as 'y ~ x + (1 | g)'")


def test_log_of_zero(frame):
    frame["hours"] = abs(frame["hours"])
    frame.loc[[2, 4], "hours"] = 0.0
    refused(
        "score ~ log(hours) + (1 | school)",
        frame,
        "'log(hours)' is not finite in 2 rows",
        "row 2 of the complete rows",
        "log of zero?",
    )
    refused("log(hours) ~ age", frame, "'log(hours)' is not finite in 2 rows")


def test_counts_out_of_trials_are_no_gaussian_outcome(frame):
    frame["successes"], frame["trials"] = np.arange(12), 12
    for outcome in ("p(successes, trials)", "prop(successes, 12)", "p(hours, trials)"):
        said = outcome.replace("prop", "p")
        refused(f"{outcome} ~ age", frame, f"'{said}' is a count out of trials", "gaussian")


def test_names_that_the_results_use(frame):
    for name in ("draw", "chain", "term", "row", "beta", "sigma"):
        table = frame.rename(columns={"school": name})
        refused(f"score ~ hours + (1 | {name})", table, f"'{name}'", f"'{name}_id'")
    frame["school_term"] = frame["school"]
    refused("score ~ 1 + (1 | school) + (1 | school_term)", frame, "cannot be called 'school_term'")


def test_levels_that_read_the_same(frame):
    frame["p"] = ["a", "a:b"] * 6
    frame["q"] = ["b:c", "c"] * 6
    refused("score ~ 1 + (1 | p:q)", frame, "two levels of 'p:q' both read 'a:b:c'")


def test_unknown_pooling(frame):
    with pytest.raises(ValueError, match="pooling is 'complete', 'none' or 'partial', not 'full'"):
        Model(FORMULA, frame).with_pooling("full")


def test_unknown_family(frame):
    refused(FORMULA, frame, "no family called 'gauss'", "Known: gaussian", family="gauss")


def test_priors_of_nothing_and_of_the_wrong_support(frame):
    normal = Prior("normal", mu=0, sigma=1)
    refused(FORMULA, frame, "'hors'", "Did you mean 'hours'?", priors={"hors": normal})
    refused(FORMULA, frame, "'sd'", "positive", priors={"sd": normal})
    refused(FORMULA, frame, "'sigma'", "half-normal", priors={"sigma": normal})
    refused(FORMULA, frame, "'hours'", "correlations", priors={"hours": Prior("lkj", eta=2)})
    refused(FORMULA, frame, "hmlm.Prior", "not int", priors={"hours": 1})
    refused(FORMULA, frame, "must be a dict", priors=[normal])
    model = Model("score ~ hours + (hours | school)", frame)
    with pytest.raises(ValueError, match="the prior of 'cor' must be lkj"):
        model.with_priors(cor=normal)
    with pytest.raises(ValueError, match=r"no parameter 'sd_skool'.*Did you mean 'sd_school'"):
        model.with_priors(sd_skool=Prior("half-normal", sigma=1))


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_weights_that_are_not_positive(frame, bad):
    frame["w"] = 1.0
    frame.loc[[0, 7], "w"] = bad
    refused(FORMULA, frame, "weights 'w' must be positive", "2 rows", weights="w")


def test_weights_that_are_no_numbers_or_no_column(frame):
    frame["w"] = "heavy"
    refused(FORMULA, frame, "weights 'w'", "12 rows", "positive numbers", weights="w")
    refused(FORMULA, frame, "no column 'v'", weights="v")
    refused(FORMULA, frame, "the name of a column", weights=np.ones(12))
    refused(FORMULA, frame, "the name of a column", weights=3)


def test_method_that_is_none(frame):
    model = Model(FORMULA, frame)
    for method in ("REML", hmlm.REML, 3):
        with pytest.raises(ValueError, match=r"a method object such as hmlm.REML\(\)"):
            model.fit(method)
    with pytest.raises(ValueError, match="least squares cannot pool partially"):
        model.fit(hmlm.OLS())
    with pytest.raises(ValueError, match="does not pool partially"):
        model.with_pooling("complete").fit(hmlm.REML())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "draws must be a whole number, at least 1, not 0"),
        ({"draws": 10.5}, "draws must be a whole number"),
        ({"draws": True}, "draws must be a whole number"),
        ({"tune": -1}, "tune must be a whole number, at least 0"),
        ({"chains": 0}, "chains must be a whole number, at least 1"),
        ({"cores": 0}, "cores must be a whole number, at least 1"),
        ({"max_treedepth": 0}, "max_treedepth must be a whole number"),
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1"),
        ({"engine": "stan"}, "engine is 'auto', 'kernel' or 'pymc', not 'stan'"),
    ],
)
def test_settings_of_the_sampler(settings, message):
    with pytest.raises(ValueError, match=message):
        hmlm.NUTS(**settings)


def test_two_of_a_kind_in_one_formula(frame):
    refused("score ~ hours + (1 | school) + (hours | school)", frame, "in two terms", "(0 + ...")


def test_a_predictor_that_is_the_outcome(frame):
    refused("score ~ score + hours", frame, "'score' stands on both sides of '~'")


def test_group_effect_that_is_constant(frame):
    frame["same"] = 2.0
    refused("score ~ hours + (same | school)", frame, "'same' depends on Intercept", "leave one")


def test_categorical_slope_with_an_unknown_level_of_new_data(frame):
    frame["kind"] = list("uv") * 6
    fit = Model("score ~ kind + (1 | school)", frame).fit(hmlm.REML())
    with pytest.raises(ValueError, match=r"cannot make .* from the new rows"):
        fit.predict(frame.assign(kind="w"))
