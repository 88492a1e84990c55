"""Known standard errors: meta-analysis against exact posteriors, dense formulas and metafor."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from support import central_difference, dense_log_likelihood, outcome_covariance, recorded
from trust_figures import z_figures

import hmlm
from hmlm.default_priors import resolve_priors
from hmlm.errors import HmlmError
from hmlm.fitting.degrees_of_freedom import satterthwaite
from hmlm.fitting.kenward_roger import kenward_roger
from hmlm.likelihoods.effect_draws import draw_effects
from hmlm.likelihoods.gaussian import gaussian_sums, known_sigma2
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.posterior import kernel_covers, pack
from hmlm.likelihoods.profiled import profiled_deviance
from hmlm.models.build import build_model
from hmlm.priors import Prior

SCHOOLS = "se(y, sigma) ~ 1 + (1 | school)"
EXACT_PRIORS = {
    "Intercept": Prior("normal", mu=0, sigma=5),
    "sd": Prior("half-cauchy", beta=5),
}

# Trials of the BCG vaccine against tuberculosis: cases and others of the vaccinated and of the
# controls, and the absolute latitude. Colditz et al. (1994), JAMA 271, 698-702; the example of
# Viechtbauer (2010), Journal of Statistical Software 36(3), table 1.
BCG = np.array(
    [
        [4, 119, 11, 128, 44],
        [6, 300, 29, 274, 55],
        [3, 228, 11, 209, 42],
        [62, 13536, 248, 12619, 52],
        [33, 5036, 47, 5761, 13],
        [180, 1361, 372, 1079, 44],
        [8, 2537, 10, 619, 19],
        [505, 87886, 499, 87892, 13],
        [29, 7470, 45, 7232, 27],
        [17, 1699, 65, 1600, 42],
        [186, 50448, 141, 27197, 18],
        [5, 2493, 3, 2338, 33],
        [27, 16886, 29, 17825, 33],
    ],
    dtype=float,
)


def bcg(unit=1.0):
    """Log risk ratios with their standard errors, in any unit."""
    a, b, c, d, latitude = BCG.T
    ratio = np.log(a / (a + b)) - np.log(c / (c + d))
    se = np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    trial = [f"t{k:02d}" for k in range(len(a))]
    return pd.DataFrame({"y": ratio * unit, "s": se * unit, "ablat": latitude, "trial": trial})


def studies(seed=0, labs=12, size=4):
    """Studies in labs: a lab effect, a study effect, and a known standard error each."""
    rng = np.random.default_rng(seed)
    lab = np.repeat(np.arange(labs), size)
    n = len(lab)
    s, x = rng.uniform(0.2, 1.2, n), rng.normal(size=n)
    y = 1 + 0.5 * x + 0.8 * rng.normal(size=labs)[lab] + 0.4 * rng.normal(size=n)
    return pd.DataFrame(
        {
            "y": y + s * rng.normal(size=n),
            "x": x,
            "s": s,
            "lab": [f"l{k}" for k in lab],
            "study": [f"s{k}" for k in range(n)],
        }
    )


def model(formula, frame, **settings):
    return hmlm.Model(formula, frame, **settings)


CASES = {
    "eight schools": lambda: model(SCHOOLS, hmlm.load_dataset("eight_schools")),
    "a predictor": lambda: model("se(y, s) ~ ablat + (1 | trial)", bcg()),
    "studies in labs": lambda: model("se(y, s) ~ x + (1 | lab/study)", studies()),
    "a slope": lambda: model("se(y, s) ~ x + (x | lab)", studies()),
    "no population terms": lambda: model("se(y, s) ~ 0 + (1 | trial)", bcg()),
}


@pytest.fixture(scope="module", params=CASES)
def design(request):
    return CASES[request.param]().design


def posterior_of(design, priors=None):
    sums = gaussian_sums(design)
    point, theta, _ = best_point(sums, reml=True, sigma2=known_sigma2(design))
    return pack(design, sums, priors or resolve_priors(design), theta, point)


def log_prior(prior, value):
    p = dict(prior.parameters)
    if prior.name == "half-student-t":
        return stats.t(p["nu"], 0, p["sigma"]).logpdf(value)
    return stats.norm(p["mu"], p["sigma"]).logpdf(value)


def dense_log_posterior(posterior, x):
    """The log posterior from the N x N density, with sigma one on the scale of the weights."""
    design, priors = posterior.design, resolve_priors(posterior.design)
    parameters = posterior.parameters(x)
    assert "sigma" not in parameters
    total = dense_log_likelihood(design, {**parameters, "sigma": 1.0})
    if design.terms:
        beta = parameters["beta"]
        centred = beta + priors.constant * (priors.x_means @ beta)
        total += sum(log_prior(p, v) for p, v in zip(priors.beta, centred, strict=True))
    at = len(posterior.beta0)
    for block, scales in zip(posterior.blocks, posterior.scales, strict=True):
        sd = parameters[f"sd_{block.group}"]
        total += sum(log_prior(p, s) for p, s in zip(priors.sd[block.group], sd, strict=True))
        for k, scale in enumerate(scales):
            slope = (scale.value(x[at + k] + 1e-6) - scale.value(x[at + k] - 1e-6)) / 2e-6
            total += np.log(abs(slope))
        at += len(scales)
        if block.correlated:  # two effects: LKJ(2), and the slope of tanh
            r2 = np.tanh(x[at]) ** 2
            total += 2 * np.log(1 - r2)
            at += 1
    return total


def test_sigma_is_no_parameter(design):
    posterior = posterior_of(design)
    n_cor = sum(b.correlated for b in design.blocks)
    n_sd = sum(len(b.columns) for b in design.blocks)
    assert posterior.dim == len(design.terms) + n_sd + n_cor
    assert posterior.sigma is None
    assert "sigma" not in design.dims


def test_the_density_is_the_dense_one_to_a_constant(design):
    posterior = posterior_of(design)
    rng = np.random.default_rng(0)
    points = posterior.start + 0.6 * rng.normal(size=(8, posterior.dim))
    differences = [posterior.log_density(x)[0] - dense_log_posterior(posterior, x) for x in points]
    assert np.ptp(differences) < 1e-8 * abs(dense_log_posterior(posterior, posterior.start))


def test_the_gradient_is_that_of_the_density(design):
    posterior = posterior_of(design)
    rng = np.random.default_rng(1)
    for x in posterior.start + 0.6 * rng.normal(size=(4, posterior.dim)):
        value, gradient = posterior.log_density(x)
        differences = central_difference(lambda v: posterior.log_density(v)[0], x, 1e-5)
        np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-7 * abs(value))


def test_the_density_is_that_of_the_pymc_model():
    """p(y, theta) = p(y, b, theta) / p(b | y, theta), here at the conditional means of b."""
    case = model(SCHOOLS, hmlm.load_dataset("eight_schools"), priors=EXACT_PRIORS)
    design = case.design
    posterior = posterior_of(design)
    pymc_model = build_model(design, centered=True)
    assert "sigma" not in pymc_model.named_vars
    logp = pymc_model.compile_logp(mode="FAST_COMPILE")
    (scale,) = posterior.scales[0]
    rng = np.random.default_rng(4)
    differences = []
    for x in posterior.start + 0.5 * rng.normal(size=(5, 2)):
        parameters = posterior.parameters(x)
        (sd,), (mu,) = parameters["sd_school"], parameters["beta"]
        precision = design.weights + sd**-2
        modes = design.weights * (design.y - mu) / precision
        point = {"beta": parameters["beta"], "sd_school_log__": np.log([sd])}
        joint = logp({**point, "b_school": modes[:, None]}) - np.log(sd)
        jacobian = np.log((scale.value(x[1] + 1e-6) - scale.value(x[1] - 1e-6)) / 2e-6)
        conditional = 0.5 * (np.log(precision) - np.log(2 * np.pi)).sum()
        differences.append(posterior.log_density(x)[0] - jacobian - (joint - conditional))
    assert np.ptp(differences) < 1e-8


@pytest.mark.parametrize("reml", [True, False])
def test_the_profiled_deviance_and_its_gradient(design, reml):
    sums, sigma2 = gaussian_sums(design), known_sigma2(design)
    _, theta, _ = best_point(sums, reml, sigma2=sigma2)
    theta = theta + 0.3
    point = profiled_deviance(theta, sums, reml, sigma2)
    differences = central_difference(
        lambda t: profiled_deviance(t, sums, reml, sigma2).deviance, theta
    )
    np.testing.assert_allclose(point.gradient, differences, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", [hmlm.REML(), hmlm.ML()], ids=str)
@pytest.mark.parametrize("case", ["a predictor", "studies in labs", "no population terms"])
def test_ml_and_reml_maximise_the_dense_likelihood(case, method):
    """All by scipy from the N x N density, derivative-free."""
    design = CASES[case]().design
    fit, reml = method.run(design), isinstance(method, hmlm.REML)
    names = [f"sd_{b.group}" for b in design.blocks]

    def generalised(v):
        estimates = {name: np.array([abs(s)]) for name, s in zip(names, v, strict=True)}
        inverse = np.linalg.inv(outcome_covariance(design, {**estimates, "sigma": 1.0}))
        vcov = np.linalg.inv(design.X.T @ inverse @ design.X)
        beta = vcov @ design.X.T @ inverse @ design.response
        return {**estimates, "sigma": 1.0, "beta": beta}, vcov

    result = optimize.minimize(
        lambda v: -dense_log_likelihood(design, generalised(v)[0], reml),
        np.full(len(names), 0.5),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000},
    )
    estimates, vcov = generalised(result.x)
    assert fit.log_likelihood == pytest.approx(-result.fun, abs=1e-9)
    for name in names:
        np.testing.assert_allclose(fit.estimates[name], estimates[name], atol=2e-6)
    if design.terms:
        np.testing.assert_allclose(fit.estimates["beta"], estimates["beta"], rtol=1e-5)
        np.testing.assert_allclose(fit.vcov, vcov, rtol=1e-5)
    p, n = len(design.terms), len(design.y)
    assert "sigma" not in fit.estimates
    assert fit.n_parameters == p + len(names)
    assert fit.aic == pytest.approx(-2 * fit.log_likelihood + 2 * (p + len(names)))
    rows = n - p if reml else n
    assert fit.bic == pytest.approx(-2 * fit.log_likelihood + np.log(rows) * (p + len(names)))
    assert np.isinf(fit.df).all()


def test_bcg_trials_as_in_metafor():
    """rma(yi, vi, data = dat) by metafor: Viechtbauer (2010), section 3, and ?rma."""
    fit = model("se(y, s) ~ 1 + (1 | trial)", bcg()).fit(hmlm.REML())
    figures = fit.describe("beta", 0.95)
    assert fit.estimates["beta"][0] == pytest.approx(-0.7145, abs=5e-5)
    assert figures.std_error[0] == pytest.approx(0.1798, abs=5e-5)
    assert fit.estimates["sd_trial"][0] ** 2 == pytest.approx(0.3132, abs=5e-5)
    assert [figures.lower[0], figures.upper[0]] == pytest.approx([-1.0669, -0.3622], abs=5e-5)
    assert figures.statistic[0] == pytest.approx(-3.9744, abs=5e-5)
    # metafor adds log|X'X| / 2 to the restricted log-likelihood
    assert fit.log_likelihood == pytest.approx(-12.2024 - 0.5 * np.log(13), abs=5e-5)
    numbers = fit.status.numbers
    assert numbers["Q"] == pytest.approx(152.2330, abs=5e-5)
    assert numbers["Q_df"] == 12
    assert 100 * numbers["I2"] == pytest.approx(92.22, abs=5e-3)
    assert numbers["H2"] == pytest.approx(12.86, abs=5e-3)


def test_bcg_trials_with_latitude_as_in_metafor():
    """rma(yi, vi, mods = ~ ablat, data = dat) by metafor, whose search stops at steps of 1e-5."""
    fit = model("se(y, s) ~ ablat + (1 | trial)", bcg()).fit(hmlm.REML())
    assert fit.estimates["beta"] == pytest.approx([0.2515, -0.0291], abs=5e-5)
    assert np.sqrt(np.diagonal(fit.vcov)) == pytest.approx([0.2491, 0.0072], abs=5e-5)
    assert fit.estimates["sd_trial"][0] ** 2 == pytest.approx(0.0764, abs=1e-4)
    numbers = fit.status.numbers
    assert numbers["Q"] == pytest.approx(30.7331, abs=5e-5)
    assert 100 * numbers["I2"] == pytest.approx(68.39, abs=1e-2)
    assert numbers["H2"] == pytest.approx(3.16, abs=5e-3)


def test_eight_schools_do_not_differ_by_reml():
    """Gelman et al. (2013), section 5.5: 7.7 with standard error 4.1 when pooled."""
    fit = model(SCHOOLS, hmlm.load_dataset("eight_schools")).fit(hmlm.REML())
    assert fit.estimates["sd_school"][0] == pytest.approx(0, abs=1e-6)
    assert fit.estimates["beta"][0] == pytest.approx(7.686, abs=5e-4)
    assert np.sqrt(fit.vcov[0, 0]) == pytest.approx(4.072, abs=5e-4)
    assert fit.status.numbers["I2"] == pytest.approx(0, abs=1e-9)
    assert "the standard errors explain" in str(fit.status)


def test_the_unit_of_the_outcome_does_not_matter():
    plain, tiny = (
        model("se(y, s) ~ 1 + (1 | trial)", bcg(unit)).fit(hmlm.REML()) for unit in (1, 1e-6)
    )
    assert tiny.estimates["sd_trial"] == pytest.approx(1e-6 * plain.estimates["sd_trial"], rel=1e-5)
    assert tiny.status.numbers["I2"] == pytest.approx(plain.status.numbers["I2"], rel=1e-5)
    assert tiny.log_likelihood == pytest.approx(plain.log_likelihood + 12 * np.log(1e6), abs=1e-8)


def test_se_as_an_argument_is_the_same():
    frame = bcg()
    a = model("se(y, s) ~ 1 + (1 | trial)", frame).fit(hmlm.ML())
    b = model("y ~ 1 + (1 | trial)", frame, se="s").fit(hmlm.ML(std_errors="nlme"))
    assert a.log_likelihood == b.log_likelihood
    np.testing.assert_array_equal(a.vcov, b.vcov)


def test_heterogeneity_is_for_one_row_a_study():
    for formula in ("se(y, s) ~ x + (1 | lab/study)", "se(y, s) ~ x + (1 | lab)"):
        assert "I2" not in model(formula, studies()).fit(hmlm.REML()).status.numbers
    assert "I2" not in model("y ~ x + (1 | lab)", studies()).fit(hmlm.REML()).status.numbers


def test_complete_pooling_is_the_common_effect():
    frame = bcg()
    fit = model("se(y, s) ~ ablat + (1 | trial)", frame).with_pooling("complete").fit(hmlm.OLS())
    X = np.column_stack([np.ones(13), frame["ablat"]])
    W = np.diag(1 / frame["s"] ** 2)
    vcov = np.linalg.inv(X.T @ W @ X)
    beta = vcov @ X.T @ W @ frame["y"]
    np.testing.assert_allclose(fit.estimates["beta"], beta)
    np.testing.assert_allclose(fit.vcov, vcov)
    assert "sigma" not in fit.estimates
    assert fit.n_parameters == 2
    assert fit.log_likelihood == pytest.approx(
        stats.norm(X @ beta, frame["s"]).logpdf(frame["y"]).sum()
    )
    np.testing.assert_allclose(fit.standardized_residuals, (frame["y"] - X @ beta) / frame["s"])
    assert np.isinf(fit.df).all()


def test_no_pooling_gives_every_study_its_own_estimate():
    frame = bcg()
    fit = model("se(y, s) ~ 1 + (1 | trial)", frame).with_pooling("none").fit(hmlm.OLS())
    own = fit.describe("total_trial", 0.95)
    np.testing.assert_allclose(own.estimate[:, 0], frame["y"])
    np.testing.assert_allclose(own.std_error[:, 0], frame["s"])
    np.testing.assert_allclose(own.upper[:, 0], frame["y"] + stats.norm.ppf(0.975) * frame["s"])
    assert fit.n_parameters == 13
    assert fit.log_likelihood == pytest.approx(
        -np.log(frame["s"]).sum() - 6.5 * np.log(2 * np.pi), abs=1e-9
    )


def test_partial_pooling_shrinks_by_the_known_precision():
    frame = bcg()
    fit = model("se(y, s) ~ 1 + (1 | trial)", frame).fit(hmlm.REML())
    tau2, mu = fit.estimates["sd_trial"][0] ** 2, fit.estimates["beta"][0]
    share = tau2 / (tau2 + frame["s"] ** 2)
    np.testing.assert_allclose(fit.estimates["b_trial"][:, 0], share * (frame["y"] - mu))
    np.testing.assert_allclose(
        fit.effects["trial"].covariance[:, 0, 0], share * frame["s"] ** 2, rtol=1e-9
    )


@pytest.mark.parametrize("algorithm", ["em", "ecme", "px-em"])
def test_em_ends_where_reml_does(algorithm):
    case = model("se(y, s) ~ x + (1 | lab/study)", studies())
    best, fit = case.fit(hmlm.REML()), case.fit(hmlm.EM(algorithm=algorithm))
    assert fit.status.converged
    assert fit.log_likelihood == pytest.approx(best.log_likelihood, abs=1e-8)
    assert (np.diff(fit.trace["log_likelihood"]) > -1e-10).all()
    assert "sigma" not in fit.trace


def test_degrees_of_freedom_leave_out_the_residual():
    """Balanced, equal errors: tau^2 + s^2 is one variance with J - 1 degrees of freedom."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"y": rng.normal(0, 3, 20), "s": 1.0, "g": [f"g{k}" for k in range(20)]})
    design = model("se(y, s) ~ 1 + (1 | g)", frame).design
    sums = gaussian_sums(design)
    point, theta, _ = best_point(sums, reml=True, sigma2=known_sigma2(design))
    assert satterthwaite(sums, theta, point, True, True) == pytest.approx([19], rel=1e-4)
    vcov, df = kenward_roger(design, sums, theta, point)
    assert df == pytest.approx([19], rel=1e-6)
    assert vcov[0, 0] == pytest.approx(frame["y"].var() / 20, rel=1e-6)
    fit = hmlm.REML(df="satterthwaite").run(design)
    assert fit.df == pytest.approx([19], rel=1e-4)
    assert hmlm.REML(df="inner-outer").run(design).df.shape == (1,)


def test_profile_intervals_are_roots_of_the_dense_likelihood_ratio():
    fit = model("se(y, s) ~ 1 + (1 | trial)", bcg()).fit(hmlm.ML())
    frame = bcg()

    def deviance(tau):
        total = np.hypot(frame["s"], tau)
        mu = np.average(frame["y"], weights=total**-2)
        return -2 * stats.norm(mu, total).logpdf(frame["y"]).sum()

    table = fit.confint("profile", parameters=["Intercept", "sd_trial[Intercept]"])
    best = -2 * fit.log_likelihood
    for end in table.iloc[1][["lower", "upper"]]:
        assert deviance(end) - best == pytest.approx(stats.chi2(1).ppf(0.95), abs=1e-3)
    for end in table.iloc[0][["lower", "upper"]]:
        held = optimize.minimize_scalar(
            lambda tau, end=end: (
                -2 * stats.norm(end, np.hypot(frame["s"], tau)).logpdf(frame["y"]).sum()
            ),
            bounds=(0, 3),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert held.fun - best == pytest.approx(stats.chi2(1).ppf(0.95), abs=1e-3)


def test_the_bootstrap_simulates_with_the_known_errors():
    fit = model("se(y, s) ~ 1 + (1 | trial)", bcg()).fit(hmlm.REML())
    table = fit.confint("bootstrap", n=200, random_seed=1, progressbar=False)
    assert list(table["term"]) == ["Intercept", "Intercept"]
    wald = fit.confint()
    assert table["lower"][0] == pytest.approx(wald["lower"][0], abs=0.15)
    assert table["upper"][0] == pytest.approx(wald["upper"][0], abs=0.15)
    with pytest.raises(HmlmError, match="no parameter 'sigma'"):
        fit.confint("profile", parameters="sigma")


def test_gibbs_says_what_to_use_instead():
    with pytest.raises(HmlmError, match=r"'y' are known \('s'\): use hmlm\.NUTS"):
        model("se(y, s) ~ 1 + (1 | trial)", bcg()).fit(hmlm.Gibbs())


def test_what_has_no_plain_sigma_is_refused():
    frame = studies()
    design = model("y ~ x + (1 | lab)", frame).design
    family = dataclasses.replace(design.spec.family, link="log")
    linked = dataclasses.replace(design, spec=dataclasses.replace(design.spec, family=family))
    modelled = dataclasses.replace(
        design, distributional=(dataclasses.replace(design.predictors[0], name="sigma"),)
    )
    for method in (hmlm.REML(), hmlm.Gibbs(), hmlm.OLS()):
        with pytest.raises(HmlmError, match=r"the link is log: use hmlm\.NUTS"):
            method.run(linked)
        with pytest.raises(HmlmError, match="sigma has a formula of its own"):
            method.run(modelled)
    priors = resolve_priors(design)
    assert kernel_covers(linked, priors) == "the link is log"
    assert kernel_covers(modelled, priors) == "sigma has a formula of its own"


def test_effects_have_their_conditional_moments():
    case = model("se(y, s) ~ x + (1 | lab/study)", studies())
    design, posterior = case.design, posterior_of(case.design)
    parameters = posterior.parameters(posterior.start)
    repeated = {k: np.repeat(np.asarray(v)[None], 4000, axis=0) for k, v in parameters.items()}
    drawn = draw_effects(design, gaussian_sums(design), repeated, np.random.default_rng(3))
    V = outcome_covariance(design, {**parameters, "sigma": 1.0})
    solved = np.linalg.solve(V, design.y - design.X @ parameters["beta"])
    for block in design.blocks:
        mean = np.bincount(block.index, solved) * parameters[f"sd_{block.group}"] ** 2
        b = drawn[f"b_{block.group}"][:, :, 0]
        z = (b.mean(axis=0) - mean) / (b.std(axis=0) / np.sqrt(4000))
        assert np.abs(z).max() < 4.5
        assert np.sqrt((z**2).mean()) < 1.5


def test_the_exact_posterior_of_the_eight_schools(record_property):
    """Means and sds of mu, tau and every school within Monte Carlo error of quadrature."""
    eight = hmlm.load_dataset("eight_schools")
    case = model(SCHOOLS, eight, priors=EXACT_PRIORS)
    fit = case.fit(hmlm.NUTS(draws=2000), random_seed=5, progressbar=False)
    assert fit.status.converged
    assert "integrated out" in str(fit.status)
    exact = recorded("eight_schools_exact")["summary"]
    theta = fit.variable("b_school")[..., 0] + fit.variable("beta")
    draws = {"mu": fit.variable("beta")[..., 0], "tau": fit.variable("sd_school")[..., 0]}
    draws |= {f"theta[{k + 1}]": theta[..., k] for k in range(8)}
    assert set(draws) == set(exact)
    from arviz_stats.base import array_stats

    z = []
    for name, values in draws.items():
        assert values.shape == (4, 2000)
        wanted = exact[name]
        for quantity, target in (
            (values, wanted["mean"]),
            ((values - wanted["mean"]) ** 2, wanted["sd"] ** 2),
        ):
            ess = float(array_stats.ess(quantity, method="mean", chain_axis=0, draw_axis=1))
            z.append((quantity.mean() - target) / (quantity.std() / np.sqrt(ess)))
    assert np.abs(z).max() < 4
    assert np.sqrt(np.mean(np.square(z))) < 1.5
    record_property("trust", z_figures("eight schools", z))


def test_there_is_no_funnel():
    case = model(SCHOOLS, hmlm.load_dataset("eight_schools"), priors=EXACT_PRIORS)
    for seed in range(5):
        fit = case.fit(hmlm.NUTS(draws=300, tune=300), random_seed=seed, progressbar=False)
        assert not fit.draws["sample_stats"]["diverging"].any()
        assert repr(fit).endswith("4 x 300 draws>")
    assert "sigma" not in fit.draws["posterior"]


def test_side_by_side_has_no_pooling_too():
    table = hmlm.side_by_side(
        SCHOOLS, hmlm.load_dataset("eight_schools"), random_seed=1, progressbar=False
    )
    labels = list(dict.fromkeys(table.columns.get_level_values(0)))
    assert labels == ["OLS (complete pooling)", "OLS (no pooling)", "REML", "NUTS"]
    assert "residual" not in table.index.get_level_values("component")
    own = table["OLS (no pooling)"].loc[("total", "school", "A", "Intercept")]
    assert [own["estimate"], own["std_error"]] == pytest.approx([28, 15])
