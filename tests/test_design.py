"""Specification and data become arrays: names, blocks, coordinates, aliasing."""

import numpy as np
import pandas as pd
import pytest
from support import make

from hmlm.errors import DataError, HmlmError
from hmlm.fitting.ols import OLS
from hmlm.formula import parse_formula
from hmlm.model import Model
from hmlm.spec import with_pooling, with_priors

ALCOHOL = "alcuse ~ coa + peer + time + (time | id)"


def test_arrays_of_the_alcohol_study(alcohol_reml, alcohol):
    design = alcohol_reml.design
    assert design.terms == ("Intercept", "coa", "peer", "time")
    np.testing.assert_array_equal(design.y, alcohol["alcuse"])
    np.testing.assert_array_equal(
        design.X, np.column_stack([np.ones(246), alcohol[["coa", "peer", "time"]]])
    )
    (block,) = design.blocks
    assert (block.group, block.columns, block.parts) == ("id", ("Intercept", "time"), (2,))
    np.testing.assert_array_equal(block.Z, np.column_stack([np.ones(246), alcohol["time"]]))
    assert block.correlated
    assert block.slices == (slice(0, 2),)
    assert (block.sizes == 3).all()
    assert len(block.levels) == 82


def test_arrays_are_read_only(alcohol_reml):
    design = alcohol_reml.design
    for array in (design.y, design.X, design.blocks[0].Z, design.blocks[0].index):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_coordinates_and_dims_are_named_after_the_table(alcohol_reml):
    design = alcohol_reml.design
    assert design.coords["term"] == ["Intercept", "coa", "peer", "time"]
    assert list(design.coords["id"]) == list(design.blocks[0].levels)
    assert design.coords["id_term"] == design.coords["id_term_"] == ["Intercept", "time"]
    assert len(design.coords["row"]) == 246
    assert design.dims == {
        "beta": ("term",),
        "sd_id": ("id_term",),
        "cor_id": ("id_term", "id_term_"),
        "sigma": (),
        "b_id": ("id", "id_term"),
    }


def test_dims_follow_pooling_and_correlation(table):
    apart = make("y ~ x + (x || g)", table)
    assert list(apart.dims) == ["beta", "sd_g", "sigma", "b_g"]
    assert apart.blocks[0].slices == (slice(0, 1), slice(1, 2))
    assert not apart.blocks[0].correlated
    assert list(make("y ~ x + (x | g)", table, "complete").dims) == ["beta", "sigma"]
    assert list(make("y ~ z + (x | g)", table, "none").dims) == ["beta", "sigma", "b_g"]
    assert list(make("y ~ 0 + (1 | g)", table).dims) == ["sd_g", "sigma", "b_g"]


def test_no_pooling_drops_what_the_groups_repeat(alcohol, table):
    alone = make(ALCOHOL, alcohol, "none")
    assert alone.terms == ()
    assert alone.aliased == ("Intercept", "coa", "peer", "time")
    assert alone.X.shape == (246, 0)
    own_level = make("y ~ x + z + (1 | g)", table, "none")
    assert own_level.terms == ("x", "z")
    assert own_level.aliased == ("Intercept",)
    cross_level = table.assign(w=pd.factorize(table["g"])[0] * 1.5)
    both = make("y ~ x * w + (x | g)", cross_level, "none")
    assert both.aliased == ("Intercept", "x", "w", "x:w")
    assert make("y ~ x * w + (1 | g)", cross_level, "none").terms == ("x", "x:w")


def test_no_pooling_drops_what_the_groups_and_earlier_columns_repeat(table):
    table["x2"] = table["x"] + pd.factorize(table["g"])[0] % 4
    assert make("y ~ x + x2 + (1 | g)", table).terms == ("Intercept", "x", "x2")
    alone = make("y ~ x + x2 + z + (1 | g)", table, "none")
    assert alone.terms == ("x", "z")
    assert alone.aliased == ("Intercept", "x2")
    fit = OLS().run(alone)
    assert np.isfinite(fit.fitted).all()
    assert np.isfinite(fit.estimates["beta"]).all()
    np.testing.assert_allclose(fit.predict(table)["estimate"], fit.fitted)


def test_pooling_changes_no_column_of_the_population(table):
    partial, complete = (make("y ~ x*f + (x | g)", table, p) for p in ("partial", "complete"))
    np.testing.assert_array_equal(partial.X, complete.X)
    assert complete.blocks == ()


def test_collinear_columns_are_dropped_on_request(table):
    table["x2"], table["one"] = 2 * table["x"] + 1, 3.0
    design = make("y ~ x + x2 + one + z", table, collinear="drop")
    assert design.terms == ("Intercept", "x", "z")
    assert design.aliased == ("x2", "one")
    model = Model("y ~ x + x2 + (1 | g)", table, collinear="drop")
    assert model.with_pooling("complete").design.terms == ("Intercept", "x")
    with pytest.raises(HmlmError, match="collinear is 'error' or 'drop', not 'ignore'"):
        Model("y ~ x", table, collinear="ignore")


def test_predictors_far_from_zero_are_not_collinear(table):
    table["year"] = 2018 + np.arange(60) % 6
    assert make("y ~ year + (year | g)", table).terms == ("Intercept", "year")
    table["year"] = table["year"] * 1e6
    assert make("y ~ year + (1 | g)", table).terms == ("Intercept", "year")


def test_outcome_may_be_a_function_of_columns(table):
    np.testing.assert_allclose(make("log(z) ~ x", table).y, np.log(table["z"]))
    np.testing.assert_allclose(make("I(y + 2*z) ~ x", table).y, table["y"] + 2 * table["z"])
    np.testing.assert_array_equal(make("`my col` ~ x", table).y, table["my col"])
    counts = table.assign(y=np.arange(60))
    assert make("y ~ x", counts).y.dtype == float


def test_offset_and_weights(table):
    table["w"] = np.arange(60) % 3 + 1
    design = make("y ~ x + offset(z) + (1 | g)", table, weights="w")
    np.testing.assert_allclose(design.response, table["y"] - table["z"])
    np.testing.assert_array_equal(design.weights, table["w"])
    assert not design.weights.flags.writeable
    plain = make("y ~ x", table)
    assert plain.offset is None
    assert plain.weights is None
    np.testing.assert_array_equal(plain.response, plain.y)


def test_rows_with_a_missing_weight_are_left_out(table):
    table["w"] = 1.0
    table.loc[3, "w"] = np.nan
    design = make("y ~ x", table, weights="w")
    assert len(design.y) == 59
    assert dict(design.data.missing) == {"w": 1}


def test_one_effect_in_two_terms_is_refused(table):
    with pytest.raises(DataError, match=r"'Intercept' varies by 'g' in two terms.*\(0 \+ ... \| g"):
        make("y ~ x + (1 | g) + (x | g)", table)


def test_group_effects_that_depend_on_each_other_are_refused(table):
    table["x2"] = 2 * table["x"]
    with pytest.raises(DataError, match="group term of 'g', 'x2' depends on x: leave one"):
        make("y ~ z + (x + x2 | g)", table)
    table["nothing"] = 0.0
    with pytest.raises(DataError, match="'nothing' depends on nothing: it is zero in every row"):
        make("y ~ z + (nothing | g)", table)
    with pytest.raises(DataError, match=r"the term of 'g' has no effect left: write \(1 \| g\)"):
        make("y ~ z + (0 + x - x | g)", table)


def test_dependent_effects_that_can_be_told_apart_are_not_refused(table):
    # lme4's (1 | g) + (0 + dummy | g): 3 variances make the 2 x 2 covariance of the two levels
    design = make("y ~ x + (1 | g) + (0 + k || g)", table)
    assert design.blocks[0].columns == ("Intercept", "k[u]", "k[v]")
    with pytest.raises(DataError, match=r"'k\[v\]' depends on Intercept, k\[u\]"):
        make("y ~ x + (1 | g) + (0 + k | g)", table)  # 4 parameters do not
    table["x2"] = 2 * table["x"]
    with pytest.raises(DataError, match="'x2' depends on x"):
        make("y ~ z + (x + x2 || g)", table)


def test_model_shows_its_parts(table):
    model = Model("y ~ x + (x | g)", table)
    assert model.spec.formula == "y ~ x + (x | g)"
    assert model.data.groups == ("g",)
    assert model.design.terms == ("Intercept", "x")
    pooled = model.with_pooling("complete")
    assert pooled.spec.pooling == "complete"
    assert model.spec.pooling == "partial"
    assert pooled.data is model.data


def test_spec_returns_new_specs():
    spec = parse_formula("y ~ x + (x | g)")
    alone = with_pooling(spec, "none")
    assert (spec.pooling, alone.pooling) == ("partial", "none")
    assert alone.formula == spec.formula
    with pytest.raises(HmlmError, match="pooling is 'complete', 'none' or 'partial', not 'some'"):
        with_pooling(spec, "some")
    assert dict(with_priors(spec, {}).priors) == {}
