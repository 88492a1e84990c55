"""The figures show what the fits say: numbers read back from the artists."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.testing.compare import compare_images

import hmlm
from hmlm.palette import COMPLETE, NAVY, NONE, PARTIAL, distinct_styles, style
from hmlm.plots.canvas import level_positions, named_columns

matplotlib.use("Agg")

HOSTILE = ["$x_{", "a$b", r"\frac{", "$$", "%s{0}", "_hidden"]


@pytest.fixture(autouse=True)
def _closed_figures():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def fit_three(formula, data):
    model = hmlm.Model(formula, data)
    return (
        model.fit(hmlm.REML()),
        model.with_pooling("none").fit(hmlm.OLS()),
        model.with_pooling("complete").fit(hmlm.OLS()),
    )


@pytest.fixture(scope="module")
def alcohol_fits():
    return fit_three("alcuse ~ coa + peer + time + (time | id)", hmlm.load_dataset("alcohol"))


@pytest.fixture(scope="module")
def radon_fits():
    formula = "log_radon ~ floor + log_uranium + (floor | county)"
    return fit_three(formula, hmlm.load_dataset("radon"))


def grouped(groups, seed=1, rows=(2, 12)):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rng.integers(*rows, groups))
    x = rng.standard_normal(len(g))
    b = rng.multivariate_normal([1, 2], [[1, 0.4], [0.4, 0.5]], groups)
    y = b[g, 0] + b[g, 1] * x + rng.standard_normal(len(g))
    return pd.DataFrame({"g": g, "x": x, "y": y})


def line_of(ax, color):
    (line,) = [ln for ln in ax.lines if ln.get_color() == color and ln.get_marker() == "None"]
    return line


def points_of(ax):
    (line,) = [ln for ln in ax.lines if ln.get_marker() == "o"]
    return line.get_xydata()


def hostile_table():
    rng = np.random.default_rng(3)
    labels = np.repeat(HOSTILE, 4)
    return pd.DataFrame(
        {
            "$g_{": labels,
            "x$^{": np.tile([0.0, 1.0, 2.0, 3.0], len(HOSTILE)),
            "kind": np.tile(["$a_{", "b", "$a_{", "b"], len(HOSTILE)),
            "$y": rng.standard_normal(len(labels)) + np.repeat(np.arange(len(HOSTILE)), 4),
        }
    )


# --- the panels of groups


def test_panels_show_data_and_fits(alcohol_fits):
    reml, none, complete = alcohol_fits
    axes = hmlm.plot_groups(reml, none, complete)
    assert len(axes) == 8
    frame = reml.design.data.frame
    for ax in axes:
        level = int(ax.get_title(loc="left").removeprefix("id "))
        own = frame[frame["id"] == level]
        np.testing.assert_array_equal(points_of(ax), own[["time", "alcuse"]])
        for fit, color in ((reml, NAVY), (none, NONE), (complete, COMPLETE)):
            x, y = line_of(ax, color).get_data()
            assert len(x) > 50
            assert (x.min(), x.max()) == (0, 2)
            rows = pd.DataFrame({c: own[c].iloc[0] for c in own}, index=range(len(x)))
            predicted = fit.predict(rows.assign(time=x), prob=0.95)
            np.testing.assert_allclose(y, predicted["estimate"])
            if fit is reml:
                (band,) = ax.collections
                vertices = band.get_paths()[0].vertices
                expected = [predicted["lower"].min(), predicted["upper"].max()]
                np.testing.assert_allclose([vertices[:, 1].min(), vertices[:, 1].max()], expected)
    assert axes[0].figure.get_supxlabel() == "time"
    assert axes[0].figure.get_supylabel() == "alcuse"


def test_legend_stands_once(alcohol_fits):
    axes = hmlm.plot_groups(*alcohol_fits, prob=0.9)
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "data",
        "REML, 90% interval",
        "OLS (no pooling)",
        "OLS (complete pooling)",
    ]
    assert all(ax.get_legend() is None for ax in axes)


def test_chosen_groups_are_the_same_each_time_and_differ_in_size(radon_fits):
    first, second = (hmlm.plot_groups(radon_fits[0]) for _ in range(2))
    titles = [ax.get_title(loc="left") for ax in first]
    assert titles == [ax.get_title(loc="left") for ax in second]
    sizes = [int(ax.get_title(loc="right").removeprefix("n = ")) for ax in first]
    assert min(sizes) <= 2
    assert max(sizes) >= 50


def test_levels_by_label_by_text_and_by_number(alcohol_fits):
    titles = [
        ax.get_title(loc="left") for ax in hmlm.plot_groups(alcohol_fits[0], levels=[82, "4"])
    ]
    assert titles == ["id 82", "id 4"]
    for count in (1, 3, 25):
        assert len(hmlm.plot_groups(alcohol_fits[0], levels=count)) == count


def test_no_pooling_is_drawn_where_the_group_has_data(radon_fits):
    reml, none, _ = radon_fits
    frame = reml.design.data.frame
    floors = frame.groupby("county", observed=True)["floor"].nunique()
    both, one = floors.index[floors == 2][0], floors.index[floors == 1][0]
    ax, bare = hmlm.plot_groups(reml, none, levels=[both, one])
    assert np.isfinite(line_of(ax, NONE).get_ydata()).all()
    line = line_of(bare, NONE)
    assert len(line.get_xdata()) == 1
    assert len(line_of(bare, NAVY).get_xdata()) > 50


def test_other_predictors_are_held_at_the_mean_of_the_group():
    data = grouped(6).assign(z=lambda d: d["x"] ** 2)
    reml = hmlm.Model("y ~ x + z + (x | g)", data).fit(hmlm.REML())
    (ax,) = hmlm.plot_groups(reml, levels=[2])
    x, y = line_of(ax, NAVY).get_data()
    own = data[data["g"] == 2]
    rows = pd.DataFrame({"g": 2, "x": x, "z": own["z"].mean()})
    np.testing.assert_allclose(y, reml.predict(rows)["estimate"])


def test_without_a_predictor_the_lines_are_level():
    reml, none, complete = fit_three("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    axes = hmlm.plot_groups(reml, none, complete)
    assert len(axes) == 6
    totals = reml.tidy().query("component == 'total'")["estimate"].to_numpy()
    for ax, total in zip(axes, totals, strict=True):
        np.testing.assert_allclose(line_of(ax, NAVY).get_ydata(), total)
        assert points_of(ax)[:, 0].tolist() == [1, 2, 3, 4, 5]
        assert len(ax.collections) == 1
    assert axes[0].figure.get_supxlabel() == "observation"


def test_factor_on_the_horizontal_axis():
    data = hmlm.load_dataset("sleepstudy")
    data["phase"] = np.where(data["Days"] < 2, "before", "after")
    reml = hmlm.Model("Reaction ~ phase + (1 | Subject)", data).fit(hmlm.REML())
    (ax,) = hmlm.plot_groups(reml, levels=["308"])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["after", "before"]
    heights = [ln.get_ydata()[0] for ln in ax.lines if ln.get_color() == NAVY]
    rows = pd.DataFrame({"phase": ["after", "before"], "Subject": "308"})
    np.testing.assert_allclose(heights, reml.predict(rows)["estimate"])
    assert np.round(points_of(ax)[:, 0]).tolist() == [1.0] * 2 + [0.0] * 8


def test_numbers_read_as_a_factor_are_categories():
    data = hmlm.load_dataset("sleepstudy").query("Days < 3")
    reml = hmlm.Model("Reaction ~ C(Days) + (1 | Subject)", data).fit(hmlm.REML())
    (ax,) = hmlm.plot_groups(reml, levels=1)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2"]


def test_axis_can_be_chosen(alcohol_fits):
    data = hmlm.load_dataset("alcohol")
    reml = hmlm.Model("alcuse ~ peer + time + (1 | id)", data).fit(hmlm.REML())
    assert hmlm.plot_groups(reml, levels=1)[0].figure.get_supxlabel() == "time"
    assert hmlm.plot_groups(reml, levels=1, x="peer")[0].figure.get_supxlabel() == "peer"
    with pytest.raises(ValueError, match=r"'tim' is no predictor.*Did you mean 'time'"):
        hmlm.plot_groups(reml, x="tim")


@pytest.mark.parametrize("group", ["batch", "batch:cask"])
def test_effects_of_other_factors_are_left_out(group):
    model = hmlm.Model("strength ~ 1 + (1 | batch/cask)", hmlm.load_dataset("pastes"))
    reml = model.fit(hmlm.REML())
    axes = hmlm.plot_groups(reml, group=group, levels=4)
    table = reml.tidy().query("component == 'total' and group == @group").set_index("level")
    for ax in axes:
        level = ax.get_title(loc="left").removeprefix(f"{group} ")
        np.testing.assert_allclose(line_of(ax, NAVY).get_ydata(), table.loc[level, "estimate"])


def test_own_axes_are_used(alcohol_fits):
    _, axes = plt.subplots(1, 3)
    drawn = hmlm.plot_groups(*alcohol_fits, levels=2, axes=axes)
    assert list(drawn) == list(axes[:2])
    assert drawn[0].get_xlabel() == "time"
    assert drawn[0].get_legend() is not None
    with pytest.raises(ValueError, match="4 panels need 4 axes; 3 were given"):
        hmlm.plot_groups(*alcohol_fits, levels=4, axes=axes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 26}, "26 panels cannot be read: choose from 1 to 25 levels of 'id'"),
        ({"levels": range(1, 40)}, "39 panels cannot be read"),
        ({"levels": []}, "0 panels"),
        ({"levels": 0}, "0 panels"),
        ({"levels": [1000]}, "'1000' is no level of 'id'"),
        ({"group": "di"}, "'di' is no grouping factor of the formula. There are: id."),
        ({"columns": 0}, "columns is a number of panels"),
        ({"prob": 1.5}, "prob must lie between 0 and 1"),
    ],
)
def test_bad_requests_are_refused(alcohol_fits, change, message):
    with pytest.raises(ValueError, match=message):
        hmlm.plot_groups(alcohol_fits[0], **change)


def test_fits_of_other_rows_are_refused(alcohol_fits, radon_fits):
    with pytest.raises(ValueError, match="different rows or outcomes"):
        hmlm.plot_groups(alcohol_fits[0], radon_fits[0])
    with pytest.raises(ValueError, match="at least one fit"):
        hmlm.plot_groups()
    fit = hmlm.Model("alcuse ~ time", hmlm.load_dataset("alcohol")).fit(hmlm.OLS())
    with pytest.raises(ValueError, match="no groups to draw"):
        hmlm.plot_groups(fit)


# --- the shrinkage figure


def test_arrows_lead_from_no_pooling_to_partial_pooling(alcohol_fits):
    reml, none, complete = alcohol_fits
    ax = hmlm.plot_shrinkage(reml, none, complete)
    (arrows,) = [c for c in ax.collections if hasattr(c, "U")]
    table = reml.tidy().query("component == 'line'")["estimate"].to_numpy().reshape(-1, 2)
    own = none.tidy().query("component == 'total'")["estimate"].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(np.column_stack([arrows.X, arrows.Y]), own)
    ends = np.column_stack([arrows.X + arrows.U, arrows.Y + arrows.V])
    np.testing.assert_allclose(ends, table)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Intercept", "time")


def test_without_group_level_predictors_the_totals_are_drawn():
    reml, none, _ = fit_three("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    ax = hmlm.plot_shrinkage(reml, none)
    (arrows,) = [c for c in ax.collections if hasattr(c, "U")]
    totals = reml.tidy().query("component == 'total'")["estimate"].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(arrows.X + arrows.U, totals[:, 0])
    (mean,) = [ln for ln in ax.lines if ln.get_marker() == "+"]
    np.testing.assert_allclose(mean.get_xydata()[0], reml.estimates["beta"])


def test_ellipses_are_the_population(alcohol_fits):
    from scipy.stats import chi2

    reml = alcohol_fits[0]
    ax = hmlm.plot_shrinkage(reml)
    sd, rho = reml.estimates["sd_id"], reml.estimates["cor_id"][0, 1]
    D = np.array([[sd[0] ** 2, rho * sd[0] * sd[1]], [rho * sd[0] * sd[1], sd[1] ** 2]])
    line = reml.tidy().query("component == 'line'")["estimate"].to_numpy().reshape(-1, 2)
    for ellipse, prob in zip(ax.patches, (0.5, 0.9, 0.95), strict=True):
        half = np.sort([ellipse.width / 2, ellipse.height / 2]) ** 2
        np.testing.assert_allclose(half, np.linalg.eigvalsh(D) * chi2.ppf(prob, 2), rtol=1e-6)
        # REML effects sum to zero here, so the average line is the mean of the groups' lines.
        np.testing.assert_allclose(ellipse.center, line.mean(axis=0), atol=1e-6)
        edge = ellipse.get_patch_transform().transform(ellipse.get_path().vertices)
        apart = edge - np.asarray(ellipse.center)
        distance = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(D), apart)
        np.testing.assert_allclose(distance[::3], chi2.ppf(prob, 2), rtol=1e-3)
        assert to_hex(ellipse.get_edgecolor()) == PARTIAL.lower()


def test_complete_pooling_stands_at_its_average_line(alcohol_fits):
    reml, _, complete = alcohol_fits
    ax = hmlm.plot_shrinkage(reml)
    (cross,) = [ln for ln in ax.lines if ln.get_marker() == "X"]
    people = reml.design.data.frame.groupby("id")[["coa", "peer"]].first().mean()
    intercept, coa, peer, time = complete.estimates["beta"]
    expected = [intercept + coa * people["coa"] + peer * people["peer"], time]
    np.testing.assert_allclose(cross.get_xydata()[0], expected)
    assert cross.get_color() == COMPLETE


def test_default_fits_are_least_squares(alcohol_fits, tmp_path):
    """Pixel by pixel the same figure as with the fits passed."""
    reml, none, complete = alcohol_fits
    for name, fits in (("given", (reml, none, complete)), ("made", (reml,))):
        hmlm.plot_shrinkage(*fits).figure.savefig(tmp_path / f"{name}.png")
    assert compare_images(tmp_path / "given.png", tmp_path / "made.png", tol=0) is None


def test_groups_without_an_own_estimate_are_counted(radon_fits):
    reml, none, _ = radon_fits
    ax = hmlm.plot_shrinkage(reml, none)
    table = none.tidy().query("component == 'total' and term == 'floor'")
    blank = int(table["estimate"].isna().sum())
    (arrows,) = [c for c in ax.collections if hasattr(c, "U")]
    assert len(arrows.X) == 85 - blank
    notes = "\n".join(t.get_text() for t in ax.texts)
    assert f"{blank} of 85 groups have no estimate of their own." in notes


def test_far_estimates_are_counted_not_framed():
    data = grouped(30, rows=(5, 12))
    data = pd.concat([data, pd.DataFrame({"g": 30, "x": [0.0, 1e-3, 2e-3], "y": [0.0, 1.0, 2.0]})])
    ax = hmlm.plot_shrinkage(hmlm.Model("y ~ x + (x | g)", data).fit(hmlm.REML()))
    assert any("Outside the frame: 1 estimate without" in t.get_text() for t in ax.texts)
    assert ax.get_ylim()[1] < 100


def test_one_column_makes_dumbbells():
    reml, none, complete = fit_three("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    ax = hmlm.plot_shrinkage(reml, none, complete)
    partial = reml.tidy().query("component == 'total'").set_index("level")["estimate"]
    own = none.tidy().query("component == 'total'").set_index("level")["estimate"]
    order = [t.get_text() for t in ax.get_yticklabels()]
    assert order == partial.sort_values().index.tolist()
    (bars,) = [c for c in ax.collections if hasattr(c, "get_segments")]
    ends = {order[round(s[0, 1])]: s[:, 0] for s in bars.get_segments()}
    for level in order:
        np.testing.assert_allclose(ends[level], [own[level], partial[level]])
    vertical = [ln.get_xdata()[0] for ln in ax.lines if ln.get_color() == COMPLETE]
    np.testing.assert_allclose(vertical, complete.estimates["beta"])


def test_columns_can_be_chosen(alcohol_fits):
    ax = hmlm.plot_shrinkage(*alcohol_fits, columns=["time", "Intercept"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time", "Intercept")
    assert hmlm.plot_shrinkage(*alcohol_fits, columns="time").get_xlabel() == "time"
    for wrong, message in (("peer", "does not vary by 'id'"), (["time"] * 2, "one or two")):
        with pytest.raises(ValueError, match=message):
            hmlm.plot_shrinkage(*alcohol_fits, columns=wrong)


def test_wrong_fits_are_refused(alcohol_fits, radon_fits):
    reml, none, complete = alcohol_fits
    for fits, message in [
        ((complete,), "does not pool partially"),
        ((none,), "does not pool partially"),
        ((reml, complete), "none_fit pools 'complete'"),
        ((reml, none, none), "complete_fit pools 'none'"),
        ((reml, radon_fits[1]), "no group term of 'id'"),
    ]:
        with pytest.raises(ValueError, match=message):
            hmlm.plot_shrinkage(*fits)
    with pytest.raises(ValueError, match="no group term of 'school'"):
        hmlm.plot_shrinkage(reml, group="school")


@pytest.mark.parametrize("groups", [8, 800])
@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (1 | g)"])
def test_few_and_many_groups(groups, formula, tmp_path):
    reml = hmlm.Model(formula, grouped(groups)).fit(hmlm.REML())
    ax = hmlm.plot_shrinkage(reml)
    ax.figure.savefig(tmp_path / "figure.png")
    if formula.endswith("(1 | g)"):
        assert len(ax.get_yticklabels()) == (groups if groups == 8 else 0)
    hmlm.plot_groups(reml)[0].figure.savefig(tmp_path / "figure.png")


# --- posteriors


def test_posterior_is_solid_blue_with_its_own_band():
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    bayes = model.fit(hmlm.NUTS(draws=200, tune=200), random_seed=1, progressbar=False)
    (ax,) = hmlm.plot_groups(bayes, model.fit(hmlm.REML()), levels=["335"], prob=0.8)
    line = line_of(ax, PARTIAL)
    rows = pd.DataFrame({"Subject": "335", "Days": line.get_xdata()})
    predicted = bayes.predict(rows, prob=0.8)
    np.testing.assert_allclose(line.get_ydata(), predicted["estimate"])
    assert line.get_linestyle() == "-"
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(predicted["lower"].min())
    assert heights.max() == pytest.approx(predicted["upper"].max())
    (arrows,) = [c for c in hmlm.plot_shrinkage(bayes).collections if hasattr(c, "U")]
    totals = bayes.tidy().query("component == 'total'")["estimate"].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(arrows.Y + arrows.V, totals[:, 1])


def test_posterior_of_nested_factors():
    model = hmlm.Model("strength ~ 1 + (1 | batch/cask)", hmlm.load_dataset("pastes"))
    bayes = model.fit(hmlm.NUTS(draws=200, tune=200), random_seed=1, progressbar=False)
    table = bayes.tidy().query("component == 'total'")
    for group in ("batch", "batch:cask"):
        own = table[table["group"] == group].set_index("level")["estimate"]
        (ax,) = hmlm.plot_groups(bayes, group=group, levels=[own.index[3]])
        np.testing.assert_allclose(line_of(ax, PARTIAL).get_ydata(), own.iloc[3])
        ax = hmlm.plot_shrinkage(bayes, group=group)
        assert len(ax.get_yticklabels()) == len(own)


# --- text and files


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_hostile_names_are_drawn_as_they_stand(kind, tmp_path):
    data = hostile_table()
    fits = fit_three("`$y` ~ `x$^{` + (`x$^{` | `$g_{`)", data)
    axes = hmlm.plot_groups(*fits)
    assert axes[0].get_title(loc="left") == f"$g_{{ {sorted(HOSTILE)[0]}"
    axes[0].figure.savefig(tmp_path / f"groups.{kind}")
    hmlm.plot_shrinkage(*fits).figure.savefig(tmp_path / f"plane.{kind}")
    fits = fit_three("`$y` ~ kind + (1 | `$g_{`)", data)
    hmlm.plot_groups(*fits)[0].figure.savefig(tmp_path / f"kinds.{kind}")
    hmlm.plot_shrinkage(*fits).figure.savefig(tmp_path / f"bells.{kind}")
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 4


def test_palette_is_one_and_repeated_kinds_differ():
    assert style("none").color == NONE
    assert style("complete").color == COMPLETE
    assert style("complete").linestyle != "-"
    assert style("partial", bayesian=True).color == PARTIAL
    kinds = [("partial", True), ("partial", False), ("none", False), ("complete", False)] * 2
    looks = [(s.color, s.linestyle) for s in distinct_styles(kinds)]
    assert len(set(looks)) == len(looks)


def test_named_columns_stand_in_the_order_of_the_formula():
    columns = ["a", "b", "ab", "log", "my col", "c d"]
    assert named_columns("1 + log(b) + ab:a", columns) == ["b", "ab", "a"]
    assert named_columns("1 + `c d` + `my col`", columns) == ["c d", "my col"]


def test_levels_are_found_by_value_before_text():
    assert level_positions(pd.Index(["1", 1]), [1, "1"], "g") == [1, 0]
