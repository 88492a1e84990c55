"""REML on random designs against the maximum, by scipy, of a dense restricted likelihood."""

import numpy as np
import pytest
from random_designs import STRUCTURES, DenseREML, make_random_design

import hmlm

SEEDS = range(100, 120)


def our_covariances(fit, design):
    """Return the covariance matrix of each term's effects, and sigma."""
    estimates, found = fit.estimates, []
    for group, _, correlated in design.blocks:
        sd = estimates[f"sd_{group}"]
        cor = estimates[f"cor_{group}"] if correlated and len(sd) > 1 else np.eye(len(sd))
        found.append(np.outer(sd, sd) * np.nan_to_num(cor))
    return found, float(estimates["sigma"])


@pytest.mark.parametrize("seed", SEEDS)
def test_reml_is_the_maximum_of_the_dense_restricted_likelihood(seed, record_property):
    design = make_random_design(seed)
    dense = DenseREML(design)
    fit = hmlm.Model(design.formula, design.table).fit(hmlm.REML())
    ours = our_covariances(fit, design)
    # The value is that of the dense function at our estimates ...
    stated = dense.log_likelihood(*ours)
    assert fit.log_likelihood == pytest.approx(stated, abs=1e-7)
    np.testing.assert_allclose(fit.estimates["beta"], dense.coefficients(*ours), atol=1e-7)
    # ... and scipy finds no higher one, nor the same one elsewhere.
    best = dense.maximise(starts=1)
    highest = dense.log_likelihood(*best)
    assert fit.log_likelihood > highest - 1e-7
    if fit.log_likelihood < highest + 1e-6:
        np.testing.assert_allclose(fit.estimates["beta"], dense.coefficients(*best), atol=1e-4)
        for D, E in zip(ours[0], best[0], strict=True):
            np.testing.assert_allclose(D, E, atol=2e-3 * (1 + np.abs(E).max()))
    figures = {
        "what": "restricted log-likelihoods",
        "designs": 1,
        "largest difference from the dense ones": float(abs(fit.log_likelihood - stated)),
        "largest of scipy's above ours": float(max(highest - fit.log_likelihood, 0.0)),
        "ours higher by 1e-6 or more": int(fit.log_likelihood >= highest + 1e-6),
    }
    record_property("trust", figures)


def test_the_designs_have_every_structure():
    drawn = {make_random_design(seed).blocks for seed in SEEDS}
    assert len(drawn) == len(STRUCTURES)


@pytest.mark.parametrize("seed", [10, 140])
def test_an_edge_that_is_a_maximum_is_left(seed):
    """The deviance is flat at a variance of zero, also where it falls from there."""
    design = make_random_design(seed)
    dense = DenseREML(design)
    fit = hmlm.Model(design.formula, design.table).fit(hmlm.REML())
    assert fit.estimates["sd_g"][0] > 0.05
    assert fit.log_likelihood > dense.log_likelihood(*dense.maximise()) - 1e-7
