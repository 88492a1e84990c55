"""Six bugs, planted around the sampler or in the simulator: calibration catches each of them.

The twin without a bug has the same seed, so the same true values; it passes.
"""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm.calibration import calibrate
from hmlm.spec import with_priors
from hmlm.study import make_study

NORMAL, SCALE = hmlm.Prior("normal", sigma=1), hmlm.Prior("lognormal", mu=0, sigma=0.6)
PRIORS = {
    "Intercept": NORMAL,
    "x": NORMAL,
    "sd": SCALE,
    "sigma": SCALE,
    "cor": hmlm.Prior("lkj", eta=0.5),
}
SHORT = hmlm.NUTS(draws=200, tune=200, chains=1, cores=1, target_accept=0.8)
COR = "cor_g[Intercept, x]"


@dataclass
class Kept:
    """NUTS, which samples the posterior of a simulation once and keeps it for the next asker."""

    fits: dict = field(default_factory=dict)

    def run(self, design, *, random_seed, progressbar):
        if random_seed not in self.fits:
            fit = SHORT.run(design, random_seed=random_seed, progressbar=progressbar)
            self.fits[random_seed] = design.y, fit
        y, fit = self.fits[random_seed]
        assert y.tobytes() == design.y.tobytes()
        return fit


@dataclass
class Reweighted:
    """A sampler whose log density has a term too many; its draws are resampled from right ones."""

    method: object
    term: object

    def run(self, design, *, random_seed, progressbar):
        fit = self.method.run(design, random_seed=random_seed, progressbar=progressbar)
        draws = fit._flat_draws("include")
        extra = self.term(draws)
        weights = np.exp(extra - extra.max())
        rng = np.random.default_rng([random_seed, 1])
        chosen = rng.choice(len(weights), len(weights), p=weights / weights.sum())
        return SimpleNamespace(
            _flat_draws=lambda groups: {name: v[chosen] for name, v in draws.items()},
            _shape=fit._shape,
            status=fit.status,
        )


@dataclass
class Changed:
    """A sampler that fits another model than that of the simulator."""

    change: object

    def run(self, design, *, random_seed, progressbar):
        other = self.change(design)
        return SHORT.run(other, random_seed=random_seed, progressbar=progressbar)


def frame():
    made = make_study(groups={"g": 4}, per_group=4, predictors={"x": "normal"}).make_frame(1)
    made["w"] = np.tile([0.1, 0.4, 1.6, 6.4], 4)
    return made


def simulate(design, truth, rng, effects=None, variance=None):
    """Draw outcomes by hand: right ones where nothing else is said."""
    b = truth["b_g"][0] if effects is None else effects
    sigma2 = truth["sigma"][0] ** 2 if variance is None else variance
    block = design.blocks[0]
    mean = design.X @ truth["beta"][0] + (block.Z * b[block.index]).sum(axis=1)
    return mean + np.sqrt(sigma2 / design.weights) * rng.standard_normal(len(mean))


def run(n, method, simulator=simulate):
    return calibrate(
        "y ~ x + (x | g)",
        frame(),
        PRIORS,
        n,
        method,
        weights="w",
        simulator=simulator,
        prob=0.99,
        random_seed=4,
        progressbar=False,
    )


def sd_for_variance(design, truth, rng):
    return simulate(design, truth, rng, variance=truth["sigma"][0])


def transposed(design, truth, rng):
    """Multiply the standard normals with the Cholesky factor where its transpose is due."""
    L = np.linalg.cholesky(truth["cor_g"][0])
    sd = truth["sd_g"][0]
    z = np.linalg.solve(L, (truth["b_g"][0] / sd).T).T
    return simulate(design, truth, rng, effects=sd * (z @ L))


@pytest.fixture(scope="module")
def kept():
    return Kept()


@pytest.fixture(scope="module")
def twin(kept):
    return run(100, kept)


def figures(what, found, quantities):
    p = found.table.set_index("quantity")["p_value"][list(quantities)]
    outside = found.table["quantity"][~found.table["inside"]]
    return {
        "what": what,
        "simulations": len(found.ranks),
        "outside of their bands": ", ".join(f"`{name}`" for name in outside) or "none",
        "smallest p": float(p.min()),
    }


def assert_caught(found, twin, *quantities):
    """Hold the same true values as the twin has, and other ranks than chance explains."""
    own, there = (
        found.true_values.drop(columns="log_likelihood"),
        twin.true_values[: len(found.ranks)],
    )
    pd.testing.assert_frame_equal(own, there.drop(columns="log_likelihood"))
    table = found.table.set_index("quantity").loc[list(quantities)]
    assert not table["inside"].any()
    assert set(quantities) <= set(found.suspects)


def test_the_twin_without_a_bug_passes(twin, record_property):
    assert len(twin.ranks) == 100
    assert twin.table["inside"].all()
    assert twin.suspects == ()
    record_property("trust", figures("no bug", twin, twin.ranks.columns))


def test_a_wrong_jacobian_is_caught(kept, twin, record_property):
    """The log Jacobian of log sd is subtracted where it is due: sds come out too small."""

    def twice_the_jacobian(draws):
        return -2 * np.log(draws["sd_g"]).sum(axis=1) - 2 * np.log(draws["sigma"])

    found = run(100, Reweighted(kept, twice_the_jacobian))
    assert_caught(found, twin, "sd_g[Intercept]", "sd_g[x]")
    record_property(
        "trust", figures("a wrong Jacobian of sds", found, ["sd_g[Intercept]", "sd_g[x]"])
    )
    assert (found.table.set_index("quantity")["mean_rank"][["sd_g[x]", "sigma"]] > 0.55).all()


def test_an_lkj_eta_off_by_one_is_caught(kept, twin, record_property):
    """The determinant has the power eta, not eta - 1: correlations come out too near zero."""
    found = run(100, Reweighted(kept, lambda draws: np.log(np.linalg.det(draws["cor_g"]))))
    assert_caught(found, twin, COR)
    record_property("trust", figures("an LKJ prior with eta 1.5 for 0.5", found, [COR]))
    shares = found.ranks[COR] / found.n_draws
    assert ((shares < 0.1) | (shares > 0.9)).mean() > 0.3


def test_a_shifted_prior_is_caught(twin, record_property):
    """The sampler has the prior of the slope one sd to the right."""

    def shift(design):
        shifted = {"x": hmlm.Prior("normal", mu=1, sigma=1)}
        return replace(design, spec=with_priors(design.spec, shifted))

    found = run(60, Changed(shift))
    assert_caught(found, twin, "x")
    record_property("trust", figures("a prior shifted by its sd", found, ["x"]))
    assert found.table.set_index("quantity")["mean_rank"]["x"] < 0.45


def test_a_lost_weight_is_caught(twin, record_property):
    """The sampler takes all rows for equally precise."""
    found = run(60, Changed(lambda design: replace(design, weights=None)))
    assert_caught(found, twin, "sigma", "log_likelihood")
    record_property(
        "trust", figures("weights of rows that are lost", found, ["sigma", "log_likelihood"])
    )


def test_an_sd_taken_for_a_variance_is_caught(twin, record_property):
    found = run(60, SHORT, sd_for_variance)
    assert_caught(found, twin, "sigma", "log_likelihood")
    record_property(
        "trust", figures("an sd taken for a variance", found, ["sigma", "log_likelihood"])
    )


def test_a_transposed_correlation_is_caught(twin, record_property):
    """The sd of the first effect grows with the correlation, that of the second shrinks."""
    found = run(60, SHORT, transposed)
    assert_caught(found, twin, "log_likelihood")
    record_property("trust", figures("a transposed Cholesky factor", found, ["log_likelihood"]))
