"""Distributions of PyMC and PreliZ as priors: the same distribution by its name and parameters."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hmlm.errors import PriorError, listed

Found = tuple[str, dict[str, float]]

# Of each random variable of PyMC the name of the prior, and the names of its inputs in order. An
# input that PyMC always gives the same value, or that no prior has, begins with an underscore.
_PYMC: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "normal": ("normal", ("mu", "sigma")),
        "t": ("student-t", ("nu", "mu", "sigma")),
        "cauchy": ("cauchy", ("alpha", "beta")),
        "flat": ("flat", ()),
        "uniform": ("uniform", ("lower", "upper")),
        "halfnormal": ("half-normal", ("_loc", "sigma")),
        "halfstudentt": ("half-student-t", ("nu", "sigma")),
        "halfcauchy": ("half-cauchy", ("beta",)),
        "half_flat": ("half-flat", ()),
        "exponential": ("exponential", ("_scale",)),
        "gamma": ("gamma", ("alpha", "_scale")),
        "invgamma": ("inverse-gamma", ("alpha", "beta")),
        "lognormal": ("lognormal", ("mu", "sigma")),
        "beta": ("beta", ("alpha", "beta")),
        "lkjcorr": ("lkj", ("_n", "eta")),
    }
)
# What an input called _scale is, as the parameter that the prior has in its place.
_RATES = MappingProxyType({"exponential": "lam", "gamma": "beta"})
_PRELIZ: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Normal": ("normal", ("mu", "sigma")),
        "StudentT": ("student-t", ("nu", "mu", "sigma")),
        "Cauchy": ("cauchy", ("alpha", "beta")),
        "Uniform": ("uniform", ("lower", "upper")),
        "HalfNormal": ("half-normal", ("sigma",)),
        "HalfStudentT": ("half-student-t", ("nu", "sigma")),
        "HalfCauchy": ("half-cauchy", ("beta",)),
        "Exponential": ("exponential", ("lam",)),
        "Gamma": ("gamma", ("alpha", "beta")),
        "InverseGamma": ("inverse-gamma", ("alpha", "beta")),
        "LogNormal": ("lognormal", ("mu", "sigma")),
        "Beta": ("beta", ("alpha", "beta")),
    }
)
_KNOWN = (
    "Normal, StudentT, Cauchy, Flat, Uniform, HalfNormal, HalfStudentT, HalfCauchy, HalfFlat, "
    "Exponential, Gamma, InverseGamma, LogNormal, Beta and LKJCorr"
)
_INSTEAD = MappingProxyType(
    {
        "truncated_normal": "normal truncated at zero about mu=0 is HalfNormal",
        "TruncatedNormal": "normal truncated at zero about mu=0 is HalfNormal",
        "laplace": "the prior with heavier tails than the normal is StudentT",
        "Laplace": "the prior with heavier tails than the normal is StudentT",
        "LKJCholeskyCov": "give sds and correlations apart, as sd_<group> and cor_<group>",
    }
)


def convert_prior(key: str, distribution: Any) -> Found | None:
    """Return the name and parameters of a distribution of PyMC or PreliZ.

    Parameters
    ----------
    key : str
        The parameter whose prior it is, for the message of an error.
    distribution : object
        What the user gave. A PyMC distribution is one without a name, as
        ``pm.Normal.dist(0, 1)``; its inputs are numbers, or are made from numbers
        (``pm.Gamma.dist(mu=2, sigma=1)``). A PreliZ distribution has all its parameters.

    Returns
    -------
    tuple of str and dict, or None
        The name of the prior and its parameters; None where the object is of neither library.

    Raises
    ------
    PriorError
        If no prior of hmlm is the same distribution, or its parameters are not single numbers.

    Notes
    -----
    Both libraries have other parametrizations of the same distribution (``tau`` of a normal, mean
    and sd of a gamma, the scale of an exponential): what is converted is the distribution, in the
    parameters of `hmlm.Prior`. PreliZ is not needed for this: its distributions are known by
    their class and attributes.

    Examples
    --------
    >>> import pymc as pm
    >>> from hmlm.foreign_priors import convert_prior
    >>> convert_prior("x", pm.Normal.dist(mu=0, tau=4))
    ('normal', {'mu': 0.0, 'sigma': 0.5})
    """
    if _is_pymc_class(distribution):
        raise PriorError(
            f"the prior of '{key}' is the class pm.{distribution.__name__}: give it parameters, "
            f"as pm.{distribution.__name__}.dist(...)."
        )
    op = getattr(getattr(distribution, "owner", None), "op", None)
    if op is not None and "pytensor" in sys.modules:
        return _from_pymc(key, distribution, op)
    if hasattr(distribution, "params") and hasattr(distribution, "is_frozen"):
        return _from_preliz(key, distribution)
    return None


def _is_pymc_class(distribution: Any) -> bool:
    module = getattr(distribution, "__module__", "") or ""
    return isinstance(distribution, type) and module.startswith("pymc.distributions")


def _from_pymc(key: str, variable: Any, op: Any) -> Found:
    """Read the inputs of a random variable of PyMC."""
    kind = getattr(op, "name", None) or type(op).__name__.removesuffix("RV")
    if kind not in _PYMC:
        _refuse(key, "PyMC", kind)
    name, inputs = _PYMC[kind]
    given = variable.owner.inputs[2:]
    if variable.ndim != (2 if name == "lkj" else 0):
        raise PriorError(
            f"the prior of '{key}' is an array of {kind} distributions: give one "
            "distribution without a shape, which every coefficient of that name gets."
        )
    if len(given) != len(inputs):
        raise PriorError(
            f"the prior of '{key}' is a {kind} of PyMC with {len(given)} inputs, where hmlm knows "
            f"{len(inputs)}: write it as an hmlm.Prior."
        )
    values = [_constant(key, v, kind, part) for v, part in zip(given, inputs, strict=True)]
    found: dict[str, float] = {}
    for part, (value, digits) in zip(inputs, values, strict=True):
        if part == "_scale":
            found[_RATES[name]] = float(f"{1.0 / value:.{digits}g}")
        elif part == "_loc" and value != 0:
            raise PriorError(
                f"the prior of '{key}' is a {kind} of PyMC that begins at {value:g}: hmlm has "
                "those that begin at zero."
            )
        elif not part.startswith("_"):
            found[part] = float(f"{value:.{digits}g}")
    return name, found


def _constant(key: str, variable: Any, kind: str, part: str) -> tuple[float, int]:
    """Return the number that an input of a random variable stands for, and its exact digits."""
    from pymc.exceptions import NotConstantValueError
    from pymc.pytensorf import constant_fold

    try:
        (folded,) = constant_fold([variable], raise_not_constant=True)
    except NotConstantValueError:
        raise PriorError(
            f"the prior of '{key}' is a {kind} of PyMC whose {part.strip('_')} is itself a random "
            "variable or a variable of a model: give it a number. (A hierarchy of coefficients is "
            "written as a group term of the formula.)"
        ) from None
    number = np.asarray(folded, dtype=float)
    if number.size != 1:
        raise PriorError(
            f"the prior of '{key}' is a {kind} of PyMC with {number.size} values of "
            f"{part.strip('_')}: give it one number."
        )
    # PyTensor computes 1 / 3 in single precision, because 3 is exact in it.
    return float(number.reshape(())), 7 if np.asarray(folded).dtype == np.float32 else 17


def _from_preliz(key: str, distribution: Any) -> Found:
    """Read the attributes of a distribution of PreliZ."""
    kind = type(distribution).__name__
    if kind not in _PRELIZ:
        _refuse(key, "PreliZ", kind)
    name, parts = _PRELIZ[kind]
    found: dict[str, float] = {}
    missing = []
    for part in parts:
        value = getattr(distribution, part, None)
        if value is None:
            missing.append(part)
            continue
        try:
            found[part] = float(value)
        except (TypeError, ValueError):
            raise PriorError(
                f"the prior of '{key}' is a {kind} of PreliZ whose {part} is no single number: "
                f"{value!r:.40}."
            ) from None
    if missing or not distribution.is_frozen:
        raise PriorError(
            f"the prior of '{key}' is a {kind} of PreliZ without a value of "
            f"{listed(missing or parts)}: give it one, or fit the distribution first "
            "(preliz.maxent)."
        )
    return name, found


def _refuse(key: str, library: str, kind: str) -> None:
    """Raise the error of a distribution that no prior of hmlm is."""
    more = f" ({_INSTEAD[kind]}.)" if kind in _INSTEAD else ""
    raise PriorError(
        f"the prior of '{key}' is a {kind} of {library}, which hmlm has no prior for.{more} "
        f"It converts {_KNOWN}."
    )
