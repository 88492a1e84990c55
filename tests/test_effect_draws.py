"""Draws of group effects given the parameters: exact, with unit vectors for random numbers."""

import numpy as np
import pytest
from random_models import make_table
from support import make
from test_kernel import conditional_moments, make_posterior

from hmlm.default_priors import resolve_priors
from hmlm.likelihoods.effect_draws import draw_effect_parts, draw_effects
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.posterior import pack


def test_draws_by_parts_of_three_levels_have_the_conditional_means():
    """Every group is in one part, and draws of it have its mean and variance."""
    design = make("real ~ 1 + (1 | g/c/f)", make_table(seed=4, groups=6, size=8, spread=0.5))
    posterior = make_posterior(design)
    parameters = posterior.parameters(posterior.start + 0.1)
    mean, covariance = conditional_moments(design, parameters)
    repeated = {k: np.repeat(np.asarray(v)[None], 4000, 0) for k, v in parameters.items()}
    parts = list(draw_effect_parts(design, gaussian_sums(design), repeated, 3, at_once=7))
    assert len(parts) > 2
    drawn = []
    for block in design.blocks:
        own = [part[block.group] for part in parts]
        places = np.concatenate([p for p, _ in own])
        assert sorted(places) == list(range(len(block.levels)))
        b = np.concatenate([b for _, b in own], axis=1)
        drawn.append(b[:, np.argsort(places), 0])
    b = np.column_stack(drawn)
    z = (b.mean(axis=0) - mean) / np.sqrt(np.diagonal(covariance) / 4000)
    assert np.abs(z).max() < 5
    wanted = covariance.sum(axis=1)  # with all others: whether levels go together
    found = np.cov(b.T).sum(axis=1)
    np.testing.assert_allclose(found, wanted, atol=8 * covariance.max() * len(b.T) / 4000**0.5)


class UnitVectors:
    """Random numbers of nought for the first draw, and of one for one of them in each other."""

    def standard_normal(self, shape):
        return np.eye(*shape, k=-1)


@pytest.mark.parametrize(
    "formula",
    [
        "real ~ x + (1 | g)",
        "real ~ 1 + (0 + x | g)",
        "real ~ x + (x | g)",
        "real ~ x + (x || g)",
        "real ~ x + v + (x + v | g)",
        "real ~ 1 + (1 | g/c)",
        "real ~ x + (x | g/c)",
        "real ~ x + (1 | g) + (x | k)",
        "real ~ 1 + (1 | g/c/f)",
        "real ~ x + (x | g/c) + (1 | g:c:f)",
        "real ~ x + (1 | g) + (1 | h)",
        "real ~ x + (x + v | g) + (1 | h)",
    ],
)
def test_draws_have_the_conditional_mean_and_covariance(formula):
    """A draw is the mean plus a factor of the covariance times the random numbers."""
    table = make_table(seed=4, groups=4, size=7, spread=0.5)
    # Levels of k lie within those of g, but are not in their order.
    own = table["g"] + table["c"]
    table["k"] = own.map({k: f"k{n * 5 % 11:02d}" for n, k in enumerate(own.unique())})
    design = make(formula, table)
    posterior = make_posterior(design)
    parameters = posterior.parameters(posterior.start + 0.1)
    mean, covariance = conditional_moments(design, parameters)
    repeated = {k: np.repeat(np.asarray(v)[None], len(mean) + 1, 0) for k, v in parameters.items()}
    drawn = draw_effects(design, gaussian_sums(design), repeated, UnitVectors())
    b = np.column_stack([drawn[f"b_{g.group}"].reshape(len(mean) + 1, -1) for g in design.blocks])
    np.testing.assert_allclose(b[0], mean, rtol=1e-8, atol=1e-10)
    factor = b[1:] - b[0]
    np.testing.assert_allclose(factor.T @ factor, covariance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "formula",
    [
        "real ~ x + (1 | g) + (1 | h)",
        "real ~ x + (1 | g) + (x | h)",
        "real ~ x + (x | g) + (1 | h) + (1 | c)",
        "real ~ x + (1 | g) + (x | h) + (x | c)",
    ],
)
def test_draws_given_the_sampled_effects_of_another_factor(formula):
    """With crossed factors one is drawn given the others: condition the joint normal on these."""
    design = make(formula, make_table(seed=5, groups=6, size=6, spread=0.5))
    sums = gaussian_sums(design, 0)
    point, theta, _ = best_point(sums, reml=True)
    posterior = pack(design, sums, resolve_priors(design), theta, point)
    x = posterior.start + 0.2 * np.random.default_rng(1).normal(size=posterior.dim)
    parameters = posterior.parameters(x)
    mean, covariance = conditional_moments(design, parameters)
    sizes = [len(block.levels) * len(block.columns) for block in design.blocks]
    own = np.repeat([block.group == sums.fine.group for block in design.blocks], sizes)
    fine, rest = np.flatnonzero(own), np.flatnonzero(~own)
    given = np.concatenate(
        [parameters[f"b_{g.group}"].ravel() for g in design.blocks if g.group != sums.fine.group]
    )
    gain = covariance[np.ix_(fine, rest)] @ np.linalg.inv(covariance[np.ix_(rest, rest)])
    mean = mean[fine] + gain @ (given - mean[rest])
    covariance = covariance[np.ix_(fine, fine)] - gain @ covariance[np.ix_(rest, fine)]
    repeated = {k: np.repeat(np.asarray(v)[None], len(fine) + 1, 0) for k, v in parameters.items()}
    drawn = draw_effects(design, sums, repeated, UnitVectors())[f"b_{sums.fine.group}"]
    b = drawn.reshape(len(fine) + 1, -1)
    np.testing.assert_allclose(b[0], mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose((b[1:] - b[0]).T @ (b[1:] - b[0]), covariance, rtol=1e-7, atol=1e-9)
