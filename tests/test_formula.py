"""lme4's notation: what a formula means, and that a hostile one is refused before anything runs."""

import builtins
import io
import os
import subprocess
import sys

import pytest
from support import make

from hmlm.errors import FormulaError, HmlmError
from hmlm.formula import parse_formula
from hmlm.grammar import MAX_DEPTH, MAX_LENGTH, MAX_TERMS
from hmlm.spec import quoted


def population(formula, table):
    return make(formula, table).terms


@pytest.mark.parametrize(
    ("right", "terms"),
    [
        ("1", ["Intercept"]),
        ("x", ["Intercept", "x"]),
        ("x + z", ["Intercept", "x", "z"]),
        ("0 + x", ["x"]),
        ("x - 1", ["x"]),
        ("-1 + x", ["x"]),
        ("x + 0", ["x"]),
        ("0 + x + 1", ["Intercept", "x"]),
        ("x:z", ["Intercept", "x:z"]),
        ("x*z", ["Intercept", "x", "z", "x:z"]),
        ("x*z - z", ["Intercept", "x", "x:z"]),
        ("(x + z + k)**2", ["Intercept", "x", "z", "k[v]", "x:z", "x:k[v]", "z:k[v]"]),
        ("x/k", ["Intercept", "x", "x:k[v]"]),
        ("k/x", ["Intercept", "k[v]", "k[u]:x", "k[v]:x"]),
        ("f", ["Intercept", "f[mid]", "f[hi]"]),
        ("0 + f", ["f[lo]", "f[mid]", "f[hi]"]),
        ("k", ["Intercept", "k[v]"]),
        ("f:x", ["Intercept", "f[lo]:x", "f[mid]:x", "f[hi]:x"]),
        ("f*x", ["Intercept", "f[mid]", "f[hi]", "x", "f[mid]:x", "f[hi]:x"]),
        ("f*k", ["Intercept", "f[mid]", "f[hi]", "k[v]", "f[mid]:k[v]", "f[hi]:k[v]"]),
        ("C(f)", ["Intercept", "C(f)[mid]", "C(f)[hi]"]),
        ("C(k, Treatment('v'))", ["Intercept", "C(k, Treatment('v'))[u]"]),
        ("C(f, Sum)", ["Intercept", "C(f, Sum)[lo]", "C(f, Sum)[mid]"]),
        ("b", ["Intercept", "b"]),
        ("I(x**2)", ["Intercept", "I(x ** 2)"]),
        ("{x + z}", ["Intercept", "I(x + z)"]),
        ("I((x + z)*2) + I(x + z*2)", ["Intercept", "I((x + z) * 2)", "I(x + z * 2)"]),
        ("I(x > 3)", ["Intercept", "I(x > 3)"]),
        ("log(z) + sqrt(x + 10)", ["Intercept", "log(z)", "sqrt(x + 10)"]),
        ("log1p(z) + exp(x) + abs(x)", ["Intercept", "log1p(z)", "exp(x)", "abs(x)"]),
        ("scale(log(z)) + scale(x)", ["Intercept", "scale(log(z))", "scale(x)"]),
        ("center(x)", ["Intercept", "center(x)"]),
        ("poly(x, 2)", ["Intercept", "poly(x, 2)[0]", "poly(x, 2)[1]"]),
        ("bs(x, df=3)", ["Intercept", *(f"bs(x, df=3)[{i}]" for i in range(3))]),
        ("x + offset(log(z))", ["Intercept", "x"]),
        ("`my col`", ["Intercept", "my col"]),
        ("`my col`:x", ["Intercept", "my col:x"]),
        ("x + x", ["Intercept", "x"]),
    ],
)
def test_population_terms(right, terms, table):
    assert population(f"y ~ {right}", table) == tuple(terms)


@pytest.mark.parametrize(
    ("term", "blocks"),
    [
        ("(1 | g)", [("g", ["Intercept"], (1,))]),
        ("(1|g)", [("g", ["Intercept"], (1,))]),
        ("(x | g)", [("g", ["Intercept", "x"], (2,))]),
        ("(1 + x | g)", [("g", ["Intercept", "x"], (2,))]),
        ("(x || g)", [("g", ["Intercept", "x"], (1, 1))]),
        ("(0 + x | g)", [("g", ["x"], (1,))]),
        ("(x - 1 | g)", [("g", ["x"], (1,))]),
        ("(1 | g) + (0 + x | g)", [("g", ["Intercept", "x"], (1, 1))]),
        ("(1 | g/h)", [("g", ["Intercept"], (1,)), ("g:h", ["Intercept"], (1,))]),
        ("(1 | g:h)", [("g:h", ["Intercept"], (1,))]),
        ("(1 | g) + (1 | h)", [("g", ["Intercept"], (1,)), ("h", ["Intercept"], (1,))]),
        ("(f | g)", [("g", ["Intercept", "f[mid]", "f[hi]"], (3,))]),
        ("(0 + f | g)", [("g", ["f[lo]", "f[mid]", "f[hi]"], (3,))]),
        ("(f || g)", [("g", ["Intercept", "f[mid]", "f[hi]"], (1, 1, 1))]),
        ("(x*z | g)", [("g", ["Intercept", "x", "z", "x:z"], (4,))]),
        ("(scale(x) | g)", [("g", ["Intercept", "scale(x)"], (2,))]),
    ],
)
def test_group_terms(term, blocks, table):
    design = make(f"y ~ x + {term}", table)
    assert [(b.group, list(b.columns), b.parts) for b in design.blocks] == blocks
    assert design.terms == ("Intercept", "x")


def test_nested_factors_come_from_outer_to_inner():
    spec = parse_formula("y ~ 1 + (x | a/b/c) + (1 || d)")
    assert [str(t) for t in spec.group_terms] == [
        "(x | a)",
        "(x | a:b)",
        "(x | a:b:c)",
        "(1 || d)",
    ]
    assert spec.groups == ("a", "a:b", "a:b:c", "d")
    assert spec.columns == ("y", "x", "a", "b", "c", "d")
    assert spec.formula == "y ~ 1 + (x | a) + (x | a:b) + (x | a:b:c) + (1 || d)"


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x",
        "log(y) ~ x * z + (x | g)",
        "`my y` ~ `my x` + (`my x` || `my g`/h)",
        "y ~ 0 + I((x + z) * 2) + (0 + f | g:h)",
        "y ~ poly(x, 2) - 1 + offset(z)",
    ],
)
def test_a_spec_writes_a_formula_that_reads_back(formula):
    spec = parse_formula(formula)
    again = parse_formula(spec.formula)
    for field in ("outcome", "terms", "columns"):
        assert getattr(again, field) == getattr(spec, field)
    assert list(map(str, again.group_terms)) == list(map(str, spec.group_terms))
    assert again.formula == spec.formula


def test_names_are_quoted_where_they_have_to_be():
    assert [quoted(n) for n in ("x", "größe", "x_1", "my x", "a.b", "_u", "1st")] == [
        "x",
        "größe",
        "x_1",
        "`my x`",
        "`a.b`",
        "`_u`",
        "`1st`",
    ]


def test_columns_may_be_called_as_functions_are(table):
    named = table.rename(columns={"x": "log", "z": "scale", "k": "Treatment"})
    named["C"], named["I"], named["offset"], named["os"] = named["log"] ** 2, 1.5, 0.5, named["h"]
    assert population("y ~ log + log(scale)", named) == ("Intercept", "log", "log(scale)")
    assert population("y ~ C + Treatment", named) == ("Intercept", "C", "Treatment[v]")
    assert population("y ~ C(Treatment)", named) == ("Intercept", "C(Treatment)[v]")
    design = make("log ~ scale(scale) + offset(offset) + (1 | os)", named)
    assert design.terms == ("Intercept", "scale(scale)")
    assert design.blocks[0].group == "os"


def test_family_priors_and_weights_go_into_the_spec():
    spec = parse_formula("y ~ x", family="Normal", weights="w")
    assert spec.family.name == "gaussian"
    assert spec.weights == "w"
    with pytest.raises(HmlmError, match=r"no family called 'gausian'\. Did you mean 'gaussian'"):
        parse_formula("y ~ x", family="gausian")


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("", "the formula is empty"),
        ("   ", "the formula is empty"),
        ("y", "one '~'"),
        ("~ x", "no outcome before '~'"),
        ("y ~", "nothing after '~'"),
        ("y ~ x ~ z", "more than one '~'"),
        ("(y ~ x)", "cannot stand inside parentheses"),
        ("y + z ~ x", r"wrap arithmetic in I\(...\)"),
        ("y*2 ~ x", r"wrap arithmetic in I\(...\)"),
        ("y, z ~ x", "stray ','"),
        ("y ~ y", "'y' stands on both sides"),
        ("y ~ log(y)", "'y' stands on both sides"),
        ("y ~ x + (y | g)", "'y' stands on both sides"),
        ("y ~ x + (1 | y)", "'y' stands on both sides"),
        ("log ~ x + log", "'log' stands on both sides"),
        ("y ~ x z", "nothing between 'x' and 'z'"),
        ("y ~ 2x", "nothing between '2' and 'x'"),
        ("y ~ x +", "ends in a sign"),
        ("y ~ x - - z", "two signs"),
        ("y ~ 2", "the number 2 is no term"),
        ("y ~ 2*x", "the number 2 is no term"),
        ("y ~ x*2", "the number 2 is no term"),
        ("y ~ 'a'", "the constant 'a' is no term"),
        ("y ~ None", "the constant None is no term"),
        ("y ~ x**2", r"no power outside I\(...\): write I\(x\*\*2\)"),
        ("y ~ (x + z)**k", "no power outside"),
        ("y ~ (x + z)**0", r"write \*\*2"),
        ("y ~ x^2", r"Unexpected character: \^.*a power is written I\(x\*\*2\)"),
        ("y ~ x == 1", r"'==' has no meaning outside I"),
        ("y ~ x = 1", "a formula takes no 'x='"),
        ("y ~ (x) = 1", "'=' has no meaning outside I"),
        ("y ~ log(x, z)", r"log\(...\) takes one argument"),
        ("y ~ poly(x, n=3)", r"poly\(...\) takes no 'n='"),
        ("y ~ bs(x, knots=k)", r"bs\(...\) takes no 'knots='"),
        ("y ~ Treatment('a')", r"goes inside C\(...\)"),
        ("y ~ p(x, z)", r"p\(successes, trials\) belongs before '~'"),
        ("poly(y, 2) ~ x", "'poly' is not a function that the outcome may use"),
        ("y ~ rescale(x)", "Did you mean 'scale'.*make a column of it first"),
        ("y ~ Intercept", "the name of the constant"),
        ("y ~ x + (Intercept | g)", "the name of the constant"),
        ("y ~ (x + z", r"'\)' missing"),
        ("y ~ x + z)", r"'\)' too many"),
        ("y ~ (x}", "cannot read"),
        ("y ~ ()", "cannot read"),
        ("y ~ `x", "a backquote is not closed"),
        ("y ~ '`' + `x", "a backquote is not closed"),
        ("y ~ x + 1 | g", "'|' must stand inside its own parentheses"),
        ("y ~ ((1 | g))", "'|' must stand inside its own parentheses"),
        ("y ~ (1 | g):x", "'|' must stand inside its own parentheses"),
        ("y ~ (1) | (g)", "'|' must stand inside its own parentheses"),
        ("y ~ x - (1 | g)", "a group term cannot be subtracted"),
        ("y ~ (1 ||| g)", "one '|' or '||'"),
        ("y ~ (1 | g | h)", "one '|' or '||'"),
        ("y ~ (| g)", "nothing before '|'"),
        ("y ~ (1 |)", "no grouping column"),
        ("y ~ (1 | g/)", "ends in an operator"),
        ("y ~ (1 | g + h)", "joined by ':' or '/'"),
        ("y ~ (1 | g*h)", "joined by ':' or '/'"),
        ("y ~ (1 | 2)", "joined by ':' or '/'"),
        ("y ~ (1 | log(g))", "joined by ':' or '/'"),
        ("y ~ (1 | `a:b`)", "':' in its name"),
        ("y ~ (0 | g)", "no effect left"),
        ("y ~ (offset(x) | g)", "an offset belongs outside"),
    ],
)
def test_unreadable_formulas_say_why(formula, message):
    with pytest.raises(FormulaError, match=message):
        parse_formula(formula)


@pytest.mark.parametrize("formula", [None, 3, b"y ~ x", {"y": "x"}, object()])
def test_a_formula_is_text(formula):
    with pytest.raises(FormulaError, match="a formula is text"):
        parse_formula(formula)


def sentinel():
    """Return a function that a formula could find in the caller's frame, and its calls."""
    calls = []

    def touch(*args, **kwargs):
        calls.append((args, kwargs))
        return args[0] if args else 0

    return touch, calls


HOSTILE = [
    "y ~ os.system('touch owned')",
    "y ~ os.system(x)",
    "y ~ x + os.path.join(k)",
    "y ~ np.log(x)",
    "y ~ touch(x)",
    "y ~ log(touch(x))",
    "y ~ I(touch(x))",
    "touch(y) ~ x",
    "y ~ (touch(x) | g)",
    "y ~ (1 | touch(g))",
    "y ~ (1 | touch.g)",
    "y ~ offset(touch(x))",
    "y ~ bs(x, df=touch(3))",
    "y ~ C(k, Treatment(touch('u')))",
    "y ~ eval('touch(1)')",
    "y ~ exec('touch(1)')",
    "y ~ open('owned', 'w')",
    "y ~ getattr(x, 'values')",
    "y ~ print(x)",
    "y ~ __import__('os').system('touch owned')",
    "y ~ x.__class__",
    "y ~ x.__class__.__mro__",
    "y ~ log.__globals__",
    "y ~ `x`.__class__",
    "y ~ I(x.__class__)",
    "y ~ I(x).values",
    "y ~ I(x)(touch)",
    "y ~ log(x)(z)",
    "y ~ 'x'(touch)",
    "y ~ (lambda: touch(1))()",
    "y ~ lambda x: touch(x)",
    "y ~ I(lambda x: touch(x))",
    "y ~ [touch(v) for v in x]",
    "y ~ {touch(x)}",
    "y ~ x if touch(x) else z",
    "y ~ x and touch(x)",
    "y ~ (q := touch(x))",
    "y ~ x[touch(x)]",
    "y ~ x['u']",
    "y ~ '{0.__class__}'.format(x)",
    "y ~ '%s' % touch(x)",
    "y ~ f'{touch(x)}'",
    "y ~ C(k, Treatment(f'{touch(x)}'))",
    "y ~ x; touch(x)",
    "y ~ x\n touch(x)",
    "y ~ x # touch",
    "y ~ x @ touch",
    "y ~ x + *touch",
    "y ~ hsgp(x, m=10)",
    "y ~ C(k, Treatment('a'*999999999))",
    "y ~ I('a'*999999999)",
    "y ~ I(9**999**999**999)",
    "y ~ I(((9**99)**99)**99)",
    "y ~ poly(x, 999999999)",
    "y ~ bs(x, df=999999999)",
    "y ~ (x + z + k + f + b + h + g)**99999999",
]


# These name nothing but columns, which the data do not have.
NAMES = [
    "y ~ hidden",
    "y ~ x + log(hidden)",
    "y ~ (hidden | g)",
    "y ~ (1 | hidden)",
    "y ~ C(k, touch)",
    "y ~ C(k, contrast=touch)",
    "y ~ `os.system('touch owned')`",
    "y ~ `{0.__class__}`",
]


@pytest.mark.parametrize("formula", HOSTILE + NAMES)
def test_hostile_formulas_run_nothing(formula, table, monkeypatch):
    touch, calls = sentinel()
    hidden = table["x"]  # in the caller's frame, and not in the data
    for module, name in (
        (os, "system"),
        (subprocess, "Popen"),
        (builtins, "eval"),
        (builtins, "exec"),
        (io, "open"),
    ):
        monkeypatch.setattr(module, name, touch)
    monkeypatch.setattr(sys.modules[__name__], "touch", touch, raising=False)
    with pytest.raises(HmlmError) as refusal:
        make(formula, table)
    assert calls == []
    if formula in NAMES:
        assert "there is no column" in str(refusal.value)
    assert len(hidden) == 60


@pytest.mark.parametrize("formula", HOSTILE)
def test_hostile_formulas_are_refused_as_text(formula):
    with pytest.raises(FormulaError):
        parse_formula(formula)


def test_the_sentinel_would_have_noticed(monkeypatch):
    touch, calls = sentinel()
    monkeypatch.setattr(os, "system", touch)
    os.system("touch owned")
    assert len(calls) == 1


def test_very_long_and_very_deep_formulas_are_refused():
    with pytest.raises(FormulaError, match=f"at most {MAX_LENGTH:,}"):
        parse_formula("y ~ " + " + ".join(["x"] * MAX_LENGTH))
    with pytest.raises(FormulaError, match=f"more than {MAX_DEPTH} deep"):
        parse_formula("y ~ " + "(" * 4000 + "x" + ")" * 4000)
    with pytest.raises(FormulaError, match=f"expands to more than {MAX_TERMS:,} terms"):
        parse_formula("y ~ " + "*".join(f"x{i}" for i in range(60)))
    with pytest.raises(FormulaError, match=f"expands to more than {MAX_TERMS:,} terms"):
        parse_formula("y ~ (" + " + ".join(f"x{i}" for i in range(60)) + ")**5")
    # long, and readable: each piece of it is checked, and none of it is a recursion
    assert len(parse_formula("y ~ " + " + ".join(f"x{i}" for i in range(900))).columns) == 901


def test_a_formula_too_deep_for_the_evaluator_is_a_formula_error(table, monkeypatch):
    def too_deep(text, frame):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("hmlm.resolving.resolve", too_deep)
    with pytest.raises(FormulaError, match=r"cannot evaluate '1 .*maximum recursion depth"):
        make("y ~ k + log(x)", table)
