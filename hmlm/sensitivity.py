"""How much a posterior leans on its prior: sensitivity by power-scaling."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.estimates import COMPONENTS, find_effects, term_label
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.integrated_likelihood import integrate_likelihood
from hmlm.prior_densities import log_priors

ALPHAS = (0.99, 1.01)
_MOST_NUMBERS = 2**26
VERDICTS = {
    "conflict": "prior and data may disagree",
    "prior": "the prior drives it",
    "data": "the data decide",
    "neither": "neither moves it",
}


def measure_sensitivity(
    fit: BayesFit, threshold: float = 0.05, groups: bool = False
) -> pd.DataFrame:
    """Measure how the posterior of every parameter moves when prior or likelihood is scaled.

    The density of the prior is raised to a power a little below and above one, as if it said a
    little less or more, and the draws are weighted anew by Pareto-smoothed importance sampling;
    then the same is done to the likelihood [1]_. Nothing is fitted again.

    Parameters
    ----------
    fit : BayesFit
        A fit by sampling.
    threshold : float
        Sensitivity from which a parameter counts as sensitive, 0.05 in [1]_.
    groups : bool
        Whether to have group effects in the table.

    Returns
    -------
    pandas.DataFrame
        One row a parameter, with the columns:

        - ``component, group, level, term`` as in `hmlm.tidy`;
        - ``prior, likelihood``: sensitivities, the rate at which the cumulative Jensen-Shannon
          distance from the posterior grows with the logarithm of the power to base two;
        - ``verdict``: "the data decide" (sensitive to the likelihood alone), "the prior drives it"
          (to the prior alone: a strong prior or weak data), "prior and data may disagree" (to
          both: each pulls the posterior its own way, or the data are few) or "neither moves it";
        - ``driver``: of a parameter that is sensitive to the prior, the parameter in
          ``model.priors`` whose own prior, scaled alone, moves it most;
        - ``advice``: what to do, in a sentence.

    Raises
    ------
    HmlmError
        If the fit is classical, so that it has no prior, or the threshold is not positive.

    Notes
    -----
    What is scaled as the prior are the priors of coefficients, sds, correlations and family
    parameters. What is scaled as the likelihood is p(y | parameters), the group effects integrated
    out by the approximation of Laplace (exactly for gaussian outcomes), so that groups count as
    data about the sds between them and about the coefficients. Densities are those of the
    parameters as they are, not of their logarithms. Where there are more than 67 million log
    likelihoods of rows, draws are thinned. The sensitivities are from ArviZ's ``psense``.

    A parameter that is sensitive to the prior is not wrong: with few groups the sd between them
    has to lean on its prior. It has to be reported, and the prior has to be one that can be
    defended.

    References
    ----------
    .. [1] Kallioinen, Paananen, Bürkner and Vehtari (2023), Detecting and diagnosing prior and
       likelihood sensitivity with power-scaling, Statistics and Computing 34, 57.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.sensitivity import measure_sensitivity
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> tight = model.with_priors(Days=hmlm.Prior("normal", mu=0, sigma=1))
    >>> fit = tight.fit(hmlm.NUTS(draws=500), random_seed=1, progressbar=False)
    >>> measure_sensitivity(fit).set_index("term")["verdict"]["Days"]
    'prior and data may disagree'
    """
    if not isinstance(fit, BayesFit):
        raise HmlmError(
            f"{getattr(fit, 'label', 'this')} has no prior to be sensitive to: fit the model by "
            "hmlm.NUTS() to measure it."
        )
    if not threshold > 0:
        raise HmlmError(f"threshold must be positive, such as 0.05, not {threshold}.")
    design = fit.design
    chains, n = fit._shape
    step = math.ceil(chains * n * len(design.y) / _MOST_NUMBERS)
    kept = range(0, n, step)
    drawn = {v.name: fit.variable(v.name)[:, ::step] for v in design.variables}
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in drawn.items()}
    likelihood = integrate_likelihood(design, flat).reshape(chains, len(kept))
    parts = _by_entry(fit, log_priors(design, fit.priors, drawn))
    keys, values = _parameters(design, drawn, groups)
    prior = _sense(values, np.sum([*parts.values()], axis=0))
    table = pd.DataFrame(keys)
    table["prior"] = prior
    table["likelihood"] = _sense(values, likelihood)
    drivers = np.full(len(table), "", dtype=object)
    flagged = np.flatnonzero(prior >= threshold)
    if len(flagged):
        alone = np.array([_sense(values[..., flagged], part) for part in parts.values()])
        names = np.array([*parts], dtype=object)
        drivers[flagged] = names[np.argmax(np.nan_to_num(alone), axis=0)]
    table["verdict"] = [
        _verdict(a, b, threshold) for a, b in zip(table["prior"], table["likelihood"], strict=True)
    ]
    table["driver"] = drivers
    written = {e.parameter: str(e.prior) for e in fit.priors.entries}
    table["advice"] = [
        _advice(verdict, driver, written)
        for verdict, driver in zip(table["verdict"], table["driver"], strict=True)
    ]
    return table


def _by_entry(fit: BayesFit, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return log densities by the names that parameters have in the table of priors."""
    design, parts = fit.design, {}
    predictors = {p.name: p for p in design.predictors}
    for variable in design.variables:
        if variable.name not in found:
            continue
        values, p = found[variable.name], predictors[variable.predictor]
        if variable.kind == "population":
            names = [p.named(t) for t in p.terms]
        elif variable.kind in ("sd", "group"):
            block = find_effects(design, variable)
            kind = "sd" if variable.kind == "sd" else "b"
            names = [p.named(f"{kind}_{block.group}[{c}]") for c in block.columns]
            if variable.kind == "group":
                values = values.sum(axis=-2)
        else:
            parts[variable.name] = values
            continue
        parts |= {name: values[..., k] for k, name in enumerate(names)}
    return parts


def _parameters(
    design: Design, drawn: Mapping[str, np.ndarray], groups: bool
) -> tuple[dict[str, list[Any]], np.ndarray]:
    """Return the keys of every parameter, and its draws on the last axis."""
    keys: dict[str, list[Any]] = {"component": [], "group": [], "level": [], "term": []}
    pieces = []
    for variable in design.variables:
        if variable.kind == "group" and not groups:
            continue
        values = drawn[variable.name]
        names, levels = [variable.name], [""]
        if variable.kind in ("sd", "cor", "group"):
            block = find_effects(design, variable)
            names = [term_label(design, variable.predictor, c) for c in block.columns]
        if variable.kind == "group":
            levels = [str(level) for level in block.levels]
        elif variable.kind == "cor":
            pairs = [
                (i, j)
                for s in block.slices
                for i in range(s.start, s.stop)
                for j in range(i + 1, s.stop)
            ]
            values = np.stack([values[..., i, j] for i, j in pairs], axis=-1)
            names = [f"{names[i]}, {names[j]}" for i, j in pairs]
        elif variable.kind == "population":
            terms = design.coords[variable.dims[0]]
            names = [term_label(design, variable.predictor, t) for t in terms]
        elif variable.kind == "cutpoint":
            names = list(design.coords[variable.dims[0]])
        pieces.append(values.reshape(*values.shape[:2], -1))
        keys["component"] += [COMPONENTS.get(variable.kind, variable.kind)] * pieces[-1].shape[-1]
        keys["group"] += [variable.group] * pieces[-1].shape[-1]
        keys["level"] += [level for level in levels for _ in names]
        keys["term"] += names * len(levels)
    if not pieces:
        raise HmlmError("the model has group effects only: pass groups=True to measure theirs.")
    return keys, np.concatenate(pieces, axis=-1)


def _sense(values: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """Return the sensitivity of every parameter to a part of the density.

    Parameters
    ----------
    values : ndarray, shape (chains, draws, parameters)
        Draws.
    log_density : ndarray, shape (chains, draws)
        What is scaled. A constant, as of a flat prior, moves nothing.
    """
    if not log_density.std() > 0:
        return np.zeros(values.shape[-1])
    import xarray as xr
    from arviz_stats.psense import psense

    dims = ("chain", "draw", "parameter")
    scaled = xr.Dataset({"density": (dims, log_density[..., None])})
    posterior = xr.Dataset({"values": (dims, values)})
    tree = xr.DataTree.from_dict({"posterior": posterior, "log_prior": scaled})
    with np.errstate(divide="ignore", invalid="ignore"):
        found = psense(tree, group="prior", alphas=ALPHAS, sample_dims=["chain", "draw"])
    return np.asarray(found["values"])


def _verdict(prior: float, likelihood: float, threshold: float) -> str:
    if np.isnan(prior) or np.isnan(likelihood):
        return ""
    if prior >= threshold:
        return VERDICTS["conflict" if likelihood >= threshold else "prior"]
    return VERDICTS["data" if likelihood >= threshold else "neither"]


def _advice(verdict: str, driver: str, written: Mapping[str, str]) -> str:
    if not driver:
        return ""
    key = re.sub(r"\[[^\]]*\]$", "", driver) if re.match(r"(.*_)?(sd|b)_", driver) else driver
    now = f"the prior of {driver}, {written.get(driver, '')}"
    change = f"priors={{{key!r}: ...}}"
    if verdict == VERDICTS["prior"]:
        return (
            f"Its posterior is largely {now}: defend that prior, show how results change under "
            f"another ({change}), or get more data."
        )
    return (
        f"{now[0].upper()}{now[1:]}, moves it as the data do: they are few, or it pulls against "
        f"them. Check both, and give a wider prior ({change}) unless this one is what you know."
    )
