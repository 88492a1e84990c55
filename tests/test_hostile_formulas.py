"""A formula is read, never run: whatever the text, it is fitted or refused, and nothing else."""

import builtins
import os
import random
import subprocess
import time
import warnings

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm.errors import FormulaError, HmlmError

SECONDS = 10.0
TRIED = 600
CANARY = "hmlm_canary"
WRITE = f"open('{CANARY}', 'w')"
CODE = (
    "__import__('os').system('touch hmlm_canary')",
    "eval(\"__import__('os').system('touch hmlm_canary')\")",
    "exec('import os')",
    WRITE,
    f"I({WRITE})",
    f"I(I({WRITE}) + x)",
    "I(__import__('subprocess').run(['touch', 'hmlm_canary']))",
    "I((lambda: 0)())",
    "(lambda x: x)(x)",
    "lambda: 0",
    "I(z := 3)",
    "(z := x)",
    "I(f'{x}')",
    'f\'{__import__("os").system("touch hmlm_canary")}\'',
    "x.__class__",
    "x.__class__.__mro__[1].__subclasses__()",
    "I(x.__class__)",
    "`x.__class__`",
    "`__import__('os').system('touch hmlm_canary')`",
    "I(`__import__('os').system('touch hmlm_canary')`)",
    "().__class__.__bases__[0]",
    "[c for c in ().__class__.__base__.__subclasses__()]",
    "{x: x}",
    "{x + x}",
    "{x}",
    "np.load('a')",
    "np.log(x)",
    "pd.read_pickle('hmlm_canary')",
    "x.to_csv('hmlm_canary')",
    "`x`.to_csv('hmlm_canary')",
    "scale.__globals__",
    "log.__globals__['__builtins__']",
    "globals()",
    "Q('x')",
    "Q(\"__import__('os')\")",
    "C(x, Treatment('a'))",
    "C(k, Treatment('zzz'))",
    "C(k, levels=[1, 2])",
    "C(k, __import__('os'))",
    "bs(x, df=1e9)",
    "bs(x, df=-4)",
    "bs(x, knots=[1])",
    "bs(x, df=4, lower_bound=__import__)",
    "poly(x, 10**9)",
    "poly(x, 100)",
    "poly(x, -1)",
    "poly(x, 0)",
    "poly(x, 1.5)",
    "I(x ** 999999999)",
    "I(2 ** 2 ** 2 ** 2 ** 2 ** 2)",
    "I(9 ** 9 ** 9 ** 9)",
    "I(x / 0)",
    "I(1)",
    "I(None)",
    "I(True)",
    "I('a')",
    "I()",
    "I(x, x)",
    "I(x == 'a')",
    "I(I(I(x)))",
    "log(-x)",
    "log(0 * x)",
    "sqrt(k)",
    "scale(k)",
    "center()",
    "offset(x)",
    "offset(k)",
    "offset(offset(x))",
    "hsgp(x, m=10, c=2)",
    "binary(x)",
    "B(x, 1)",
    "prop(x, 4)",
    "truncated(x)",
    "censored(x, k)",
    "standardize(x)",
    "cr(x, df=4)",
    "te(x, x)",
    "dmatrix('x')",
    "'; DROP TABLE y; --",
    "x; DROP TABLE y",
    "1 OR 1=1",
    "x' OR '1'='1",
    "x UNION SELECT * FROM read_csv('/etc/passwd')",
    "x -- comment",
    "x # comment",
    "x /* comment */",
    "$(touch hmlm_canary)",
    "`touch hmlm_canary`",
    "x | touch hmlm_canary",
    "x > hmlm_canary",
    "x && touch hmlm_canary",
    "%timeit x",
    "!touch hmlm_canary",
    "@x",
    "x @ x",
    "x // 2",
    "x % 2",
    "~x",
    "not x",
    "x if x else x",
    "x and x",
    "await x",
    "yield x",
    "import os",
    "*x",
    "**x",
    "x[0]",
    "x[:]",
    "...",
    "x...",
    "\x00",
    "x\x00",
    "`x\x00`",
    "\ufeffx",
    "\u0445",  # Cyrillic ha
    "\uff58",  # full width x
    "x\u200b",
    "x\u202e",
    "\U0001d431",  # mathematical x
    "\u2179",  # Roman numeral ten
    "x\u0301",
    "\uff11 + x",  # full width 1
    "x + \u0661",  # Arabic 1
    "\uff081 | g\uff09",  # full width parentheses
    "x \u223c y",  # tilde operator
    "\ud800",
    "`\ud800`",
    "🐍",
    "\\",
    "x \\\n + k",
    "x\n+\nk",
    "x\r+ k",
    "x\t+\tk",
    "``",
    "` `",
    "`x",
    "x`",
    "```x```",
    "'x",
    '"x',
    "'''x'''",
    '"x"',
    "1e999",
    "1e-999 * x",
    "0x10",
    "1_000",
    "1j",
    "nan",
    "inf",
    "-1 - 1 - 1",
    "+ + x",
    "x - - x",
    "x + ",
    "x * * k",
    "(x",
    "x)",
    "((((x))))",
    "()",
    "(|)",
    "(1 | )",
    "( | g)",
    "(1 | g",
    "(1 || g)",
    "(1 ||| g)",
    "(1 | g | g)",
    "(1 | (1 | g))",
    "(1 | g/)",
    "(1 | g:)",
    "(1 | g*k)",
    "(1 | g + k)",
    "(1 | I(g))",
    "(1 | __import__('os'))",
    "(1 | g)(1 | k)",
    "(1 | g) * x",
    "x:(1 | g)",
    "(1 | g):(1 | k)",
    "I((1 | g))",
    "(offset(x) | g)",
    "(1 | y)",
    "y",
    "x:x",
    "x/x/x",
    "x ** 0",
    "(x + k) ** 10",
    "(x + k) ** -1",
    "(x + k) ** x",
    "(x + k) ** 1e9",
    ".",
    ". - x",
    "x ~ k",
    "~",
    "~ ~ ~",
    "0",
    "1",
    "-1",
    "0 + 0",
    "0 + (0 | g)",
    "",
    " ",
)
LONG = (
    "x + " * 250_000 + "x",
    "x" * 1_000_000,
    "(" * 500_000 + "x" + ")" * 500_000,
    "(" * 3_000 + "x" + ")" * 3_000,
    "(" * 39 + "x" + ")" * 39,
    "I(" * 1_000 + "x" + ")" * 1_000,
    "I(" * 38 + "x" + ")" * 38,
    "log(" * 30 + "x" + ")" * 30,
    "-" * 9_000 + "x",
    "I(" + "-" * 9_000 + "x)",
    "I(" + "x + " * 2_000 + "x)",
    "I(" + "x ** 2" * 400 + ")",
    "I(x" + " ** 1" * 1_500 + ")",
    " * ".join(["x", "k"] * 1_000),
    " * ".join(f"`c{i}`" for i in range(30)),
    "(" + " + ".join(f"`c{i}`" for i in range(60)) + ") ** 10",
    " : ".join(["x"] * 2_000),
    " / ".join(["g"] * 2_000),
    "(1 | " + "/".join(["g", "k"] * 1_000) + ")",
    "(1 | " + ":".join(["g"] * 3_000) + ")",
    " + ".join(["(1 | g)"] * 1_000),
    "`" * 9_999,
    "'" * 9_999,
    ";" * 9_999,
    "~" * 9_999,
    "\n" * 9_999 + "x",
    "é" * 9_000,
    "9" * 9_000,
    "I(x ** " + "9" * 4_000 + ")",
    "I(" + "9" * 5_000 + " * x)",
    "I(x * 0." + "1" * 5_000 + ")",
)
PIECES = tuple(
    "x y k g ( ) ( ) | || ~ + - * ** / : , ; = == < ' \" ` . _ 0 1 2 1e9 I( log( C( poly( bs( "
    "scale( offset( p( se( lambda __class__ __import__ os [ ] { } := @ # % \\ \n \x00 é \uff58 ''"
    " 3".split(" ")
)


@pytest.fixture(scope="module")
def frame():
    """A small table, with columns whose names ask to be run."""
    rng = np.random.default_rng(7)
    n = 24
    columns = {
        "y": rng.normal(size=n),
        "x": rng.uniform(1, 2, n),
        "k": np.tile(list("abc"), n // 3),
        "g": np.repeat(list("pqrstu"), n // 6),
        "x.__class__": rng.normal(size=n),
        "__import__('os').system('touch hmlm_canary')": rng.normal(size=n),
    }
    return pd.DataFrame(columns)


@pytest.fixture
def guarded(monkeypatch, tmp_path):
    """Refuse to start programs or to write files, and note whoever tries."""
    tried = []

    def forbid(what):
        def refuse(*args, **kwargs):
            tried.append(what)
            raise AssertionError(f"{what} was called")

        return refuse

    plain = builtins.open

    def reading(file, mode="r", *args, **kwargs):
        if isinstance(mode, str) and set(mode) & set("wax+"):
            tried.append(f"open({file})")
        return plain(file, mode, *args, **kwargs)

    monkeypatch.chdir(tmp_path)
    for name in ("system", "popen", "execv", "execve", "fork", "posix_spawn", "remove", "unlink"):
        monkeypatch.setattr(os, name, forbid(name))
    for name in ("Popen", "run", "call", "check_output"):
        monkeypatch.setattr(subprocess, name, forbid(name))
    monkeypatch.setattr(builtins, "open", reading)
    yield tried
    assert not tried
    assert not list(tmp_path.iterdir())


def attempt(formula, frame, fit=False):
    """Return a model, or the error of hmlm that refused the formula, and the seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = hmlm.Model(formula, frame)
            str(model)
            if fit:
                model.fit(hmlm.REML() if model.design.blocks else hmlm.OLS())
        except HmlmError as error:
            model = error
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, ascii(formula)[:80]
    return model, seconds


def figures(what, attempts, guarded):
    refused = sum(isinstance(found, HmlmError) for found, _ in attempts)
    return {
        "what": what,
        "formulas": len(attempts),
        "accepted": len(attempts) - refused,
        "refused": refused,
        "slowest (s)": max(seconds for _, seconds in attempts),
        "programs started, files written": len(guarded),
    }


PLACES = ("y ~ {}", "{} ~ x", "y ~ x + ({} | g)", "y ~ 1; sigma ~ {}")


@pytest.mark.parametrize("place", PLACES)
def test_code_in_a_formula_is_not_run(frame, guarded, place, record_property):
    attempts = []
    for code in CODE:
        attempts.append(attempt(place.replace("{}", code), frame, fit="sigma" not in place))
        if "import" in code and "`" not in code:
            assert isinstance(attempts[-1][0], HmlmError), code
    record_property("trust", figures("code in a formula", attempts, guarded))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("k", range(len(LONG)))
def test_long_and_deep_formulas_are_refused_soon(frame, guarded, place, k, record_property):
    found = attempt(place.replace("{}", LONG[k]), frame)
    assert len(str(found[0])) < 25_000
    record_property("trust", figures("long and deep formulas", [found], guarded))


TERMS = ("x", "k", "g", "I(x**2)", "log(x)", "poly(x, 2)", "C(k, Sum)", "offset(x)", "0", "(x + k)")
GROUPS = ("", " + (1 | g)", " + (x || g)", " + (0 + x | g)", " + (k | g)", " + (1 | k/g)")


def drawn_formulas(n, seed):
    """Draw formulas: pieces thrown together, good ones a little changed, and sums of terms."""
    rng = random.Random(seed)
    good = ("y ~ x + (x | g)", "log(x) ~ I(x**2) + C(k) + (1 | g/k)", "y ~ poly(x, 2)*k - 1")
    signs = "".join(PIECES) + "xyg"
    for i in range(n):
        if i % 3 == 0:
            right, *others = rng.choices(TERMS, k=rng.randint(1, 4))
            for term in others:
                right += rng.choice([" + ", " + ", " + ", " * ", ":", " - ", "/"]) + term
            yield f"y ~ {right}{rng.choice(GROUPS)}"
            continue
        if i % 3 == 1:
            pieces = rng.choices(PIECES, k=rng.randint(1, 12))
            yield rng.choice(PLACES).replace("{}", rng.choice(["", " "]).join(pieces))
            continue
        text = list(rng.choice(good))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 2)] = rng.choices(signs, k=rng.randint(0, 2))
        yield "".join(text)


def test_drawn_formulas_are_fitted_or_refused(frame, guarded, record_property):
    found = [attempt(text, frame, fit=True) for text in drawn_formulas(TRIED, 11)]
    counts = figures("drawn formulas", found, guarded)
    assert counts["accepted"] > 100  # the test is of both kinds
    assert counts["refused"] > 200
    record_property("trust", counts)


@pytest.mark.parametrize("formula", [None, 1, b"y ~ x", [1], [], ["y ~ x", None], {"y": "x"}, len])
def test_what_is_no_text_is_no_formula(frame, formula):
    with pytest.raises(FormulaError):
        hmlm.Model(formula, frame)


@pytest.mark.parametrize("setting", ["weights", "se", "link", "family"])
@pytest.mark.parametrize("value", [*CODE[:4], "\x00", "x" * 100_000, "\ud800", ""])
def test_names_beside_the_formula_are_names_only(frame, guarded, setting, value):
    with pytest.raises(HmlmError):
        hmlm.Model("y ~ x + (1 | g)", frame, **{setting: value})
