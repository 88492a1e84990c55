"""Sorted group estimates of several fits."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.caterpillar import plot_caterpillar

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_groups_stand_in_the_order_of_the_first_fit(
    sleepstudy_reml, sleepstudy_alone, sleepstudy_pooled
):
    ax = plot_caterpillar(sleepstudy_reml, sleepstudy_alone, sleepstudy_pooled, column="Days")
    own = sleepstudy_reml.describe("total_Subject", 0.95).estimate[:, 1]
    levels = sleepstudy_reml.design.blocks[0].levels
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == [str(levels[j]) for j in np.argsort(own)]
    first, second = (c.get_offsets()[:, 0] for c in ax.collections[1::2])
    np.testing.assert_allclose(first, np.sort(own))
    alone = sleepstudy_alone.describe("total_Subject", 0.95).estimate[:, 1]
    np.testing.assert_allclose(second, alone[np.argsort(own)])
    (line,) = ax.lines
    assert line.get_xdata()[0] == pytest.approx(sleepstudy_pooled.estimates["beta"][1])


def test_hundreds_of_groups_have_no_labels_and_intervals_of_one_fit():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(300), 4)
    data = pd.DataFrame({"$x_{": g, "y": rng.normal(size=300)[g] + rng.normal(size=1200)})
    model = hmlm.Model("y ~ 1 + (1 | `$x_{`)", data)
    ax = plot_caterpillar(model.fit(hmlm.REML()), model.with_pooling("none").fit(hmlm.OLS()))
    assert len(ax.collections) == 3
    assert not ax.get_yticklabels()
    ax.figure.canvas.draw()


def test_refusals(sleepstudy_reml, radon_reml):
    with pytest.raises(HmlmError, match="from 1 to 5 fits, not 0"):
        plot_caterpillar()
    with pytest.raises(HmlmError, match="no grouping factor"):
        plot_caterpillar(sleepstudy_reml, radon_reml)
    with pytest.raises(HmlmError, match="does not vary"):
        plot_caterpillar(sleepstudy_reml, column="days")
