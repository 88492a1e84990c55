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
    "Gibbs",
    "Laplace",
    "Model",
    "Prior",
    "bootstrap_fit",
    "compare",
    "likelihood_ratio_test",
    "list_datasets",
    "load_dataset",
    "plot_groups",
    "plot_shrinkage",
    "profile_likelihood",
    "side_by_side",
    "tidy",
]

if TYPE_CHECKING:
    from hmlm.comparison import Comparison, compare, side_by_side
    from hmlm.datasets import list_datasets, load_dataset
    from hmlm.estimates import tidy
    from hmlm.fitting.bayes_fit import BayesFit
    from hmlm.fitting.bootstrap import bootstrap_fit
    from hmlm.fitting.classical_fit import ClassicalFit
    from hmlm.fitting.em import EM
    from hmlm.fitting.gibbs import Gibbs
    from hmlm.fitting.irls import GLM
    from hmlm.fitting.laplace import Laplace
    from hmlm.fitting.maximum_likelihood import ML, REML
    from hmlm.fitting.nuts import NUTS
    from hmlm.fitting.ols import OLS
    from hmlm.fitting.profile import profile_likelihood
    from hmlm.likelihood_ratio import likelihood_ratio_test
    from hmlm.model import Model
    from hmlm.plots.groups import plot_groups
    from hmlm.plots.shrinkage import plot_shrinkage
    from hmlm.priors import Prior


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
