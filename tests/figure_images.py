"""The figures whose pixels are held: how they are made, drawn without text, and recorded.

`python tests/figure_images.py` draws them all again into tests/images/ (look at each before it is
committed); `python tests/figure_images.py plot_sizes plot_ranks` those of some names.

Text is left out of the images, so that they are the same for every build of FreeType, and is held
as words in texts.json instead.
"""

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from support import make, simulate

import hmlm
from hmlm.datasets import load_dataset
from hmlm.fitting.maximum_likelihood import REML
from hmlm.fitting.ols import OLS

IMAGES = Path(__file__).parent / "images"
TEXTS = IMAGES / "texts.json"
DPI = 50
CLOSE = 2.0  # root mean square of what pixels may differ by, of 255


@cache
def three_fits(formula, data):
    """Fit partially, not at all and completely pooled."""
    table = simulate(4, groups=24, size=5)[0] if data == "simulated" else load_dataset(data)
    design = make(formula, table)
    others = [OLS().run(make(formula, table, p)) for p in ("none", "complete")]
    return REML().run(design), *others


def radon():
    return three_fits("log_radon ~ floor + log_uranium + (1 | county)", "radon")


def sleep():
    return three_fits("Reaction ~ Days + (Days | Subject)", "sleepstudy")


def dyestuff():
    return three_fits("Yield ~ 1 + (1 | Batch)", "dyestuff")


@cache
def posterior():
    """A posterior of the sleep study whose draws are NumPy's: those of a sampler may change."""
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))
    fit = model.fit(hmlm.NUTS(draws=20, tune=20, chains=2), random_seed=1, progressbar=False)
    rng = np.random.default_rng(7)
    shape = (2, 300)
    near = REML().run(fit.design)
    sd = np.asarray(near.estimates["sd_Subject"]) * np.exp(0.3 * rng.standard_normal((*shape, 2)))
    r = np.tanh(0.3 * rng.standard_normal(shape))
    cor = np.ones((*shape, 2, 2))
    cor[..., 0, 1] = cor[..., 1, 0] = r
    beta = np.asarray(near.estimates["beta"]) + [6.0, 1.5] * rng.standard_normal((*shape, 2))
    sigma = 25.6 * np.exp(0.06 * rng.standard_normal(shape))
    modes = np.asarray(near.estimates["b_Subject"])
    b = modes + [12.0, 2.3] * rng.standard_normal((*shape, *modes.shape))
    parameters = {"beta": beta, "sd_Subject": sd, "cor_Subject": cor, "sigma": sigma}
    stats = {"diverging": np.arange(600).reshape(shape) % 60 == 0}
    drawn = replace(
        fit,
        _parameters=parameters,
        _stats=stats,
        _draw_effects=lambda: {"b_Subject": b},
        _conditional=False,
        _centered={"Subject": True},
        _kept={},
    )
    assert {v.name for v in drawn.design.variables} == {*parameters, "b_Subject"}
    return drawn


FIGURES = {
    "plot_sizes": lambda: hmlm.plot_sizes(*radon()),
    "plot_groups": lambda: hmlm.plot_groups(*sleep(), levels=4),
    "plot_shrinkage_plane": lambda: hmlm.plot_shrinkage(*sleep()),
    "plot_shrinkage_dumbbells": lambda: hmlm.plot_shrinkage(*dyestuff()),
    "plot_group_predictor": lambda: hmlm.plot_group_predictor(radon()[0], "log_uranium"),
    "plot_conditional": lambda: hmlm.plot_conditional(dyestuff()[0]),
    "plot_variance": lambda: hmlm.plot_variance(dyestuff()[0], posterior()),
    "plot_ranks": lambda: hmlm.plot_ranks(posterior()),
    "plot_priors": lambda: hmlm.plot_priors(posterior()),
    "plot_ppc_groups": lambda: hmlm.plot_ppc_groups(dyestuff()[0], draws=200, random_seed=1),
    "plot_caterpillar": lambda: hmlm.plot_caterpillar(*dyestuff()),
    "plot_new_group": lambda: plot_new_group(sleep()[0]),
    "plot_new_group_rows": lambda: plot_new_group(dyestuff()[0]),
    "plot_funnel": lambda: plot_funnel(posterior(), columns=["Intercept", "Days"]),
    "plot_profile": lambda: plot_profile(
        sleep()[0], posterior(), ["Days", "sd_Subject[Days]", "sigma"], columns=3
    ),
}


def plot_new_group(*args, **kwargs):
    from hmlm.plots.new_group import plot_new_group

    return plot_new_group(*args, **kwargs)


def plot_funnel(*args, **kwargs):
    from hmlm.plots.funnel import plot_funnel

    return plot_funnel(*args, **kwargs)


def plot_profile(*args, **kwargs):
    from hmlm.plots.profiles import plot_profile

    return plot_profile(*args, **kwargs)


def figure_of(axes):
    """Return the figure of what a function for figures returns."""
    return np.ravel(np.asarray(axes, dtype=object))[0].figure


def texts_of(figure):
    """Return the words of a figure: titles, names of axes, notes, legends; not numbers at ticks."""
    from matplotlib.legend import Legend

    found = [figure.get_supxlabel(), figure.get_supylabel()]
    legends = list(figure.legends)
    for ax in figure.axes:
        found += [ax.get_title(loc="left"), ax.get_title(loc="right"), ax.get_xlabel()]
        found += [ax.get_ylabel(), *(t.get_text() for t in ax.texts)]
        legends += [child for child in ax.get_children() if isinstance(child, Legend)]
    for legend in legends:
        found += [t.get_text() for t in legend.get_texts()]
    return [text for text in found if text]


def save_without_text(figure, path):
    """Save the lines, markers and areas of a figure."""
    from matplotlib.legend import Legend
    from matplotlib.text import Text
    from matplotlib.ticker import NullFormatter

    for legend in list(figure.legends):
        legend.remove()
    for ax in figure.axes:
        for child in ax.get_children():
            if isinstance(child, Legend):
                child.remove()
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(NullFormatter())
            axis.set_minor_formatter(NullFormatter())
    for text in figure.findobj(Text):
        text.set_visible(False)
    figure.savefig(path, dpi=DPI)


def main(names):
    import matplotlib

    from hmlm.likelihoods.threads import one_blas_thread

    matplotlib.use("Agg")
    IMAGES.mkdir(exist_ok=True)
    texts = json.loads(TEXTS.read_text(encoding="utf-8")) if TEXTS.exists() else {}
    for name in names or FIGURES:
        with one_blas_thread():
            figure = figure_of(FIGURES[name]())
        texts[name] = texts_of(figure)
        save_without_text(figure, IMAGES / f"{name}.png")
    texts = {name: texts[name] for name in FIGURES}
    TEXTS.write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
