"""What to fit: the outcome, the population terms, the group terms and how they pool."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from hmlm.errors import HmlmError
from hmlm.families import Family
from hmlm.priors import check_priors

Pooling = Literal["partial", "complete", "none"]
POOLING_WORDS = MappingProxyType(
    {"partial": "partial pooling", "complete": "complete pooling", "none": "no pooling"}
)
_PLAIN = re.compile(r"[^\W\d_]\w*")


def quoted(name: str) -> str:
    """Write the name of a column as a formula has it: between backquotes if it is no plain word.

    Examples
    --------
    >>> quoted("score"), quoted("my score")
    ('score', '`my score`')
    """
    return name if _PLAIN.fullmatch(name) else f"`{name}`"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GroupTerm:
    """One group term of a formula, ``(terms | group)``.

    Attributes
    ----------
    group : str
        The grouping factor; an interaction of columns reads ``a:b``.
    terms : str
        The left side, in the formula language, with ``1`` or ``0`` for its intercept written out.
    correlated : bool
        True for ``|``, False for ``||``.
    """

    group: str
    terms: str
    correlated: bool = True

    def __str__(self) -> str:
        """Return the term as it is written in a formula."""
        left = self.terms.removeprefix("1 + ")
        group = ":".join(map(quoted, self.factors))
        return f"({left} {'|' if self.correlated else '||'} {group})"

    @property
    def factors(self) -> tuple[str, ...]:
        """Columns that make up the grouping factor."""
        return tuple(self.group.split(":"))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ParameterTerms:
    """A family parameter with a formula of its own, such as ``sigma ~ x + (1 | g)``.

    Attributes
    ----------
    name : str
        The parameter.
    terms : str
        The population part of its formula.
    group_terms : tuple of GroupTerm
        Its group terms.
    """

    name: str
    terms: str
    group_terms: tuple[GroupTerm, ...]

    def __str__(self) -> str:
        """Return the formula of the parameter."""
        return f"{self.name} ~ {_right_side(self.terms, self.group_terms)}"


def _right_side(terms: str, group_terms: tuple[GroupTerm, ...]) -> str:
    return " + ".join([terms.removeprefix("1 + "), *map(str, group_terms)])


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ModelSpec:
    """What to fit, before any data are seen.

    Attributes
    ----------
    outcome : str
        Left side of the formula.
    terms : str
        The population part of the right side.
    group_terms : tuple of GroupTerm
        The group terms, in the order of the formula.
    columns : tuple of str
        Columns of the table that the formula names, outcome first.
    family : Family
        Distribution of the outcome.
    pooling : {"partial", "complete", "none"}
        Whether group effects share a distribution, are left out, or are each on their own.
    priors : mapping
        The user's priors; a key is a term, ``sd``, ``cor``, ``sd_<group>``, ``cor_<group>`` or
        ``sigma``.
    weights : str or None
        Column of weights: the residual variance of a row is sigma^2 / weight.
    trials : str or None
        Column, or number, of trials of an outcome ``p(successes, trials)``.
    standard_error : str or None
        Column of known standard errors of the outcome.
    distributional : tuple of ParameterTerms
        Family parameters with formulas of their own.
    """

    outcome: str
    terms: str
    group_terms: tuple[GroupTerm, ...]
    columns: tuple[str, ...]
    family: Family
    pooling: Pooling = "partial"
    priors: Mapping[str, Any]
    weights: str | None = None
    trials: str | None = None
    standard_error: str | None = None
    distributional: tuple[ParameterTerms, ...] = ()

    @property
    def formula(self) -> str:
        """The whole formula as text."""
        outcome = quoted(self.outcome) if self.outcome in self.columns else self.outcome
        if self.trials is not None:
            outcome = f"p({outcome}, {_quoted_column(self.trials, self.columns)})"
        elif self.standard_error is not None:
            outcome = f"se({outcome}, {_quoted_column(self.standard_error, self.columns)})"
        first = f"{outcome} ~ {_right_side(self.terms, self.group_terms)}"
        return "; ".join([first, *map(str, self.distributional)])

    @property
    def groups(self) -> tuple[str, ...]:
        """Grouping factors of the mean, each once, in the order of the formula."""
        return tuple(dict.fromkeys(t.group for t in self.group_terms))

    @property
    def all_groups(self) -> tuple[str, ...]:
        """Grouping factors of the mean and of all other parameters."""
        more = [t.group for d in self.distributional for t in d.group_terms]
        return tuple(dict.fromkeys([*self.groups, *more]))


def _quoted_column(text: str, columns: tuple[str, ...]) -> str:
    return quoted(text) if text in columns else text


def with_pooling(spec: ModelSpec, pooling: str) -> ModelSpec:
    """Return the same specification under another pooling.

    Raises
    ------
    HmlmError
        If `pooling` is not one of "complete", "none" and "partial".
    """
    if pooling not in get_args(Pooling):
        raise HmlmError(f"pooling is 'complete', 'none' or 'partial', not {pooling!r}.")
    return replace(spec, pooling=pooling)  # type: ignore[arg-type]


def with_priors(spec: ModelSpec, priors: Mapping[str, Any]) -> ModelSpec:
    """Return the same specification with these priors added to, or in place of, its own."""
    return replace(spec, priors={**spec.priors, **check_priors(priors)})
