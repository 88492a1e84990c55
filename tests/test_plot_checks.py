"""Figures of checks show replicates and data: numbers read back from the artists."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from scipy import special

import hmlm
from hmlm.errors import HmlmError
from hmlm.group_statistics import group_averages
from hmlm.palette import BLUE, INK, VERMILION
from hmlm.plots.check_residuals import plot_calibration, plot_residuals, plot_rootogram
from hmlm.plots.checks import density, plot_ppc, plot_ppc_groups, plot_ppc_statistics
from hmlm.replicates import draw_replicates

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 15)
    y = rng.poisson(np.exp(1.2 + rng.normal(0, 0.4, 20)[g])) * (rng.random(300) > 0.3)
    data = pd.DataFrame({"y": y, "g": g})
    return hmlm.Model("y ~ 1 + (1 | g)", data, "poisson").fit(hmlm.Laplace())


@pytest.fixture(scope="module")
def women():
    data = hmlm.load_dataset("contraception")
    model = hmlm.Model("use ~ age + urban + (1 | district)", data, "bernoulli")
    return model.fit(hmlm.Laplace())


@pytest.fixture(scope="module")
def herds():
    data = hmlm.load_dataset("cbpp")
    model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", data, "binomial")
    return model.fit(hmlm.Laplace())


@pytest.fixture(scope="module")
def letters():
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(10), 12), rng.normal(size=120)
    y = np.array(["$a_{", "b", "c"])[np.digitize(x + rng.logistic(size=120), [-1.0, 0.7])]
    data = pd.DataFrame({"y": y, "x": x, "g": g})
    model = hmlm.Model("y ~ x + (1 | g)", data, "categorical")
    return model.fit(hmlm.NUTS(draws=100, chains=2), random_seed=1, progressbar=False)


def many_groups(J, hostile=False):
    rng = np.random.default_rng(J)
    g = np.repeat(np.arange(J), rng.integers(3, 9, J))
    y = rng.normal(size=J)[g] + rng.normal(size=len(g))
    labels = [f"$x_{{{k}" if hostile else f"g{k}" for k in g]
    model = hmlm.Model("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": labels}))
    return model.fit(hmlm.REML())


# --- the distribution


def test_densities_of_replicates_and_data(sleepstudy_reml):
    ax = plot_ppc(sleepstudy_reml, draws=80, random_seed=1)
    colors = [line.get_color() for line in ax.lines]
    assert colors == [BLUE] * 60 + [INK]
    low, high = ax.get_xlim()
    x, y = density(sleepstudy_reml.design.y, low, high)
    assert np.allclose(ax.lines[-1].get_xydata(), np.column_stack([x, y]))
    assert ax.get_xlabel() == "Reaction"


def test_a_density_sums_to_one_and_stays_within_its_ends():
    values = np.random.default_rng(1).exponential(size=4000)
    x, height = density(values, 0.0, 12.0)
    assert height.sum() * (x[1] - x[0]) == pytest.approx(1, abs=0.01)
    assert height[0] == pytest.approx(1, abs=0.15)


def test_bars_of_counts(counts):
    ax = plot_ppc(counts, draws=200, random_seed=1)
    heights = [bar.get_height() for bar in ax.patches]
    own = np.bincount(counts.design.y.astype(int))
    assert np.allclose(heights[:5], own[:5])
    assert sum(heights) == 300
    (dots,) = [line for line in ax.lines if line.get_marker() == "o"]
    drawn = draw_replicates(counts, 200, random_seed=1)
    assert dots.get_ydata()[0] == np.median((drawn == 0).sum(axis=1))
    assert dots.get_ydata()[0] < own[0]


def test_bars_of_yes_and_no_of_trials_and_of_categories(women, herds, letters):
    ax = plot_ppc(women, draws=100)
    assert [bar.get_height() for bar in ax.patches] == [
        (women.design.y == 0).sum(),
        women.design.y.sum(),
    ]
    ax = plot_ppc(herds, draws=100)
    assert ax.get_xlabel() == "share of incidence"
    assert sum(bar.get_height() for bar in ax.patches) == len(herds.design.y)
    ax = plot_ppc(letters, draws=100)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["$a_{", "b", "c"]
    ax.figure.canvas.draw()


# --- groups


def test_group_means_beside_intervals(sleepstudy_reml):
    design = sleepstudy_reml.design
    ax = plot_ppc_groups(sleepstudy_reml, draws=300, random_seed=1, prob=0.9)
    own = group_averages(design, "Subject", design.y[None])[0]
    shown = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "o"])
    assert np.allclose(np.sort(shown), np.sort(own))
    (bars,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    drawn = group_averages(design, "Subject", draw_replicates(sleepstudy_reml, 300, random_seed=1))
    low = np.quantile(drawn[:, np.argsort(own)], 0.05, axis=0)
    assert np.allclose([segment[0][1] for segment in bars.get_segments()], low)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels == [str(design.blocks[0].levels[j]) for j in np.argsort(own)]


@pytest.mark.parametrize("J", [8, 800])
def test_groups_can_be_read_when_few_or_many(J):
    ax = plot_ppc_groups(many_groups(J, hostile=True), draws=100, random_seed=1)
    assert len(ax.get_xticks()) == (8 if J == 8 else 0)
    assert ax.figure.get_figwidth() <= 8.6
    ax.figure.canvas.draw()
    assert ax.get_legend().get_texts()[0].get_text() == "replicates, 95%"


def test_groups_outside_are_marked_and_counted():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(50), 8)
    data = pd.DataFrame({"y": rng.normal(size=400) + 6.0 * (g == 9), "g": g})
    fit = hmlm.Model("y ~ 1 + (1 | g)", data).fit(hmlm.REML())
    ax = plot_ppc_groups(fit, groups="new", draws=200, random_seed=1)
    (marked,) = [line for line in ax.lines if line.get_color() == VERMILION]
    n = len(marked.get_xdata())
    assert max(marked.get_xdata()) == 49
    assert f"data outside ({n} of 50 groups)" in [t.get_text() for t in ax.get_legend().get_texts()]


# --- statistics


def test_statistics_stand_as_lines_in_histograms(sleepstudy_reml):
    axes = plot_ppc_statistics(sleepstudy_reml, draws=200, random_seed=1)
    y = sleepstudy_reml.design.y
    own = [ax.lines[-1].get_xdata()[0] for ax in axes[:4]]
    assert np.allclose(own, [y.mean(), y.std(), y.min(), y.max()])
    assert sum(bar.get_height() for bar in axes[0].patches) == 200


def test_statistics_of_counts_mark_the_zeros(counts):
    axes = {ax.get_xlabel(): ax for ax in plot_ppc_statistics(counts, draws=200, random_seed=1)}
    zeros = axes["share of zeros"]
    assert to_hex(zeros.lines[-1].get_color()).upper() == VERMILION
    assert zeros.get_title(loc="left") == "p < 0.005"
    assert axes["minimum"].get_title(loc="left") == "p = 1.000"


def test_statistics_of_other_outcomes(women, letters):
    names = [ax.get_xlabel() for ax in plot_ppc_statistics(women, draws=100)]
    assert names == ["share of ones", "sd of district means"]
    assert len(plot_ppc_statistics(letters, draws=100)) == 3


# --- counts, probabilities, residuals


def test_bars_hang_from_the_expected_curve(counts):
    ax = plot_rootogram(counts, draws=300, random_seed=1)
    drawn = draw_replicates(counts, 300, random_seed=1)
    own = np.bincount(counts.design.y.astype(int))
    root = np.sqrt((drawn == 0).sum(axis=1).mean())
    bar = min(ax.patches, key=lambda b: b.get_x())
    assert bar.get_height() == pytest.approx(np.sqrt(own[0]))
    assert bar.get_y() == pytest.approx(root - np.sqrt(own[0]))
    assert to_hex(bar.get_facecolor()).upper() == VERMILION
    (curve,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert curve.get_ydata()[0] == pytest.approx(root)


def test_calibration_follows_the_diagonal_where_the_model_holds(women):
    ax = plot_calibration(women, draws=200, random_seed=1)
    x, y = ax.lines[-1].get_data()
    assert len(x) == 10
    assert (np.diff(x) > 0).all()
    assert np.allclose(x, y, atol=0.06)
    assert women.fitted.min() < x[0] < x[-1] < women.fitted.max() + 0.1


def test_calibration_of_many_small_groups_is_not_bent_by_shrinkage():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(400), 4)
    y = (rng.random(1600) < 1 / (1 + np.exp(-rng.normal(0, 1, 400)[g]))).astype(int)
    model = hmlm.Model("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g}), "bernoulli")
    fit = model.fit(hmlm.NUTS(draws=300, chains=2), random_seed=1, progressbar=False)
    x, shown = plot_calibration(fit, draws=200, random_seed=1).lines[-1].get_data()
    assert np.allclose(x, shown, atol=0.05)


def test_residuals_are_normal_where_the_model_holds(women):
    left, right = plot_residuals(women)
    (dots,) = [line for line in right.lines if line.get_marker() == "o"]
    normal, r = dots.get_data()
    assert np.allclose(np.quantile(r, [0.1, 0.5, 0.9]), special.ndtri([0.1, 0.5, 0.9]), atol=0.1)
    assert np.allclose(normal, -normal[::-1])
    (points,) = [line for line in left.lines if line.get_marker() == "o"]
    assert np.allclose(np.sort(points.get_ydata()), r)
    assert left.get_xlabel() == "fitted use"


def test_residuals_can_be_drawn_into_given_axes(sleepstudy_reml):
    figure, axes = plt.subplots(1, 2)
    found = plot_residuals(sleepstudy_reml, axes=axes)
    assert found[0] is axes[0]
    with pytest.raises(HmlmError, match="two panels need two axes; 1 was given"):
        plot_residuals(sleepstudy_reml, axes=axes[:1])
    assert plot_ppc(sleepstudy_reml, draws=5, ax=axes[0]) is axes[0]
    plt.close(figure)


def test_requests_that_cannot_be_met(sleepstudy_reml, letters):
    for draw, said in (
        (plot_rootogram, "a rootogram shows counts"),
        (plot_calibration, "calibration is that of probabilities"),
    ):
        with pytest.raises(HmlmError, match=said):
            draw(sleepstudy_reml)
    for draw in (plot_ppc_groups, plot_residuals):
        with pytest.raises(HmlmError, match="the categories of 'y' have no order"):
            draw(letters)
    with pytest.raises(HmlmError, match=r"no group term of 'Subjekt'\. Did you mean 'Subject'"):
        plot_ppc_groups(sleepstudy_reml, "Subjekt")
    with pytest.raises(HmlmError, match="prob must lie between 0 and 1"):
        plot_ppc_groups(sleepstudy_reml, prob=95)
