"""Design and priors become a PyMC model: the specification, readable and open to extension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hmlm.cells import needs_rows
from hmlm.default_priors import ResolvedPriors, resolve_priors
from hmlm.design import Design
from hmlm.errors import HmlmError, listed, suggest
from hmlm.models.centering import choose_centered
from hmlm.models.coefficients import add_population
from hmlm.models.covariance import add_groups
from hmlm.models.distributions import hush_blas
from hmlm.models.likelihood import add_likelihood

if TYPE_CHECKING:
    import pymc as pm


def build_model(
    design: Design,
    priors: ResolvedPriors | None = None,
    centered: bool | Mapping[str, bool] | None = None,
) -> pm.Model:
    """Write a design as a PyMC model.

    Parameters
    ----------
    design : Design
        Arrays and coordinates.
    priors : ResolvedPriors, optional
        The priors; those of `resolve_priors` when None.
    centered : bool or mapping of str to bool, optional
        Whether group effects are written in their centred form, for all grouping factors or by
        name; chosen by `choose_centered` where not given. The density of ``beta``, ``sd``,
        ``cor``, ``sigma`` and ``b`` is the same in both forms. Effects of further linear
        predictors (``sigma ~ (1 | g)``) are always non-centred, for their rows say little.

    Returns
    -------
    pymc.Model
        With the variables, dims and coords of the design (``beta``, ``sd_<group>``,
        ``cor_<group>``, ``b_<group>``, the family's parameters such as ``sigma``, ``cutpoints``;
        ``<name>_beta`` and so on for further linear predictors), the observed variable ``y``, and
        whatever these are made from (``beta_centered``, ``chol_<group>``, ``z_<group>``). Columns,
        indices and outcome are data containers: ``X``, ``Z_<group>``, ``index_<group>``,
        ``weights``, ``trials``, ``y_observed``.

    Raises
    ------
    HmlmError
        If `centered` names no grouping factor, or the family has no likelihood.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.models.build import build_model
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> design = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).design
    >>> [variable.name for variable in build_model(design, centered=True).free_RVs]
    ['beta_centered', 'sd_Subject', 'chol_Subject', 'b_Subject', 'sigma']

    Counts out of trials, herds of cattle with cases of a disease:

    >>> import pandas as pd
    >>> herds = pd.DataFrame(
    ...     {"herd": list("aabbcc"), "cases": [2, 3, 0, 1, 4, 2], "size": [14, 12, 9, 5, 22, 18]}
    ... )
    >>> model = hmlm.Model("p(cases, size) ~ 1 + (1 | herd)", herds, family="binomial")
    >>> build_model(model.design, centered=False).basic_RVs
    [beta_centered, sd_herd, z_herd, y]
    """
    group = next(iter(design.spec.groups), "group")
    needs_rows(design.cells, "The PyMC model", group, "Fits of the compiled density do not")
    hush_blas()
    import pymc as pm

    priors = resolve_priors(design) if priors is None else priors
    chosen = resolve_centered(design, centered)
    with pm.Model(coords={d: v for d, v in design.coords.items() if len(v)}) as model:
        pooled = design.spec.pooling == "partial"
        mean, *further = design.predictors
        eta = add_population(mean, priors) + add_groups(mean, priors, pooled, chosen)
        others = {}
        for predictor in further:
            own = priors.predictor(predictor.name)
            others[predictor.name] = add_population(predictor, own) + add_groups(
                predictor, own, pooled
            )
        add_likelihood(design, priors, eta, others)
    return model


def resolve_centered(
    design: Design, centered: bool | Mapping[str, bool] | None = None
) -> dict[str, bool]:
    """Return for each grouping factor whether its effects are centred; see `build_model`."""
    groups = [b.group for b in design.blocks if design.spec.pooling == "partial"]
    if isinstance(centered, bool):
        return dict.fromkeys(groups, centered)
    given = {} if centered is None else dict(centered)
    for group, value in given.items():
        if group not in design.spec.groups:
            raise HmlmError(
                f"centered names '{group}', which is no grouping factor."
                f"{suggest(group, design.spec.groups)} Known: {listed(design.spec.groups)}."
            )
        if not isinstance(value, bool):
            raise HmlmError(f"centered['{group}'] is True or False, not {value!r}.")
    if set(groups) <= set(given):
        return {g: given[g] for g in groups}
    return {**choose_centered(design), **{g: v for g, v in given.items() if g in groups}}
