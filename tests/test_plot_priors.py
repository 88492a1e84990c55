"""Figures of priors show what the priors are: numbers read back from the artists."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

import hmlm
from hmlm import NUTS, Prior
from hmlm.errors import HmlmError, PriorError
from hmlm.families import FAMILIES
from hmlm.palette import GREY, INK, PARTIAL, style
from hmlm.plots.prior_predictive import plot_prior_predictive
from hmlm.plots.priors import MOST_PANELS, plot_priors

matplotlib.use("Agg")
HOSTILE = ["$x_{", "a$b", "%s{0}"]


@pytest.fixture(autouse=True)
def _closed_figures():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


@pytest.fixture(scope="module")
def model():
    return hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def fit(model):
    return model.fit(NUTS(draws=300, chains=2), random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(12)
    n = 60
    count = rng.poisson(2, n)
    return pd.DataFrame(
        {
            "x": rng.normal(2, 1, n),
            "g": np.repeat(list("abcdef"), 10),
            "n": 6,
            "real": rng.normal(3, 1, n),
            "positive": rng.gamma(4, 0.5, n),
            "unit": rng.beta(2, 3, n),
            "count": count,
            "binary": np.where(count % 2 == 1, "yes", "no"),
            "trials": np.minimum(count, 4),
            "ordered": np.minimum(count, 3),
            "category": np.array(list("uvwz"))[np.minimum(count, 3)],
        }
    )


def titles(axes):
    return [ax.get_title(loc="left") for ax in axes.flat if ax.get_title(loc="left")]


def curve(ax, color):
    (line,) = [ln for ln in ax.lines if ln.get_color() == color and ln.get_marker() == "None"]
    return line


def drawn(ax):
    ax.figure.canvas.draw()


def test_a_panel_for_each_parameter(model):
    axes = plot_priors(model)
    assert titles(axes) == [
        "Intercept",
        "Days",
        "sd_Subject[Intercept]",
        "sd_Subject[Days]",
        "cor_Subject[Intercept, Days]",
        "sigma",
    ]
    notes = [t.get_text() for t in axes.flat[0].texts]
    assert notes == ["normal(mu=298.5, sigma=140.8) at average predictors"]
    assert all(len(ax.lines) == 1 for ax in axes.flat)
    drawn(axes.flat[0])


@pytest.mark.parametrize(
    ("panel", "own"),
    [
        (0, stats.norm(298.5, 140.8)),
        (3, stats.t(4, 0, 19.56)),
        (4, stats.beta(2, 2, loc=-1, scale=2)),
    ],
)
def test_curve_is_the_density_to_its_height(model, panel, own):
    line = curve(plot_priors(model).flat[panel], GREY)
    x, y = line.get_data()
    density = own.pdf(x)
    assert y == pytest.approx(density / density.max(), abs=2e-3)


def test_posterior_lies_over_the_prior(fit):
    axes = plot_priors(fit)
    blue = style("partial", bayesian=True).color
    x, y = curve(axes.flat[1], blue).get_data()
    assert x[np.argmax(y)] == pytest.approx(fit.variable("beta")[..., 1].mean(), abs=1.0)
    # The centred intercept: the expected outcome at the average of the days.
    x, y = curve(axes.flat[0], blue).get_data()
    centre = (fit.variable("beta") @ [1, 4.5]).mean()
    assert x[np.argmax(y)] == pytest.approx(centre, abs=6.0)
    assert all(np.diff(ax.get_xlim()) > 0 for ax in axes.flat)


def test_chosen_parameters(model):
    assert titles(plot_priors(model, ["sd_Subject", "sigma"])) == [
        "sd_Subject[Intercept]",
        "sd_Subject[Days]",
        "sigma",
    ]
    assert titles(plot_priors(model, "Days")) == ["Days"]
    with pytest.raises(HmlmError, match=r"no parameter 'Day' with a prior\. Did you mean 'Days'"):
        plot_priors(model, ["Day"])


def test_flat_priors_and_classical_fits(model, sleepstudy_reml):
    flat = model.with_priors(Days=Prior("flat"), sigma=Prior("half-flat"))
    axes = plot_priors(flat)
    assert "flat()" in axes.flat[1].texts[0].get_text()
    with pytest.raises(HmlmError, match=r"has no prior to draw.*hmlm.NUTS"):
        plot_priors(sleepstudy_reml)


def test_cutpoints_are_order_statistics(rows):
    model = hmlm.Model("ordered ~ x + (1 | g)", rows, family="ordinal")
    fit = model.fit(NUTS(draws=200, chains=2), random_seed=1, progressbar=False)
    axes = plot_priors(fit)
    assert titles(axes)[:3] == ["cutpoints[0|1]", "cutpoints[1|2]", "cutpoints[2|3]"]
    x, y = curve(axes.flat[0], GREY).get_data()
    own = stats.norm(0, 2.5)
    density = own.pdf(x) * stats.beta(1, 3).pdf(own.cdf(x))
    assert y == pytest.approx(0.8 * density / density.max(), abs=2e-3)


def test_own_coefficients_of_groups_are_marked(model):
    alone = model.with_pooling("none")
    fit = alone.fit(NUTS(draws=100, chains=2), random_seed=1, progressbar=False)
    axes = plot_priors(fit)
    assert titles(axes)[1:] == ["b_Subject[Intercept]", "b_Subject[Days]"]
    marks = axes.flat[1].lines[-1]
    means = fit.variable("b_Subject")[..., 0].mean(axis=(0, 1))
    assert marks.get_xdata() == pytest.approx(means)


def test_many_parameters_are_cut_with_a_note():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(80, 31)), columns=[f"x{i}" for i in range(31)])
    model = hmlm.Model("x0 ~ " + " + ".join(f"x{i}" for i in range(1, 31)), frame)
    axes = plot_priors(model)
    assert len(titles(axes)) == MOST_PANELS
    texts = [t.get_text() for ax in axes.flat for t in ax.texts]
    assert "8 more parameters: name them with parameters=[...]." in texts
    assert len(titles(plot_priors(model, [f"x{i}" for i in range(1, 31)]))) == 30


def test_data_sets_of_a_continuous_outcome(model):
    ax = plot_prior_predictive(model, draws=100, random_seed=1)
    x, y = curve(ax, INK).get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.02)
    assert len([ln for ln in ax.lines if ln.get_color() == PARTIAL]) == 61
    assert ax.get_xlabel() == "Reaction"


def test_shares_of_groups(rows):
    model = hmlm.Model("p(trials, n) ~ x + (1 | g)", rows, family="binomial")
    ax = plot_prior_predictive(model, draws=200, random_seed=1)
    shares = rows.groupby("g")["trials"].mean() / 6
    dots = next(ln for ln in ax.lines if ln.get_color() == INK)
    assert dots.get_ydata() == pytest.approx(np.sort(shares))
    assert [t.get_text() for t in ax.get_xticklabels()] == list(shares.sort_values().index)
    assert ax.get_ylabel() == "share of trials"


def test_bars_of_categories(rows):
    model = hmlm.Model("category ~ x + (1 | g)", rows, family="categorical")
    ax = plot_prior_predictive(model, draws=200, random_seed=1)
    heights = [patch.get_height() for patch in ax.patches]
    expected = rows["category"].value_counts(normalize=True).sort_index()
    assert heights == pytest.approx(list(expected))
    assert [t.get_text() for t in ax.get_xticklabels()] == list("uvwz")


def test_counts_are_in_classes_that_double(rows):
    model = hmlm.Model("count ~ x + (1 | g)", rows, family="poisson")
    ax = plot_prior_predictive(model, draws=200, random_seed=1)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels[:4] == ["0", "1", "2\u20133", "4\u20137"]
    assert labels[-1].startswith("\u2265")
    heights = np.array([patch.get_height() for patch in ax.patches])
    assert heights.sum() == pytest.approx(1)
    assert heights[2] == pytest.approx(rows["count"].between(2, 3).mean())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(rows, name):
    kind = FAMILIES[name].outcome
    left = "p(trials, n)" if kind == "trials" else kind
    model = hmlm.Model(f"{left} ~ x + (1 | g)", rows, family=name)
    ax = plot_prior_predictive(model, draws=60, random_seed=1)
    assert ax.get_legend() is not None
    drawn(ax)
    drawn(plot_priors(model).flat[0])


def test_impossible_means_are_noted(rows):
    model = hmlm.Model("count ~ x + (1 | g)", rows, family="poisson", link="identity")
    ax = plot_prior_predictive(model, draws=100, random_seed=1)
    assert any("a mean that the family cannot have" in t.get_text() for t in ax.texts)


@pytest.mark.parametrize("groups", [8, 800])
def test_few_and_many_groups(groups):
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(groups), 4)
    frame = pd.DataFrame({"g": g, "y": rng.random(len(g)) < 0.3})
    model = hmlm.Model("y ~ 1 + (1 | g)", frame, family="bernoulli")
    ax = plot_prior_predictive(model, draws=50, random_seed=1)
    assert f"{groups} groups of g" in ax.get_xlabel()
    assert bool(len(ax.get_xticks())) == (groups == 8)
    drawn(ax)


def test_names_from_the_table_are_shown_as_they_stand():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(40, 2)), columns=HOSTILE[:2])
    frame[HOSTILE[2]] = np.repeat(list("abcd"), 10)
    model = hmlm.Model(f"`{HOSTILE[0]}` ~ `{HOSTILE[1]}` + (1 | `{HOSTILE[2]}`)", frame)
    axes = plot_priors(model)
    assert HOSTILE[1] in titles(axes)
    drawn(axes.flat[0])
    ax = plot_prior_predictive(model, draws=50, random_seed=1)
    assert ax.get_xlabel() == HOSTILE[0]
    drawn(ax)


def test_bad_requests(model):
    with pytest.raises(HmlmError, match="prob must lie between 0 and 1"):
        plot_prior_predictive(model, prob=90)
    with pytest.raises(HmlmError, match=r"no grouping factor 'Subjekt'\. Did you mean 'Subject'"):
        plot_prior_predictive(model, group="Subjekt")
    with pytest.raises(PriorError, match="prior of 'Days' is flat"):
        plot_prior_predictive(model.with_priors(Days=Prior("flat")))
