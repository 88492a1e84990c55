"""Prior distributions, as plain named values that both the kernel and PyMC understand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from hmlm.errors import PriorError, listed, suggest
from hmlm.foreign_priors import convert_prior

Support = Literal["real", "positive", "interval", "unit", "correlation"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PriorKind:
    """Facts about one kind of prior: its parameters in order with defaults, and its support."""

    parameters: Mapping[str, float | None]
    support: Support
    positive: tuple[str, ...] = ()


PRIOR_KINDS: Mapping[str, PriorKind] = MappingProxyType(
    {
        "normal": PriorKind(
            parameters={"mu": 0.0, "sigma": None}, support="real", positive=("sigma",)
        ),
        "student-t": PriorKind(
            parameters={"nu": None, "mu": 0.0, "sigma": None},
            support="real",
            positive=("nu", "sigma"),
        ),
        "cauchy": PriorKind(
            parameters={"alpha": 0.0, "beta": None}, support="real", positive=("beta",)
        ),
        "flat": PriorKind(parameters={}, support="real"),
        "uniform": PriorKind(parameters={"lower": None, "upper": None}, support="interval"),
        "half-normal": PriorKind(
            parameters={"sigma": None}, support="positive", positive=("sigma",)
        ),
        "half-student-t": PriorKind(
            parameters={"nu": None, "sigma": None}, support="positive", positive=("nu", "sigma")
        ),
        "half-cauchy": PriorKind(parameters={"beta": None}, support="positive", positive=("beta",)),
        "half-flat": PriorKind(parameters={}, support="positive"),
        "exponential": PriorKind(parameters={"lam": None}, support="positive", positive=("lam",)),
        "gamma": PriorKind(
            parameters={"alpha": None, "beta": None}, support="positive", positive=("alpha", "beta")
        ),
        "inverse-gamma": PriorKind(
            parameters={"alpha": None, "beta": None}, support="positive", positive=("alpha", "beta")
        ),
        "lognormal": PriorKind(
            parameters={"mu": 0.0, "sigma": None}, support="positive", positive=("sigma",)
        ),
        "beta": PriorKind(
            parameters={"alpha": None, "beta": None}, support="unit", positive=("alpha", "beta")
        ),
        "lkj": PriorKind(parameters={"eta": 1.0}, support="correlation", positive=("eta",)),
    }
)


class Prior:
    """A prior distribution with its parameters.

    Parameters
    ----------
    name : str
        One of normal, student-t, cauchy, flat, uniform, half-normal, half-student-t, half-cauchy,
        half-flat, exponential, gamma, inverse-gamma, lognormal, beta, lkj. Case, spaces and
        underscores do not matter.
    **parameters : float
        The parameters by the names that PyMC uses for the same distribution (`mu`, `sigma`, `nu`,
        `alpha`, `beta`, `lam`, `lower`, `upper`, `eta`).

    Raises
    ------
    PriorError
        If the name is unknown, or a parameter is missing, unknown, not a number or out of range.

    Examples
    --------
    >>> from hmlm import Prior
    >>> Prior("normal", mu=0, sigma=10)
    Prior('normal', mu=0, sigma=10)
    >>> Prior("half-student-t", nu=4, sigma=2.5).support
    'positive'
    """

    __slots__ = ("_name", "_parameters")

    def __init__(self, name: str, **parameters: float) -> None:
        key = str(name).strip().lower().replace("_", "-").replace(" ", "-")
        if key not in PRIOR_KINDS:
            raise PriorError(
                f"there is no prior called '{name}'.{suggest(key, PRIOR_KINDS)} "
                f"Known: {listed(PRIOR_KINDS, 20)}."
            )
        kind = PRIOR_KINDS[key]
        if unknown := [p for p in parameters if p not in kind.parameters]:
            raise PriorError(
                f"a {key} prior has no parameter {listed(unknown)}; "
                f"it takes {listed(kind.parameters) or 'none'}."
            )
        values: dict[str, float] = {}
        for parameter, default in kind.parameters.items():
            value = parameters.get(parameter, default)
            if value is None:
                raise PriorError(f"a {key} prior needs {parameter}=...")
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise PriorError(
                    f"{parameter} of a {key} prior must be a number, not {value!r}."
                ) from None
            if not math.isfinite(number) or (parameter in kind.positive and number <= 0):
                wanted = "positive and finite" if parameter in kind.positive else "finite"
                raise PriorError(f"{parameter} of a {key} prior must be {wanted}, not {value}.")
            values[parameter] = number
        if key == "uniform" and values["lower"] >= values["upper"]:
            raise PriorError("a uniform prior needs lower < upper.")
        self._name = key
        self._parameters = MappingProxyType(values)

    @property
    def name(self) -> str:
        """Name of the distribution."""
        return self._name

    @property
    def parameters(self) -> Mapping[str, float]:
        """Parameters by name."""
        return self._parameters

    @property
    def support(self) -> Support:
        """Which values the distribution covers: real, positive, interval, unit or correlation."""
        kind = PRIOR_KINDS[self._name]
        if kind.support == "interval" and self._parameters["lower"] >= 0:
            return "unit" if self._parameters["upper"] <= 1 else "positive"
        return kind.support

    def __eq__(self, other: object) -> bool:
        """Compare by name and parameters."""
        if not isinstance(other, Prior):
            return NotImplemented
        return self.name == other.name and dict(self.parameters) == dict(other.parameters)

    def __hash__(self) -> int:
        """Hash by name and parameters."""
        return hash((self.name, tuple(self.parameters.items())))

    def __repr__(self) -> str:
        """Return the call that makes this prior."""
        inside = "".join(f", {k}={v:.4g}" for k, v in self.parameters.items())
        return f"Prior('{self.name}'{inside})"

    def __str__(self) -> str:
        """Return the distribution as it is written in a model: ``normal(mu=0, sigma=10)``."""
        inside = ", ".join(f"{k}={v:.4g}" for k, v in self.parameters.items())
        return f"{self.name}({inside})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Support copying and pickling."""
        return _rebuild, (self.name, dict(self.parameters))


def _rebuild(name: str, parameters: dict[str, float]) -> Prior:
    return Prior(name, **parameters)


def check_priors(priors: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the user's priors as a dict of `Prior` after checking that each is one.

    Distributions of PyMC (``pm.Normal.dist(0, 1)``) and PreliZ are converted into the same
    distribution; see `hmlm.foreign_priors.convert_prior`.

    Raises
    ------
    PriorError
        If the mapping is no mapping, or one of its values is neither a `Prior` nor a distribution
        that has the form of one.
    """
    if priors is None:
        return {}
    if not isinstance(priors, Mapping):
        raise PriorError("priors must be a dict such as {'x': hmlm.Prior('normal', sigma=1)}.")
    checked = {}
    for key, prior in priors.items():
        if not isinstance(prior, Prior):
            if (found := convert_prior(key, prior)) is None:
                raise PriorError(
                    f"the prior of '{key}' must be an hmlm.Prior, for example "
                    "hmlm.Prior('normal', mu=0, sigma=10), or a distribution of PyMC or PreliZ, "
                    f"not {type(prior).__name__}."
                )
            prior = Prior(found[0], **found[1])
        checked[key] = prior
    return checked
