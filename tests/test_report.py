"""The report: one file that is valid, whole, escaped, and has a sentence where a part is absent."""

import html
import itertools
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm import placing
from hmlm.errors import HmlmError
from hmlm.report import write_report
from hmlm.report_parts import check_place, escape, figure_html, put_text, table_html
from hmlm.tables import Table

VOID = {"meta", "img", "br"}
HEADINGS = ["Model", "Data", "Data by group", "Estimates", "Figures", "Checks"]
HEADINGS += ["Shares of variance", "Priors", "Status of the fits", "How this was made"]
HOSTILE = ["<script>alert(1)</script>", "\"q\" 'q'", "back\\slash", "$x$ ${x}_{", "a\nb\u202ec"]


class Reader(HTMLParser):
    """Reads a page strictly: every element closed in order, ids unique, no references outside."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.targets, self.images = [], [], [], []
        self.headings, self.text, self.rows = [], [], []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        assert tag not in ("script", "link", "iframe", "object")
        if "id" in values:
            self.ids.append(values["id"])
        if "href" in values:
            self.targets.append(values["href"])
        if tag == "img":
            assert values["src"].startswith("data:image/png;base64,")
            self.images.append(values["alt"])
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(values.get("colspan", 1))
        if tag == "table":
            box = self.open[-1]
            assert box[0] == "div"
            assert box[1]["class"] == "scroll"
            assert box[1]["tabindex"] == "0"
            self.rows = []
        if tag in VOID:
            return
        if tag == "p":
            assert not {"p", "pre"} & {name for name, _ in self.open}
        self.open.append((tag, values))

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open.pop()[0] == tag
        if tag == "table":
            assert len(set(self.rows)) == 1

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if tags and tags[-1] in ("h1", "h2", "h3"):
            self.headings.append((int(tags[-1][1]), data))
        if "style" not in tags:
            self.text.append(data)


def read(path):
    """Read a page, check what holds for every page, and return the reader."""
    page = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert not re.search(r"https?:|url\(|@import", page)
    assert len(set(reader.ids)) == len(reader.ids)
    assert {f"#{name}" for name in reader.ids} == set(reader.targets)
    assert [text for level, text in reader.headings if level == 2] == HEADINGS
    levels = [level for level, _ in reader.headings]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(reader.images)
    assert "Traceback" not in page
    assert not plt.get_fignums()
    return reader, " ".join("".join(reader.text).split())


def parts(reader, heading):
    """Return the text of one section."""
    text = "".join(reader.text)
    start = text.index(f"\n{heading}\n", text.index("\nModel\n", text.index("How this was made")))
    later = HEADINGS[HEADINGS.index(heading) + 1 :]
    return " ".join(text[start : text.index(f"\n{later[0]}\n", start) if later else None].split())


@pytest.fixture(scope="module")
def sleep_bayes(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    nuts = hmlm.NUTS(draws=200, tune=300, chains=2)
    return model.fit(nuts, random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def sleep_page(sleep_bayes, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "sleep.html"
    assert write_report(sleep_bayes, str(path), random_seed=3, draws=100) == path
    return path


@pytest.fixture(scope="module")
def small():
    """A small table with outcomes of several kinds."""
    rng = np.random.default_rng(5)
    g = np.repeat([f"g{j}" for j in range(8)], 12)
    x = rng.normal(size=96)
    eta = 0.3 * x + rng.normal(size=8).repeat(12)
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "y": eta + rng.normal(size=96),
            "n": rng.poisson(np.exp(0.5 * eta)),
            "o": pd.Categorical(rng.choice(["low", "mid", "high"], 96), ["low", "mid", "high"]),
            "b": rng.random(96) < 1 / (1 + np.exp(-eta)),
        }
    )


def sample(formula, data, **kwargs):
    nuts = hmlm.NUTS(draws=100, tune=200, chains=2)
    return hmlm.Model(formula, data, **kwargs).fit(nuts, random_seed=1, progressbar=False)


def test_report_of_a_posterior_is_whole(sleep_page, sleep_bayes):
    reader, text = read(sleep_page)
    assert len(reader.images) == 4
    assert "A multilevel model of Reaction" in text
    assert "(b₀ⱼ, b₁ⱼ) ~ MVN(0, D)" in parts(reader, "Model")
    assert "lkj(eta=2)" not in parts(reader, "Model")
    assert "180 rows in the table, 180 used." in parts(reader, "Data")
    estimates = parts(reader, "Estimates")
    for label in ("NUTS", "REML", "OLS (complete pooling)", "OLS (no pooling)"):
        assert label in estimates
    assert "251.4" in estimates  # the intercept by REML
    assert ".table(" not in text
    assert "lkj(eta=2)" in parts(reader, "Priors")
    assert "compiled density" in parts(reader, "Status of the fits")
    session = parts(reader, "How this was made")
    for name in ("python", "hmlm", "pymc", "arviz", "nutpie", "numpy", "seed of the replicates"):
        assert name in session


def test_checks_and_shares_are_those_of_the_fit(sleep_page, sleep_bayes):
    reader, _ = read(sleep_page)
    checks = sleep_bayes.check(draws=100, random_seed=3)
    section = "".join(parts(reader, "Checks").split())
    for step in checks.found["next_step"]:
        assert "".join(step.split()) in section
    share = hmlm.split_variance(sleep_bayes)["share"].iloc[1]
    assert f"{share:.2f}" in "".join(parts(reader, "Shares of variance"))


def test_same_seed_writes_the_same_bytes(sleep_bayes, sleep_page, tmp_path):
    again = write_report([sleep_bayes], tmp_path / "again.html", random_seed=3, draws=100)
    assert again.read_bytes() == sleep_page.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_given_classical_fit_stands_there_once(sleepstudy_reml, sleep_bayes, tmp_path):
    path = write_report([sleep_bayes, sleepstudy_reml], tmp_path / "two.html", 1, 100)
    reader, text = read(path)
    assert [t for level, t in reader.headings if level == 3].count("REML") == 1
    assert "REML (2)" not in text


def test_report_of_a_classical_fit_says_that_it_has_no_priors(sleepstudy_reml, tmp_path):
    reader, text = read(write_report(sleepstudy_reml, tmp_path / "reml.html", 1, 100))
    assert "REML uses no priors." in text
    assert len(reader.images) == 4
    assert "seed of the fit" not in text


@pytest.mark.filterwarnings("ignore:Glyph")  # fonts lack some, and say so
def test_hostile_labels_are_escaped_everywhere(small, tmp_path):
    names = dict(zip(sorted(set(small["g"])), [*HOSTILE, "中", "&amp;", " "], strict=True))
    data = small.assign(**{"<b>g</b>": small["g"].map(names), "$y_{$": small["y"]})
    model = hmlm.Model("`$y_{$` ~ x + (1 | `<b>g</b>`)", data)
    path = write_report(model.fit(hmlm.REML()), tmp_path / "hostile.html", 1, 100)
    reader, text = read(path)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert "\u202e" not in page
    for name in HOSTILE[:4]:
        assert f"<b>g</b> {name}" in text
    assert r"<b>g</b> a\nb\u202ec" in text
    assert len(reader.images) == 4


def test_model_without_groups(sleepstudy, tmp_path):
    fit = hmlm.Model("Reaction ~ Days", sleepstudy).fit(hmlm.OLS())
    reader, text = read(write_report(fit, tmp_path / "plain.html", 1, 100))
    assert "A model of Reaction" in text
    assert "The model has no groups" in parts(reader, "Data by group")
    assert "does not pool groups partially" in parts(reader, "Figures")
    assert len(reader.images) == 1


@pytest.mark.parametrize("pooling", ["complete", "none"])
def test_other_poolings(sleepstudy, tmp_path, pooling):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy).with_pooling(pooling)
    reader, text = read(write_report(model.fit(hmlm.OLS()), tmp_path / "p.html", 1, 100))
    assert "does not pool groups partially" in text
    assert "REML" in parts(reader, "Estimates")
    if pooling == "none":
        assert "The variance was not split: " in parts(reader, "Shares of variance")


@pytest.mark.parametrize(
    ("formula", "family", "images", "said"),
    [
        ("o ~ x + (1 | g)", "ordinal", 2, "A model of the family ordinal has no classical fit"),
        ("o ~ x + (1 | g)", "categorical", 1, "of the family categorical has no classical fit"),
        ("y ~ x + (1 | g); sigma ~ x", "gaussian", 3, "with a formula for more than the mean"),
        ("n ~ x + (1 | g)", "poisson", 4, "Laplace"),
        ("b ~ x + (x | g)", "bernoulli", 4, "GLM (complete pooling)"),
    ],
)
def test_other_families(small, tmp_path, formula, family, images, said):
    fit = sample(formula, small, family=family)
    reader, text = read(write_report(fit, tmp_path / "family.html", 1, 100))
    assert said in text
    assert len(reader.images) == images


def test_fit_saved_without_group_effects(small, tmp_path):
    sample("n ~ x + (1 | g)", small, family="poisson").save(tmp_path / "fit.nc", effects=False)
    loaded = hmlm.load(tmp_path / "fit.nc")
    reader, text = read(write_report(loaded, tmp_path / "loaded.html", 1, 100))
    assert "The fit was not checked: " in text
    assert "The table does without groups: " in parts(reader, "Estimates")
    assert "Laplace" in parts(reader, "Estimates")


def test_known_standard_errors_and_missing_rows(tmp_path):
    eight = hmlm.load_dataset("eight_schools")
    eight.loc[0, "y"] = np.nan
    fit = hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma").fit(hmlm.REML())
    reader, text = read(write_report(fit, tmp_path / "eight.html", 1, 100))
    assert "8 rows in the table, 7 used." in text
    assert "1 of 8 rows left out because of missing values in y (1)." in parts(reader, "Data")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "is a folder, and a report is one file: write it to"),
        ("data.csv", "let .* end in .html"),
        ("nowhere/report.html", "there is no folder"),
    ],
)
def test_bad_places_are_refused_in_words(sleepstudy_reml, tmp_path, place, message):
    with pytest.raises(HmlmError, match=message):
        write_report(sleepstudy_reml, tmp_path / place)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_refused_in_words(sleepstudy_reml, alcohol_reml, tmp_path):
    path = tmp_path / "r.html"
    for given, kwargs, message in [
        ([], {}, "needs a fit"),
        ("fit", {}, "not about str"),
        (3, {}, "not about int"),
        ([sleepstudy_reml, alcohol_reml], {}, "different outcomes"),
        (sleepstudy_reml, {"draws": 20}, "20 replicates cannot show a tail"),
        (sleepstudy_reml, {"draws": 2.5}, "whole number"),
        (sleepstudy_reml, {"random_seed": -1}, "negative"),
    ]:
        with pytest.raises(HmlmError, match=message):
            write_report(given, path, **kwargs)
    with pytest.raises(HmlmError, match="name of a file"):
        write_report(sleepstudy_reml, 3)
    assert not path.exists()


def test_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = check_place(tmp_path / "r.html")
    put_text(path, "old")
    put_text(path, "older\n")
    assert path.read_text() == "older\n"

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(placing.os, "fsync", fail)
    with pytest.raises(HmlmError, match=r"disk full.*as it was"):
        put_text(path, "new")
    assert path.read_text() == "older\n"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_link_is_followed(tmp_path):
    (tmp_path / "to.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "to.html")
    put_text(check_place(tmp_path / "link.html"), "new")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "to.html").read_text() == "new"


def test_figures_are_closed_where_drawing_fails():
    def fail():
        plt.figure()
        raise HmlmError("no")

    kept = plt.figure()
    with pytest.raises(HmlmError):
        figure_html(fail, "a", "b")
    assert plt.get_fignums() == [kept.number]
    plt.close(kept)


def test_tables_head_their_rows_by_the_first_text():
    page = table_html(Table(header=["", "b", "n"], rows=[["", "x<", "1"]], left=2), 'a "c"')
    assert '<td class="left"></td><th scope="row" class="left">x&lt;</th><td>1</td>' in page
    assert 'aria-label="a &quot;c&quot;"' in page


def test_escape_writes_control_characters_out():
    assert html.unescape(escape("a\x00\u202e'")) == "a\\x00\\u202e'"
