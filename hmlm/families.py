"""Families of the outcome with their links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hmlm.errors import HmlmError, listed, suggest


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Distribution of the outcome given its linear predictor.

    Attributes
    ----------
    name : str
        Name of the family.
    link : str
        Name of the link, from the mean to the linear predictor.
    scale : str
        Name of the scale parameter, or an empty string where the family has none.
    """

    name: str
    link: str
    scale: str = ""


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {"gaussian": Family(name="gaussian", link="identity", scale="sigma")}
)


def get_family(family: str | Family) -> Family:
    """Return the family of that name.

    Raises
    ------
    HmlmError
        If there is no such family.

    Examples
    --------
    >>> from hmlm.families import get_family
    >>> get_family("gaussian").link
    'identity'
    """
    if isinstance(family, Family):
        return family
    key = str(family).strip().lower()
    if key == "normal":
        key = "gaussian"
    if key not in FAMILIES:
        raise HmlmError(
            f"there is no family called '{family}'.{suggest(key, FAMILIES)} "
            f"Known: {listed(FAMILIES)}."
        )
    return FAMILIES[key]
