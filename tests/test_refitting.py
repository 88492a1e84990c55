"""A fit is gone on from: with other data, priors, formula or method, or with more draws."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm.errors import DataError, FormulaError, HmlmError, PriorError
from hmlm.formula import parse_formula
from hmlm.refitting import extend_fit, update_fit
from hmlm.retrieval import load_fit
from hmlm.storage import save_fit

SHORT = hmlm.NUTS(draws=100, tune=200, chains=2)


@pytest.fixture(scope="module")
def fit(sleepstudy):
    model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    return model.fit(SHORT, random_seed=5, progressbar=False)


@pytest.fixture(scope="module")
def cbpp():
    return hmlm.load_dataset("cbpp")


@pytest.fixture(scope="module")
def herds(cbpp):
    model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, "binomial")
    return model.fit(SHORT, random_seed=5, progressbar=False)


@pytest.fixture(scope="module")
def reml(alcohol):
    return hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol).fit(hmlm.REML())


def same_draws(one, other):
    assert one._parameters.keys() == other._parameters.keys()
    return all(np.array_equal(v, other._parameters[k]) for k, v in one._parameters.items())


def formula_of(fit, formula):
    """Return what the formula of an updated fit reads, with nothing fitted."""

    class Stop:
        def run(self, design, **options):
            return design.spec

    return update_fit(fit, formula=formula, method=Stop()).formula


def test_nothing_changed_gives_the_same_fit(fit, reml):
    assert same_draws(update_fit(fit, progressbar=False), fit)
    again = update_fit(reml)
    assert np.array_equal(again.estimates["beta"], reml.estimates["beta"])
    assert again.method == reml.method


def test_another_seed_gives_other_draws(fit):
    other = update_fit(fit, random_seed=6, progressbar=False)
    assert not same_draws(other, fit)
    assert other.random_seed == 6


def test_new_data_are_fitted_as_a_model_of_them(fit, reml, sleepstudy, alcohol):
    part = sleepstudy.iloc[:100]
    new = hmlm.Model("Reaction ~ Days + (Days | Subject)", part).fit(
        SHORT, random_seed=5, progressbar=False
    )
    assert same_draws(update_fit(fit, part, progressbar=False), new)
    half = alcohol.iloc[:120]
    refitted = update_fit(reml, data=half)
    direct = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", half).fit(hmlm.REML())
    assert refitted.log_likelihood == direct.log_likelihood


def test_new_data_that_lack_a_column_are_refused(fit, sleepstudy):
    with pytest.raises(DataError, match="no column 'Days'"):
        update_fit(fit, sleepstudy.drop(columns="Days"))


@pytest.mark.parametrize("name", ["fit", "herds"])
def test_a_refit_compiles_nothing(name, request, monkeypatch):
    import nutpie
    from numba.core import event

    first = request.getfixturevalue(name)
    rows = first.design.data.frame.iloc[:-4]

    def refuse(*args, **kwargs):
        raise AssertionError("a PyMC model was compiled")

    monkeypatch.setattr(nutpie, "compile_pymc_model", refuse)
    with event.install_recorder("numba:compile") as recorder:
        second = update_fit(first, data=rows, progressbar=False)
        second.predict()
    assert not recorder.buffer
    assert len(second.design.y) == len(rows)


def test_priors_are_added_and_taken_away(fit):
    tight = hmlm.Prior("normal", mu=0, sigma=0.1)
    first = update_fit(fit, priors={"Days": tight}, progressbar=False)
    assert abs(first.variable("beta")[..., 1].mean()) < 1
    more = update_fit(first, priors={"sigma": hmlm.Prior("half-normal", sigma=50)}, method=SHORT)
    assert more.design.spec.priors["Days"] == tight
    assert set(more.design.spec.priors) == {"Days", "sigma"}
    none = update_fit(more, priors={"Days": None, "sigma": None}, progressbar=False)
    assert same_draws(none, fit)
    with pytest.raises(PriorError, match="Dayz"):
        update_fit(fit, priors={"Dayz": tight})
    with pytest.raises(PriorError, match="priors must be a dict"):
        update_fit(fit, priors=[tight])


def test_another_method(fit, sleepstudy_reml):
    reml = update_fit(fit, method=hmlm.REML())
    assert np.isclose(reml.log_likelihood, sleepstudy_reml.log_likelihood)
    for wrong in (hmlm.REML, "REML"):
        with pytest.raises(HmlmError, match="method must be a method object"):
            update_fit(fit, method=wrong)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (". ~ .", "alcuse ~ coa + peer + time + (time | id)"),
        (". ~ . - peer", "alcuse ~ coa + time + (time | id)"),
        (". ~ . + coa:time", "alcuse ~ coa + peer + time + coa:time + (time | id)"),
        (". ~ . - (time | id) + (1 | id)", "alcuse ~ coa + peer + time + (1 | id)"),
        ("log1p(.) ~ .", "log1p(alcuse) ~ coa + peer + time + (time | id)"),
        (". ~ time", "alcuse ~ time"),
        (". ~ . - coa - peer - time", "alcuse ~ 1 + (time | id)"),
        (". ~ 0 + .", "alcuse ~ 0 + coa + peer + time + (time | id)"),
        ("peer ~ coa + (1 | id)", "peer ~ coa + (1 | id)"),
        (". ~ . + I(1.5 - peer**2)", "alcuse ~ coa + peer + time + I(1.5 - peer**2) + (time | id)"),
    ],
)
def test_dots_stand_for_the_old_sides(reml, formula, expected):
    found = formula_of(reml, formula)
    assert found == parse_formula(expected).formula


def test_nested_terms_and_parameter_formulas(table):
    text = "y ~ x + (1 | g/h); sigma ~ z + (1 | g)"
    fit = hmlm.Model(text, table).fit(SHORT, random_seed=1, progressbar=False)
    assert formula_of(fit, ". ~ . - (1 | g/h)") == "y ~ x; sigma ~ z + (1 | g)"
    assert formula_of(fit, ". ~ . - (1 | g:h); sigma ~ . - z") == (
        "y ~ x + (1 | g); sigma ~ 1 + (1 | g)"
    )
    assert formula_of(fit, "y ~ z + (1 | g)") == "y ~ z + (1 | g)"
    with pytest.raises(FormulaError, match="'sigma' had no formula"):
        formula_of(
            update_fit(fit, formula="y ~ x + (1 | g)", method=hmlm.REML()), "y ~ x; sigma ~ ."
        )


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (". ~ . * peer", "'.' is a term of its own"),
        (". ~ -.", "'.' is a term of its own"),
        (". ~ . - (1 | nobody)", "there is no (1 | nobody) in"),
        (". + x", "a formula has '~'"),
        (". ~ . + system('ls')", "'system' is not a function"),
        (". ~ . + x $ y", "cannot read '. + x $ y'"),
        (". ~ . + peer.name", "not a plain column name"),
    ],
)
def test_formulas_that_cannot_be_are_refused(reml, formula, words):
    with pytest.raises(FormulaError) as caught:
        formula_of(reml, formula)
    assert words in str(caught.value)


def test_a_new_column_needs_the_table(reml, alcohol):
    with pytest.raises(DataError, match=r"'male' is none of them: .*update\(data=\.\.\.\)"):
        update_fit(reml, formula=". ~ . + male")
    both = update_fit(reml, data=alcohol, formula=". ~ . + male")
    assert both.design.terms[-1] == "male"


def test_rows_left_out_stay_counted(sleepstudy):
    table = sleepstudy.copy()
    table.loc[[1, 5], "Days"] = np.nan
    fit = hmlm.Model("Reaction ~ Days + (1 | Subject)", table).fit(hmlm.REML())
    again = update_fit(fit, formula=". ~ . + I(Days**2)")
    assert again.design.notes == fit.design.notes
    assert "2 of 180 rows" in again.design.notes[0]


def test_collinear_stays_as_it_was(table):
    model = hmlm.Model("y ~ x + I(2 * x) + (1 | g)", table, collinear="drop")
    fit = model.fit(hmlm.REML())
    assert update_fit(fit, data=table).design.aliased == ("I(2 * x)",)
    other = hmlm.Model("y ~ x + (1 | g)", table).fit(hmlm.REML())
    with pytest.raises(DataError, match="collinear"):
        update_fit(other, formula=". ~ . + I(2 * x)")
    dropped = update_fit(other, formula=". ~ . + I(2 * x)", collinear="drop")
    assert dropped.design.aliased == ("I(2 * x)",)
    with pytest.raises(HmlmError, match="collinear is 'error' or 'drop'"):
        update_fit(other, collinear="keep")


def test_pooling_and_weights_stay(table):
    model = hmlm.Model("y ~ x + (1 | g)", table, weights="z").with_pooling("none")
    again = update_fit(model.fit(hmlm.OLS()), formula=". ~ . + I(x**2)")
    assert again.design.spec.pooling == "none"
    assert again.design.spec.weights == "z"


@pytest.mark.parametrize("name", ["fit", "herds"])
def test_more_draws_go_on_top(name, request):
    first = request.getfixturevalue(name)
    longer = extend_fit(first, draws=150, progressbar=False)
    (b,) = (n for n in first.design.dims if n.startswith("b_"))
    for variable in ("beta", b):
        assert longer.variable(variable).shape[:2] == (2, 250)
        assert np.array_equal(longer.variable(variable)[:, :100], first.variable(variable))
    assert np.isfinite(longer.variable(b)).all()
    assert longer.draws["posterior"].sizes["draw"] == 250
    assert longer.draws["sample_stats"].sizes["draw"] == 250
    assert longer.status.numbers["draws"] == 500
    assert longer.status.numbers["min_ess_bulk"] > first.status.numbers["min_ess_bulk"]
    assert "150 draws a chain added to 100 with random_seed" in longer.status.notes[-1]
    assert longer.method == replace(SHORT, draws=250)
    assert first.variable("beta").shape[1] == 100
    new = longer.variable("beta")[:, 100:]
    assert not np.isin(new, first.variable("beta")).any()
    difference = new.mean(axis=(0, 1)) - first.variable("beta").mean(axis=(0, 1))
    assert (np.abs(difference) < first.variable("beta").std(axis=(0, 1))).all()


def test_the_new_draws_are_those_of_their_seed(fit):
    longer = extend_fit(fit, draws=80, random_seed=77, progressbar=False)
    alone = update_fit(fit, method=replace(SHORT, draws=80), random_seed=77, progressbar=False)
    for variable in ("beta", "b_Subject"):
        assert np.array_equal(longer.variable(variable)[:, 100:], alone.variable(variable))
    once, again = (extend_fit(fit, draws=20, progressbar=False) for _ in range(2))
    assert same_draws(once, again)


def test_a_seed_is_used_once(fit):
    longer = extend_fit(fit, draws=20, random_seed=9, progressbar=False)
    for seed in (5, 9):
        with pytest.raises(HmlmError, match=f"random_seed={seed} has been used"):
            extend_fit(longer, draws=20, random_seed=seed)
    more = extend_fit(longer, draws=20, progressbar=False)
    assert more.variable("b_Subject").shape[:2] == (2, 140)
    assert len({seed for seed, _ in more._runs}) == 3


def test_gibbs_goes_on_too(sleepstudy):
    method = hmlm.Gibbs(draws=100, tune=50, chains=2)
    model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleepstudy)
    fit = model.fit(method, random_seed=2, progressbar=False)
    longer = extend_fit(fit, draws=50, progressbar=False)
    assert longer.variable("b_Subject").shape[:2] == (2, 150)
    assert not any("NUTS" in problem for problem in longer.status.problems)


def test_classical_fits_have_no_draws_to_add_to(reml):
    with pytest.raises(HmlmError, match="ClassicalFit has no draws"):
        extend_fit(reml)


@pytest.mark.parametrize("draws", [0, 1.5, None])
def test_draws_that_cannot_be_are_refused(fit, draws):
    with pytest.raises(HmlmError, match="draws must be a whole number"):
        extend_fit(fit, draws=draws)


@pytest.mark.parametrize("effects", [True, False])
def test_a_loaded_fit_can_be_gone_on_from(fit, tmp_path, effects):
    longer = extend_fit(fit, draws=50, progressbar=False)
    save_fit(longer, tmp_path / "fit.zip", effects=effects)
    again = load_fit(tmp_path / "fit.zip")
    assert np.array_equal(again.variable("b_Subject"), longer.variable("b_Subject"))
    one, other = (extend_fit(f, draws=30, progressbar=False) for f in (longer, again))
    assert same_draws(one, other)
    assert np.array_equal(one.variable("b_Subject"), other.variable("b_Subject"))
    assert same_draws(update_fit(again, method=SHORT, progressbar=False), fit)


def test_a_fit_whose_effects_are_gone_can_be_gone_on_from(herds, tmp_path):
    save_fit(herds, tmp_path / "fit.zip", effects=False)
    longer = extend_fit(load_fit(tmp_path / "fit.zip"), draws=30, progressbar=False)
    assert longer.variable("beta").shape[1] == 130
    with pytest.raises(HmlmError, match="were not saved"):
        longer.variable("b_herd")


def test_rows_kept_aside_stay_aside(sleepstudy, tmp_path):
    from hmlm.design import make_design
    from hmlm.table_columns import read_data

    table = sleepstudy.copy()
    table.loc[[3, 8], "Reaction"] = np.nan
    spec = parse_formula("Reaction ~ Days + (1 | Subject)")
    fit = hmlm.REML().run(make_design(spec, read_data(spec, table, "impute")))
    save_fit(fit, tmp_path / "fit.zip")
    again = load_fit(tmp_path / "fit.zip", data=table)
    pd.testing.assert_frame_equal(again.design.data.held, fit.design.data.held)
    assert again.design.notes == fit.design.notes
    changed = update_fit(again, formula=". ~ . + I(Days**2)")
    assert changed.design.data.n_held == 2
    assert update_fit(again, data=table.iloc[:100]).design.data.n_held == 2
