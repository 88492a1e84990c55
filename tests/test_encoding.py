"""Columns made from terms: their values, and the same meaning for new rows."""

import numpy as np
import pandas as pd
import pytest
from support import make

from hmlm.encoding import encode, evaluate
from hmlm.errors import DataError, FormulaError

X = np.array([1.0, 2.0, 4.0, 8.0, 3.0])
FRAME = pd.DataFrame(
    {
        "x": X,
        "z": [0.5, 1.0, 1.5, 2.0, 2.5],
        "f": pd.Categorical(["lo", "hi", "mid", "hi", "lo"], ["lo", "mid", "hi"], ordered=True),
        "k": list("uvuvu"),
        "n": [3, 1, 2, 3, 1],
        "b": [True, False, True, True, False],
    }
)


def column(text, name=None):
    made = encode(text, FRAME)
    return made.values[:, made.names.index(name) if name else -1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + log(x)", np.log(X)),
        ("1 + log2(x)", np.log2(X)),
        ("1 + log10(x)", np.log10(X)),
        ("1 + log1p(x)", np.log1p(X)),
        ("1 + exp(x)", np.exp(X)),
        ("1 + sqrt(x)", np.sqrt(X)),
        ("1 + abs(I(2 - x))", abs(2 - X)),
        ("1 + center(x)", X - X.mean()),
        ("1 + scale(x)", (X - X.mean()) / X.std()),
        ("1 + I(x**2)", X**2),
        ("1 + I((x + z)*2)", (X + FRAME["z"]) * 2),
        ("1 + I(x + z*2)", X + FRAME["z"] * 2),
        ("1 + I(x > 2)", X > 2),
        ("1 + I(f > 'lo')", [0, 1, 1, 1, 0]),
        ("1 + I(k == 'u')", [1, 0, 1, 0, 1]),
        ("1 + b", [1, 0, 1, 1, 0]),
        ("1 + n", [3, 1, 2, 3, 1]),
        ("1 + x:z", X * FRAME["z"]),
        ("0 + x", X),
    ],
)
def test_values(text, expected):
    np.testing.assert_allclose(column(text), np.asarray(expected, dtype=float), rtol=1e-14)


def test_treatment_coding_is_against_the_first_level():
    np.testing.assert_array_equal(column("1 + f", "f[hi]"), [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(column("1 + f", "f[mid]"), [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(column("1 + C(n)", "C(n)[2]"), [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(
        column("1 + C(f, Treatment('hi'))", "C(f, Treatment('hi'))[lo]"), [1, 0, 0, 0, 1]
    )


def test_sum_coding_sums_to_zero_over_levels():
    made = encode("1 + C(f, Sum)", FRAME)
    by_level = pd.DataFrame(made.values[:, 1:]).groupby(FRAME["f"], observed=True).first()
    np.testing.assert_array_equal(by_level.sum(), [0, 0])


def test_factors_that_share_a_term_are_each_coded_for_themselves():
    made = encode("1 + k/f", FRAME)
    own = ["k[u]:f[mid]", "k[u]:f[hi]", "k[v]:f[mid]", "k[v]:f[hi]"]
    assert made.names == ("Intercept", "k[v]", *own)
    for name in own:
        k, f = name[2], name[7:-1]
        expected = (FRAME["k"] == k) & (FRAME["f"] == f)
        np.testing.assert_array_equal(made.values[:, made.names.index(name)], expected)
    again, _ = made.again(FRAME)
    np.testing.assert_array_equal(again, made.values)


def test_polynomials_are_orthogonal_and_raw_ones_are_powers():
    made = encode("1 + poly(x, 3)", FRAME)
    gram = made.values.T @ made.values
    np.testing.assert_allclose(gram, np.diag(np.diagonal(gram)), atol=1e-12)
    np.testing.assert_allclose(np.diagonal(gram)[1:], 1)
    raw = encode("1 + poly(x, 2, raw=True)", FRAME)
    np.testing.assert_allclose(raw.values[:, 1:], np.column_stack([X, X**2]))


def test_splines_sum_to_one_with_their_intercept():
    made = encode("0 + bs(x, df=4, center=False)", FRAME)
    np.testing.assert_allclose(made.values.sum(axis=1), 1)


def test_offsets_are_summed_and_are_no_columns():
    made = encode("1 + x + offset(z) + offset(log(x))", FRAME)
    assert made.names == ("Intercept", "x")
    np.testing.assert_allclose(made.offset, FRAME["z"] + np.log(X))
    assert encode("1 + x", FRAME).offset is None


def test_no_columns_at_all():
    for text in ("0", "0 + x - x"):
        made = encode(text, FRAME)
        assert made.names == ()
        assert made.values.shape == (5, 0)


@pytest.mark.parametrize(
    "text",
    [
        "1 + scale(x)",
        "1 + center(log(x))",
        "1 + poly(x, 2)",
        "1 + bs(x, df=4)",
        "1 + f*x",
        "1 + C(f, Sum):x",
        "1 + k:(x + f)",
        "0 + f + offset(z)",
        "1 + I(f > 'lo') + I(k == 'u'):x",
        "1 + x + z",
    ],
)
def test_new_rows_are_made_with_the_meaning_of_the_old_ones(text):
    made = encode(text, FRAME)
    for rows in ([0], [3, 3], [4, 1, 2]):
        values, offset = made.again(FRAME.iloc[rows].reset_index(drop=True))
        np.testing.assert_allclose(values, made.values[rows], atol=1e-12)
        if made.offset is not None:
            np.testing.assert_allclose(offset, made.offset[rows])


def test_scaling_of_new_rows_is_that_of_the_old_ones():
    made = encode("1 + scale(x)", FRAME)
    values, _ = made.again(pd.DataFrame({"x": [X.mean(), X.mean() + X.std(), 100.0]}))
    np.testing.assert_allclose(values[:, 1], [0, 1, (100 - X.mean()) / X.std()])


def test_new_level_is_refused():
    made = encode("1 + k", FRAME)
    with pytest.raises(DataError, match=r"cannot make '1 \+ k' from the new rows.*w"):
        made.again(pd.DataFrame({"k": ["u", "w"]}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + log(I(x - 1))", r"'log\(I\(x - 1\)\)' is not finite in 1 row, the first being row 0"),
        ("1 + sqrt(I(x - 3))", r"is not finite in 2 rows"),
        ("1 + x + offset(log(I(x - 1)))", "'the offset' is not finite in 1 row"),
        ("1 + exp(I(1000*x))", r"is not finite in 5 rows.*change the values or the function"),
    ],
)
def test_what_is_not_finite_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        encode(text, FRAME)


@pytest.mark.parametrize(
    "text",
    [
        "1 + log(k)",
        "1 + x + offset(k)",
        "1 + log()",
        "1 + log(2)",
        "1 + poly(x, z)",
        "1 + bs(x)",
        "1 + I(1/0)",
        "1 + I(9.0**400)",
        "1 + C(k, Treatment('nobody'))",
        "1 + log(x:z)",
        "1 + k:bs(x, df=3)",
        "1 - x",
    ],
)
def test_what_cannot_be_evaluated_is_a_formula_error(text, capsys):
    with pytest.raises(FormulaError, match="cannot evaluate"):
        encode(text, FRAME)
    assert capsys.readouterr().out == ""


def test_evaluation_knows_only_functions_and_columns():
    x_of_the_caller = X
    with pytest.raises(FormulaError, match="cannot evaluate"):
        evaluate("1 + I(x_of_the_caller)", FRAME)
    assert len(x_of_the_caller) == 5


def test_a_column_hides_no_function_and_no_function_a_column(table):
    named = table.rename(columns={"z": "log"})
    design = make("y ~ log(log) + (1 | g)", named)
    np.testing.assert_allclose(design.X[:, 1], np.log(table["z"]))
