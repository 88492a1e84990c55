"""Nested or crossed, found in the data whether or not the formula says so."""

import numpy as np
import pandas as pd
import pytest
from support import central_difference, dense_log_likelihood, make

from hmlm.likelihoods.crossed import make_crossed
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.effects import effect_moments
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.profiled import profiled_deviance, shapes_of
from hmlm.likelihoods.structure import find_structure
from hmlm.likelihoods.tree import Tree, make_tree


@pytest.fixture(scope="module")
def three_levels():
    """Persons in families in states, two interviewers crossed with them, in shuffled order."""
    rng = np.random.default_rng(8)
    state, family, person = (
        rng.integers(0, 5, 300),
        rng.integers(0, 4, 300),
        rng.integers(0, 3, 300),
    )
    frame = pd.DataFrame(
        {
            "state": [f"s{i}" for i in state],
            "family": [f"s{i}f{j}" for i, j in zip(state, family, strict=True)],
            "person": [f"s{i}f{j}p{k}" for i, j, k in zip(state, family, person, strict=True)],
            "rater": rng.integers(0, 7, 300),
            "x": rng.normal(size=300),
            "w": rng.uniform(0.5, 2, 300),
        }
    )
    frame["y"] = rng.normal(size=300) + frame["x"] + state * 0.5 + family * 0.3
    return frame


CASES = [
    "y ~ x + (1 | state/family/person)",
    "y ~ x + (1 | state) + (x | family) + (1 | person)",
    "y ~ x + (x || family) + (1 | rater)",
    "y ~ x + (x | state) + (1 | rater) + (1 | person)",
    "y ~ 0 + x + (1 | rater) + (0 + x | state)",
]


def test_nesting_is_found_without_a_slash(three_levels):
    structure = find_structure(
        make("y ~ x + (1 | person) + (1 | state) + (1 | family)", three_levels)
    )
    assert [b.group for b in structure.chain] == ["person", "family", "state"]
    assert structure.rest == ()
    crossed = find_structure(make("y ~ x + (1 | family) + (1 | rater)", three_levels))
    assert [b.group for b in crossed.chain] == ["family"]
    assert [b.group for b in crossed.rest] == ["rater"]
    assert crossed.description == "family crossed with rater"


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("formula", CASES)
def test_every_form_has_the_dense_deviance_and_its_gradient(formula, weights, three_levels):
    design = make(formula, three_levels, weights=weights)
    structure = find_structure(design)
    blocks = sorted(design.blocks, key=lambda b: -len(b.levels) * len(b.columns))
    forms = {"tree": make_tree(design, structure)}
    if len(blocks) > 1:
        forms["crossed"] = make_crossed(design, blocks[0], tuple(blocks[1:]))
    for sums in forms.values():
        diagonal = np.concatenate([s.is_diagonal for s in shapes_of(sums)])
        rng = np.random.default_rng(2)
        theta = np.where(diagonal, 0.7, 0.0) + 0.2 * rng.normal(size=len(diagonal))
        for reml in (False, True):
            point = profiled_deviance(theta, sums, reml)
            estimates = estimates_at(design, sums, theta, point)
            dense = -2 * dense_log_likelihood(design, estimates, reml)
            assert point.deviance == pytest.approx(dense, rel=1e-9)
            differences = central_difference(
                lambda t, sums=sums, reml=reml: profiled_deviance(t, sums, reml).deviance, theta
            )
            np.testing.assert_allclose(point.gradient, differences, rtol=1e-5, atol=1e-5)


def estimates_at(design, sums, theta, point):
    from hmlm.likelihoods.covariance import sds_and_correlations
    from hmlm.likelihoods.gaussian import bases_of, blocks_of
    from hmlm.likelihoods.profiled import split_theta

    found = {"beta": sums.basis.to_user(point.gamma), "sigma": np.sqrt(point.sigma2)}
    for block, part, shape, T in zip(
        blocks_of(sums, design),
        split_theta(theta, sums),
        shapes_of(sums),
        bases_of(sums),
        strict=True,
    ):
        half = T @ shape.unpack(part)
        sd, cor = sds_and_correlations(point.sigma2 * half @ half.T)
        found[f"sd_{block.group}"] = sd
        found[f"cor_{block.group}"] = cor
    return found


@pytest.mark.parametrize("formula", CASES[:4])
def test_conditional_modes_and_covariances_are_henderson_s(formula, three_levels):
    design = make(formula, three_levels)
    blocks = sorted(design.blocks, key=lambda b: -len(b.levels) * len(b.columns))
    tree = make_tree(design, find_structure(design))
    crossed = make_crossed(design, blocks[0], tuple(blocks[1:]))
    theta = best_point(tree, reml=True)[1]
    pieces = []
    for sums in (tree, crossed):
        parts = dict(
            zip(
                order_of(sums, design),
                split(theta if sums is tree else reorder(theta, tree, crossed, design), sums),
                strict=True,
            )
        )
        vector = np.concatenate([parts[g] for g in order_of(sums, design)])
        pieces.append(effect_moments(sums, profiled_deviance(vector, sums, reml=True)))
    for block in design.blocks:
        a, b = pieces[0][block.group], pieces[1][block.group]
        np.testing.assert_allclose(a.modes, b.modes, atol=1e-8)
        np.testing.assert_allclose(a.covariance, b.covariance, atol=1e-8)
        np.testing.assert_allclose(a.gain, b.gain, atol=1e-8)


def split(theta, sums):
    from hmlm.likelihoods.profiled import split_theta

    return split_theta(theta, sums)


def order_of(sums, design):
    from hmlm.likelihoods.gaussian import blocks_of

    return [b.group for b in blocks_of(sums, design)]


def reorder(theta, one, other, design):
    parts = dict(zip(order_of(one, design), split(theta, one), strict=True))
    return np.concatenate([parts[g] for g in order_of(other, design)])


def test_the_form_suits_the_structure(sleepstudy, three_levels):
    assert isinstance(
        gaussian_sums(make("Reaction ~ Days + (Days | Subject)", sleepstudy)), OneFactor
    )
    assert isinstance(gaussian_sums(make(CASES[0], three_levels)), Tree)
    assert isinstance(gaussian_sums(make("y ~ x + (x | person)", three_levels)), Tree)
