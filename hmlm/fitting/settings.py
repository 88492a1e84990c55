"""Checks that the settings of several methods share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmlm.design import Design
from hmlm.errors import HmlmError


def check_whole(method: object, at_least: Mapping[str, int]) -> None:
    """Refuse settings that are no whole number of at least some size; None passes for `cores`.

    Parameters
    ----------
    method : object
        The method.
    at_least : mapping of str to int
        The least value of each setting.

    Raises
    ------
    HmlmError
        For the first setting that is out of range.
    """
    for name, least in at_least.items():
        value = getattr(method, name)
        if name == "cores" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise HmlmError(f"{name} must be a whole number, at least {least}, not {value!r}.")


def check_seed(random_seed: int | None) -> int:
    """Return a seed as a number, drawn anew for None.

    Raises
    ------
    HmlmError
        If it is no whole number, or negative.
    """
    if random_seed is None:
        return int(np.random.default_rng().integers(2**31))
    if isinstance(random_seed, bool) or not isinstance(random_seed, (int, np.integer)):
        raise HmlmError(f"random_seed must be a whole number or None, not {random_seed!r}.")
    if random_seed < 0:
        raise HmlmError(f"random_seed must not be negative: {random_seed}.")
    return int(random_seed)


def check_plain(design: Design, who: str) -> None:
    """Refuse a link other than the identity, and a sigma with a formula of its own.

    Parameters
    ----------
    design : Design
        A gaussian model.
    who : str
        Who refuses, as the beginning of a sentence: "REML fits".

    Raises
    ------
    HmlmError
        With what to use instead.
    """
    link, own = design.spec.family.link, design.distributional
    if link == "identity" and not own:
        return
    what = f"{own[0].name} has a formula of its own" if own else f"the link is {link}"
    raise HmlmError(
        f"{who} gaussian models with the identity link and one sigma, and {what}: use hmlm.NUTS()."
    )
