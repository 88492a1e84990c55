"""The compiled density: equal to the dense N x N one, to PyMC's, and to its own differences."""

import dataclasses

import numpy as np
import pymc as pm
import pytest
from scipy import stats
from support import central_difference, dense_log_likelihood, make, outcome_covariance

from hmlm.default_priors import resolve_priors
from hmlm.likelihoods.effect_draws import draw_effects
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.posterior import correlation_factors, kernel_covers, pack
from hmlm.likelihoods.prior_kernel import encode_prior, prior_logp, scale_from
from hmlm.likelihoods.scales import make_scale
from hmlm.models.build import build_model
from hmlm.priors import PRIOR_KINDS, Prior

STRUCTURES = {
    "correlated slope": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "uncorrelated slope": ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
    "three effects": ("sleepstudy", "Reaction ~ Days + (Days + I(Days**2) | Subject)"),
    "every group its own design": ("radon", "log_radon ~ floor + log_uranium + (floor | county)"),
    "no population terms": ("dyestuff", "Yield ~ 0 + (1 | Batch)"),
    "nested": ("pastes", "strength ~ 1 + (1 | batch/cask)"),
    "crossed": ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "slopes at two levels": ("egsingle", "math ~ year + (year | school) + (year | child)"),
    "two correlated parts": ("drawn", "real ~ x + (x | g) + (0 + v + z | g)"),
    "nested and crossed": (
        "egsingle",
        "math ~ year + female + (year || school) + (1 | grade) + (year | child)",
    ),
}


@pytest.fixture(scope="module", params=STRUCTURES)
def posterior(request, datasets):
    name, formula = STRUCTURES[request.param]
    return make_posterior(make(formula, datasets(name)))


@pytest.fixture(scope="module")
def datasets():
    """Data sets small enough for an N x N matrix."""
    from hmlm.datasets import load_dataset

    def load(name):
        if name == "drawn":
            from random_models import make_table  # which imports from here

            return make_table(seed=5, groups=6, size=9, spread=0.5)
        frame = load_dataset(name)
        if name == "egsingle":
            frame = frame[frame["school"].isin(frame["school"].unique()[:6])]
        return frame.reset_index(drop=True)

    return load


def make_posterior(design, priors=None):
    sums = gaussian_sums(design)
    point, theta, _ = best_point(sums, reml=True)
    return pack(design, sums, priors or resolve_priors(design), theta, point)


def points(posterior, n, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    return posterior.start + spread * rng.normal(size=(n, posterior.dim))


def log_prior(prior, value):
    """Log density of a prior to a constant, by scipy."""
    p = dict(prior.parameters)
    distribution = {
        "normal": lambda: stats.norm(p["mu"], p["sigma"]),
        "half-student-t": lambda: stats.t(p["nu"], 0, p["sigma"]),
    }[prior.name]()
    return distribution.logpdf(value)


def dense_log_posterior(posterior, x):
    """The log posterior at the sampler's coordinates from the N x N normal density."""
    design, priors = posterior.design, resolve_priors(posterior.design)
    parameters = posterior.parameters(x)
    total = dense_log_likelihood(design, parameters)
    if design.terms:
        beta = parameters["beta"]
        centred = beta + priors.constant * (priors.x_means @ beta)
        total += sum(log_prior(p, v) for p, v in zip(priors.beta, centred, strict=True))
    for block in design.blocks:
        sd = parameters[f"sd_{block.group}"]
        total += sum(log_prior(p, s) for p, s in zip(priors.sd[block.group], sd, strict=True))
        for part in block.slices:
            size = part.stop - part.start
            if size > 1:
                R = parameters[f"cor_{block.group}"][part, part]
                eta = priors.cor[block.group].parameters["eta"]
                total += (eta - 1) * np.linalg.slogdet(R)[1] + correlation_jacobian(R)
    sigma = parameters["sigma"]
    total += log_prior(priors.sigma, sigma) + np.log(sigma)
    return total + sum(jacobian for _, jacobian in sds_and_jacobians(posterior, x))


def sds_and_jacobians(posterior, x):
    """Every sd of group effects, with log |d sd / d coordinate| by differences."""
    at, found = len(posterior.beta0), []
    for block, scales in zip(posterior.blocks, posterior.scales, strict=True):
        for k, scale in enumerate(scales):
            slope = (scale.value(x[at + k] + 1e-6) - scale.value(x[at + k] - 1e-6)) / 2e-6
            found.append((abs(scale.value(x[at + k])), np.log(abs(slope))))
        at += len(scales) + sum(s * (s - 1) // 2 for s in block.parts)
    return found


def set_correlations(posterior, x, value):
    """Set the coordinates of all correlations."""
    at = len(posterior.beta0)
    for block, scales in zip(posterior.blocks, posterior.scales, strict=True):
        at += len(scales)
        n = sum(s * (s - 1) // 2 for s in block.parts)
        x[at : at + n] = value
        at += n


def partial_coordinates(R):
    """Coordinates of a correlation matrix: inverse hyperbolic tangents of partial correlations."""
    L, z = np.linalg.cholesky(R), []
    for i in range(1, len(R)):
        rest = 1.0
        for k in range(i):
            w = L[i, k] / np.sqrt(rest)
            z.append(np.arctanh(w))
            rest *= 1 - w * w
    return np.array(z)


def correlation_jacobian(R):
    """Log of |d correlations / d coordinates|, by central differences."""
    q = len(R)

    def entry(z, k):
        L = correlation_factors(z, (q,))
        return (L @ L.T)[np.tril_indices(q, -1)][k]

    z = partial_coordinates(R)
    rows = [central_difference(lambda v, k=k: entry(v, k), z, 1e-6) for k in range(len(z))]
    return np.linalg.slogdet(np.array(rows))[1]


def test_the_density_is_the_dense_one_to_a_constant(posterior):
    differences = [
        posterior.log_density(x)[0] - dense_log_posterior(posterior, x)
        for x in points(posterior, 6)
    ]
    scale = abs(dense_log_posterior(posterior, posterior.start))
    assert np.ptp(differences) < 1e-8 * scale


def test_the_gradient_is_that_of_the_density(posterior):
    for x in points(posterior, 3, seed=1):
        value, gradient = posterior.log_density(x)
        differences = central_difference(lambda v: posterior.log_density(v)[0], x, 1e-5)
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-6 * abs(value))


@pytest.mark.parametrize("structure", ["correlated slope", "nested", "crossed", "three effects"])
def test_the_density_is_that_of_the_pymc_model(structure, datasets):
    """p(y, theta) = p(y, b, theta) / p(b | y, theta) at any b, here at the conditional mean."""
    name, formula = STRUCTURES[structure]
    design = make(formula, datasets(name))
    posterior = make_posterior(design)
    model = build_model(design, centered=True)
    logp = model.compile_logp(mode="FAST_COMPILE")
    differences = []
    for x in points(posterior, 4, seed=2, spread=0.3):
        parameters = posterior.parameters(x)
        means, log_density = conditional_effects(design, parameters)
        point, jacobian = pymc_point(model, design, parameters, means)
        jacobian += sum(np.log(s) - own for s, own in sds_and_jacobians(posterior, x))
        differences.append(posterior.log_density(x)[0] + jacobian - (logp(point) - log_density))
    assert np.ptp(differences) < 1e-6 * abs(posterior.log_density(posterior.start)[0])


def conditional_moments(design, parameters):
    """Mean and covariance of p(b | y, theta), factors one after another, all dense."""
    V = outcome_covariance(design, parameters)
    r = design.response - design.X @ parameters["beta"]
    pieces = []
    for block in design.blocks:
        J, q = len(block.levels), len(block.columns)
        Z = np.zeros((len(r), J, q))
        Z[np.arange(len(r)), block.index] = block.Z
        sd = parameters[f"sd_{block.group}"]
        D = np.outer(sd, sd) * parameters.get(f"cor_{block.group}", np.eye(q))
        pieces.append((Z.reshape(len(r), -1), np.kron(np.eye(J), D)))
    Z = np.column_stack([z for z, _ in pieces])
    total = sum(d.shape[0] for _, d in pieces)
    D, at = np.zeros((total, total)), 0
    for _, d in pieces:
        D[at : at + len(d), at : at + len(d)] = d
        at += len(d)
    gain = D @ Z.T @ np.linalg.inv(V)
    return gain @ r, D - gain @ Z @ D


def conditional_effects(design, parameters):
    """Means of p(b | y, theta) by factor, and its log density at the means."""
    mean, covariance = conditional_moments(design, parameters)
    means, at = {}, 0
    for block in design.blocks:
        shape = len(block.levels), len(block.columns)
        means[block.group] = mean[at : at + np.prod(shape)].reshape(shape)
        at += np.prod(shape)
    log_det = np.linalg.slogdet(covariance)[1]
    return means, -0.5 * (len(mean) * np.log(2 * np.pi) + log_det)


def pymc_point(model, design, parameters, means):
    """The model's own coordinates, and log |d ours / d theirs| for the correlations."""
    point, jacobian = {}, 0.0
    priors = resolve_priors(design)
    for variable in model.free_RVs:
        name, transform = variable.name, model.rvs_to_transforms[variable]
        value = model.rvs_to_values[variable].name
        if name == "beta_centered":
            beta = parameters["beta"]
            point[value] = beta + priors.constant * (priors.x_means @ beta)
        elif name == "beta":
            point[value] = parameters["beta"]
        elif name.startswith("b_"):
            point[value] = means[name[2:]]
        elif name.startswith("chol_"):
            R = parameters[f"cor_{name[5:]}"]
            L = np.linalg.cholesky(R)
            theirs = transform.forward(pm.math.constant(L), *variable.owner.inputs).eval()
            point[value] = theirs

            def entries(u, transform=transform, variable=variable):
                factor = transform.backward(pm.math.constant(u), *variable.owner.inputs).eval()
                return (factor @ factor.T)[np.tril_indices(len(factor), -1)]

            rows = [
                (entries(theirs + e) - entries(theirs - e)) / 2e-6
                for e in 1e-6 * np.eye(len(theirs))
            ]
            jacobian += np.linalg.slogdet(np.array(rows))[1] - correlation_jacobian(R)
        else:
            point[value] = np.log(parameters[name])
    return point, jacobian


@pytest.mark.parametrize("name", [k for k in PRIOR_KINDS if k != "lkj"])
def test_priors_have_their_log_density_and_its_slope(name):
    values = {"nu": 4.0, "mu": 0.3, "sigma": 1.7, "alpha": 2.5, "beta": 1.3, "lam": 0.8}
    values |= {"lower": 0.0, "upper": 9.0}
    prior = Prior(name, **{p: values[p] for p in PRIOR_KINDS[name].parameters})
    exact = {
        "normal": stats.norm(0.3, 1.7),
        "student-t": stats.t(4, 0.3, 1.7),
        "cauchy": stats.cauchy(2.5, 1.3),
        "half-normal": stats.halfnorm(0, 1.7),
        "half-student-t": stats.t(4, 0, 1.7),
        "half-cauchy": stats.halfcauchy(0, 1.3),
        "exponential": stats.expon(0, 1 / 0.8),
        "gamma": stats.gamma(2.5, scale=1 / 1.3),
        "inverse-gamma": stats.invgamma(2.5, scale=1.3),
        "lognormal": stats.lognorm(1.7, scale=np.exp(0.3)),
        "beta": stats.beta(2.5, 1.3),
    }
    at = np.array([0.4, 0.5, 0.9] if name == "beta" else [0.4, 1.1, 2.9])
    ours = [prior_logp(*encode_prior(prior), v) for v in at]
    wanted = exact[name].logpdf(at) if name in exact else np.zeros(3)
    np.testing.assert_allclose(np.diff([v for v, _ in ours]), np.diff(wanted), atol=1e-12)
    slopes = [
        central_difference(lambda v: prior_logp(*encode_prior(prior), v[0])[0], np.array([v]))[0]
        for v in at
    ]
    np.testing.assert_allclose([s for _, s in ours], slopes, atol=1e-8)


def test_an_sd_with_a_uniform_prior_stays_inside(sleepstudy):
    design = make("Reaction ~ Days + (1 | Subject)", sleepstudy)
    spec = dataclasses.replace(design.spec, priors={"sd": Prior("uniform", lower=5, upper=80)})
    posterior = make_posterior(dataclasses.replace(design, spec=spec))
    for x in points(posterior, 5, spread=3.0):
        sd = posterior.parameters(x)["sd_Subject"]
        assert ((sd > 5) & (sd < 80)).all()
        gradient = posterior.log_density(x)[1]
        differences = central_difference(lambda v: posterior.log_density(v)[0], x, 1e-6)
        np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("resolution", [0.02, 2.0, 200.0])
def test_a_half_normal_prior_of_an_sd_is_no_wall(resolution):
    """Far out in the sampler's coordinate its log density bends like that of a normal one."""
    prior = Prior("half-normal", sigma=3.0)
    scale = make_scale(prior, resolution)
    code, a, b, c, turn = scale.encode()

    def log_density(x):
        s, _, log_jacobian, _ = scale_from(code, a, b, turn, x)
        return prior_logp(code, a, b, c, s)[0] + log_jacobian

    for sd in (0.1, 3.0, 20.0, 60.0):
        x = scale.coordinate(sd)
        s, slope, _, bend = scale_from(code, a, b, turn, x)
        assert s == pytest.approx(sd)
        assert s == pytest.approx(scale.value(x))
        assert -s == pytest.approx(scale.value(-x))
        sides = [scale_from(code, a, b, turn, x + e) for e in (-1e-5, 1e-5)]
        assert slope == pytest.approx((sides[1][0] - sides[0][0]) / 2e-5, rel=1e-6)
        assert bend == pytest.approx((sides[1][2] - sides[0][2]) / 2e-5, abs=1e-6)
        assert np.log(sides[1][1] / sides[0][1]) == pytest.approx(2e-5 * bend, abs=1e-10)
        curvature = np.diff([log_density(x + e) for e in (-1e-3, 0, 1e-3)], 2)[0] / 1e-6
        assert curvature > -2.5


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_odd_scales_of_a_predictor_do_not_change_the_likelihood(sleepstudy, scale):
    frame = sleepstudy.assign(Days=sleepstudy["Days"] * scale)
    plain = gaussian_sums(make("Reaction ~ Days + (Days | Subject)", sleepstudy))
    scaled = gaussian_sums(make("Reaction ~ Days + (Days | Subject)", frame))
    assert best_point(plain, reml=False)[0].deviance == pytest.approx(
        best_point(scaled, reml=False)[0].deviance, abs=1e-6
    )


def test_the_density_survives_the_edges(posterior):
    """Variances of nothing and of very much, correlations next to one."""
    p = len(posterior.beta0)
    for edge in (-30.0, 0.0, 30.0):
        x = posterior.start.copy()
        x[p:-1] = np.clip(edge, -5, 5) if edge else 0.0
        set_correlations(posterior, x, edge)
        value, gradient = posterior.log_density(x)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_group_effects_have_their_conditional_moments(posterior):
    """Exact: means and covariances of p(b | y, theta), from 4,000 draws at one theta."""
    design = posterior.design
    if not design.terms:
        pytest.skip("the dense formula here needs population terms")
    parameters = posterior.parameters(posterior.start)
    repeated = {k: np.repeat(np.asarray(v)[None], 4000, axis=0) for k, v in parameters.items()}
    drawn = draw_effects(design, gaussian_sums(design), repeated, np.random.default_rng(3))
    means, _ = conditional_effects(design, parameters)
    for block in design.blocks:
        b = drawn[f"b_{block.group}"]
        error = b.std(axis=0) / np.sqrt(4000)
        z = (b.mean(axis=0) - means[block.group]) / error
        assert np.abs(z).max() < 5
        assert np.sqrt((z**2).mean()) < 1.5


def test_draws_of_effects_of_two_levels_are_jointly_right(datasets):
    """The sum of a batch's and a cask's effects: their covariance is negative, and counts."""
    design = make("strength ~ 1 + (1 | batch/cask)", datasets("pastes"))
    posterior = make_posterior(design)
    parameters = posterior.parameters(posterior.start)
    repeated = {k: np.repeat(np.asarray(v)[None], 20000, axis=0) for k, v in parameters.items()}
    drawn = draw_effects(design, gaussian_sums(design), repeated, np.random.default_rng(4))
    total = drawn["b_batch"][:, 0, 0] + drawn["b_batch:cask"][:, 0, 0]
    V = outcome_covariance(design, parameters)
    sigma2 = parameters["sigma"] ** 2
    signal = V - sigma2 * np.eye(len(V))
    exact = (signal - signal @ np.linalg.solve(V, signal))[0, 0]
    assert total.var() == pytest.approx(exact, rel=0.04)


def test_what_the_kernel_does_not_cover_is_said(sleepstudy):
    design = make("Reaction ~ Days + (1 | Subject)", sleepstudy)
    assert kernel_covers(design, resolve_priors(design)) == ""
    spec = dataclasses.replace(design.spec, priors={"Days": Prior("uniform", lower=0, upper=20)})
    bounded = dataclasses.replace(design, spec=spec)
    assert "Days" in kernel_covers(bounded, resolve_priors(bounded))
