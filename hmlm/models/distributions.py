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
