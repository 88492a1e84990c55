"""The report in a browser: its numbers, its width on a phone, and names that look like markup."""

import re

import html5lib
import numpy as np
import pandas as pd
import pytest
from browser import open_browser, open_tab

import hmlm
from hmlm.report import write_report

HOSTILE = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "\"'&<b>"]


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def fit():
    """A fit whose groups have names that a careless page would run."""
    rng = np.random.default_rng(3)
    g = np.repeat([*HOSTILE, "d", "e", "f"], 8)
    x = rng.normal(size=len(g))
    y = 2 + 0.5 * x + np.repeat(rng.normal(size=6), 8) + rng.normal(size=len(g))
    return hmlm.Model("y ~ x + (1 | g)", pd.DataFrame({"y": y, "x": x, "g": g})).fit(hmlm.REML())


@pytest.fixture(scope="module")
def report(fit, tmp_path_factory):
    return write_report(fit, tmp_path_factory.mktemp("page") / "report.html", 1, draws=100)


@pytest.fixture(scope="module")
def tab(browser, report):
    with open_tab(browser, report.as_uri()) as opened:
        yield opened


def estimates_table(page):
    """Return the rows of the table of estimates, as the browser has them."""
    return page.evaluate(
        """() => {
          const head = [...document.querySelectorAll('h2')].find(h => h.innerText == 'Estimates');
          let at = head;
          while (!at.querySelector('table')) at = at.nextElementSibling ?? at.parentElement;
          return [...at.querySelectorAll('tr')].map(
            r => [...r.cells].map(c => c.innerText.trim()));
        }"""
    )


def test_estimates_in_the_page_are_those_of_the_fit(tab, fit):
    rows = {" ".join(r[:2]): r for r in estimates_table(tab.page) if len(r) > 2}
    table = hmlm.tidy(fit, groups=False)
    wanted = table[table["component"] == "population"]
    assert len(wanted) == 2
    for term, estimate in zip(wanted["term"], wanted["estimate"], strict=True):
        row = next(r for key, r in rows.items() if re.search(rf"\b{term}\b", key))
        numbers = [float(n.replace("−", "-")) for n in re.findall(r"[-−]?\d+\.\d+", " ".join(row))]
        digits = 5e-3 * max(1.0, abs(estimate))
        assert min(abs(n - estimate) for n in numbers) <= digits


def test_nothing_goes_wrong_and_nothing_is_fetched(tab, report):
    assert tab.errors == []
    assert tab.outside == []
    assert {a for a in tab.addresses if not a.startswith("data:")} == {report.as_uri()}


def test_names_of_groups_are_text(tab):
    assert tab.dialogs == []
    shown = tab.page.evaluate("document.body.innerText")
    for name in HOSTILE:
        assert name in shown
    assert tab.page.locator("script").count() == 0
    assert tab.page.locator("img:not([src^='data:image/png'])").count() == 0


def test_figures_are_drawn(tab):
    sizes = tab.page.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(sizes) > 1
    assert min(sizes) > 100


def test_page_fits_a_phone(browser, report):
    with open_tab(browser, report.as_uri(), width=375, height=740) as phone:
        assert phone.overflow <= 0
        assert phone.errors == []


def test_html_is_valid(report):
    text = report.read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(text)


def test_checks_of_the_browser_see_what_is_wrong(browser, tmp_path):
    """A page that does all that the others must not do."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><title>t</title><body><div style='width:900px'>wide</div>"
        "<img src=x onerror=alert(1)><script>console.error('no')</script>",
        encoding="utf-8",
    )
    with open_tab(browser, page.as_uri(), width=375) as bad:
        bad.page.wait_for_timeout(200)
        assert bad.overflow > 500
        assert bad.dialogs == ["1"]
        assert "no" in bad.errors
