"""The log density of the prior at draws of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Design
from hmlm.errors import PriorError
from hmlm.estimates import find_effects
from hmlm.prior_distributions import log_lkj_density, log_prior_density
from hmlm.priors import Prior


def log_priors(
    design: Design, priors: ResolvedPriors, drawn: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the log density of the prior at draws, by parameter.

    Parameters
    ----------
    design : Design
        The model.
    priors : ResolvedPriors
        The priors.
    drawn : mapping of str to ndarray
        Draws of the variables, shape (..., dims of the variable). Group effects are needed only
        under no pooling, where they have priors of their own: under partial pooling their
        distribution given the sds is part of the model and no prior.

    Returns
    -------
    dict of str to ndarray
        By the names of the variables, shape (...) and the variable's own dimensions for
        coefficients, sds and family parameters; (...) for correlations and cutpoints. Densities
        are on the scale of the parameter itself, and where the prior of the intercept is centred,
        at the expected outcome at the average of the predictors.

    Examples
    --------
    >>> import numpy as np
    >>> import hmlm
    >>> from hmlm.default_priors import resolve_priors
    >>> design = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff")).design
    >>> priors = resolve_priors(design)
    >>> at = {"beta": np.array([1500.0]), "sd_Batch": np.array([40.0]), "sigma": np.array(50.0)}
    >>> {name: values.round(2).tolist() for name, values in log_priors(design, priors, at).items()}
    {'beta': [-5.99], 'sd_Batch': [-4.67], 'sigma': -4.8}
    """

    def columns(kinds: tuple[Prior, ...], values: np.ndarray) -> np.ndarray:
        parts = [log_prior_density(k, values[..., i]) for i, k in enumerate(kinds)]
        return np.stack(parts, axis=-1)

    found: dict[str, np.ndarray] = {}
    for variable in design.variables:
        name, p = variable.name, priors.predictor(variable.predictor)
        if variable.kind == "group" and design.spec.pooling == "partial":
            continue
        if name not in drawn:
            raise PriorError(f"the log prior needs draws of '{name}', which are not there.")
        values = np.asarray(drawn[name])
        if variable.kind == "population":
            centred = values + p.constant * (values @ p.x_means)[..., None]
            found[name] = columns(p.beta, centred)
        elif variable.kind == "sd":
            found[name] = columns(p.sd[variable.group], values)
        elif variable.kind == "group":
            found[name] = columns(p.b[variable.group], values)
        elif variable.kind == "cor":
            eta = p.cor[variable.group].parameters["eta"]
            block = find_effects(design, variable)
            found[name] = np.asarray(
                sum(log_lkj_density(eta, values[..., s, s]) for s in block.slices)
            )
        elif variable.kind == "cutpoint":
            assert priors.cutpoints is not None
            if "beta" in design.dims:
                values = values - (np.asarray(drawn["beta"]) @ p.x_means)[..., None]
            found[name] = log_prior_density(priors.cutpoints, values).sum(axis=-1)
        else:
            found[name] = log_prior_density(priors.parameters[name], values)
    return found
