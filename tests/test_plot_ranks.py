"""Ranks of groups in the draws."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.ranks import plot_ranks, rank_groups

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def eight_fit():
    eight = hmlm.load_dataset("eight_schools")
    model = hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma")
    return model.fit(hmlm.NUTS(draws=300, tune=300, chains=2), random_seed=1, progressbar=False)


def test_ranks_are_those_of_the_draws(eight_fit):
    table = rank_groups(eight_fit)
    effects = eight_fit.variable("b_school")[..., 0].reshape(-1, 8)
    ranks = (effects[:, None, :] > effects[:, :, None]).sum(axis=2) + 1
    np.testing.assert_allclose(table["rank"], ranks.mean(axis=0))
    np.testing.assert_allclose(table["best"], (ranks == 1).mean(axis=0))
    assert table["rank"].sum() == pytest.approx(36)
    turned = rank_groups(eight_fit, best="lowest")
    np.testing.assert_allclose(turned["rank"], 9 - table["rank"])


def test_the_best_stands_on_top(eight_fit):
    axes = plot_ranks(eight_fit)
    table = rank_groups(eight_fit).sort_values("rank")
    assert [t.get_text() for t in axes[0].get_yticklabels()] == list(table["level"])
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1]
    np.testing.assert_allclose([b.get_width() for b in axes[1].patches], table["best"])
    np.testing.assert_allclose(axes[0].collections[1].get_offsets()[:, 0], table["rank"])


def test_refusals(eight_fit, sleepstudy_reml):
    with pytest.raises(HmlmError, match="has no draws"):
        plot_ranks(sleepstudy_reml)
    with pytest.raises(HmlmError, match="'highest' or 'lowest'"):
        plot_ranks(eight_fit, best="first")
    with pytest.raises(HmlmError, match="no group term"):
        plot_ranks(eight_fit, "scool")
