"""Families of the outcome with their links and parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from hmlm.errors import HmlmError, listed, suggest

Outcome = Literal["real", "positive", "unit", "count", "binary", "trials", "ordered", "category"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Distribution of the outcome given its linear predictor.

    Attributes
    ----------
    name : str
        Name of the family.
    link : str
        Name of the link, from the mean (the probability, for counts out of trials) to the linear
        predictor.
    links : tuple of str
        Links that the family may have, the default first.
    parameters : tuple of str
        Parameters besides the mean, each of which may have a formula of its own.
    outcome : str
        Which values the outcome may have.
    """

    name: str
    link: str
    links: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    outcome: Outcome = "real"

    @property
    def scale(self) -> str:
        """Name of the residual standard deviation, or an empty string."""
        return "sigma" if "sigma" in self.parameters else ""

    @property
    def discrete(self) -> bool:
        """Whether outcomes are counts, yes/no or categories."""
        return self.outcome in ("count", "binary", "trials", "ordered", "category")

    def __str__(self) -> str:
        """Return the name, with the link where it is not the default one."""
        return self.name if self.link == self.links[0] else f"{self.name}({self.link})"


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyParameter:
    """A parameter of a family besides the mean.

    Attributes
    ----------
    link : {"log", "logit"}
        Link of its linear predictor, where it has one; with it go its values, positive or between
        zero and one.
    meaning : str
        What it is.
    """

    link: Literal["log", "logit"]
    meaning: str


PARAMETERS: Mapping[str, FamilyParameter] = MappingProxyType(
    {
        "sigma": FamilyParameter(link="log", meaning="residual standard deviation"),
        "nu": FamilyParameter(link="log", meaning="degrees of freedom of the residuals"),
        "alpha": FamilyParameter(link="log", meaning="shape: the variance falls as it rises"),
        "phi": FamilyParameter(link="log", meaning="precision: the variance falls as it rises"),
        "zi": FamilyParameter(link="logit", meaning="probability of an extra zero"),
        "hu": FamilyParameter(link="logit", meaning="probability of zero"),
    }
)

_PROBABILITY = ("logit", "probit", "cloglog")


def _family(
    name: str, links: tuple[str, ...], parameters: str = "", outcome: Outcome = "real"
) -> Family:
    return Family(
        name=name,
        link=links[0],
        links=links,
        parameters=tuple(parameters.split()),
        outcome=outcome,
    )


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        f.name: f
        for f in (
            _family("gaussian", ("identity", "log", "inverse"), "sigma"),
            _family("student-t", ("identity", "log", "inverse"), "sigma nu"),
            _family("bernoulli", _PROBABILITY, outcome="binary"),
            _family("binomial", _PROBABILITY, outcome="trials"),
            _family("beta-binomial", _PROBABILITY, "phi", "trials"),
            _family("poisson", ("log", "identity"), outcome="count"),
            _family("negative-binomial", ("log", "identity"), "alpha", "count"),
            _family("gamma", ("log", "inverse", "identity"), "alpha", "positive"),
            _family("lognormal", ("identity",), "sigma", "positive"),
            _family("beta", _PROBABILITY, "phi", "unit"),
            _family("ordinal", _PROBABILITY, outcome="ordered"),
            _family("categorical", ("logit",), outcome="category"),
            _family("zero-inflated-poisson", ("log",), "zi", "count"),
            _family("zero-inflated-negative-binomial", ("log",), "alpha zi", "count"),
            _family("hurdle-poisson", ("log",), "hu", "count"),
            _family("hurdle-negative-binomial", ("log",), "alpha hu", "count"),
        )
    }
)
_OTHER_NAMES = MappingProxyType(
    {
        "normal": "gaussian",
        "student": "student-t",
        "t": "student-t",
        "betabinomial": "beta-binomial",
        "negbinomial": "negative-binomial",
        "negativebinomial": "negative-binomial",
        "nbinom": "negative-binomial",
        "zip": "zero-inflated-poisson",
        "zinb": "zero-inflated-negative-binomial",
        "cumulative": "ordinal",
        "logistic": "bernoulli",
    }
)


def get_family(family: str | Family, link: str | None = None) -> Family:
    """Return the family of that name.

    Parameters
    ----------
    family : str or Family
        Name, with or without a link: ``"poisson"``, ``"bernoulli(probit)"``. Case, spaces and
        underscores do not matter.
    link : str, optional
        Link; the family's default when None.

    Raises
    ------
    HmlmError
        If there is no such family, or it cannot have that link.

    Examples
    --------
    >>> from hmlm.families import get_family
    >>> get_family("gaussian").link
    'identity'
    >>> str(get_family("Bernoulli(probit)"))
    'bernoulli(probit)'
    """
    if isinstance(family, Family):
        return family if link is None else with_link(family, link)
    text = str(family).strip().lower()
    written = re.fullmatch(r"([^()]*)\(\s*([a-z]*)\s*\)", text)
    if written:
        text = written[1].strip()
        if link is not None and written[2] and link != written[2]:
            raise HmlmError(f"family='{family}' and link='{link}' name two links: leave one out.")
        link = link or written[2] or None
    key = re.sub(r"[\s_]+", "-", text)
    key = _OTHER_NAMES.get(key.replace("-", ""), key)
    if key not in FAMILIES:
        raise HmlmError(
            f"there is no family called '{family}'.{suggest(key, FAMILIES)} "
            f"Known: {listed(FAMILIES, 20)}."
        )
    return FAMILIES[key] if link is None else with_link(FAMILIES[key], link)


def with_link(family: Family, link: str) -> Family:
    """Return the family with another link.

    Raises
    ------
    HmlmError
        If it cannot have that link.
    """
    key = str(link).strip().lower()
    if key not in family.links:
        raise HmlmError(
            f"a {family.name} model has no {key} link.{suggest(key, family.links)} "
            f"It may have {listed(family.links)}."
        )
    return replace(family, link=key)
