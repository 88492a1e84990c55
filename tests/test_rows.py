"""Merging rows loses nothing, and the preliminary picture is near the posterior."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hmlm
from hmlm import Model
from hmlm.default_priors import resolve_priors
from hmlm.likelihoods import rows as rows_module
from hmlm.likelihoods.glmm_pack import pack_rows, rows_cover
from hmlm.likelihoods.preliminary import preliminary
from hmlm.likelihoods.rows import make_rows


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    n = 300
    g = rng.integers(0, 6, n)
    frame = pd.DataFrame(
        {
            "g": g,
            "h": rng.integers(0, 3, n),
            "f": rng.choice(list("ab"), n),
            "x": rng.integers(0, 2, n),
            "n": rng.integers(1, 4, n),
        }
    )
    frame["hits"] = rng.binomial(frame["n"], 0.4)
    frame["yes"] = rng.integers(0, 2, n)
    frame["count"] = rng.poisson(2.0, n)
    frame["sorted"] = np.sort(rng.normal(size=n))
    return frame


CASES = {
    "yes or no": ("yes ~ f + (1 | g)", "bernoulli"),
    "trials": ("p(hits, n) ~ f + x + (1 | g)", "binomial"),
    "counts in a table": ("count ~ f + x + (1 | g)", "poisson"),
    "counts with slopes": ("count ~ f + x + (x | g)", "poisson"),
    "counts of crossed factors": ("count ~ f + (1 | g) + (1 | h)", "poisson"),
    "overdispersed": ("count ~ f + (1 | g)", "negative-binomial"),
}


@pytest.mark.parametrize("name", CASES)
def test_merged_rows_have_the_same_density(table, name, monkeypatch):
    formula, family = CASES[name]
    design = Model(formula, table, family=family).design
    priors = resolve_priors(design)
    merged = make_rows(design)
    assert len(merged.y) < merged.merged == len(table)
    at = preliminary(design, merged, priors)
    few = pack_rows(design, merged, priors, at)
    monkeypatch.setattr(rows_module, "MERGE_BELOW", 0.0)
    monkeypatch.setattr(rows_module, "_distinct", lambda *args, **kwargs: None)
    every = make_rows(design)
    assert len(every.y) == len(table)
    # The same picture, with the rows' own weights.
    own = preliminary(design, every, priors)
    same = replace_picture(own, at)
    many = pack_rows(design, every, priors, same)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = few.start + 0.3 * rng.normal(size=few.dim)
        a, ga = few.log_density(x)
        b, gb = many.log_density(x)
        assert a == pytest.approx(b, rel=1e-9)
        np.testing.assert_allclose(ga, gb, rtol=1e-6, atol=1e-6)


def replace_picture(own, at):
    """Give a picture the estimates of another, and the weights that belong to its own rows."""
    own.beta, own.effects, own.D, own.means = at.beta, at.effects, at.D, at.means
    own.scalars, own.cuts, own.beta_cov = at.scalars, at.cuts, at.beta_cov
    return own


def test_rows_of_one_pattern_are_summed(table):
    design = Model("yes ~ f + (1 | g)", table, family="bernoulli").design
    rows = make_rows(design)
    counts = table.groupby(["g", "f"])["yes"].agg(["sum", "size"])
    assert sorted(rows.y) == sorted(counts["sum"])
    assert rows.n.sum() == len(table)
    whole = stats.binom.logpmf(table["yes"], 1, 0.3).sum()
    parts = (rows.y * np.log(0.3) + (rows.n - rows.y) * np.log(0.7)).sum()
    assert whole == pytest.approx(parts + rows.constant)


def test_rows_that_differ_are_left_alone(table):
    rows = make_rows(Model("count ~ sorted + (1 | g)", table, family="poisson").design)
    assert len(rows.y) == rows.merged
    assert (np.diff(rows.blocks[0].index) >= 0).all()


def test_the_picture_is_near_the_laplace_estimate():
    cbpp = hmlm.load_dataset("cbpp")
    model = Model("p(incidence, size) ~ period + (1 | herd)", cbpp, family="binomial")
    design, priors = model.design, model._resolved()
    at = preliminary(design, make_rows(design), priors)
    laplace = model.fit(hmlm.Laplace())
    np.testing.assert_allclose(at.beta[0], laplace.estimates["beta"], atol=0.1)
    np.testing.assert_allclose(np.sqrt(at.D[0][0, 0]), laplace.estimates["sd_herd"], rtol=0.15)
    np.testing.assert_allclose(
        np.sqrt(np.diagonal(at.beta_cov[0])), laplace.std_errors["beta"], rtol=0.2
    )


@pytest.mark.parametrize(
    ("priors", "reason"),
    [
        ({"x": hmlm.Prior("uniform", lower=-1, upper=1)}, "prior of x has edges"),
        ({"x": hmlm.Prior("gamma", alpha=2, beta=1)}, "prior of x is positive"),
    ],
)
def test_what_the_compiled_density_does_not_cover(table, priors, reason):
    model = Model("yes ~ x + (1 | g)", table, family="bernoulli", priors=priors)
    assert reason in rows_cover(model.design, model._resolved())


def test_a_picture_can_be_made_of_separated_groups(table):
    frame = table.assign(yes=(table["g"] > 2).astype(int))
    model = Model("yes ~ x + (1 | g)", frame, family="bernoulli")
    at = preliminary(model.design, make_rows(model.design), model._resolved())
    assert np.isfinite(at.beta[0]).all()
    assert np.isfinite(at.D[0]).all()
