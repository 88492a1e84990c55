"""Estimates against sizes of groups: numbers read back from the artists."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.sizes import plot_sizes, spread_ties

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def radon_fit():
    data = hmlm.load_dataset("radon")
    return hmlm.Model("log_radon ~ floor + (1 | county)", data).fit(hmlm.REML())


def test_points_are_the_estimates_and_the_line_is_complete_pooling(radon_fit):
    axes = plot_sizes(radon_fit)
    J = len(radon_fit.design.blocks[0].levels)
    points = axes[1].collections[1].get_offsets()
    assert len(points) == J
    np.testing.assert_allclose(points[:, 1], radon_fit.describe("total_county", 0.9).estimate[:, 0])
    design = radon_fit.design
    pooled = np.linalg.lstsq(design.X, design.y, rcond=None)[0][0]
    for ax in axes:
        assert ax.lines[0].get_ydata()[0] == pytest.approx(pooled)
        assert ax.get_xscale() == "log"
    assert axes[0].get_ylim() == axes[1].get_ylim()


def test_intervals_have_their_probability(radon_fit):
    axes = plot_sizes(radon_fit, prob=0.5)
    segments = np.array(axes[1].collections[0].get_segments())
    numbers = radon_fit.describe("total_county", 0.5)
    np.testing.assert_allclose(segments[:, 0, 1], numbers.lower[:, 0])
    np.testing.assert_allclose(segments[:, 1, 1], numbers.upper[:, 0])


def test_known_standard_errors_run_along_the_axis():
    eight = hmlm.load_dataset("eight_schools")
    fit = hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma").fit(hmlm.REML())
    axes = plot_sizes(fit)
    x = axes[0].collections[1].get_offsets()[:, 0]
    order = np.argsort(eight["school"].to_numpy())
    np.testing.assert_allclose(x, 1 / eight["sigma"].to_numpy()[order], rtol=0.2)
    assert "standard error" in axes[0].get_xlabel()


def test_ties_stand_apart_within_half_the_gap():
    x = np.array([1.0, 1.0, 1.0, 2.0, 4.0])
    placed = spread_ties(x)
    assert len(set(placed.tolist())) == 5
    assert placed[:3].max() < np.sqrt(2.0)
    np.testing.assert_array_equal(placed[3:].round(12), [2.0, 4.0])


def test_refusals(radon_fit):
    with pytest.raises(HmlmError, match="does not vary by 'county'"):
        plot_sizes(radon_fit, column="floor")
    with pytest.raises(HmlmError, match="prob must lie"):
        plot_sizes(radon_fit, prob=1.0)
    plain = hmlm.Model("log_radon ~ floor", hmlm.load_dataset("radon")).fit(hmlm.OLS())
    with pytest.raises(HmlmError, match="does not pool partially"):
        plot_sizes(plain)
    _, one = plt.subplots()
    with pytest.raises(HmlmError, match="2 axes; 1 were given"):
        plot_sizes(radon_fit, axes=one)
