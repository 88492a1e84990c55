"""The table, checked once: kinds of columns, levels and their order, missing values."""

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make

from hmlm.data import index_levels, make_grouped_data, read_columns
from hmlm.fitting.maximum_likelihood import REML
from hmlm.fitting.ols import OLS

Y = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def grouped(values, columns=("y",), groups=("c",)):
    return make_grouped_data(pd.DataFrame({"y": Y, "c": values}), columns, groups)


@pytest.mark.parametrize(
    ("values", "levels", "index"),
    [
        (list("bacbac"), ["a", "b", "c"], [1, 0, 2, 1, 0, 2]),
        ([7, -2, 7, 7, 30, -2], [-2, 7, 30], [1, 0, 1, 1, 2, 0]),
        ([1.0, 2.0, 1.0, 2.0, 1.0, 2.0], [1, 2], [0, 1, 0, 1, 0, 1]),
        ([0.5, 2.0, 0.5, 2.0, 0.5, 2.0], [0.5, 2.0], [0, 1, 0, 1, 0, 1]),
        ([True, False] * 3, [False, True], [1, 0, 1, 0, 1, 0]),
        (pd.Categorical(list("bacbac"), list("cab")), ["c", "a", "b"], [2, 1, 0, 2, 1, 0]),
        (pd.Categorical(list("babbab"), list("zcba")), ["b", "a"], [0, 1, 0, 0, 1, 0]),
        (pd.Categorical([3, 1, 2, 3, 1, 2]), [1, 2, 3], [2, 0, 1, 2, 0, 1]),
        (pd.cut(Y, [-1, 2, 9]), ["(-1, 2]", "(2, 9]"], [0, 0, 0, 1, 1, 1]),
        (pd.array(list("bacbac"), dtype="string"), ["a", "b", "c"], [1, 0, 2, 1, 0, 2]),
        (pd.Series(list("bacbac"), dtype=object), ["a", "b", "c"], [1, 0, 2, 1, 0, 2]),
        (pd.array([3, 1, 3, 1, 3, 1], dtype="Int64"), [1, 3], [1, 0, 1, 0, 1, 0]),
    ],
)
def test_levels_and_index_of_every_kind_of_group(values, levels, index):
    data = grouped(values)
    assert data.levels["c"].tolist() == levels
    assert data.index["c"].tolist() == index
    assert not data.index["c"].flags.writeable


@pytest.mark.parametrize(
    ("dtype", "levels"),
    [
        (pl.String, ["u", "v"]),
        (pl.Categorical, ["u", "v"]),
        (pl.Enum(["v", "unused", "u"]), ["v", "u"]),
    ],
)
def test_levels_of_polars(dtype, levels):
    frame = pl.DataFrame({"y": Y[:4], "c": pl.Series(list("vuvu"), dtype=dtype)})
    data = make_grouped_data(frame, ["y"], ["c"])
    assert data.levels["c"].tolist() == levels
    design = make("y ~ c", frame.with_columns(y=pl.Series([1.0, 2.0, 4.0, 3.0])))
    assert design.terms == ("Intercept", f"c[{levels[1]}]")


def test_polars_arrow_and_dicts_read_as_pandas():
    columns = {"y": [1.5, 2.5, 3.5], "n": [3, 1, 2], "b": [True, False, True], "c": list("uvu")}
    expected = make_grouped_data(pd.DataFrame(columns), list(columns), ["c"])
    for table in (pl.DataFrame(columns), pa.table(columns), columns):
        data = make_grouped_data(table, list(columns), ["c"])
        pd.testing.assert_frame_equal(data.frame, expected.frame)
        assert data.index["c"].tolist() == expected.index["c"].tolist()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pd.array([1, 2, 3, 4, 5, 6], dtype="Int64"), "int64"),
        (pd.array([1, 2, 3, 4, 5, 6], dtype="Float64"), "float64"),
        (pd.array([True, False] * 3, dtype="boolean"), "bool"),
        (pd.array([1, 2, 3, 4, 5, 6], dtype="int64[pyarrow]"), "int64"),
        (pd.Series([1, 2.5, 3, 4, 5, 6], dtype=object), "float64"),
        (pd.Series([True, False] * 3, dtype=object), "bool"),
        ([decimal.Decimal(i) for i in range(6)], "float64"),
        (pd.arrays.SparseArray([0, 0, 1, 0, 0, 2]), "int64"),
        (np.arange(6, dtype="uint8"), "uint8"),
        (np.arange(6, dtype="float32"), "float32"),
    ],
)
def test_nullable_and_object_columns_become_plain(values, dtype):
    assert grouped(values, ["y", "c"], ()).frame["c"].dtype == dtype


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pl.Series([1, 2, 3]).cast(pl.Decimal(10, 2)), "float64"),
        (pl.Series([1, 2, 3], dtype=pl.Int128), "int64"),
        (pl.Series([1, None, 3]), "float64"),
        (pl.Series([1.0, None, float("nan")]), "float64"),
    ],
)
def test_numbers_of_polars(values, dtype):
    frame = read_columns(pl.DataFrame({"c": values}), ["c"])
    assert frame["c"].dtype == dtype


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "b", "a", "b", "c"],
        pd.Categorical(["a", None, "b", "a", "b", "c"]),
        [1.0, np.nan, 2, 1, 2, 3],
        pd.array([1, None, 2, 1, 2, 3], dtype="Int64"),
        [1, pd.NA, 2, 1, 2, 3],
    ],
)
def test_rows_with_a_missing_group_are_left_out_and_counted(values):
    data = grouped(values)
    assert dict(data.missing) == {"c": 1}
    assert (data.n_rows, data.n_dropped, len(data.frame)) == (6, 1, 5)
    assert data.index["c"].tolist() == [0, 1, 0, 1, 2]
    assert data.frame["y"].tolist() == [0, 2, 3, 4, 5]
    assert [str(level).endswith(".0") for level in data.levels["c"]] == [False] * 3


def test_missing_values_are_counted_by_column_and_reported():
    frame = pd.DataFrame(
        {
            "y": [1.0, np.nan, 3.0, 4.5, 5.0, 7.0, 6.0, 2.0],
            "x": [1.0, 2.0, np.nan, 4.0, np.nan, 2.0, 1.0, 0.0],
            "g": ["a", "a", None, "b", "b", "a", "b", "a"],
            "unused": [None] * 8,
        }
    )
    data = make_grouped_data(frame, ["y", "x"], ["g"])
    assert dict(data.missing) == {"y": 1, "x": 2, "g": 1}
    assert data.missing_note == (
        "3 of 8 rows left out because of missing values in y (1), x (2), g (1)."
    )
    for method, pooling in ((REML(), "partial"), (OLS(), "complete"), (OLS(), "none")):
        formula = "y ~ x + (1 | g)"
        fit = method.run(make(formula, frame, pooling))
        assert data.missing_note in fit.status.notes
        assert data.missing_note in str(fit)
        assert len(fit.fitted) == 5


def test_nothing_is_missing_and_nothing_is_said():
    data = grouped(list("aabbcc"))
    assert dict(data.missing) == {}
    assert data.missing_note == ""
    assert data.n_dropped == 0


def test_levels_that_only_incomplete_rows_had_are_gone():
    frame = pd.DataFrame(
        {
            "y": [1.0, 2.0, np.nan, 4.0],
            "g": pd.Categorical(list("abcb"), list("cba")),
            "f": pd.Categorical(["lo", "hi", "mid", "lo"], ["lo", "mid", "hi"]),
        }
    )
    data = make_grouped_data(frame, ["y", "f"], ["g"])
    assert data.levels["g"].tolist() == ["b", "a"]
    assert data.frame["f"].cat.categories.tolist() == ["lo", "hi"]


def test_index_of_the_table_does_not_matter():
    frame = pd.DataFrame({"y": Y, "c": list("aabbcc")}, index=list("zzyyxx"))
    data = make_grouped_data(frame, ["y"], ["c"])
    assert data.frame.index.equals(pd.RangeIndex(6))
    assert data.index["c"].tolist() == [0, 0, 1, 1, 2, 2]


def test_table_of_the_caller_is_not_touched():
    frame = pd.DataFrame({"y": [1.0, np.nan, 3.0, 4.0], "g": pd.Categorical(list("abab"))})
    before = frame.copy()
    make_grouped_data(frame, ["y"], ["g"])
    pd.testing.assert_frame_equal(frame, before)


def test_interaction_of_factors():
    frame = pd.DataFrame({"y": Y, "a": list("xyxyxy"), "b": [1, 1, 10, 10, 1, 2]})
    data = make_grouped_data(frame, ["y"], ["a", "a:b"])
    assert data.levels["a:b"].tolist() == ["x:1", "x:10", "y:1", "y:2", "y:10"]
    assert data.index["a:b"].tolist() == [0, 2, 1, 4, 0, 3]
    assert data.groups == ("a", "a:b")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 3), st.booleans()), min_size=1),
    st.randoms(),
)
def test_interaction_index_tells_combinations_apart(rows, random):
    frame = pd.DataFrame(rows, columns=["p", "q", "r"])
    index, levels = index_levels(frame, "p:q:r")
    assert len(levels) == len(set(rows)) == index.max() + 1
    label = {row: levels[i] for row, i in zip(rows, index, strict=True)}
    assert all(label[row] == ":".join(map(str, row)) for row in rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    again, same = index_levels(frame.iloc[order], "p:q:r")
    assert again.tolist() == index[order].tolist()
    assert same.tolist() == levels.tolist()


def test_levels_keep_the_order_of_a_categorical_whether_ordered_or_not():
    for ordered in (False, True):
        values = pd.Categorical(list("bacbac"), list("cab"), ordered=ordered)
        frame = pd.DataFrame({"y": Y, "c": values})
        assert grouped(values).levels["c"].tolist() == ["c", "a", "b"]
        assert make("y ~ c", frame).terms == ("Intercept", "c[a]", "c[b]")


def test_columns_that_the_model_does_not_name_are_not_read():
    frame = pd.DataFrame({"y": Y, "c": list("aabbcc"), "junk": [object()] * 6, "inf": np.inf})
    assert list(make_grouped_data(frame, ["y"], ["c"]).frame) == ["y", "c"]
    twice = pd.DataFrame(np.ones((4, 3)), columns=["y", "z", "z"])
    assert list(read_columns(twice, ["y"])) == ["y"]
