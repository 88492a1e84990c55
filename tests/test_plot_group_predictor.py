"""Group-level predictors against the groups' estimates."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.group_predictor import plot_group_predictor

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_line_is_that_of_the_predictor(radon_reml):
    ax = plot_group_predictor(radon_reml, "log_uranium")
    beta = dict(zip(radon_reml.design.terms, radon_reml.estimates["beta"], strict=True))
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, beta["Intercept"] + beta["log_uranium"] * x)
    points = ax.collections[2].get_offsets()
    line = radon_reml.describe("line_county", 0.9).estimate[:, 0]
    np.testing.assert_allclose(points[:, 1], line)
    residual = points[:, 1] - beta["Intercept"] - beta["log_uranium"] * points[:, 0]
    np.testing.assert_allclose(residual, radon_reml.effects["county"].modes[:, 0], atol=1e-10)


def test_a_slope_has_the_line_of_its_interaction(radon):
    model = hmlm.Model("log_radon ~ floor * log_uranium + (floor | county)", radon)
    fit = model.fit(hmlm.REML())
    ax = plot_group_predictor(fit, "log_uranium", column="floor")
    beta = dict(zip(fit.design.terms, fit.estimates["beta"], strict=True))
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, beta["floor"] + beta["floor:log_uranium"] * x)
    points = ax.collections[2].get_offsets()
    expected = beta["floor"] + beta["floor:log_uranium"] * points[:, 0]
    np.testing.assert_allclose(
        points[:, 1] - expected, fit.effects["county"].modes[:, 1], atol=1e-10
    )
    assert [t.get_text() for t in ax.texts] == ["Areas of markers: rows of each group."]


def test_other_predictors_of_groups_are_held(radon):
    size = radon.groupby("county", observed=True)["floor"].transform("size")
    model = hmlm.Model(
        "log_radon ~ log_uranium + I(log_uranium**2) + size + (1 | county)",
        radon.assign(size=np.log(size)),
    )
    fit = model.fit(hmlm.REML())
    ax = plot_group_predictor(fit, "log_uranium")
    beta = dict(zip(fit.design.terms, fit.estimates["beta"], strict=True))
    block = fit.design.blocks[0]
    mean = np.log(block.sizes).mean()
    x, y = ax.lines[0].get_data()
    curve = beta["Intercept"] + beta["log_uranium"] * x + beta["size"] * mean
    np.testing.assert_allclose(y, curve + beta["I(log_uranium ** 2)"] * x**2)
    assert "held at their average" in ax.texts[-1].get_text()


def test_refusals(radon_reml, sleepstudy_reml):
    with pytest.raises(HmlmError, match="varies within"):
        plot_group_predictor(sleepstudy_reml, "Days")
    with pytest.raises(HmlmError, match="no predictor of the model"):
        plot_group_predictor(radon_reml, "uranium")
