"""Crossed factors with many levels: one integrated out, the effects of the others sampled."""

import numpy as np
import pytest
from random_models import make_table
from scipy.stats import multivariate_normal
from support import central_difference, make

import hmlm
from hmlm.datasets import load_dataset
from hmlm.default_priors import resolve_priors
from hmlm.fitting import nuts
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.posterior import pack

FORMULAS = {
    "penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "egsingle": "math ~ year + (year | school) + (1 + year | grade)",
    "three factors": "real ~ x + (1 | g) + (x | h) + (x | c)",
}


@pytest.fixture(scope="module", params=[(n, c) for n in FORMULAS for c in (True, False)])
def pair(request):
    """The same model with all effects integrated out, and with the rest sampled."""
    name, centred = request.param
    if name == "three factors":
        frame = make_table(seed=3, groups=8, size=6, spread=0.5)
    else:
        frame = load_dataset(name)
    if name == "egsingle":
        frame = frame[frame["school"].isin(frame["school"].unique()[:6])].reset_index(drop=True)
    design = make(FORMULAS[name], frame)
    posteriors = []
    for largest in (1000, 0):
        sums = gaussian_sums(design, largest)
        point, theta, _ = best_point(sums, reml=True)
        by_name = {b.group: centred for b in design.blocks}
        posteriors.append(pack(design, sums, resolve_priors(design), theta, point, by_name))
    return posteriors


def points(posterior, n, spread=0.3):
    rng = np.random.default_rng(1)
    return posterior.start + spread * rng.normal(size=(n, posterior.dim))


def test_the_gradient_is_that_of_the_density(pair):
    _, sampled = pair
    for x in points(sampled, 2):
        value, gradient = sampled.log_density(x)
        differences = central_difference(lambda v: sampled.log_density(v)[0], x, 1e-5)
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-6 * abs(value))


def test_it_is_the_integrated_density_times_that_of_the_effects(pair):
    """p(y, b, theta) = p(y, theta) p(b | y, theta), the last from the dense N x N matrices."""
    integrated, sampled = pair
    p = len(sampled.beta0)
    differences = []
    for x in points(sampled, 4):
        parameters = sampled.parameters(x)
        conditional, jacobian = dense_conditional(sampled, parameters, x)
        short = integrated.start.copy()
        short[:p] = np.linalg.solve(integrated.beta_map, parameters["beta"] - integrated.beta0)
        short[p:] = in_order(integrated, sampled, x)
        differences.append(
            sampled.log_density(x)[0] - integrated.log_density(short)[0] - conditional - jacobian
        )
    assert np.ptp(differences) < 1e-7 * abs(sampled.log_density(sampled.start)[0])


def test_parameters_of_many_points_are_those_of_each(pair):
    for posterior in pair:
        xs = points(posterior, 3)
        together = posterior.parameters(xs)
        for k, x in enumerate(xs):
            for name, value in posterior.parameters(x).items():
                np.testing.assert_allclose(together[name][k], value, rtol=1e-12, atol=1e-14)


def in_order(integrated, sampled, x):
    """Coordinates of scales and correlations, in the order of the other posterior."""
    at, own = len(sampled.beta0), {}
    for block in sampled.blocks:
        size = len(block.columns) + sum(s * (s - 1) // 2 for s in block.parts)
        own[block.group] = x[at : at + size]
        at += size
    return np.concatenate([*(own[b.group] for b in integrated.blocks), x[-1:]])


def dense_conditional(posterior, parameters, x):
    """Log density of the sampled effects given y and theta, and log |d b / d x|."""
    design = posterior.design
    n = len(design.y)
    V = np.eye(n) * parameters["sigma"] ** 2
    Zs, Ds, bs, jacobian = [], [], [], 0.0
    for block in design.blocks:
        sd = parameters[f"sd_{block.group}"]
        D = np.outer(sd, sd) * parameters.get(f"cor_{block.group}", np.eye(len(sd)))
        V += (block.index[:, None] == block.index) * (block.Z @ D @ block.Z.T)
        if f"b_{block.group}" in parameters:
            J, q = len(block.levels), len(sd)
            Z = np.zeros((n, J, q))
            Z[np.arange(n), block.index] = block.Z
            Zs.append(Z.reshape(n, -1))
            Ds.append(np.kron(np.eye(J), D))
            bs.append(parameters[f"b_{block.group}"].reshape(-1))
            own = next(s for s in posterior.sampled if s.block is block)
            if not own.centred:
                jacobian += J * 0.5 * np.linalg.slogdet(D)[1]
    Z, b = np.column_stack(Zs), np.concatenate(bs)
    D = np.zeros((len(b), len(b)))
    at = 0
    for piece in Ds:
        D[at : at + len(piece), at : at + len(piece)] = piece
        at += len(piece)
    gain = D @ Z.T @ np.linalg.inv(V)
    mean = gain @ (design.response - design.X @ parameters["beta"])
    covariance = D - gain @ Z @ D
    return multivariate_normal(mean, covariance).logpdf(b), jacobian


def test_both_forms_draw_from_the_same_posterior(monkeypatch):
    """Means and sds of every parameter and effect of penicillin within Monte Carlo error."""
    model = hmlm.Model(FORMULAS["penicillin"], load_dataset("penicillin"))
    integrated = model.fit(random_seed=1, progressbar=False)
    monkeypatch.setattr(nuts, "LARGEST_INTEGRATED_REST", 0)
    sampled = model.fit(random_seed=2, progressbar=False)
    assert "sample (centred) sampled" in str(sampled.status)
    first, second = integrated.tidy(), sampled.tidy()
    error = np.hypot(
        first["std_error"] / np.sqrt(first["ess_bulk"]),
        second["std_error"] / np.sqrt(second["ess_bulk"]),
    )
    z = (first["estimate"] - second["estimate"]) / error
    assert z.abs().max() < 4.5
    ratio = second["std_error"] / first["std_error"]
    assert ratio.between(0.8, 1.25).all()
