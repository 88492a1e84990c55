"""New groups, funnels and profiles; samples of very many groups: numbers read from the artists."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_images import posterior
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from support import recorded_fit

import hmlm
from hmlm.errors import HmlmError
from hmlm.palette import GREEN, INK, NONE, PARTIAL, VERMILION
from hmlm.plots.canvas import MOST_GROUPS, drawn_groups, place_legend
from hmlm.plots.funnel import plot_funnel
from hmlm.plots.new_group import plot_new_group
from hmlm.plots.profiles import plot_profile

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def eight():
    data = hmlm.load_dataset("eight_schools")
    model = hmlm.Model("y ~ 1 + (1 | school)", data, se="sigma")
    fit = model.fit(hmlm.NUTS(draws=250, tune=250, chains=2), random_seed=1, progressbar=False)
    return model, fit


@pytest.fixture(scope="module")
def many():
    """A fit of 3,000 groups."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(3000), rng.integers(1, 6, 3000))
    y = rng.normal(size=3000)[g] + rng.normal(size=len(g))
    return hmlm.Model("y ~ 1 + (1 | g)", pd.DataFrame({"g": g, "y": y})).fit(hmlm.REML())


def line_of(ax, color, style=None):
    found = [ln for ln in ax.lines if ln.get_color() == color and ln.get_marker() == "None"]
    return found if style is None else [ln for ln in found if ln.get_linestyle() == style]


def notes_of(axes):
    figure = axes[0].figure
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    return "\n".join([figure.get_supxlabel(), *texts])


# --- a new group


def test_bands_are_the_predictions_and_a_new_group_has_the_wider(sleepstudy_reml):
    axes = plot_new_group(sleepstudy_reml, levels=["308"], prob=0.8)
    (ax,) = axes
    x, own = line_of(ax, PARTIAL)[0].get_data()
    rows = pd.DataFrame({"Subject": "308", "Days": x})
    np.testing.assert_allclose(own, sleepstudy_reml.predict(rows, prob=0.8)["estimate"])
    new = sleepstudy_reml.predict(rows, prob=0.8, groups="new")
    low, high, middle = (ln.get_ydata() for ln in line_of(ax, GREEN))
    np.testing.assert_allclose(low, new["lower"])
    np.testing.assert_allclose(high, new["upper"])
    average = sleepstudy_reml.predict(rows, prob=0.8, groups="population")["estimate"]
    np.testing.assert_allclose(middle, average)
    np.testing.assert_allclose(line_of(ax, INK)[0].get_ydata(), average)
    known = sleepstudy_reml.predict(rows, prob=0.8)
    wider = ((new["upper"] - new["lower"]) / (known["upper"] - known["lower"])).iloc[len(x) // 2]
    assert ax.get_title(loc="right") == f"new: {wider:.1f} × as wide"
    assert wider > 2


def test_a_posterior_has_a_new_group_too():
    fit = posterior()
    axes = plot_new_group(fit)
    assert len(axes) == 2
    for ax in axes:
        low, high, _ = (ln.get_ydata() for ln in line_of(ax, GREEN))
        assert (high > low).all()
        assert float(ax.get_title(loc="right").split()[1]) > 1.5


def test_without_a_predictor_there_is_a_row_for_each_group(eight):
    _, fit = eight
    (ax,) = plot_new_group(fit, random_seed=3)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert sorted(names[:8]) == list("ABCDEFGH")
    assert names[8:] == ["new school", "population"]
    widths = {to_hex(c.get_color()[0]): np.ptp(c.get_segments()[0][:, 0]) for c in ax.collections}
    new = fit.predict(
        {"school": ["A"], "sigma": [1.0]}, groups="new", prob=0.9, random_seed=3
    ).iloc[0]
    assert widths[GREEN.lower()] == pytest.approx(new["upper"] - new["lower"], rel=0.25)
    assert widths[GREEN.lower()] > widths[INK]


def test_new_group_refusals(sleepstudy_reml, sleepstudy_pooled):
    with pytest.raises(HmlmError, match="does not pool partially"):
        plot_new_group(sleepstudy_pooled)
    with pytest.raises(HmlmError, match="is no level"):
        plot_new_group(sleepstudy_reml, levels=["309", "nobody"])
    with pytest.raises(HmlmError, match="cannot be read"):
        plot_new_group(sleepstudy_reml, levels=18)


# --- the funnel


def test_funnel_has_the_draws_and_marks_the_divergent_ones():
    fit = posterior()
    axes = plot_funnel(fit, levels=["335"], columns=["Intercept", "Days"])
    bad = fit._stats["diverging"]
    j = list(fit.design.blocks[0].levels).index("335")
    for k, ax in enumerate(axes):
        sd, b = fit.variable("sd_Subject")[..., k], fit.variable("b_Subject")[:, :, j, k]
        fine, divergent = ax.collections[1:]
        for drawn, which in ((fine, ~bad), (divergent, bad)):
            points = drawn.get_offsets()
            np.testing.assert_allclose(points, np.column_stack([b[which], sd[which]]))
        assert to_hex(divergent.get_facecolor()[0]) == VERMILION.lower()
        assert ax.get_yscale() == "log"
    assert [ax.get_title(loc="left") for ax in axes] == [
        "Subject 335, Intercept",
        "Subject 335, Days",
    ]
    assert "Effects centred. 10 of 600 draws diverged." in notes_of(axes)


def test_integrated_effects_have_a_funnel_that_nobody_walks(eight):
    _, fit = eight
    axes = plot_funnel(fit, levels=8)
    assert len(axes) == 8
    assert "integrated out" in notes_of(axes)
    assert all(len(ax.collections) == 2 for ax in axes)
    # The neck is narrow: at small sds effects are small.
    points = axes[0].collections[1].get_offsets()
    sd, effect = points[:, 1], np.abs(points[:, 0])
    assert effect[sd < 1].mean() < 0.3 * effect[sd > 5].mean()


@pytest.mark.slow
def test_centred_sampling_of_the_pymc_model_has_its_funnel(eight):
    model, _ = eight
    nuts = hmlm.NUTS(engine="pymc", centered=True, draws=300, tune=100, chains=2, target_accept=0.6)
    fit = model.fit(nuts, random_seed=4, progressbar=False)
    axes = plot_funnel(fit)
    diverged = int(fit._stats["diverging"].sum())
    assert notes_of(axes).startswith("Effects centred. ")
    drawn = sum(len(c.get_offsets()) for c in axes[0].collections[1:])
    assert drawn == 600
    assert len(axes[0].collections) == 2 + (diverged > 0)


def test_funnel_refusals(eight, sleepstudy_reml):
    _, fit = eight
    with pytest.raises(HmlmError, match="has no draws"):
        plot_funnel(sleepstudy_reml)
    with pytest.raises(HmlmError, match="does not vary by 'school'"):
        plot_funnel(fit, columns="slope")
    with pytest.raises(HmlmError, match="0 panels"):
        plot_funnel(fit, levels=[])


# --- profiles


def test_profile_and_posterior_have_both_intervals(sleepstudy_ml):
    bayes = posterior()
    (ax,) = plot_profile(sleepstudy_ml, bayes, "sd_Subject[Days]", prob=0.9)
    profile, own = (c.get_segments()[0][:, 0] for c in ax.collections[1:])
    table = hmlm.fitting.profile.profile_intervals(sleepstudy_ml, 0.9, "sd_Subject[Days]")
    np.testing.assert_allclose(profile, table[["lower", "upper"]].iloc[0])
    draws = bayes.variable("sd_Subject")[..., 1]
    np.testing.assert_allclose(own, np.quantile(draws, [0.05, 0.95]))
    x, height = ax.lines[1].get_data()
    at = sleepstudy_ml.estimates["sd_Subject"][1]
    assert x[height.argmax()] == pytest.approx(at, rel=0.02)
    # At the ends of the interval the log-likelihood has fallen by half of a chi-squared quantile.
    ends = np.interp(table[["lower", "upper"]].iloc[0], x, height)
    np.testing.assert_allclose(ends, np.exp(-0.5 * 1.6448536**2), rtol=0.02)


def test_all_parameters_and_what_reml_says(sleepstudy_reml):
    axes = plot_profile(sleepstudy_reml, posterior())
    assert len(axes) == 6
    assert "The likelihood is that of ML." in notes_of(axes)
    assert axes[4].get_xlim() == (-1.0, 1.0)


def test_profile_refusals(sleepstudy_reml, eight):
    bayes = posterior()
    with pytest.raises(HmlmError, match="in that order"):
        plot_profile(bayes, sleepstudy_reml)
    with pytest.raises(HmlmError, match="different rows"):
        plot_profile(sleepstudy_reml, eight[1])
    with pytest.raises(HmlmError, match="no parameter 'Day'"):
        plot_profile(sleepstudy_reml, bayes, "Day")


# --- very many groups, narrow figures


def test_groups_are_sampled_alike_each_time():
    places, notes = drawn_groups(50_000)
    assert len(np.unique(places)) == MOST_GROUPS
    assert places.max() < 50_000
    np.testing.assert_array_equal(places, drawn_groups(50_000)[0])
    assert notes == ["1,000 of 50,000 groups drawn, chosen at random."]


@pytest.mark.parametrize(
    ("draw", "most"),
    [
        (hmlm.plot_sizes, 1000),
        (hmlm.plot_shrinkage, 400),
        (hmlm.plot_caterpillar, 1000),
        (hmlm.plot_conditional, 150),
        (lambda fit: hmlm.plot_ppc_groups(fit, draws=20, random_seed=1), 1000),
    ],
)
def test_of_very_many_groups_some_are_drawn_and_the_figure_says_so(many, draw, most):
    axes = np.ravel(np.asarray(draw(many), dtype=object))
    assert f"{most:,} of 3,000 groups drawn" in notes_of(axes)
    points = [len(c.get_offsets()) for ax in axes for c in ax.collections]
    points += [len(ln.get_xdata()) for ax in axes for ln in ax.lines]
    assert max(points) <= most


def test_one_value_of_the_predictor_has_a_mark_without_pooling():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(6), 4)
    x = np.where(g == 0, 1.0, np.tile(np.arange(4.0), 6))
    data = pd.DataFrame({"g": g, "x": x, "y": x + g + rng.normal(size=24)})
    model = hmlm.Model("y ~ x + (1 | g)", data)
    none = model.with_pooling("none").fit(hmlm.OLS())
    (ax,) = hmlm.plot_groups(model.fit(hmlm.REML()), none, levels=[0])
    (mark,) = [
        ln
        for ln in ax.lines
        if ln.get_markeredgecolor() == NONE and len(ln.get_xdata()) and ln.get_marker() == "D"
    ]
    expected = none.predict(pd.DataFrame({"g": [0], "x": [1.0]}))["estimate"]
    np.testing.assert_allclose(mark.get_xydata(), [[1.0, expected.iloc[0]]])


@pytest.mark.parametrize("width", [3.0, 4.0, 9.0])
def test_legends_fit_narrow_figures(width):
    fits = [recorded_fit("sleepstudy_reml"), recorded_fit("sleepstudy_ml")]
    axes = hmlm.plot_groups(*fits, levels=2, size=(width, 3.0))
    figure = axes[0].figure
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert (legend._ncols < 3) == (width == 3.0)


def test_names_too_long_for_one_column_are_shortened():
    figure, ax = plt.subplots(figsize=(2.0, 2.0))
    legend = place_legend(ax, ax.plot([0, 1]), ["a very long name of a fit, " * 4])
    assert "…" in legend.get_texts()[0].get_text()
    assert legend.get_window_extent().width <= 1.1 * ax.bbox.width
    plt.close(figure)


def test_crossed_factors_are_compared_about_the_same_average():
    """Without pooling only differences between plates are known, whatever sample comes first."""
    from hmlm.plots.pulls import gather_pulls

    frame = hmlm.load_dataset("penicillin")
    fit = hmlm.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", frame).fit(hmlm.REML())
    for group in ("plate", "sample"):
        pulls = gather_pulls(fit, None, None, group, None)
        means = frame.groupby(group, observed=True)["diameter"].mean().to_numpy()
        assert pulls.relative
        assert pulls.none[:, 0] - pulls.none[0, 0] == pytest.approx(means - means[0])
        assert pulls.none.mean() == pytest.approx(pulls.partial.mean())
        # The balanced design pulls each towards the middle.
        away = np.abs(pulls.none - pulls.none.mean()) - np.abs(pulls.partial - pulls.none.mean())
        assert (away >= 0).all()
    ax = hmlm.plot_shrinkage(fit, group="plate")
    assert any("Another factor crosses" in t.get_text() for t in ax.figure.findobj(match=plt.Text))
    nested = hmlm.Model("strength ~ 1 + (1 | batch/cask)", hmlm.load_dataset("pastes"))
    assert not gather_pulls(nested.fit(hmlm.REML()), None, None, "batch:cask", None).relative
