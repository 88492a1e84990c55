"""Names and labels are text, wherever they are shown, and no file but the named one is written."""

import warnings
from html import unescape

import html5lib
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hmlm

MARK = "hostile"  # every label below would leave it in the name of an element or an attribute
LABELS = (
    "<hostile>",
    "</td></table><hostile onload=hostile()>",
    "<script>hostile()</script>",
    "<img src=x onerror=hostile()>",
    '" onmouseover="hostile()" hostile="',
    "' hostile='1",
    "--><hostile><!--",
    "]]><hostile>",
    "</style><hostile>",
    "</title></svg><hostile>",
    "&lt;hostile&gt;",
    "&#60;hostile&#62;",
    "$<hostile>$",
    r"\(\href{javascript:hostile()}{x}\)",
    "a\n<hostile>\r\n",
    "../../hostile",
    "/tmp/hostile",
    "C:\\hostile",
    "hostile.html",
    "%hostile{}[/hostile]",
)
COLUMNS = {
    "y": "<hostile y>",
    "x": '"><hostile x=">',
    "f": "</script><script>hostile()</script>f",
    "g": "../../<hostile onload='hostile()'>g",
}


@pytest.fixture(scope="module")
def frame():
    """A table in which every column name and every label asks to be markup or a path."""
    rng = np.random.default_rng(3)
    n = 8 * len(LABELS)
    g = np.repeat(np.arange(len(LABELS)), 8)
    columns = {
        "y": rng.normal(size=n) + rng.normal(size=len(LABELS))[g],
        "x": rng.normal(size=n),
        "f": np.array(LABELS, dtype=object)[rng.integers(0, 3, n)],
        "g": np.array(LABELS, dtype=object)[g],
    }
    return pd.DataFrame({COLUMNS[k]: v for k, v in columns.items()})


@pytest.fixture(scope="module")
def model(frame):
    y, x, f, g = (f"`{COLUMNS[k]}`" for k in "yxfg")
    return hmlm.Model(f"{y} ~ {x} + {f} + ({x} | {g})", frame)


@pytest.fixture(scope="module")
def reml(model):
    return model.fit(hmlm.REML())


@pytest.fixture(scope="module")
def bayes(model):
    return model.fit(hmlm.NUTS(draws=100, tune=200, chains=2), 1, progressbar=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder within another, in which the test runs."""
    folder = tmp_path / "work" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def written(tmp_path):
    """Return the files under a folder, as paths relative to it."""
    return {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}


def within(what, tmp_path, path):
    """Hold that files were written, and all of them at or below a path."""
    files = written(tmp_path)
    outside = [p for p in files if p != path and not p.startswith(f"{path}/")]
    assert files
    assert not outside
    return {"what": what, "files": len(files), "outside of their path": len(outside)}


def check_markup(text):
    """Parse HTML as browsers do; no label may have become an element, attribute or comment."""
    tree = html5lib.parse(text, namespaceHTMLElements=False)
    seen = 0
    for node in tree.iter():
        if not isinstance(node.tag, str):
            assert MARK not in (node.text or ""), "a label is in a comment"
            continue
        assert MARK not in node.tag
        assert node.tag not in ("iframe", "object", "embed", "form")
        for name, value in node.attrib.items():
            assert MARK not in name
            assert not name.startswith("on"), f"{node.tag} has {name}"
            if name in ("href", "src", "action"):
                assert not value.lower().startswith("javascript")
        if node.tag in ("script", "style"):
            assert MARK not in (node.text or "")
        seen += MARK in (node.text or "") + (node.tail or "")
    return seen


def test_the_check_of_markup_can_fail():
    for label in LABELS[:5]:
        if "<" in label:
            with pytest.raises(AssertionError):
                check_markup(f"<table><tr><td>{label}</td></tr></table>")
    with pytest.raises(AssertionError):
        check_markup(f'<p title="{LABELS[4]}">x</p>')


def pages(what, seen):
    return {"what": what, "pages": len(seen), "labels found as text": sum(seen)}


def shown(value):
    """Return the HTML that a notebook would show."""
    return value._repr_html_()


def test_models_and_equations_show_labels_as_text(model, record_property):
    seen = [check_markup(shown(model))]
    for pooling in ("complete", "none"):
        other = model.with_pooling(pooling)
        seen.append(check_markup(shown(other)))
        seen.append(check_markup(shown(other.fit(hmlm.OLS()).summary())))
    assert min(seen) > 3
    record_property("trust", pages("models and equations", seen))


@pytest.mark.parametrize("kind", ["reml", "bayes"])
def test_summaries_and_status_show_labels_as_text(kind, request, reml, record_property):
    fit = request.getfixturevalue(kind)
    objects = [fit, fit.summary(), fit.status, hmlm.compare(reml, fit)]
    seen = [check_markup(shown(o)) for o in objects if hasattr(o, "_repr_html_")]
    assert len(seen) > 2
    assert sum(seen) > 5
    record_property("trust", pages("summaries, status and comparisons", seen))


@pytest.mark.filterwarnings("ignore:Glyph")  # fonts lack some characters, and say so
@pytest.mark.parametrize("kind", ["reml", "bayes"])
def test_reports_show_labels_as_text_and_write_one_file(
    kind, request, here, tmp_path, record_property
):
    fit = request.getfixturevalue(kind)
    path = fit.report(here / "page.html", random_seed=1, draws=100)
    page = path.read_text(encoding="utf-8")
    seen = check_markup(page)
    assert seen > 20
    record_property("trust", pages("reports", [seen]))
    assert "<hostile>" in unescape(page)
    assert written(tmp_path) == {"work/here/page.html"}


@pytest.mark.parametrize("suffix", [".zip", ".zarr", ".nc"])
def test_saved_fits_stay_within_their_path(bayes, here, tmp_path, suffix, record_property):
    bayes.save(here / f"fit{suffix}")
    record_property("trust", within("saved fits", tmp_path, f"work/here/fit{suffix}"))
    again = hmlm.load(here / f"fit{suffix}")
    np.testing.assert_array_equal(again.variable("beta"), bayes.variable("beta"))
    assert list(again.design.blocks[0].levels) == list(bayes.design.blocks[0].levels)


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_tables_of_groups_stay_within_their_path(reml, here, tmp_path, suffix, record_property):
    hmlm.write_groups(reml, here / f"groups{suffix}")
    record_property("trust", within("tables of groups", tmp_path, f"work/here/groups{suffix}"))


def test_a_factor_that_has_the_name_of_a_figure_is_written(frame, tmp_path):
    named = frame.rename(columns={COLUMNS["y"]: "y", COLUMNS["g"]: "estimate"})
    fit = hmlm.Model("y ~ 1 + (1 | estimate)", named).fit(hmlm.REML())
    path = hmlm.write_groups(fit, tmp_path / "groups.zarr")
    with xr.open_zarr(path, consolidated=False) as found:
        assert found["estimate"].dims == ("estimate_level", "term")
        assert not np.isnan(found["estimate"]).any()


def test_fits_figures_and_tables_write_nothing(model, reml, here, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that fonts lack
        for plot in (hmlm.plot_groups, hmlm.plot_shrinkage, hmlm.plot_caterpillar):
            plot(reml)
    model.to_latex()
    str(reml.summary())
    hmlm.tidy(reml)
    assert not written(tmp_path)
