"""The figures look as they did: pixels within a tolerance, words exactly.

After a change that is meant, look at what `python tests/figure_images.py` draws.
"""

import json
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from figure_images import (
    CLOSE,
    FIGURES,
    IMAGES,
    TEXTS,
    figure_of,
    save_without_text,
    texts_of,
)
from matplotlib import pyplot as plt
from matplotlib.testing.compare import compare_images

import hmlm
from hmlm.plots.funnel import plot_funnel
from hmlm.plots.new_group import plot_new_group
from hmlm.plots.profiles import plot_profile

matplotlib.use("Agg")
HOSTILE = ["<b>x</b> & $\\alpha$ _", "<script>alert(1)</script>", "$\\frac{", "%s{0} ]]>", "&amp;"]


def difference(figure, name, folder):
    """Return what the pixels of a figure differ by from those recorded; None where close."""
    path = folder / f"{name}.png"
    save_without_text(figure, path)
    return compare_images(str(IMAGES / f"{name}.png"), str(path), CLOSE)


def is_clean_svg(figure, path):
    """Save as SVG; return whether it is XML without scripts, handlers or links out."""
    figure.savefig(path)
    root = ET.parse(path).getroot()
    assert root.tag.endswith("}svg")
    for element in root.iter():
        name = element.tag.rpartition("}")[2].lower()
        if name in ("script", "foreignobject", "iframe"):
            return False
        for key, value in element.attrib.items():
            key = key.rpartition("}")[2].lower()
            if key.startswith("on") or "javascript:" in value.lower():
                return False
            if key == "href" and not value.startswith(("#", "data:image/png")):
                return False
    return True


@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_they_did(name, tmp_path):
    figure = figure_of(FIGURES[name]())
    words = json.loads(TEXTS.read_text(encoding="utf-8"))
    assert texts_of(figure) == words[name]
    assert is_clean_svg(figure, tmp_path / f"{name}.svg")
    assert difference(figure, name, tmp_path) is None


def test_each_image_has_its_figure_and_all_are_small():
    assert {path.stem for path in IMAGES.glob("*.png")} == set(FIGURES)
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < 1_000_000


def _remove_line(figure):
    figure.axes[0].lines[0].remove()


def _remove_panel(figure):
    figure.axes[1].remove()


def _recolour(figure):
    line = figure.axes[0].lines[0]
    line.set_color("#CC0000")


def _remove_band(figure):
    figure.axes[0].collections[0].remove()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("plot_groups", _remove_line),
        ("plot_groups", _remove_panel),
        ("plot_new_group_rows", _recolour),
        ("plot_profile", _remove_line),
        ("plot_profile", _remove_band),
    ],
)
def test_a_figure_that_lacks_something_fails(name, change, tmp_path):
    figure = figure_of(FIGURES[name]())
    change(figure)
    assert difference(figure, name, tmp_path) is not None


def test_numbers_that_differ_little_look_the_same(tmp_path):
    figure = figure_of(FIGURES["plot_groups"]())
    for ax in figure.axes:
        for line in ax.lines:
            line.set_ydata(np.asarray(line.get_ydata()) * (1 + 1e-5))
    assert difference(figure, "plot_groups", tmp_path) is None


@pytest.fixture(scope="module")
def hostile():
    """Fits whose groups and columns have names that are markup, formulas and formats."""
    import pandas as pd

    rng = np.random.default_rng(5)
    labels = np.repeat(HOSTILE, 6)
    x = np.tile(np.arange(6.0), len(HOSTILE))
    y = np.repeat(2.0 * rng.standard_normal(len(HOSTILE)), 6) + x + rng.standard_normal(len(x))
    u = np.repeat(rng.standard_normal(len(HOSTILE)), 6)
    names = {"g": "<i>g</i> & $_{", "x": "x$^{ <u>", "u": "u & $\\b", "y": "$y <b>"}
    table = pd.DataFrame({names["g"]: labels, names["x"]: x, names["u"]: u, names["y"]: y})
    formula = f"`{names['y']}` ~ `{names['x']}` + `{names['u']}` + (1 | `{names['g']}`)"
    model = hmlm.Model(formula, table)
    nuts = hmlm.NUTS(draws=100, tune=150, chains=2)
    bayes = model.fit(nuts, random_seed=1, progressbar=False)
    return names, bayes, model.fit(hmlm.REML()), model.with_pooling("none").fit(hmlm.OLS())


def test_hostile_names_are_drawn_and_stay_text(hostile, tmp_path):
    names, bayes, reml, none = hostile
    drawn = {
        "sizes": hmlm.plot_sizes(bayes, none),
        "groups": hmlm.plot_groups(bayes, none),
        "shrinkage": hmlm.plot_shrinkage(bayes, none),
        "predictor": hmlm.plot_group_predictor(bayes, names["u"]),
        "conditional": hmlm.plot_conditional(bayes),
        "variance": hmlm.plot_variance(bayes, reml),
        "ranks": hmlm.plot_ranks(bayes),
        "priors": hmlm.plot_priors(bayes),
        "ppc": hmlm.plot_ppc_groups(bayes, draws=50, random_seed=1),
        "caterpillar": hmlm.plot_caterpillar(bayes, none),
        "new": plot_new_group(bayes),
        "funnel": plot_funnel(bayes, levels=HOSTILE),
        "profile": plot_profile(reml, bayes, ["sigma", f"sd_{names['g']}[Intercept]"]),
    }
    for name, axes in drawn.items():
        path = tmp_path / f"{name}.svg"
        with plt.rc_context({"svg.fonttype": "none"}):  # text as text, which a browser reads
            assert is_clean_svg(figure_of(axes), path), name
    texts = [e.text for e in ET.parse(tmp_path / "caterpillar.svg").getroot().iter() if e.text]
    assert HOSTILE[0] in texts
