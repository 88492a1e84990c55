import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from support import make

from hmlm.datasets import load_dataset
from hmlm.default_priors import resolve_priors
from hmlm.design import make_design
from hmlm.display import clean, clip, latex_name, wrap_sum, wrap_words
from hmlm.equations import model_html, model_latex, model_text
from hmlm.formula import parse_formula
from hmlm.notation import LATEX, TEXT
from hmlm.priors import PRIOR_KINDS, Prior
from hmlm.spec import with_priors

# Every macro that the LaTeX may use: MathJax 2 to 4 and KaTeX know them all.
MACROS = set(
    r"begin end text operatorname sim quad qquad mu beta sigma eta nu lambda alpha dots vdots bar "
    r"sum textstyle times backslash lbrace rbrace wedge gamma delta pi phi le propto".split()
)
SIGNS = set(r"\ _ % & # $ ,".split())
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></table>",
    r"\)",
    r"\]",
    r"\end{aligned}",
    r"\href{javascript;alert(1)}{x}",
    "$x$",
    "$$",
    "]]>",
    "-->",
    "a_b^2 % & # ~",
    "{",
    "}",
    "\\",
    "new\nline\r\x1b[31m",
    "\u202eright to left",
    "名前 é β 🎲",
    "'\"",
]
MODELS = {
    "alcohol": ("alcohol", "alcuse ~ coa + peer + time + (time | id)"),
    "radon": ("radon", "log_radon ~ floor + log_uranium + (floor || county)"),
    "pastes": ("pastes", "strength ~ 1 + (1 | batch/cask)"),
    "penicillin": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
}


def show(name, pooling="partial", **options):
    data, formula = MODELS[name]
    design = make(formula, load_dataset(data), pooling, **options)
    return model_text(design, resolve_priors(design))


def all_three(design):
    priors = resolve_priors(design)
    return model_text(design, priors), model_latex(design, priors), model_html(design, priors)


def table(n=60, **columns):
    rng = np.random.default_rng(1)
    plain = {"y": rng.normal(size=n), "x": rng.normal(size=n), "w": rng.uniform(1, 2, size=n)}
    return pd.DataFrame(plain | {"g": np.arange(n) // 10 % 6} | columns)


def check_latex(latex):
    """Fail unless the LaTeX is one aligned environment of known macros, everything closed."""
    assert latex.startswith("\\begin{aligned}\n")
    assert latex.endswith("\n\\end{aligned}")
    assert latex.count(r"\begin{aligned}") == latex.count(r"\end{aligned}") == 1
    assert latex.count(r"\begin{pmatrix}") == latex.count(r"\end{pmatrix}")
    macros = re.findall(r"\\([a-zA-Z]+|.)", latex)
    assert set(macros) <= MACROS | SIGNS
    depth = 0
    for sign in re.sub(r"\\[^a-zA-Z]", "", latex):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    for inside in re.findall(r"\\text\{([^{}]*)\}", latex):
        assert not set(inside) & set("\\_%&#$~^<>\n"), inside
    body = re.sub(r"\\begin\{pmatrix\}.*?\\end\{pmatrix\}", "", latex)
    for row in body.splitlines()[1:-1]:
        assert len(re.findall(r"(?<!\\)&", row)) == 3, row


class Tags(HTMLParser):
    """Collects the tags and the text of a page, with the tag that each piece stands in."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.texts = set(), [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)
        assert set(dict(attrs)) <= {"class", "style"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def handle_comment(self, data):
        pytest.fail(f"a comment: {data}")


def check_html(page):
    """Fail unless the page holds only the tags meant, and one formula."""
    parsed = Tags(page)
    assert not parsed.open
    assert parsed.tags <= set("div p code table caption strong thead tbody tr th td".split())
    formulas = [text for tag, text in parsed.texts if "\\[" in text and tag == "div"]
    assert len(formulas) == 1
    check_latex(formulas[0].removeprefix("\\[\n").removesuffix("\n\\]"))
    outside = [text for tag, text in parsed.texts if tag not in ("div", "code")]
    assert not [text for text in outside if set(text) & set("$\\")]


def check_text(text):
    assert max(map(cell_len, text.splitlines())) <= 88
    assert all(c.isprintable() or c in "\n\u200c\u200d" for c in text)
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_alcohol_as_text():
    text, table_of_priors = show("alcohol").split("\n\nPriors\n")
    assert text == (
        "alcuse ~ coa + peer + time + (time | id)\n"
        "\n"
        "Level 1: rows i = 1, ..., 246\n"
        "  alcuseᵢ ~ Normal(μᵢ, σ²)\n"
        "  μᵢ = β₀ + β₁ coaᵢ + β₂ peerᵢ + β₃ timeᵢ + b₀[idᵢ] + b₁[idᵢ] timeᵢ\n"
        "\n"
        "Level 2: id j = 1, ..., 82\n"
        "  (b₀ⱼ, b₁ⱼ) ~ MVN(0, D)\n"
        "  D = diag(sd₀, sd₁) R diag(sd₀, sd₁)\n"
        "  R ~ LKJ(2)\n"
        "\n"
        "Data\n"
        "  246 rows; id: 82 groups of 3 rows"
    )
    rows = [re.split(r"  +", line.strip()) for line in table_of_priors.splitlines()]
    assert [(row[0], row[1], re.sub(r"=\d+\.\d+", "=...", row[2])) for row in rows[:-1]] == [
        ("β₀*", "Intercept", "normal(mu=..., sigma=...)"),
        ("β₁", "coa", "normal(mu=0, sigma=...)"),
        ("β₂", "peer", "normal(mu=0, sigma=...)"),
        ("β₃", "time", "normal(mu=0, sigma=...)"),
        ("sd₀", "sd_id[Intercept]", "half-student-t(nu=4, sigma=...)"),
        ("sd₁", "sd_id[time]", "half-student-t(nu=4, sigma=...)"),
        ("R", "cor_id", "lkj(eta=2)"),
        ("σ", "sigma", "half-student-t(nu=4, sigma=...)"),
    ]
    assert {row[3] for row in rows[:-1]} == {"default"}
    assert rows[-1] == ["* on the expected outcome at average predictors, β₀ + Σₖ βₖ mean(xₖ)"]


def test_uncorrelated_effects_have_a_normal_each():
    text = show("radon")
    assert "  b₀ⱼ ~ Normal(0, sd₀²)\n  b₁ⱼ ~ Normal(0, sd₁²)\n" in text
    assert "919 rows; county: 85 groups of 1 to 116 rows (median 5)" in text
    assert "LKJ" not in text


def test_nested_factors_have_a_level_each():
    text = show("pastes")
    assert "μᵢ = β₀ + b₀[batchᵢ] + c₀[batch:caskᵢ]" in text
    assert (
        "Level 2: batch:cask k = 1, ..., 30, each in one batch\n  c₀ₖ ~ Normal(0, sd_c₀²)\n\n"
        "Level 3: batch j = 1, ..., 10\n  b₀ⱼ ~ Normal(0, sd_b₀²)\n"
    ) in text
    assert "60 rows; batch: 10 groups of 6 rows; batch:cask: 30 groups of 2 rows" in text
    assert "sd_c₀  sd_batch:cask[Intercept]" in text


def test_crossed_factors_share_a_level():
    text = show("penicillin")
    assert "Level 2: plate j = 1, ..., 24\n" in text
    assert "Level 2: sample k = 1, ..., 6\n" in text
    assert "Level 3" not in text


def test_complete_pooling_has_no_groups():
    text = show("alcohol", "complete")
    assert "Complete pooling: no groups. (time | id) is left out" in text
    assert "Level 2" not in text
    assert "\n  246 rows\n" in text


def test_no_pooling_says_that_nothing_is_shared():
    text = show("alcohol", "none")
    words = " ".join(text.split())
    assert "μᵢ = b₀[idᵢ] + b₁[idᵢ] timeᵢ" in text
    assert "Level 2: id j = 1, ..., 82, each on its own" in text
    assert "each of the 82 groups of id has its own coefficients" in words
    assert "They share no distribution" in words
    assert "already contain them: Intercept, coa, peer, time." in words
    assert "MVN" not in text
    assert "sd" not in text


def test_no_pooling_without_priors_in_latex():
    design = make(MODELS["alcohol"][1], load_dataset("alcohol"), "none")
    latex = model_latex(design)
    check_latex(latex)
    assert r"b_{0j} &\sim \text{its own prior}" in latex
    assert "each on its own" in latex


def test_dropped_columns_are_named():
    frame = table()
    design = make("y ~ x + x2 + (1 | g)", frame.assign(x2=2 * frame.x), collinear="drop")
    words = "linear combinations of earlier columns: "
    text, _, page = all_three(design)
    assert f"{words}x2." in " ".join(text.split())
    assert f"{words}<code>x2</code>." in page


def test_weights_and_offset():
    design = make("y ~ x + offset(log(w)) + (1 | g)", table(), weights="w")
    text, latex, page = all_three(design)
    assert "yᵢ ~ Normal(μᵢ, σ² / wᵢ)" in text
    assert "β₁ xᵢ + offset(log(w))ᵢ + b₀[gᵢ]" in text
    assert "  wᵢ = wᵢ\n" in text
    assert r"\operatorname{Normal}(\mu_i, \sigma^2 / w_i)" in latex
    assert r"\text{offset(log(w))}_i" in latex
    check_latex(latex)
    check_html(page)


def test_level_means_are_starred():
    frame = table(kind=np.tile(list("abc"), 20))
    text, latex, _ = all_three(make("y ~ 0 + kind + x + (1 | g)", frame))
    assert text.count("*") == 4
    assert text.endswith("* on the expected outcome at the average of the other predictors")
    assert latex.count(r"\bar{x}_k") == 3
    check_latex(latex)
    assert "*" not in all_three(make("y ~ 1 + (1 | g)", frame))[0]


def test_the_scale_of_a_default_is_told():
    _, _, page = all_three(make("y ~ x + (1 | g)", table()))
    assert "<code>2.5 sd(y) / sd(x)</code>" in page


def test_rows_left_out_are_reported():
    frame = table()
    frame.loc[:2, "x"] = np.nan
    text, _, page = all_three(make("y ~ x + (1 | g)", frame))
    assert "3 of 60 rows left out because of missing values in x (3)." in text
    assert "left out because of missing values in <code>x</code> (3)." in page


def test_without_any_terms_the_mean_is_zero():
    text, latex, _ = all_three(make("y ~ 0 + offset(w)", table()))
    assert "μᵢ = offset(w)ᵢ" in text
    check_latex(latex)
    text, latex, _ = all_three(make("y ~ 0", table()))
    assert "μᵢ = 0\n" in text
    check_latex(latex)


def test_correlated_parts_have_a_matrix_each():
    frame = table(z=np.random.default_rng(2).normal(size=60))
    frame["u"] = np.random.default_rng(3).normal(size=60)
    text, latex, _ = all_three(make("y ~ x + (x | g) + (0 + z + u | g)", frame))
    assert "(b₀ⱼ, b₁ⱼ) ~ MVN(0, D₁)" in text
    assert "(b₂ⱼ, b₃ⱼ) ~ MVN(0, D₂)" in text
    assert "D₂ = diag(sd₂, sd₃) R₂ diag(sd₂, sd₃)" in text
    check_latex(latex)


def test_priors_of_the_user():
    design = make("y ~ x + (x | g)", table())
    priors = {
        "Intercept": Prior("normal", mu=0, sigma=1234567),
        "x": Prior("student-t", nu=3, sigma=2.5),
        "cor": Prior("lkj", eta=4),
    }
    spec = with_priors(parse_formula("y ~ x + (x | g)"), priors)
    text, latex, _ = all_three(make_design(spec, design.data))
    assert "β₀   Intercept" in text
    assert "student-t(nu=3, mu=0, sigma=2.5)" in text
    assert re.search(r"student-t.* user\n", text)
    assert "R ~ LKJ(4)" in text
    assert r"\beta_0 &\sim \operatorname{Normal}(0, (1.235 \times 10^{6})^2)" in latex
    assert r"\operatorname{Student-t}(\nu = 3, \mu = 0, \sigma = 2.5)" in latex
    check_latex(latex)


@pytest.mark.parametrize("name", PRIOR_KINDS)
def test_every_prior_can_be_written(name):
    values = {"lower": 0.0, "upper": 1.0}
    prior = Prior(name, **{p: values.get(p, 1e-7) for p in PRIOR_KINDS[name].parameters})
    latex = LATEX.prior(prior)
    assert set(re.findall(r"\\([a-zA-Z]+|.)", latex)) <= MACROS
    assert TEXT.prior(prior)


@pytest.mark.parametrize("pooling", ["partial", "none", "complete"])
@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_every_model(name, pooling):
    data, formula = MODELS[name]
    text, latex, page = all_three(make(formula, load_dataset(data), pooling))
    check_text(text)
    check_latex(latex)
    check_html(page)


def test_long_models_are_wrapped():
    n = 200
    rng = np.random.default_rng(0)
    columns = {f"a_rather_long_name_of_column_{i}": rng.normal(size=n) for i in range(40)}
    columns["a_name_that_is_longer_than_any_line_could_be_" + "x" * 80] = rng.normal(size=n)
    group = "a_grouping_column_with_a_very_long_name_" + "y" * 80
    frame = table(n, **columns, **{group: np.arange(n) // 20})
    right = " + ".join(columns)
    slopes = " + ".join(list(columns)[:7])
    text, latex, page = all_three(make(f"y ~ {right} + ({slopes} | {group})", frame))
    check_text(text)
    check_latex(latex)
    check_html(page)
    assert "β₄₁ a_name" in text
    assert "(b₀ⱼ, b₁ⱼ, ..., b₇ⱼ) ~ MVN(0, D)" in text
    assert max(map(len, re.sub(r"\\[a-z]+|[{}]", "", latex).splitlines())) < 250


@pytest.mark.parametrize("pooling", ["partial", "none", "complete"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_cannot_break_out(name, pooling):
    frame = table(**{name: np.random.default_rng(5).normal(size=60)})
    frame["kind"] = np.tile([name, f"{name}{name}", "plain"], 20)
    frame[f"g{name}"] = np.repeat([name, *"bcdef"], 10)
    frame.loc[0, name] = np.nan
    design = make(f"y ~ kind + `{name}` + (`{name}` | `g{name}`)", frame, pooling)
    text, latex, page = all_three(design)
    check_text(text)
    check_latex(latex)
    check_html(page)
    check_latex(model_latex(design))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_outcome(name):
    frame = table().rename(columns={"y": name})
    text, latex, page = all_three(make(f"`{name}` ~ x + (1 | g)", frame))
    check_text(text)
    check_latex(latex)
    check_html(page)


@pytest.mark.parametrize(
    ("name", "latex"),
    [
        ("plain", r"\text{plain}"),
        ("log_radon", r"{\text{log}\_\text{radon}}"),
        ("", r"\text{}"),
        ("$", r"{\$}"),
        ("}", r"{{\rbrace}}"),
        (r"\text", r"{\backslash \text{text}}"),
        ("a b", r"\text{a b}"),
        (3, r"\text{3}"),
    ],
)
def test_names_in_latex(name, latex):
    assert latex_name(name) == latex


def test_names_as_text():
    assert clean("a\tb\u202e\ud800") == "a\\tb\\u202e\\ud800"
    assert clip("名" * 30, 11) == "名名…名名"
    assert cell_len(clip("名" * 30, 11)) <= 11
    assert clip("short") == "short"


def test_sentences_are_wrapped():
    assert wrap_words("one two three", 8, hanging="  ") == ["one two", "  three"]
    assert max(map(len, wrap_words("x" * 200 + " end", 30))) <= 30


def test_sums_break_before_a_plus():
    chunks = [["a", "b"], ["c"]]
    widths = [[1, 1], [1]]
    assert wrap_sum(chunks, widths, 9) == ["a + b + c"]
    assert wrap_sum(chunks, widths, 8) == ["a + b", "+ c"]
    assert wrap_sum(chunks, widths, 4) == ["a", "+ b", "+ c"]
