"""Estimates given the between-group sd, beside closed forms and the fits."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import hmlm
from hmlm.errors import HmlmError
from hmlm.plots.conditional import condition_on_sd, plot_conditional

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def eight_model():
    eight = hmlm.load_dataset("eight_schools")
    return hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma")


def test_eight_schools_follow_bda_equations_5_17_to_5_21(eight_model):
    design = eight_model.design
    y, variance = design.y, 1 / design.weights
    taus = np.array([0.5, 3.0, 10.0, 25.0])
    found = condition_on_sd(design, design.blocks[0], 0, taus, np.eye(1))
    log_p = []
    for t, tau in enumerate(taus):
        weight = 1 / (variance + tau**2)
        mu, V = (weight * y).sum() / weight.sum(), 1 / weight.sum()
        own = tau**2 / (variance + tau**2)
        mean = own * y + (1 - own) * mu
        sd = np.sqrt(own * variance + (1 - own) ** 2 * V)
        at = design.blocks[0].index
        np.testing.assert_allclose(found.mean[t, at], mean, rtol=1e-10)
        np.testing.assert_allclose(found.sd[t, at], sd, rtol=1e-10)
        log_p.append(
            0.5 * np.log(V) + 0.5 * np.log(weight).sum() - 0.5 * (weight * (y - mu) ** 2).sum()
        )
    np.testing.assert_allclose(np.diff(found.log_likelihood), np.diff(log_p), rtol=1e-9)


def test_the_ends_are_complete_and_no_pooling(eight_model):
    axes = plot_conditional(eight_model)
    design = eight_model.design
    complete, none = (c.get_offsets() for c in axes[0].collections[2:4])
    mean = np.average(design.y, weights=design.weights)
    np.testing.assert_allclose(complete[:, 1], mean)
    np.testing.assert_allclose(none[design.blocks[0].index, 1], design.y, rtol=1e-4)
    assert len(axes[0].texts) == 8
    assert axes[2].get_xticklabels()[-1].get_text() == "\u221e"


@pytest.mark.parametrize("column", ["Intercept", "Days"])
def test_at_the_estimate_of_the_sd_curves_meet_the_reml_fit(sleepstudy_reml, column):
    design = sleepstudy_reml.design
    block = design.blocks[0]
    k = block.columns.index(column)
    sd = sleepstudy_reml.estimates["sd_Subject"]
    cor = sleepstudy_reml.estimates["cor_Subject"]
    D = cor * np.outer(sd, sd)
    taus = sd[k] * np.array([0.8, 1.0, 1.25])
    found = condition_on_sd(design, block, k, taus, D)
    numbers = sleepstudy_reml.describe("total_Subject", 0.95)
    np.testing.assert_allclose(found.mean[1], numbers.estimate[:, k], rtol=1e-4)
    np.testing.assert_allclose(found.sd[1], numbers.std_error[:, k], rtol=1e-3)
    assert found.sigma[1] == pytest.approx(sleepstudy_reml.estimates["sigma"], rel=1e-4)
    assert found.log_likelihood.argmax() == 1


def test_draws_of_a_posterior_stand_beneath(eight_model):
    fit = eight_model.fit(
        hmlm.NUTS(draws=200, tune=200, chains=2), random_seed=1, progressbar=False
    )
    axes = plot_conditional(fit, sds=np.linspace(0, 40, 30))
    names = [t.get_text() for t in axes[2].get_legend().get_texts()]
    assert names == ["NUTS", "likelihood of the sd"]


def test_groups_without_an_estimate_of_their_own_are_blank_at_infinity(radon):
    model = hmlm.Model("log_radon ~ floor + (floor | county)", radon)
    axes = plot_conditional(model, column="floor")
    none = np.ma.filled(axes[0].collections[3].get_offsets(), np.nan)[:, 1]
    blank = radon.groupby("county", observed=True)["floor"].nunique().to_numpy() < 2
    np.testing.assert_array_equal(np.isnan(none), blank)
    assert axes[1].get_ylim()[1] < 5
    assert f"{blank.sum()} of 85 groups have no estimate" in axes[2].texts[-1].get_text()


def test_refusals(eight_model):
    pastes = hmlm.Model("strength ~ 1 + (1 | batch/cask)", hmlm.load_dataset("pastes"))
    with pytest.raises(HmlmError, match="2 grouping factors"):
        plot_conditional(pastes)
    with pytest.raises(HmlmError, match="has none pooling"):
        plot_conditional(eight_model.with_pooling("none"))
    with pytest.raises(HmlmError, match="increasing"):
        plot_conditional(eight_model, sds=[3, 1])
    cbpp = hmlm.load_dataset("cbpp")
    counts = hmlm.Model("p(incidence, size) ~ 1 + (1 | herd)", cbpp, family="binomial")
    with pytest.raises(HmlmError, match="binomial"):
        plot_conditional(counts)
