"""Whatever table is given, hmlm fits it or refuses it in its own words.

About 150 drawn tables in the ordinary suite; `HMLM_FUZZ=10000` draws that many, new ones each time.
"""

import datetime as dt
import os
import time
import warnings
from collections import Counter
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import hmlm
from hmlm.errors import DataError, HmlmError

FUZZ = int(os.environ.get("HMLM_FUZZ", "0"))
SECONDS = 10.0
HOSTILE_TEXT = (
    "",
    " ",
    "a`b",
    "a;b",
    "a~b",
    "a:b",
    "a|b",
    "a\nb",
    "a\tb",
    "a\x00b",
    "a\\b",
    "it's",
    'say "a"',
    "<script>alert(1)</script>",
    "&amp;<b>x</b>",
    "{x!r:>{10}}",
    "%s%n",
    "$x_1$",
    "[bold]x[/]",
    "__class__",
    "lambda",
    "None",
    "nan",
    "1",
    "-1e308",
    "Intercept",
    "sigma",
    "beta",
    "row",
    "chain",
    "sd_g",
    "ﬁ",
    "x́ẍ",
    "变量",
    "🤷‍♀️",
    "‮abc",
    "\ud800",
    "x" * 10_000,
    "../../etc/passwd",
    "a" + "\u200b",
)
NUMBERS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e308,
    -1e308,
    1e154,
    1e-154,
    5e-324,
    2.2e-308,
    1e15 + 1,
    2.0**53,
    np.nan,
    np.inf,
    -np.inf,
)
OBJECTS = (
    None,
    pd.NA,
    pd.NaT,
    np.nan,
    True,
    1,
    2**80,
    1.5,
    1 + 2j,
    Decimal("1.1"),
    Decimal("NaN"),
    Decimal("sNaN"),
    "a",
    b"a",
    [1, 2],
    (1, 2),
    {"a": 1},
    frozenset({1}),
    np.arange(2),
    pd.Timestamp("2020-01-01"),
    dt.date(2020, 1, 1),
    dt.timedelta(1),
    object,
    len,
)


def ordinary(kind, n, rng):
    """Return n plain values of a kind, for models that can be fitted."""
    if kind == "normal":
        return rng.normal(size=n)
    if kind == "count":
        return rng.integers(0, 5, n)
    if kind == "yes":
        return rng.integers(0, 2, n)
    if kind == "share":
        return rng.uniform(0.05, 0.95, n)
    if kind == "positive":
        return rng.uniform(0.5, 3, n)
    return np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, n)]


def _times(n, rng):
    return pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 9, n), unit="D")


def _picked(values, n, rng):
    found = np.empty(n, dtype=object)
    for i in range(n):
        found[i] = values[rng.integers(len(values))]
    return found


def encodable(text):
    """Leave halves of surrogate pairs out, which Arrow's text cannot hold."""
    return text.encode("utf-8", "ignore").decode() or "b"


def hostile(kind, n, rng, text):
    """Return n values that nobody should hand in, of one kind."""
    whole = rng.integers(0, 4, n)
    mask = rng.random(n) < 0.3
    makers = {
        "extreme": lambda: _picked(NUMBERS, n, rng).astype(float),
        "scaled": lambda: rng.normal(size=n) * 10.0 ** rng.integers(-320, 308),
        "gaps": lambda: np.where(mask, np.nan, rng.normal(size=n)),
        "constant": lambda: np.full(n, rng.choice(NUMBERS)),
        "near": lambda: 1.0 + whole * 2.3e-16,
        "far": lambda: 1e9 + rng.normal(size=n) * 1e-6,
        "nullable": lambda: pd.array(np.where(mask, None, whole).tolist(), dtype="Int64"),
        "nullable float": lambda: pd.array(np.where(mask, None, whole).tolist(), dtype="Float64"),
        "nullable bool": lambda: pd.array([None if m else True for m in mask], dtype="boolean"),
        "bool": lambda: mask,
        "small": lambda: whole.astype(rng.choice(["int8", "uint8", "float16", "uint64"])),
        "big": lambda: 2**63 + whole.astype("uint64"),
        "objects": lambda: _picked(OBJECTS, n, rng),
        "one object": lambda: _picked(
            [whole.tolist() and 1.0, OBJECTS[rng.integers(len(OBJECTS))]], n, rng
        ),
        "text": lambda: _picked([*HOSTILE_TEXT, text], n, rng),
        "text gaps": lambda: _picked(["a", "b", None], n, rng),
        "string": lambda: pd.array(
            _picked(["a", encodable(text), None], n, rng).tolist(), "string"
        ),
        "category": lambda: pd.Categorical(
            _picked(["a", "b", None], n, rng),
            categories=["b", "a", "unused", encodable(text) + "?"],
        ),
        "category of numbers": lambda: pd.Categorical(whole, ordered=bool(n % 2)),
        "intervals": lambda: pd.cut(pd.Series(rng.normal(size=n)), [-9, 0, 9]).array,
        "times": lambda: _times(n, rng),
        "zoned": lambda: _times(n, rng).tz_localize("UTC"),
        "durations": lambda: pd.to_timedelta(whole, unit="D"),
        "periods": lambda: pd.PeriodIndex.from_ordinals(whole, freq="M"),
        "categories of times": lambda: pd.Categorical(_times(n, rng)),
        "complex": lambda: rng.normal(size=n) + 1j,
        "decimals": lambda: _picked([Decimal("1.5"), Decimal("2.25"), Decimal(0)], n, rng),
        "lists": lambda: _picked([[1], [2, 3], []], n, rng),
        "bytes": lambda: _picked([b"a", b"b"], n, rng),
        "sparse": lambda: pd.arrays.SparseArray(whole.astype(float)),
        "arrow": lambda: pd.array(whole.tolist(), dtype="int64[pyarrow]"),
        "arrow text": lambda: pd.array(list("ab" * n)[:n], dtype="string[pyarrow]"),
        "all missing": lambda: _picked([None, np.nan, pd.NA], n, rng),
    }
    return makers[kind]()


# Those of which models can be made, by luck, twice.
USABLE = (
    "extreme,scaled,gaps,constant,near,far,nullable,nullable float,small,bool,text gaps,category,"
    "category of numbers,intervals,periods,decimals,sparse,arrow,arrow text,string,text"
).split(",")
KINDS = USABLE * 2 + (
    "nullable bool,big,objects,one object,times,zoned,durations,categories of times,complex,lists,"
    "bytes,all missing"
).split(",")
# Formula, family, method and what the outcome should be like.
MODELS = (
    ("{y} ~ {x} + (1 | {g})", "gaussian", hmlm.REML(), "normal"),
    ("{y} ~ {x} + ({x} | {g})", "gaussian", hmlm.REML(), "normal"),
    ("{y} ~ {x} + (1 | {g}/{f})", "gaussian", hmlm.ML(), "normal"),
    ("{y} ~ {x} * {f}", "gaussian", hmlm.OLS(), "normal"),
    ("{y} ~ poly({x}, 2) + C({f})", "gaussian", hmlm.OLS(), "normal"),
    ("log({y}) ~ scale({x}) + bs({x}, df=4) + (1 | {g})", "gaussian", hmlm.REML(), "positive"),
    ("se({y}, {x}) ~ 1 + (1 | {g})", "gaussian", hmlm.REML(), "normal"),
    ("{y} ~ {x} + (1 | {g})", "bernoulli", hmlm.Laplace(), "yes"),
    ("{y} ~ {x} + offset({x})", "poisson", hmlm.GLM(), "count"),
    ("{y} ~ {f} + (1 | {g})", "poisson", hmlm.Laplace(), "count"),
    ("p({y}, 4) ~ {x} + (1 | {g})", "binomial", hmlm.Laplace(), "count"),
    ("{y} ~ {x} + (1 | {g})", "gamma", None, "positive"),
    ("{y} ~ {x} + (1 | {g})", "beta", None, "share"),
    ("{y} ~ {x} + (1 | {g})", "ordinal", None, "count"),
    ("{y} ~ {x} + (1 | {g})", "categorical", None, "text"),
    ("{y} ~ {x} + (1 | {g}); sigma ~ {x}", "student-t", None, "normal"),
)


def series(values):
    """Make a column, of objects where pandas can hold the values in no other way."""
    try:
        return pd.Series(values)
    except UnicodeError:  # half a surrogate pair
        return pd.Series(values, dtype=object)


def named(name):
    """Write a column's name as a formula must."""
    plain = name.isidentifier() and name.isascii() and not name.startswith("_")
    return name if plain else f"`{name}`"


def convert(frame, container):
    """Return the frame in another container, or as it is where that cannot hold it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if container == "polars":
                return pl.from_pandas(frame)
            if container == "arrow":
                return pa.Table.from_pandas(frame, preserve_index=False)
            if container == "dict":
                return {name: frame[name] for name in frame}
    except BaseException:  # what a container cannot hold is no matter of hmlm (polars panics too)
        return frame
    return frame


SIZES = (0.57, 0.25, 0.1, 0.02, 0.02, 0.015, 0.015, 0.01)
SHAPES = (0.82, 0.03, 0.06, 0.02, 0.01, 0.06)
TEXT = st.one_of(st.sampled_from(HOSTILE_TEXT), st.text(max_size=8))


@st.composite
def attempts(draw):
    """Draw a table, and a model of it."""
    formula, family, method, like = draw(st.sampled_from(MODELS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = int(rng.choice([24, 60, 12, 5, 3, 2, 1, 0], p=SIZES))
    spoiled = draw(st.sampled_from(["", "", "y", "x", "x", "x", "g", "g", "f", "f", "xg", "yf"]))
    renamed = draw(st.sampled_from(["", "", "", "y", "x", "g", "f", "gf"]))
    names = {part: draw(TEXT) if part in renamed else part for part in "yxgf"}
    usual = {
        "y": like,
        "x": "positive" if formula.startswith("se") else "normal",
        "g": "text",
        "f": "text",
    }
    columns = [
        series(hostile(draw(st.sampled_from(KINDS)), n, rng, draw(TEXT)))
        if part in spoiled
        else series(ordinary(usual[part], n, rng))
        for part in "yxgf"
    ]
    shape = rng.choice(["", "twice", "rows", "heads", "no columns", "index"], p=SHAPES)
    heads = list(names.values())
    if shape == "twice":
        columns, heads = [*columns, columns[0]], [*heads, heads[0]]
    frame = pd.concat(columns, axis=1)
    frame.columns = pd.Index(heads, dtype=object)
    if shape == "rows":
        frame.index = pd.MultiIndex.from_arrays([np.zeros(n), np.zeros(n)])
    elif shape == "heads":
        frame.columns = pd.MultiIndex.from_arrays([pd.Index(heads, dtype=object), list("abcd")])
    elif shape == "no columns":
        frame = frame.iloc[:, :0]
    elif shape == "index":
        frame.index = pd.Index([None] * n, name="y")
    container = draw(st.sampled_from(["pandas", "pandas", "polars", "arrow", "dict"]))
    written = formula.format(**{part: named(name) for part, name in names.items()})
    return written, family, method, convert(frame, container)


def attempt(formula, family, method, table):
    """Fit a model and show it; return 'fit' or 'model', or the error of hmlm that refused it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.perf_counter()
        try:
            model = hmlm.Model(formula, table, family)
            str(model)
            model._repr_html_()
        except HmlmError as error:
            return error
        finally:
            assert time.perf_counter() - start < SECONDS
        if method is None:
            return "model"
        try:
            fit = model.fit(method, 1, False)
        except HmlmError as error:
            return error
        str(fit.summary())
        str(fit.status)
        hmlm.tidy(fit)
        return "fit"


def test_any_table_is_fitted_or_refused_in_words(record_property):
    count, seconds = Counter(), []

    @settings(
        max_examples=FUZZ or 150,
        derandomize=not FUZZ,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=attempts())
    def check(drawn):
        start = time.perf_counter()
        found = attempt(*drawn)
        assert str(found).strip()
        seconds.append(time.perf_counter() - start)
        count["refused" if isinstance(found, HmlmError) else found] += 1

    check()
    figures = {
        "what": "hostile tables drawn",
        "tables": count.total(),
        "fitted": count["fit"],
        "model made, not fitted": count["model"],
        "refused": count["refused"],
        "slowest (s)": max(seconds),
    }
    record_property("trust", figures)


# What the drawn tables found, one by one.


@pytest.fixture
def frame():
    rng = np.random.default_rng(1)
    n = 24
    return pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "g": list("abcd") * 6})


def refused(message, table, formula="y ~ x + (1 | g)", **others):
    with pytest.raises(DataError, match=message):
        hmlm.Model(formula, table, **others)


def test_a_mapping_that_is_no_table(frame):
    refused("the mapping is no table", {**frame, "y": frame[["x", "x"]]})
    refused("the mapping is no table", {"y": [1.0], "x": [1.0, 2.0], "g": ["a"]})


def test_a_signalling_decimal(frame):
    values = [Decimal("1.5"), Decimal("sNaN")] * 12
    refused("'x' holds a decimal that is no number", frame.assign(x=values))


@pytest.mark.parametrize("column", ["y", "x"])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_whose_squares_overflow(frame, column, sign):
    table = frame.assign(**{column: sign * 1e200 * frame["x"].abs()})
    refused(f"'{column}' reaches .*e.20.*larger unit", table)
    fitted = frame.assign(**{column: 1e90 * frame[column]})
    assert np.isfinite(hmlm.Model("y ~ x + (1 | g)", fitted).fit(hmlm.REML()).criterion)


def test_functions_whose_values_squared_overflow(frame):
    refused("reaches .*larger unit", frame.assign(x=1e40 * frame["x"]), "y ~ I(x**4) + (1 | g)")


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_weights_and_standard_errors_beyond_all_bounds(frame, size):
    # Columns of numbers above 1e100 are refused as such.
    table = frame.assign(w=size)
    refused("'w' (go from|reaches)", table, se="w")
    refused("'w' (go from|reaches)", table, weights="w")


def test_half_of_a_surrogate_pair(frame):
    levels = pd.Series(["\ud800", "b", "c", "d"] * 6, dtype=object)
    refused(r"a level of column 'g' is no valid text, '\\ud800'", frame.assign(g=levels))
    named = frame.copy()
    named.columns = pd.Index(["y", "\ud800", "g"], dtype=object)
    refused("the name of a column is no valid text", named, "y ~ `\ud800` + (1 | g)")


def test_a_large_offset_has_a_finite_prior(frame):
    table = frame.assign(y=np.arange(24) % 4, x=800.0 + frame["x"])
    model = hmlm.Model("y ~ 1 + offset(x) + (1 | g)", table, "poisson")
    assert "nan" not in str(model.priors)
    assert "inf" not in model.priors["prior"].to_string()
