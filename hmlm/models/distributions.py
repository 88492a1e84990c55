"""Priors as PyMC distributions, by fixed names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from hmlm.errors import HmlmError
from hmlm.priors import Prior

# Names of the distributions in PyMC, which takes the same names of parameters. (lkj: see below.)
DISTRIBUTIONS: Mapping[str, str] = MappingProxyType(
    {
        "normal": "Normal",
        "student-t": "StudentT",
        "cauchy": "Cauchy",
        "flat": "Flat",
        "uniform": "Uniform",
        "half-normal": "HalfNormal",
        "half-student-t": "HalfStudentT",
        "half-cauchy": "HalfCauchy",
        "half-flat": "HalfFlat",
        "exponential": "Exponential",
        "gamma": "Gamma",
        "inverse-gamma": "InverseGamma",
        "lognormal": "LogNormal",
        "beta": "Beta",
    }
)


def hush_blas() -> None:
    """Keep PyTensor from warning that it has no BLAS to link to.

    The warning is about PyTensor's C code. The densities here are compiled with Numba, which
    brings its own BLAS, and the advice (install by conda) is not for a user of hmlm. The flag
    itself stays as it is: whoever has a BLAS keeps it.
    """
    warnings.filterwarnings(
        "ignore", message="PyTensor could not link to a BLAS installation", category=UserWarning
    )


def scalar_variable(name: str, prior: Prior) -> Any:
    """Add a random variable of that name with a prior to the model in context."""
    import pymc as pm

    return getattr(pm, DISTRIBUTIONS[prior.name])(name, **_doubles(prior))


def _doubles(prior: Prior) -> dict[str, np.ndarray]:
    """Return parameters in double precision: PyTensor makes a plain 2.0 a single."""
    return {name: np.array(value) for name, value in prior.parameters.items()}


def array_variable(
    name: str, priors: Sequence[Prior], dims: tuple[str, ...], labels: Sequence[str]
) -> Any:
    """Add a variable whose last dimension has one prior an entry to the model in context.

    Parameters
    ----------
    name : str
        Name of the variable.
    priors : sequence of Prior
        One for each entry of the last dimension.
    dims : tuple of str
        Dimensions of the variable.
    labels : sequence of str
        Names of the entries of the last dimension.

    Returns
    -------
    TensorVariable
        One random variable where all priors are of one kind; else one a label, put together.
    """
    import pymc as pm
    import pytensor.tensor as pt

    if len({p.name for p in priors}) == 1:
        distribution = getattr(pm, DISTRIBUTIONS[priors[0].name])
        names = priors[0].parameters
        values = {n: np.array([p.parameters[n] for p in priors]) for n in names}
        return distribution(name, **values, dims=dims)
    parts = [
        getattr(pm, DISTRIBUTIONS[prior.name])(
            f"{name}[{label}]", **_doubles(prior), dims=dims[:-1] or None
        )
        for prior, label in zip(priors, labels, strict=True)
    ]
    return pm.Deterministic(name, pt.stack(parts, axis=-1), dims=dims)


def ordered_variable(name: str, prior: Prior, dims: tuple[str], start: np.ndarray) -> Any:
    """Add an increasing vector whose entries have one prior to the model in context.

    Its density is the product of the entries' densities where they increase, and zero elsewhere;
    up to a constant that of the sorted values of a sample from the prior.

    Parameters
    ----------
    name : str
        Name of the variable.
    prior : Prior
        Prior of every entry.
    dims : tuple of str
        Its dimension.
    start : ndarray
        Increasing values to start from.
    """
    import pymc as pm
    import pytensor.tensor as pt
    from pymc.distributions.shape_utils import rv_size_is_none
    from pytensor.tensor.sort import sort

    distribution = getattr(pm, DISTRIBUTIONS[prior.name])
    how = {"dims": dims, "transform": pm.distributions.transforms.ordered, "initval": start}
    if not prior.parameters:
        return distribution(name, **how)
    names = list(prior.parameters)

    def draw(*inputs: Any) -> Any:
        *values, size = inputs
        shape = None if rv_size_is_none(size) else pt.concatenate([size, [len(start)]])
        return sort(distribution.dist(**dict(zip(names, values, strict=True)), size=shape), -1)

    def log_density(value: Any, *values: Any) -> Any:
        entry = distribution.dist(**dict(zip(names, values, strict=True)))
        return pm.logp(entry, value).sum(axis=-1)

    return pm.CustomDist(
        name,
        *(np.full(len(start), value) for value in prior.parameters.values()),
        dist=draw,
        logp=log_density,
        class_name=f"Ordered{DISTRIBUTIONS[prior.name]}",
        signature=f"{','.join(['(k)'] * len(names))}->(k)",
        **how,
    )


def correlation_cholesky(name: str, prior: Prior, n: int) -> Any:
    """Add the Cholesky factor L of an LKJ correlation matrix LL' to the model in context.

    Raises
    ------
    HmlmError
        If PyMC's ``LKJCorr`` is not that factor: before 6.4 the same call gave the matrix itself.
    """
    import pymc as pm

    factor = pm.LKJCorr(name, n=n, **_doubles(prior))
    transform = pm.modelcontext(None).rvs_to_transforms[factor]
    example = transform.backward(np.ones(n * (n - 1) // 2), *factor.owner.inputs)
    if abs(float(example.eval(mode="FAST_COMPILE")[0, -1])) > 1e-12:
        raise HmlmError(
            f"LKJCorr of PyMC {pm.__version__} is not the Cholesky factor that hmlm takes it for: "
            "install PyMC 6.4 or newer, pip install 'pymc>=6.4'."
        )
    return factor
