"""The user's priors, found by the name of a parameter and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hmlm.design import Block, Design, Predictor
from hmlm.errors import PriorError, listed, suggest
from hmlm.families import PARAMETERS
from hmlm.priors import Prior

Source = Literal["default", "user"]

_POSITIVE_FORM = {
    "normal": "half-normal",
    "student-t": "half-student-t",
    "cauchy": "half-cauchy",
    "flat": "half-flat",
    "uniform": "uniform with lower >= 0",
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PriorEntry:
    """One row of the table of priors.

    Attributes
    ----------
    parameter : str
        Name of the parameter: a term, ``sd_<group>[<term>]``, ``cor_<group>``, ``sigma`` or, under
        no pooling, ``b_<group>[<term>]``; those of another linear predictor begin with its name.
    prior : Prior
        Its prior.
    source : {"default", "user"}
        Where the prior comes from.
    note : str
        How a default was scaled, or what the prior is on.
    """

    parameter: str
    prior: Prior
    source: Source
    note: str


class UserPriors:
    """The user's priors, found by key.

    Parameters
    ----------
    design : Design
        The model, whose specification holds the priors.

    Raises
    ------
    PriorError
        If a key names no parameter, or a prior covers values that its parameter cannot have.
    """

    def __init__(self, design: Design) -> None:
        spec = design.spec
        self._priors = spec.priors
        self._aliases: dict[tuple[str, str], tuple[str, ...]] = {}
        positive, correlations = {"sd"}, {"cor"}
        keys: list[str] = []
        for p in design.predictors:
            terms = [*p.terms, *p.aliased]
            if spec.pooling == "none":
                terms += [c for block in p.blocks for c in block.columns]
            whole = {*terms, *map(_base, terms)}
            for term in dict.fromkeys(terms):
                inner = re.fullmatch(r"C\(\s*(\w+)\s*(?:,.*)?\)", _base(term))
                more = [inner[1]] if inner and inner[1] not in whole else []
                self._aliases[p.name, term] = _prefixed(p, (term, _base(term), *more))
                keys += self._aliases[p.name, term]
            groups, correlated = _groups(design, p)
            for kind, known, there in (
                ("sd", positive, bool(groups)),
                ("cor", correlations, correlated),
            ):
                names = [kind, *(f"{kind}_{g}" for g in groups)] if there else []
                keys += _prefixed(p, names)
                known.update(_prefixed(p, names))
        keys += [*design.parameters]
        if spec.family.outcome == "ordered":
            keys.append("cutpoints")
        keys = list(dict.fromkeys(keys))
        supports = {name: PARAMETERS[name].link for name in design.parameters}
        for key, prior in self._priors.items():
            if key not in keys:
                raise PriorError(
                    f"there is no parameter '{key}' to give a prior to.{suggest(key, keys)} "
                    f"Known: {listed(keys, 20)}."
                )
            is_positive = key in positive or supports.get(key) == "log"
            _check(key, prior, is_positive, key in correlations, supports.get(key) == "logit")

    def _entry(self, keys: tuple[str, ...], name: str, default: Prior, note: str) -> PriorEntry:
        for key in keys:
            if key in self._priors:
                return PriorEntry(parameter=name, prior=self._priors[key], source="user", note="")
        return PriorEntry(parameter=name, prior=default, source="default", note=note)

    def term(self, p: Predictor, term: str, name: str, default: Prior, note: str) -> PriorEntry:
        """Return the prior of a coefficient, by its term."""
        return self._entry(self._aliases[p.name, term], p.named(name), default, note)

    def sd(self, p: Predictor, block: Block, k: int, default: Prior, note: str) -> PriorEntry:
        """Return the prior of the sd of one effect."""
        name = p.named(f"sd_{block.group}[{block.columns[k]}]")
        keys = _prefixed(p, (f"sd_{block.group}", "sd"))
        return self._entry(keys, name, default, note)

    def cor(self, p: Predictor, block: Block) -> PriorEntry:
        """Return the prior of the correlations."""
        keys = _prefixed(p, (f"cor_{block.group}", "cor"))
        name = p.named(f"cor_{block.group}")
        return self._entry(keys, name, Prior("lkj", eta=2.0), "mode at no correlation")

    def parameter(self, name: str, default: Prior, note: str) -> PriorEntry:
        """Return the prior of a parameter that is one number, or of the cutpoints."""
        return self._entry((name,), name, default, note)


def _groups(design: Design, p: Predictor) -> tuple[tuple[str, ...], bool]:
    """Return a predictor's grouping factors under partial pooling, and whether any correlate.

    Priors may be given before the model is pooled partially.
    """
    spec = design.spec
    own = {d.name: d.group_terms for d in spec.distributional}
    terms = own.get(p.name, spec.group_terms)
    correlated = any(t.correlated and t.terms != "1" for t in terms)
    if spec.pooling == "partial":
        correlated = any(block.correlated for block in p.blocks)
    return tuple(dict.fromkeys(t.group for t in terms)), correlated


def _prefixed(p: Predictor, keys: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Return keys with the predictor's name; for a category also those that all of them share."""
    if not p.name:
        return tuple(keys)
    own = tuple(p.named(key) for key in keys)
    return own if p.name in PARAMETERS else (*own, *keys)


def _check(key: str, prior: Prior, positive: bool, correlation: bool, unit: bool) -> None:
    """Raise a PriorError if a prior covers values that its parameter cannot have."""
    kind = prior.support
    if positive and kind not in ("positive", "unit"):
        instead = _POSITIVE_FORM.get(prior.name, "half-normal")
        what = "must be positive" if key in PARAMETERS and key != "sigma" else "is a standard "
        what = what if what.startswith("must") else f"{what}deviation"
        raise PriorError(
            f"the prior of '{key}' must cover positive values only, because it {what}: instead of "
            f"{prior.name} use {instead}."
        )
    if unit and kind != "unit":
        raise PriorError(
            f"the prior of '{key}' must cover values between 0 and 1, because it is a "
            "probability: use Prior('beta', alpha=1, beta=1) or Prior('uniform', lower=0, upper=1)."
        )
    if correlation and kind != "correlation":
        raise PriorError(
            f"the prior of '{key}' must be lkj, the one for correlation matrices: "
            "Prior('lkj', eta=2)."
        )
    if kind == "correlation" and not correlation:
        raise PriorError(
            f"the prior of '{key}' cannot be {prior.name}, which is for correlations: use "
            "Prior('normal', mu=..., sigma=...)."
        )
    if key == "cutpoints" and kind != "real":
        raise PriorError(
            "the prior of 'cutpoints' must cover all numbers: use Prior('normal', mu=0, sigma=2.5)."
        )


def _base(term: str) -> str:
    """Return a term without its levels: ``period`` for ``period[2]``."""
    return re.sub(r"\[[^\]]*\]", "", term)
