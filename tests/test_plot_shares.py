"""Shares of the variance as bars."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.shares import plot_variance
from hmlm.variance import split_variance

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_bars_are_the_shares_and_add_up(pastes_reml):
    ax = plot_variance(pastes_reml)
    widths = [bar.get_width() for bar in ax.patches]
    assert sum(widths) == pytest.approx(1.0)
    table = split_variance(pastes_reml)
    np.testing.assert_allclose(widths, table["share"][:-1])
    assert any("no intervals" in t.get_text() for t in ax.texts)


def test_draws_have_intervals_beside_a_classical_fit():
    model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    fit = model.fit(hmlm.NUTS(draws=200, tune=200, chains=2), random_seed=1, progressbar=False)
    ax = plot_variance(fit, model.fit(hmlm.REML()), prob=0.8)
    assert len(ax.patches) == 6
    table = split_variance(fit, 0.8)
    ends = np.array(ax.collections[0].get_segments())[:, :, 0]
    np.testing.assert_allclose(ends, table[["share_lower", "share_upper"]][:-1])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["NUTS", "REML"]


def test_refusals(sleepstudy_alone):
    with pytest.raises(HmlmError, match="from 1 to 5 fits"):
        plot_variance()
    with pytest.raises(HmlmError):
        plot_variance(sleepstudy_alone)
