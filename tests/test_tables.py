"""Tables of cells in text, HTML, Markdown and LaTeX, and nlme's layout of a fit."""

import math

import pytest
from support import make

from hmlm.errors import counted, listed, suggest
from hmlm.fitting.maximum_likelihood import REML
from hmlm.status import Status
from hmlm.summaries import Summary, classical_summary
from hmlm.tables import Table, escape_latex, number, p_text

PLAIN = Table(header=["name", "value"], rows=[["x", "1.0"], ["a longer name", "22.5"]], title="T")
HOSTILE = Table(
    header=["<b>", "50% | $x_1$"],
    rows=[["<script>alert(1)</script>", "a & b"], [r"\input{x}", "[red]1[/red]"]],
    title="<i>",
    notes=["n < 3 & more"],
    over=[("", 1), ("A|B_2", 1)],
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.51198, "0.512"),
        (-0.51198, "-0.512"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (0.00123, "0.001"),
        (0.000123, "1.23e-04"),
        (1.23e-6, "1.23e-06"),
        (-1e-9, "-1.00e-09"),
        (99.9, "99.900"),
        (251.405, "251.4"),
        (12345.678, "12346"),
        (1.5e9, "1.500e+09"),
        (math.nan, ""),
        (None, ""),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (3, "3.000"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_numbers_without_places():
    assert number(1234.4, 0) == "1234"
    assert number(4, 0) == "4"


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5000"), (1e-4, "0.0001"), (9e-5, "<.0001"), (math.nan, "")]
)
def test_p_values_as_r_prints_them(value, text):
    assert p_text(value) == text


def test_text_has_columns_that_line_up():
    lines = str(PLAIN).splitlines()
    assert lines[0] == "T"
    assert lines[1].split() == ["name", "value"]
    assert set(lines[2]) == {"─"}
    assert lines[3].endswith("1.0")
    assert lines[4].startswith("a longer name")
    assert len(lines[3]) == len(lines[4])


def test_markup_of_a_label_is_text():
    text = str(HOSTILE)
    assert "[red]1[/red]" in text
    assert "<script>alert(1)</script>" in text
    assert text.endswith("n < 3 & more")


def test_html_escapes_every_label():
    page = HOSTILE.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "a &amp; b" in page
    assert "n &lt; 3 &amp; more" in page
    assert page.count("<tr>") == page.count("</tr>") == 4
    assert HOSTILE._repr_html_() == page


def test_markdown_escapes_its_bars():
    lines = HOSTILE.to_markdown().splitlines()
    assert lines[0] == "**<i>**"
    cells = [line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")]
    assert cells == [3, 3, 3, 3]
    assert lines[3] == "| :-- | --: |"


def test_latex_escapes_what_has_a_meaning():
    text = HOSTILE.to_latex()
    assert r"\textbackslash{}input\{x\}" in text
    assert r"50\% | \$x\_1\$" in text
    assert r"a \& b" in text
    assert r"\multicolumn{1}{c}{A|B\_2}" in text
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule")
    assert text.endswith("% n < 3 & more")
    assert escape_latex("a_b~c^d#e") == r"a\_b\textasciitilde{}c\textasciicircum{}d\#e"


def test_notes_cannot_leave_their_comment_in_latex():
    table = Table(header=["x"], rows=[["1"]], notes=["first\nsecond"])
    assert all(line.startswith("%") for line in table.to_latex().splitlines()[-2:])


def test_summary_has_nlmes_layout(alcohol_reml):
    text = str(alcohol_reml.summary())
    for piece in (
        "alcuse ~ coa + peer + time + (time | id)",
        "0.5119870",
        "0.3938925",
        "-0.075",
        "0.5807687",
        "246 observations; 82 groups of 'id'",
    ):
        assert piece in text
    assert ["619.7211", "647.6326", "-301.8606"] in [line.split() for line in text.splitlines()]
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["coa"] == ["-0.359"]  # the last table that has the row: correlations
    fixed = next(line.split() for line in text.splitlines() if line.startswith("time "))
    assert fixed == ["time", "0.2706514", "0.0628391", "163", "4.307056", "<.0001"]
    peer = [line.split() for line in text.splitlines() if line.startswith("peer ")]
    assert peer[0][3:] == ["79", "5.957572", "<.0001"]
    assert peer[1] == ["peer", "-0.664", "-0.162"]
    assert "-0.000" not in text


def test_summary_of_every_kind_of_fit(beside_r):
    _, fit, _ = beside_r
    text = str(fit)
    assert "nan" not in text.lower()
    assert f"{fit.log_likelihood:.4f}" in text
    assert "Residual" in text


def test_summary_of_three_correlated_effects_has_a_triangle(table):
    fit = REML().run(make("y ~ x + (f | g)", table))
    lines = str(fit).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Random effects"))
    effects = [line.split() for line in lines[start + 3 : start + 6]]
    assert [len(cells) for cells in effects] == [4, 4, 5]


def test_summary_shows_in_a_notebook(sleepstudy_reml, dyestuff2_reml):
    page = sleepstudy_reml._repr_html_()
    assert page.count("<table>") == 5
    assert "Reaction ~ Days" in page
    assert "Singular fit" in classical_summary(dyestuff2_reml)._repr_html_()


def test_summary_escapes_its_text():
    page = Summary(parts=["<script>", PLAIN])._repr_html_()
    assert "<script>" not in page
    assert repr(Summary(parts=["a", "b"])) == "a\n\nb"


def test_status_in_sentences():
    assert str(Status(converged=True)) == "No problems found."
    assert str(Status(converged=True, notes=("n",))) == "No problems found.\nn"
    assert str(Status(converged=False, problems=("p",), notes=("n",))) == "p\nn"


def test_words_of_messages():
    assert counted(1, "row") == "1 row"
    assert counted(1234, "row") == "1,234 rows"
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(20)) == "0, 1, 2, 3, 4, 5, 6, 7, ... (20 in all)"
    assert suggest("Subjct", ["Subject", "Days"]) == " Did you mean 'Subject'?"
    assert suggest("zzz", ["Subject"]) == ""
