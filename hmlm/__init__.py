"""Bayesian hierarchical models of grouped data, next to their classical estimates."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hmlm.version import __version__ as __version__

_HOME = {
    "Model": "hmlm.model",
    "Prior": "hmlm.priors",
    "NUTS": "hmlm.fitting.nuts",
    "Gibbs": "hmlm.fitting.gibbs",
    "OLS": "hmlm.fitting.ols",
    "GLM": "hmlm.fitting.irls",
    "Laplace": "hmlm.fitting.laplace",
    "ML": "hmlm.fitting.maximum_likelihood",
    "REML": "hmlm.fitting.maximum_likelihood",
    "EM": "hmlm.fitting.em",
    "BayesFit": "hmlm.fitting.bayes_fit",
    "ClassicalFit": "hmlm.fitting.classical_fit",
    "Comparison": "hmlm.comparison",
    "compare": "hmlm.comparison",
    "side_by_side": "hmlm.comparison",
    "likelihood_ratio_test": "hmlm.likelihood_ratio",
    "profile_likelihood": "hmlm.fitting.profile",
    "bootstrap_fit": "hmlm.fitting.bootstrap",
    "tidy": "hmlm.estimates",
    "load_dataset": "hmlm.datasets",
    "list_datasets": "hmlm.datasets",
    "plot_groups": "hmlm.plots.groups",
    "plot_shrinkage": "hmlm.plots.shrinkage",
    "Family": "hmlm.families",
    "split_variance": "hmlm.variance",
    "intraclass_correlation": "hmlm.variance",
    "design_effect": "hmlm.variance",
    "explained_variance": "hmlm.r_squared",
    "correlation_evidence": "hmlm.prior_overlap",
    "measure_pooling": "hmlm.pooling_factors",
    "impute_fit": "hmlm.imputation",
    "fit_many": "hmlm.slices",
    "predict_missing": "hmlm.missing_outcomes",
    "save_fit": "hmlm.storage",
    "load_fit": "hmlm.retrieval",
    "update_fit": "hmlm.refitting",
    "extend_fit": "hmlm.refitting",
    "check_fit": "hmlm.checks",
    "draw_replicates": "hmlm.replicates",
    "posterior_predictive_tree": "hmlm.replicates",
    "plot_ppc": "hmlm.plots.checks",
    "plot_ppc_groups": "hmlm.plots.checks",
    "plot_ppc_statistics": "hmlm.plots.checks",
    "plot_rootogram": "hmlm.plots.check_residuals",
    "plot_calibration": "hmlm.plots.check_residuals",
    "plot_residuals": "hmlm.plots.check_residuals",
    "leave_one_out": "hmlm.cross_validation",
    "leave_one_group_out": "hmlm.cross_validation",
    "k_fold": "hmlm.folds",
    "rank_fits": "hmlm.information",
    "draw_priors": "hmlm.prior_draws",
    "draw_prior_predictive": "hmlm.prior_draws",
    "imply_priors": "hmlm.implied_priors",
    "measure_sensitivity": "hmlm.sensitivity",
    "plot_priors": "hmlm.plots.priors",
    "plot_prior_predictive": "hmlm.plots.prior_predictive",
    "make_study": "hmlm.study",
    "simulate_outcomes": "hmlm.simulation",
    "plan_power": "hmlm.power_study",
    "calibrate": "hmlm.calibration",
    "examine": "hmlm.fitting.doctor",
    "treat": "hmlm.fitting.treatment",
    "plot_power": "hmlm.plots.power_curves",
    "plot_calibration_ranks": "hmlm.plots.calibration_ranks",
    "load": "hmlm.retrieval",
    "power": "hmlm.power_study",
    "average_predictions": "hmlm.marginal",
    "compare_predictions": "hmlm.marginal",
    "average_slopes": "hmlm.marginal",
    "grid_of": "hmlm.data_grid",
    "plot_predictions": "hmlm.plots.predictions",
    "plot_comparisons": "hmlm.plots.marginal",
    "plot_slopes": "hmlm.plots.marginal",
    "write_report": "hmlm.report",
    "conditional_aic": "hmlm.information",
    "plot_sizes": "hmlm.plots.sizes",
    "plot_conditional": "hmlm.plots.conditional",
    "plot_caterpillar": "hmlm.plots.caterpillar",
    "plot_variance": "hmlm.plots.shares",
    "plot_ranks": "hmlm.plots.ranks",
    "plot_group_predictor": "hmlm.plots.group_predictor",
    "iterate_groups": "hmlm.group_tables",
    "write_groups": "hmlm.group_tables",
    "estimate_at": "hmlm.pooling_limits",
    "weigh_groups": "hmlm.group_weights",
    "plot_funnel": "hmlm.plots.funnel",
    "plot_profile": "hmlm.plots.profiles",
    "plot_new_group": "hmlm.plots.new_group",
    "explore": "hmlm.exploration_page",
    "sample_groups": "hmlm.group_samples",
}

__all__ = [
    "EM",
    "GLM",
    "ML",
    "NUTS",
    "OLS",
    "REML",
    "BayesFit",
    "ClassicalFit",
    "Comparison",
    "Family",
    "Gibbs",
    "Laplace",
    "Model",
    "Prior",
    "average_predictions",
    "average_slopes",
    "bootstrap_fit",
    "calibrate",
    "check_fit",
    "compare",
    "compare_predictions",
    "conditional_aic",
    "correlation_evidence",
    "design_effect",
    "draw_prior_predictive",
    "draw_priors",
    "draw_replicates",
    "estimate_at",
    "examine",
    "explained_variance",
    "explore",
    "extend_fit",
    "fit_many",
    "grid_of",
    "imply_priors",
    "impute_fit",
    "intraclass_correlation",
    "iterate_groups",
    "k_fold",
    "leave_one_group_out",
    "leave_one_out",
    "likelihood_ratio_test",
    "list_datasets",
    "load",
    "load_dataset",
    "load_fit",
    "make_study",
    "measure_pooling",
    "measure_sensitivity",
    "plan_power",
    "plot_calibration",
    "plot_calibration_ranks",
    "plot_caterpillar",
    "plot_comparisons",
    "plot_conditional",
    "plot_funnel",
    "plot_group_predictor",
    "plot_groups",
    "plot_new_group",
    "plot_power",
    "plot_ppc",
    "plot_ppc_groups",
    "plot_ppc_statistics",
    "plot_predictions",
    "plot_prior_predictive",
    "plot_priors",
    "plot_profile",
    "plot_ranks",
    "plot_residuals",
    "plot_rootogram",
    "plot_shrinkage",
    "plot_sizes",
    "plot_slopes",
    "plot_variance",
    "posterior_predictive_tree",
    "power",
    "predict_missing",
    "profile_likelihood",
    "rank_fits",
    "sample_groups",
    "save_fit",
    "side_by_side",
    "simulate_outcomes",
    "split_variance",
    "tidy",
    "treat",
    "update_fit",
    "weigh_groups",
    "write_groups",
    "write_report",
]

if TYPE_CHECKING:
    from hmlm.calibration import calibrate
    from hmlm.checks import check_fit
    from hmlm.comparison import Comparison, compare, side_by_side
    from hmlm.cross_validation import leave_one_group_out, leave_one_out
    from hmlm.data_grid import grid_of
    from hmlm.datasets import list_datasets, load_dataset
    from hmlm.estimates import tidy
    from hmlm.exploration_page import explore
    from hmlm.families import Family
    from hmlm.fitting.bayes_fit import BayesFit
    from hmlm.fitting.bootstrap import bootstrap_fit
    from hmlm.fitting.classical_fit import ClassicalFit
    from hmlm.fitting.doctor import examine
    from hmlm.fitting.em import EM
    from hmlm.fitting.gibbs import Gibbs
    from hmlm.fitting.irls import GLM
    from hmlm.fitting.laplace import Laplace
    from hmlm.fitting.maximum_likelihood import ML, REML
    from hmlm.fitting.nuts import NUTS
    from hmlm.fitting.ols import OLS
    from hmlm.fitting.profile import profile_likelihood
    from hmlm.fitting.treatment import treat
    from hmlm.folds import k_fold
    from hmlm.group_samples import sample_groups
    from hmlm.group_tables import iterate_groups, write_groups
    from hmlm.group_weights import weigh_groups
    from hmlm.implied_priors import imply_priors
    from hmlm.imputation import impute_fit
    from hmlm.information import conditional_aic, rank_fits
    from hmlm.likelihood_ratio import likelihood_ratio_test
    from hmlm.marginal import average_predictions, average_slopes, compare_predictions
    from hmlm.missing_outcomes import predict_missing
    from hmlm.model import Model
    from hmlm.plots.calibration_ranks import plot_calibration_ranks
    from hmlm.plots.caterpillar import plot_caterpillar
    from hmlm.plots.check_residuals import plot_calibration, plot_residuals, plot_rootogram
    from hmlm.plots.checks import plot_ppc, plot_ppc_groups, plot_ppc_statistics
    from hmlm.plots.conditional import plot_conditional
    from hmlm.plots.funnel import plot_funnel
    from hmlm.plots.group_predictor import plot_group_predictor
    from hmlm.plots.groups import plot_groups
    from hmlm.plots.marginal import plot_comparisons, plot_slopes
    from hmlm.plots.new_group import plot_new_group
    from hmlm.plots.power_curves import plot_power
    from hmlm.plots.predictions import plot_predictions
    from hmlm.plots.prior_predictive import plot_prior_predictive
    from hmlm.plots.priors import plot_priors
    from hmlm.plots.profiles import plot_profile
    from hmlm.plots.ranks import plot_ranks
    from hmlm.plots.shares import plot_variance
    from hmlm.plots.shrinkage import plot_shrinkage
    from hmlm.plots.sizes import plot_sizes
    from hmlm.pooling_factors import measure_pooling
    from hmlm.pooling_limits import estimate_at
    from hmlm.power_study import plan_power, power
    from hmlm.prior_draws import draw_prior_predictive, draw_priors
    from hmlm.prior_overlap import correlation_evidence
    from hmlm.priors import Prior
    from hmlm.r_squared import explained_variance
    from hmlm.refitting import extend_fit, update_fit
    from hmlm.replicates import draw_replicates, posterior_predictive_tree
    from hmlm.report import write_report
    from hmlm.retrieval import load, load_fit
    from hmlm.sensitivity import measure_sensitivity
    from hmlm.simulation import simulate_outcomes
    from hmlm.slices import fit_many
    from hmlm.storage import save_fit
    from hmlm.study import make_study
    from hmlm.variance import design_effect, intraclass_correlation, split_variance


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'hmlm' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*__all__, "__version__"])
