"""EM algorithms: the same optimum as ML and REML, reached uphill, with a trace that tells how."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support import RECORDED, make, outcome_covariance, simulate

from hmlm.comparison import compare
from hmlm.datasets import load_dataset
from hmlm.errors import HmlmError
from hmlm.families import get_family
from hmlm.fitting.em import EM
from hmlm.fitting.maximum_likelihood import ML, REML
from hmlm.likelihoods.crossed import Crossed
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.effects import effect_moments
from hmlm.likelihoods.em_steps import em_factors, expected_squares, residual_variance
from hmlm.likelihoods.gaussian import gaussian_sums
from hmlm.likelihoods.profiled import profiled_deviance, split_theta
from hmlm.likelihoods.tree import Tree

ALGORITHMS = ("ecme", "px-em", "em")
# Where the optimum is at the edge, only PX-EM gets there in reasonable time.
INSIDE = {name: case for name, case in RECORDED.items() if "dyestuff2" not in name}


@cache
def em_fit(name, algorithm, reml):
    """Fit a recorded model by EM."""
    data, formula, _ = RECORDED[name]
    return EM(algorithm=algorithm, reml=reml).run(make(formula, load_dataset(data)))


@cache
def exact_fit(name, reml):
    data, formula, _ = RECORDED[name]
    return (REML() if reml else ML()).run(make(formula, load_dataset(data)))


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", INSIDE)
def test_em_ends_where_ml_and_reml_do(name, algorithm, reml):
    ours, exact = em_fit(name, algorithm, reml), exact_fit(name, reml)
    assert ours.status.converged, ours.status
    assert ours.log_likelihood == pytest.approx(exact.log_likelihood, abs=3e-9)
    assert (ours.n_parameters, ours.n_effective) == (exact.n_parameters, exact.n_effective)
    error = exact.std_errors["beta"]
    np.testing.assert_array_less(
        abs(ours.estimates["beta"] - exact.estimates["beta"]), 1e-3 * error
    )
    np.testing.assert_allclose(ours.vcov, exact.vcov, rtol=1e-3, atol=1e-3 * error.min() ** 2)
    np.testing.assert_allclose(ours.df, exact.df, rtol=1e-4)
    for key, value in exact.estimates.items():
        if key.startswith(("sd_", "sigma")):
            np.testing.assert_allclose(ours.estimates[key], value, rtol=3e-4)
        elif key.startswith("cor_"):
            np.testing.assert_allclose(ours.estimates[key], value, atol=1e-3)
        elif key.startswith("b_"):
            sd = exact.std_errors[key]
            np.testing.assert_array_less(abs(ours.estimates[key] - value), 5e-3 * sd)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", RECORDED)
def test_every_step_raises_the_likelihood(name, algorithm, reml):
    fit = em_fit(name, algorithm, reml)
    rise = np.diff(fit.trace["log_likelihood"])
    assert rise.min() > -1e-14 * abs(fit.log_likelihood) * 100
    assert (rise[:2] > 0).all()
    assert fit.trace["log_likelihood"].iloc[-1] == fit.log_likelihood


def test_ecme_and_px_em_need_the_known_numbers_of_steps():
    best = exact_fit("sleepstudy_reml", True).log_likelihood
    needed = {}
    for algorithm in ALGORITHMS:
        trace = em_fit("sleepstudy_reml", algorithm, True).trace
        needed[algorithm] = int(np.argmax(trace["log_likelihood"] > best - 1e-7))
    assert needed == {"ecme": 20, "px-em": 7, "em": 18}


def test_trace_is_on_the_scale_of_the_estimates():
    fit = em_fit("sleepstudy_reml", "ecme", True)
    assert fit.trace.index.name == "iteration"
    assert fit.trace.index[0] == 0
    assert fit.trace.index[-1] == fit.status.numbers["iterations"]
    last = fit.trace.iloc[-1]
    assert list(last.index) == [
        "log_likelihood",
        "sd_Subject[Intercept]",
        "sd_Subject[Days]",
        "cor_Subject[Intercept, Days]",
        "sigma",
    ]
    np.testing.assert_allclose(last.iloc[1:3], fit.estimates["sd_Subject"])
    assert last.iloc[3] == pytest.approx(fit.estimates["cor_Subject"][0, 1])
    assert last["sigma"] == pytest.approx(float(fit.estimates["sigma"]))


def test_other_fits_have_no_trace(sleepstudy_reml):
    assert sleepstudy_reml.trace is None


def _crossed(levels):
    rng = np.random.default_rng(4)
    frame, _ = simulate(4, groups=levels, size=6)
    h = rng.integers(0, 110, len(frame))
    return frame.assign(h=h, y=frame["y"] + rng.normal(0, 0.5, 110)[h])


@pytest.mark.parametrize(
    ("formula", "frame", "kind"),
    [
        ("y ~ x + (x | g)", simulate(1)[0].assign(x=np.tile(np.arange(6.0), 40)), OneFactor),
        ("y ~ x + (x | g)", simulate(1)[0], Tree),
        ("y ~ x + (x || g)", simulate(1)[0], Tree),
        ("strength ~ 1 + (1 | batch/cask)", load_dataset("pastes"), Tree),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", load_dataset("penicillin"), Tree),
        ("y ~ x + (x | g) + (1 | h)", _crossed(120), Crossed),
    ],
)
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_expected_squares_are_those_of_the_conditional_moments(formula, frame, kind, reml):
    design = make(formula, frame)
    sums = gaussian_sums(design)
    assert isinstance(sums, kind)
    factors = em_factors(design, sums)
    rng = np.random.default_rng(2)
    theta = np.concatenate(
        [np.where(f.shape.is_diagonal, 1, 0) + 0.3 * rng.random(f.shape.size) for f in factors]
    )
    point = profiled_deviance(theta, sums, reml, sigma2=0.7)
    moments = effect_moments(sums, point)
    vcov = point.sigma2 * sums.basis.covariance_to_user(point.K_inverse)
    parts, gradients = split_theta(theta, sums), split_theta(point.gradient, sums)
    for factor, part, gradient in zip(factors, parts, gradients, strict=True):
        moment = moments.get(factor.block.group) or moments[""]
        second = np.einsum("ja,jb->ab", moment.modes, moment.modes) + moment.covariance.sum(axis=0)
        if reml:
            second += np.einsum("jap,pr,jbr->ab", moment.gain, vcov, moment.gain)
        half = factor.T @ factor.shape.unpack(part)
        ours = half @ expected_squares(factor, factor.shape.unpack(part), gradient) @ half.T
        wanted = second / len(factor.block.levels) / point.sigma2
        np.testing.assert_allclose(ours[factor.joint], wanted[factor.joint], rtol=1e-8)


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_expected_residuals_are_those_of_the_dense_model(reml):
    design = make("y ~ x + (x | g)", simulate(6, groups=10)[0])
    sums = gaussian_sums(design)
    theta, sigma2 = np.array([0.8, 0.2, 0.5]), 0.5
    point = profiled_deviance(theta, sums, reml, sigma2=sigma2)
    (factor,) = em_factors(design, sums)
    half = factor.T @ factor.shape.unpack(theta)
    D = sigma2 * half @ half.T
    sd = np.sqrt(np.diagonal(D))
    V = outcome_covariance(
        design, {"sd_g": sd, "cor_g": D / np.outer(sd, sd), "sigma": np.sqrt(sigma2)}
    )
    X, y, P = design.X, design.response, np.linalg.inv(V)
    project = P - P @ X @ np.linalg.inv(X.T @ P @ X) @ X.T @ P
    # e = sigma^2 P r given the data, with covariance sigma^2 I - sigma^4 P (ML) or the like with
    # the projection in place of P (REML).
    mean = sigma2 * project @ y
    left = sigma2 * len(y) - sigma2**2 * np.trace(project if reml else P)
    wanted = (mean @ mean + left) / len(y)
    assert residual_variance(sums, theta, point, reml) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("algorithm", ["ecme", "em"])
def test_creeping_to_a_variance_of_zero_is_explained(algorithm):
    fit = em_fit("dyestuff2_reml", algorithm, True)
    assert not fit.status.converged
    (problem,) = fit.status.problems
    name = algorithm.upper()
    assert problem.startswith(f"{name} stopped after 1,000 iterations, before it converged")
    assert (
        "The variance of Intercept between the levels of 'Batch' is on its way to zero" in problem
    )
    assert "about 1/t after t steps" in problem
    assert "hmlm.EM(algorithm='px-em')" in problem
    assert "hmlm.REML() goes to the edge at once" in problem
    assert fit.status.numbers["iterations"] == 1000
    variance = fit.trace["sd_Batch[Intercept]"] ** 2
    assert variance[1000] / variance[500] == pytest.approx(0.5, abs=0.02)


def test_px_em_gets_to_the_edge(dyestuff2_reml):
    fit = em_fit("dyestuff2_reml", "px-em", True)
    assert fit.status.converged
    assert fit.status.numbers["iterations"] < 40
    assert fit.log_likelihood == pytest.approx(dyestuff2_reml.log_likelihood, abs=3e-9)
    assert fit.status.numbers["singular"] == 1
    assert any("Singular fit" in note for note in fit.status.notes)
    sd = fit.trace["sd_Batch[Intercept]"].to_numpy()
    assert sd[-1] / sd[-2] == pytest.approx(sd[-2] / sd[-3], rel=0.01)


def test_creeping_to_a_perfect_correlation_is_explained():
    frame, _ = simulate(19, groups=12, size=4, sd=(0.8, 0.3), cor=0.95)
    design = make("y ~ x + (x | g)", frame)
    exact = REML().run(design)
    assert abs(exact.estimates["cor_g"][0, 1]) == pytest.approx(1)
    fit = EM(max_iterations=200).run(design)
    (problem,) = fit.status.problems
    assert "The effects of Intercept, x by 'g' are on their way to perfect dependence" in problem


def test_stopping_short_of_an_ordinary_optimum_is_said(radon):
    design = make("log_radon ~ floor + log_uranium + (floor | county)", radon)
    fit = EM(reml=False, max_iterations=20).run(design)
    assert not fit.status.converged
    (problem,) = fit.status.problems
    assert "ECME stopped after 20 iterations" in problem
    assert "Raise max_iterations, or use hmlm.EM(algorithm='px-em') or hmlm.ML()" in problem
    assert "on its way" not in problem
    (problem,) = EM(algorithm="px-em", max_iterations=1).run(design).status.problems
    assert problem.endswith("or use hmlm.REML().")
    assert "nan" not in problem


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "formula",
    ["y ~ 0 + (1 | g)", "y ~ f + (f | g)", "y ~ x + offset(z) + (1 | g) + (0 + x | g)"],
)
def test_other_models_of_one_factor(table, formula, algorithm):
    rng = np.random.default_rng(3)
    effect = rng.normal(size=(6, 3)) @ np.array([[1.5, 0.3, 0], [0, 1.0, 0.5], [0, 0, 1.2]])
    g = np.repeat(np.arange(6), 10)
    codes = table["f"].cat.codes.to_numpy()
    frame = table.assign(
        y=table["y"] + effect[g, 0] + effect[g, codes] + effect[g, 2] * table["x"],
        w=rng.uniform(0.5, 2.0, len(table)),
    )
    design = make(formula, frame, weights="w")
    exact = REML().run(design)
    fit = EM(algorithm=algorithm, max_iterations=2000).run(design)
    assert np.diff(fit.trace["log_likelihood"]).min() > -1e-9
    if exact.status.numbers["singular"] == 0:
        assert fit.status.converged
        assert fit.log_likelihood == pytest.approx(exact.log_likelihood, abs=1e-7)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_crossed_factors_with_many_levels(algorithm):
    design = make("y ~ x + (x | g) + (1 | h)", _crossed(120))
    best = REML().run(design).log_likelihood
    fit = EM(algorithm=algorithm).run(design)
    assert np.diff(fit.trace["log_likelihood"]).min() > -1e-9
    assert fit.log_likelihood == pytest.approx(best, abs=1e-8)


def test_scale_of_a_predictor_changes_nothing():
    frame, _ = simulate(5)
    method = EM(algorithm="px-em", reml=False)
    fit = method.run(make("y ~ x + (x | g)", frame))
    again = method.run(make("y ~ x + (x | g)", frame.assign(x=frame["x"] * 1e6)))
    np.testing.assert_allclose(
        again.trace["log_likelihood"][:5], fit.trace["log_likelihood"][:5], rtol=1e-9
    )


def test_name_says_which_likelihood_and_which_algorithm():
    assert str(EM()) == "REML by ECME"
    assert str(EM(algorithm="px-em", reml=False)) == "ML by PX-EM"
    assert em_fit("sleepstudy_reml", "em", True).label == "REML by EM"


def test_restricted_likelihoods_of_different_models_do_not_compare(sleepstudy):
    fits = [
        EM(reml=reml).run(make(f"Reaction ~ {x} + (1 | Subject)", sleepstudy))
        for x in ("1", "Days")
        for reml in (True, False)
    ]
    compare(fits[1], fits[3])
    with pytest.raises(HmlmError, match="different fixed effects"):
        compare(fits[0], fits[2])


def test_what_cannot_be_fitted_is_refused(table):
    with pytest.raises(HmlmError, match="REML by ECME estimates how much to pool"):
        EM().run(make("y ~ x + (1 | g)", table, "complete"))
    with pytest.raises(HmlmError, match="add a group term"):
        EM().run(make("y ~ x", table))
    design = make("y ~ x + (1 | g)", table)
    counts = replace(design.spec, family=get_family("poisson"))
    with pytest.raises(HmlmError, match="fits gaussian models; the family is poisson"):
        EM().run(replace(design, spec=counts))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "sem"}, "algorithm is 'ecme', 'px-em' or 'em', not 'sem'"),
        ({"reml": "yes"}, "reml is True or False"),
        ({"max_iterations": 0}, "max_iterations must be a whole number, at least 1, not 0"),
        ({"max_iterations": 2.5}, "whole number"),
        ({"tolerance": 0}, "tolerance must be a positive number"),
        ({"tolerance": float("nan")}, "tolerance must be a positive number"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(HmlmError, match=message):
        EM(**settings)
