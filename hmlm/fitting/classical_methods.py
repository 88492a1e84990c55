"""Which classical methods fit a model, by its family."""

from __future__ import annotations

from typing import Any

from hmlm.design import Design
from hmlm.fitting.irls import GLM
from hmlm.fitting.laplace import Laplace
from hmlm.fitting.maximum_likelihood import REML
from hmlm.fitting.ols import OLS
from hmlm.likelihoods.exponential import SUPPORTED


def classical_methods(design: Design) -> tuple[Any, Any]:
    """Return the methods of the classical fits without and with partial pooling; None where none.

    Parameters
    ----------
    design : Design
        The model; its pooling does not matter.

    Returns
    -------
    plain : OLS, GLM or None
        For complete and no pooling.
    pooling : REML, Laplace or None
        For partial pooling.

    Examples
    --------
    >>> import hmlm
    >>> cbpp = hmlm.load_dataset("cbpp")
    >>> model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, family="binomial")
    >>> [str(method) for method in classical_methods(model.design)]
    ['GLM', 'Laplace']
    """
    family = design.spec.family
    if design.distributional:
        return None, None
    if str(family) == "gaussian":
        return OLS(), REML()
    return (GLM(), Laplace()) if family.name in SUPPORTED else (None, None)
