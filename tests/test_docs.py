"""The site: nothing public is missing from it, its code runs, its links lead somewhere."""

import importlib.util
import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import hmlm
from hmlm.families import FAMILIES
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.formula import parse_formula

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = {"gallery/index.md"}
PAGES = sorted(
    page
    for page in DOCS.rglob("*.md")
    if "_build" not in page.parts and str(page.relative_to(DOCS).as_posix()) not in GENERATED
)
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s:#]+)(?:#[^)\s]*)?\)")
CELL = re.compile(r"(?<!\\)\|")
COMING = (DOCS / "coming_from.md").read_text(encoding="utf-8")


def name_of(page):
    return page.relative_to(DOCS).as_posix()


def load_module(path):
    """Import a file that is no part of the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gallery():
    return load_module(ROOT / "tools" / "make_gallery.py")


def rows_under(text, heading):
    """Return the cells of the table whose first heading has that text."""
    lines = text.split("\n")
    first = next(k for k, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace(r"\|", "|") for cell in CELL.split(line)[1:-1]])
    return rows


# Every name.


def test_reference_lists_every_public_name_once():
    """If not: put the name under its heading in docs/api/index.md."""
    listed = re.findall(r"^   ([A-Za-z_]\w*)$", (DOCS / "api" / "index.md").read_text(), re.M)
    assert sorted(listed) == sorted(hmlm.__all__)


def test_reference_lists_only_results_that_are_there():
    listed = re.findall(r"^   ((?:\w+\.)+\w+)$", (DOCS / "api" / "index.md").read_text(), re.M)
    assert listed
    for name in listed:
        module, _, kind = f"hmlm.{name}".rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), kind), type), name


def test_gallery_shows_every_figure_once(gallery):
    """If not: add a Picture to tools/make_gallery.py."""
    pictures = [p for chapter in gallery.CHAPTERS.values() for p in chapter]
    figures = [name for name in hmlm.__all__ if name.startswith("plot_")]
    assert sorted(p.name for p in pictures) == sorted(figures)
    assert all(len(p.alt) > len(p.name) and p.caption.endswith(".") for p in pictures)


def test_gallery_draws_what_its_page_shows(gallery, monkeypatch, tmp_path):
    parts = gallery.STARTS.split("\n\n")
    starts = "\n".join(part for part in parts if "sleep" in part or part == "import hmlm")
    monkeypatch.setattr(gallery, "STARTS", starts)
    monkeypatch.setattr(gallery, "FOLDER", tmp_path)
    few = [p for chapter in gallery.CHAPTERS.values() for p in chapter if "sleepers" in p.call][:2]
    monkeypatch.setattr(gallery, "CHAPTERS", {"Some": tuple(few)})
    monkeypatch.setattr(sys, "argv", ["make_gallery.py"])
    mpl.use("Agg")
    assert gallery.main() == 0
    page = (tmp_path / "index.md").read_text(encoding="utf-8")
    for picture in few:
        assert (tmp_path / f"{picture.name}.png").stat().st_size > 5_000
        assert f"```python\n{picture.call}\n```" in page
        assert f":alt: {picture.alt}" in page


# The guide.


def test_guide_shows_every_family_with_its_links_and_parameters():
    rows = rows_under((DOCS / "guide" / "families.md").read_text(encoding="utf-8"), "family")
    shown = {row[0].strip("`"): row for row in rows}
    assert set(shown) == set(FAMILIES)
    for name, family in FAMILIES.items():
        assert re.findall("|".join(family.links), shown[name][2]) == list(family.links)
        assert tuple(re.findall(r"`(\w+)`", shown[name][3])) == family.parameters


def test_formulas_of_the_guide_can_be_read():
    rows = rows_under((DOCS / "guide" / "models.md").read_text(encoding="utf-8"), "formula")
    assert len(rows) > 15
    for row in rows:
        formula = re.fullmatch(r"(`+) ?(.+?) ?\1", row[0])[2]
        assert parse_formula(formula + ("`" if formula.count("`") % 2 else "")).terms


def test_priors_of_the_guide_are_the_defaults():
    """The numbers of the table, in the priors of a model."""
    sleep = hmlm.load_dataset("sleepstudy")
    sd = sleep["Reaction"].std(ddof=0), sleep["Days"].std(ddof=0)
    mean = sleep["Days"].mean()
    table = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).design
    priors = hmlm.default_priors.resolve_priors(table)
    found = [p.parameters["sigma"] for p in (*priors.beta, *priors.sd["Subject"], priors.sigma)]
    told = [2.5 * sd[0], 2.5 * sd[0] / sd[1], sd[0] * np.hypot(1, mean / sd[1]), sd[0] / sd[1]]
    np.testing.assert_allclose(found, [*told, sd[0]], rtol=0.01)


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.parent.name == "guide" and CODE.search(p.read_text())],
    ids=name_of,
)
def test_code_of_the_guide_runs(page, capsys):
    mpl.use("Agg")
    names = {}
    for code in CODE.findall(page.read_text(encoding="utf-8")):
        exec(code, names)
    assert "hmlm" in names


# Coming from elsewhere.


def models():
    """Return title and code of the ten models, by package."""
    parts = re.split(r"^### (\d+\. .+)$", COMING.split("## The same numbers")[0], flags=re.M)
    tab = re.compile(r"^:::\{tab-item\} (\w+)\n.*?^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return {
        title: {name: (language, code) for name, language, code in tab.findall(body)}
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


@pytest.fixture(scope="module")
def ten_fits():
    """Run the code of hmlm on the page, in the page's order."""
    start = {}
    exec(CODE.search(COMING)[1], start)
    fits = {}
    for title, codes in models().items():
        names = dict(start)
        exec(codes["hmlm"][1], names)
        fits[title] = names["fit"]
    return fits


def test_ten_models_stand_in_five_packages():
    found = models()
    assert [int(title.split(".")[0]) for title in found] == list(range(1, 11))
    for codes in found.values():
        assert list(codes) == ["hmlm", "lme4", "brms", "Bambi", "statsmodels"]
        assert {codes[name][0] for name in ("hmlm", "Bambi", "statsmodels")} == {"python"}
        for name in ("hmlm", "Bambi", "statsmodels"):
            compile(codes[name][1], name, "exec")


def test_ten_models_fit(ten_fits):
    assert len(ten_fits) == 10
    for title, fit in ten_fits.items():
        assert fit.status.converged, title
    posterior = [title for title, fit in ten_fits.items() if isinstance(fit, BayesFit)]
    assert posterior == ["10. A model of sigma"]


def test_numbers_of_the_ten_models_are_right(ten_fits):
    """What hmlm finds is what its column says, and what lme4's says where both are classical."""
    by_number = {title.split(".")[0]: fit for title, fit in ten_fits.items()}
    rows = rows_under(COMING.split("## The same numbers")[1], "model")
    assert {row[0] for row in rows} == set(by_number)
    for number, quantity, lme4, _, ours, *_ in rows:
        table = hmlm.tidy(by_number[number])
        words = quantity.strip("`").split(" ", 2)
        component, group, term = words if len(words) == 3 else ("population", None, words[0])
        kept = (table["component"] == component) & (table["term"] == term)
        if group is not None:
            kept &= table["group"] == group
        (estimate,) = table.loc[kept, "estimate"]
        sampled = isinstance(by_number[number], BayesFit)
        assert float(ours) == pytest.approx(estimate, abs=0.003 if sampled else 0.00051), quantity
        assert float(lme4) == pytest.approx(estimate, abs=0.01 if sampled else 0.002), quantity


# Links.


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in LINK.findall(text) if name_of(page.parent / link) not in GENERATED]
    missing = [link for link in links if not (page.parent / link).resolve().is_file()]
    missing = [m for m in missing if (page.parent / m).resolve() != DOCS / "gallery" / "index.md"]
    assert not missing


def test_parts_of_other_files_are_there():
    """What pages take from README.md and others, by its heading."""
    part = re.compile(r"^% part of ([\w./]+?)(?:: (.+))?$", re.MULTILINE)
    found = [pair for page in PAGES for pair in part.findall(page.read_text(encoding="utf-8"))]
    assert {name for name, _ in found} >= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    for name, heading in found:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not heading or heading == "-" or f"\n## {heading}\n" in text, (name, heading)


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = LINK.findall(text)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
