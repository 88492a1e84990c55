"""What a fit from sums can say: the same as a fit from rows, or in a sentence why it cannot."""

import numpy as np
import polars as pl
import pytest
from pandas.testing import assert_frame_equal

import hmlm
from hmlm.errors import HmlmError

MODELS = {
    "slopes": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", "gaussian", hmlm.REML()),
    "group predictor": (
        "radon",
        "log_radon ~ floor + log_uranium + (1 | county)",
        "gaussian",
        hmlm.REML(),
    ),
    "counts": ("cbpp", "p(incidence, size) ~ period + (1 | herd)", "binomial", hmlm.Laplace()),
}
SAME = {
    "tidy": hmlm.tidy,
    "measure_pooling": hmlm.measure_pooling,
    "split_variance": hmlm.split_variance,
    "design_effect": hmlm.design_effect,
    "weigh_groups": hmlm.weigh_groups,
}
FIGURES = ("shrinkage", "sizes", "caterpillar", "ranks", "variance", "priors", "funnel")
ROWS = {
    "predict": lambda fit: fit.predict(),
    "check": lambda fit: fit.check(),
    "leave_one_out": hmlm.leave_one_out,
    "plot_groups": hmlm.plot_groups,
    "plot_new_group": hmlm.plot_new_group,
    "plot_ppc": hmlm.plot_ppc,
    "average_predictions": hmlm.average_predictions,
    "save": lambda fit: fit.save("a.zarr"),
    "model": lambda fit: fit.model,
}


@pytest.fixture(scope="module", params=MODELS)
def models(request):
    data, formula, family, method = MODELS[request.param]
    frame = hmlm.load_dataset(data)
    frame = frame.astype({c: "str" for c in frame if frame[c].dtype == "category"})
    kinds = frame, pl.from_pandas(frame).lazy()
    return [hmlm.Model(formula, kind, family) for kind in kinds], method


@pytest.fixture(scope="module")
def classical(models):
    both, method = models
    return [model.fit(method) for model in both]


@pytest.fixture(scope="module")
def draws(models):
    _, aggregated = models[0]
    method = hmlm.NUTS(draws=100, tune=200, chains=2)
    return aggregated.fit(method, random_seed=1, progressbar=False)


@pytest.mark.parametrize("name", SAME)
def test_tables_are_those_of_the_rows(classical, name):
    rows, sums = (SAME[name](fit) for fit in classical)
    rough = 1e-5 if classical[0].design.spec.family.name == "gaussian" else 2e-3
    if not hasattr(rows, "columns"):
        assert float(sums) == pytest.approx(float(rows), rel=rough)
        return
    assert_frame_equal(sums, rows, rtol=rough, atol=rough, check_dtype=False)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_need_no_rows(draws, name):
    axes = np.ravel(getattr(hmlm, f"plot_{name}")(draws))
    assert any(ax.has_data() for ax in axes)


def test_pooling_of_draws_leaves_the_residuals_out(models, draws):
    method = hmlm.NUTS(draws=100, tune=200, chains=2)
    found = hmlm.measure_pooling(draws)
    whole = hmlm.measure_pooling(models[0][0].fit(method, random_seed=1, progressbar=False))
    whole = whole[whole["term"] != "residual"].reset_index(drop=True)
    assert found["rows"].tolist() == whole["rows"].tolist()
    groups = found["component"] == "group"
    np.testing.assert_allclose(found["pooling"][groups], whole["pooling"][groups], atol=0.08)


@pytest.mark.parametrize("name", ROWS)
def test_what_needs_rows_says_so(draws, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HmlmError, match="needs the rows of the table") as caught:
        ROWS[name](draws)
    assert "aggregate=False" in str(caught.value)
    assert "sample_groups" in str(caught.value)


def test_report_is_written_without_the_rows(draws, tmp_path):
    path = draws.report(tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert "needs the rows of the table" in text
    assert "<figure>" in text
