"""Figures of predictions, comparisons and slopes: numbers read back from the artists."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import same_color
from support import simulate

import hmlm
from hmlm.data_grid import grid_of
from hmlm.errors import HmlmError
from hmlm.marginal import average_slopes, compare_predictions
from hmlm.palette import NAVY
from hmlm.plots.marginal import plot_comparisons, plot_slopes
from hmlm.plots.predictions import plot_predictions

matplotlib.use("Agg")
SHORT = hmlm.NUTS(draws=200, tune=300, chains=2)


@pytest.fixture(autouse=True)
def _closed_figures():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


@pytest.fixture(scope="module")
def fit():
    """A logit model with a factor."""
    frame, _ = simulate(5, groups=15, size=12, beta=(-0.3, 0.8))
    rng = np.random.default_rng(2)
    frame["f"] = rng.choice(["lo", "mid", "hi"], len(frame))
    frame["d"] = rng.integers(0, 2, len(frame))
    frame["y"] = rng.random(len(frame)) < 1 / (1 + np.exp(-frame["y"]))
    model = hmlm.Model("y ~ f * x + d + (x | g)", frame, family="bernoulli")
    return model.fit(SHORT, random_seed=1, progressbar=False)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curve(ax, label):
    (line,) = [ln for ln in ax.lines if ln.get_label() == label]
    return line.get_xydata().T


def intervals(ax, k=0):
    """Return the middle, lower and upper ends of the k-th series of points, in order of place."""
    bars = [c for c in ax.collections if hasattr(c, "get_segments")][k]
    line = [ln for ln in ax.lines if ln.get_marker() == "o"][k]
    segments = np.array(bars.get_segments())
    across = int(np.ptp(segments[0][:, 0]) == 0)  # the axis of the estimates
    places = line.get_xydata()[:, 1 - across]
    np.testing.assert_allclose(places, segments[:, 0, 1 - across])
    order = np.argsort(places, kind="stable")
    middle = line.get_xydata()[:, across]
    return middle[order], segments[order, 0, across], segments[order, 1, across]


def test_line_and_band_are_the_predictions(sleepstudy_reml):
    ax = plot_predictions(sleepstudy_reml, "Days", prob=0.8, data=True)
    (line,) = ax.lines
    x, y = line.get_xydata().T
    table = sleepstudy_reml.predict(pd.DataFrame({"Days": x}), groups="population", prob=0.8)
    np.testing.assert_allclose(y, table["estimate"])
    assert same_color(line.get_color(), NAVY)
    band, points = ax.collections[1], ax.collections[0]
    if len(points.get_offsets()) != 180:
        band, points = points, band
    assert len(points.get_offsets()) == 180
    ends = band.get_paths()[0].vertices
    assert ends[:, 1].max() == pytest.approx(table["upper"].max())
    assert ends[:, 1].min() == pytest.approx(table["lower"].min())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Days", "Reaction")
    assert ax.get_title(loc="right") == "80% interval"
    assert ax.get_legend() is None


def test_groups_stand_beside_the_population(sleepstudy_reml):
    ax = plot_predictions(sleepstudy_reml, "Days", by="Subject", levels=["335", "308"])
    assert labels(ax) == ["Subject 335", "Subject 308", "population"]
    x, y = curve(ax, "Subject 335")
    own = sleepstudy_reml.predict(pd.DataFrame({"Days": x, "Subject": "335"}))
    np.testing.assert_allclose(y, own["estimate"])
    ax = plot_predictions(sleepstudy_reml, "Days", by="Subject", levels=18)
    assert labels(ax) == ["18 groups", "population"]
    assert len(ax.lines) == 19
    assert len(ax.collections) == 1  # the band of the population alone
    assert len(plot_predictions(sleepstudy_reml, "Days", by="Subject").lines) == 7


def test_no_pooling_has_groups_but_no_population(sleepstudy_alone):
    ax = plot_predictions(sleepstudy_alone, "Days", by="Subject", levels=3)
    assert len(ax.lines) == 3
    with pytest.raises(HmlmError, match="without pooling there is no population"):
        plot_predictions(sleepstudy_alone, "Days")


def test_factors_and_numbers_have_a_line_each(fit):
    ax = plot_predictions(fit, "x", by="f", groups="average", data=True)
    assert labels(ax) == ["f hi", "f lo", "f mid"]
    x, y = curve(ax, "f lo")
    table = fit.predict(grid_of(fit, f="lo", x=x), groups="average")
    np.testing.assert_allclose(y, table["estimate"])
    assert ax.get_ylabel() == "probability of y"
    assert labels(plot_predictions(fit, "x", by="d")) == ["d 0", "d 1"]
    assert len(labels(plot_predictions(fit, "f", by="x"))) == 3
    assert labels(plot_predictions(fit, "f", by="x", levels=[0, 1.5])) == ["x 0", "x 1.5"]
    given = plt.figure().subplots()
    assert plot_predictions(fit, "x", by="f", levels="hi", ax=given) is given


def test_a_factor_along_the_axis_has_points(fit):
    ax = plot_predictions(fit, "f", data=True, kind="linear")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["hi", "lo", "mid"]
    table = fit.predict(grid_of(fit, f=["hi", "lo", "mid"]), groups="population", kind="linear")
    for seen, column in zip(intervals(ax), ("estimate", "lower", "upper"), strict=True):
        np.testing.assert_allclose(seen, table[column])
    assert ax.get_ylabel() == "linear predictor of y"


def test_comparisons_have_a_row_each(fit):
    ax = plot_comparisons(fit, prob=0.5)
    table = compare_predictions(fit, prob=0.5)
    names = (table["variable"] + ": " + table["contrast"]).tolist()
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    for seen, column in zip(intervals(ax), ("estimate", "lower", "upper"), strict=True):
        np.testing.assert_allclose(seen, table[column])
    low, high = ax.get_ylim()
    assert low > high  # the first on top
    assert ax.get_xlabel() == "difference in probability of y"


def test_comparisons_along_a_number_and_by_a_factor(fit):
    ax = plot_comparisons(fit, {"f": ("hi", "lo")}, by="x", groups="average")
    (line,) = [ln for ln in ax.lines if len(ln.get_xdata()) > 2]
    x, y = line.get_xydata().T
    grid = grid_of(fit, x=x)
    table = compare_predictions(fit, {"f": ("hi", "lo")}, "x", grid, groups="average")
    np.testing.assert_allclose(y, table["estimate"])
    assert ax.get_title(loc="right") == "f: lo - hi, 95% interval"
    ax = plot_comparisons(fit, "f", by="d", comparison="ratio")
    assert labels(ax) == ["f: lo / hi", "f: mid / hi"]
    ax = plot_comparisons(fit, {"x": 1}, by="f")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["hi", "lo", "mid"]


def test_slopes_of_groups(sleepstudy_reml):
    ax = plot_slopes(sleepstudy_reml, "Days", by="Subject")
    table = average_slopes(sleepstudy_reml, "Days", by="Subject")
    np.testing.assert_allclose(intervals(ax)[0], table["estimate"])
    assert ax.get_xlabel() == "slope of Reaction"
    assert ax.get_title(loc="right") == "Days, 95% interval"


def test_many_groups_stand_in_order_without_labels():
    frame, _ = simulate(1, groups=800, size=3)
    fit = hmlm.Model("y ~ x + (x | g)", frame).fit(hmlm.REML())
    ax = plot_slopes(fit, "x", by="g")
    middle = intervals(ax)[0]
    assert len(middle) == 800
    assert (np.diff(middle) >= 0).all()
    assert not ax.get_yticklabels()
    ax = plot_predictions(fit, "x", by="g", levels=800, data=True)
    assert labels(ax) == ["800 groups", "population"]
    ax.figure.canvas.draw()


def test_categories_have_a_line_each():
    frame, _ = simulate(2, groups=10, size=8)
    frame["y"] = np.digitize(frame["y"], [1.5, 2.5])
    model = hmlm.Model("y ~ x + (1 | g)", frame, family="ordinal")
    fit = model.fit(SHORT, random_seed=1, progressbar=False)
    ax = plot_predictions(fit, "x", groups="average", data=True)
    assert labels(ax) == ["0", "1", "2"]
    np.testing.assert_allclose(sum(curve(ax, k)[1] for k in "012"), 1.0)
    with pytest.raises(HmlmError, match="has a line for each of them: leave `by` out"):
        plot_predictions(fit, "x", by="g")
    ax = plot_slopes(fit, "x")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x, 0", "x, 1", "x, 2"]
    assert len(intervals(ax)[0]) == 3


def test_names_of_columns_are_shown_as_they_stand():
    frame, _ = simulate(2, groups=6, size=6)
    frame = frame.rename(columns={"x": "$x_{"})
    frame["k"] = np.tile(["$a_{", r"\frac{"], 18)
    fit = hmlm.Model("y ~ `$x_{` + k + (1 | g)", frame).fit(hmlm.REML())
    axes = [
        plot_predictions(fit, "$x_{", by="k"),
        plot_predictions(fit, "k"),
        plot_comparisons(fit),
        plot_slopes(fit, by="k"),
        plot_comparisons(fit, by="$x_{"),
    ]
    for ax in axes:
        ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: plot_predictions(f, "z"), "'z' is no predictor of the model"),
        (lambda f: plot_predictions(f, "g"), "'g' is a grouping factor: pass it as by='g'"),
        (lambda f: plot_predictions(f, "x", by="z"), "'z' is no predictor of the model"),
        (lambda f: plot_predictions(f, "x", by="f", levels=2), "'f' is no grouping factor"),
        (lambda f: plot_predictions(f, "x", by="f", levels=["no"]), "'no' is no level of 'f'"),
        (lambda f: plot_predictions(f, "x", by="g", levels=["no"]), "'no' is no level of 'g'"),
        (lambda f: plot_predictions(f, "x", by="g", levels=0), "levels is a number of groups"),
        (lambda f: plot_slopes(f, "f"), "'f' is a factor, along which"),
        (lambda f: plot_comparisons(f, by="z"), "'z' is no predictor of the model"),
    ],
)
def test_what_cannot_be_drawn(call, message, fit):
    with pytest.raises(HmlmError, match=message):
        call(fit)
    assert not plt.get_fignums()
