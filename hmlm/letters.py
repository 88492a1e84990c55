"""Which letter stands for what in the equations of a model, and which symbol for a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hmlm.design import Block, Design, Predictor
from hmlm.families import PARAMETERS
from hmlm.notation import Notation

# Symbols of family parameters that are not written by their own name.
PARAMETER_SYMBOLS: Mapping[str, str] = MappingProxyType({"zi": "pi", "hu": "pi"})
_COEFFICIENTS = ("gamma", "delta")  # of the linear predictors besides that of the mean
_PROBABILITY = ("binary", "trials", "unit")
# By the values of the outcome: letters of effects and of levels that mean something else there.
_TAKEN: Mapping[str, str] = MappingProxyType({"ordered": "ck", "category": "k"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """A grouping factor with its letters: b and j for the first, c and k for the second.

    Attributes
    ----------
    block : Block
        Its effects in the first linear predictor that has some.
    letter, index, tag : str
        Letter of the effects, letter of the levels, and what tells its sds from those of others.
    level : int
        Its level, counted from the rows upward; crossed factors are on the same level.
    outer : str
        The factor that its levels lie in, or an empty string.
    """

    block: Block
    letter: str
    index: str
    tag: str
    level: int
    outer: str

    @property
    def group(self) -> str:
        """Name of the factor."""
        return self.block.group

    @property
    def size(self) -> int:
        """Number of its levels."""
        return len(self.block.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """What tells the symbols of one linear predictor from those of the others.

    Attributes
    ----------
    predictor : Predictor
        The linear predictor.
    coefficient : str
        Letter of its population coefficients: beta for the mean, then gamma and delta.
    first : int
        Number of its first coefficient: one where there is no intercept because of cutpoints.
    tag : str
        Parameter that it is of, an index of the symbols of its group effects; empty for the mean.
    category : int
        Number of its category, written above the symbols; zero where there are no categories.
    """

    predictor: Predictor
    coefficient: str
    first: int
    tag: str
    category: int

    @property
    def beta(self) -> str:
        """Symbol of the population coefficients, without their numbers."""
        return f"{self.coefficient}^{self.category}" if self.category else self.coefficient

    def effect(self, base: str, factor_tag: str = "") -> str:
        """Return the symbol of something of a factor's effects in this linear predictor."""
        above = f"^{self.category}" if self.category else ""
        return "_".join([f"{base}{above}", *filter(None, (self.tag, factor_tag))])


@dataclass(frozen=True, kw_only=True, slots=True)
class Symbol:
    """The symbol of one entry of the table of priors.

    Attributes
    ----------
    written : str
        The symbol.
    kind : {"cutpoints", "beta", "sd", "cor", "parameter", "effect"}
        What it stands for.
    marks : Marks or None
        Its linear predictor; None for a parameter that is one number.
    k : int
        Its place among those of its kind there.
    """

    written: str
    kind: str
    marks: Marks | None = None
    k: int = 0


def _is_within(inner: Block, outer: Block) -> bool:
    """Whether every level of one factor lies within one level of the other."""
    if len(inner.levels) <= len(outer.levels):
        return False
    pairs = np.unique(inner.index.astype(np.int64) * len(outer.levels) + outer.index)
    return len(pairs) == len(inner.levels)


def make_factors(design: Design) -> tuple[Factor, ...]:
    """Give every grouping factor its letters and its level, counted from the rows upward."""
    first: dict[str, Block] = {}
    for predictor in design.predictors:
        for block in predictor.blocks:
            first.setdefault(block.group, block)
    blocks = tuple(first.values())
    within = {b.group: [o for o in blocks if _is_within(b, o)] for b in blocks}
    levels: dict[str, int] = {}
    for block in sorted(blocks, key=lambda b: -len(b.levels)):
        inner = [levels[b.group] for b in blocks if block in within[b.group]]
        levels[block.group] = 1 + max(inner, default=1)
    outcome = design.spec.family.outcome
    taken = "p" if outcome in _PROBABILITY else _TAKEN.get(outcome, "")
    letters = [c for c in "bcdfghpqrstuvz" if c not in taken]
    indices = [c for c in "jklmn" if c not in taken]
    return tuple(
        Factor(
            block=block,
            letter=letters[i] if i < len(letters) else f"b{i}",
            index=indices[i % len(indices)],
            tag=(letters[i] if i < len(letters) else f"b{i}") if len(blocks) > 1 else "",
            level=levels[block.group],
            outer=max(within[block.group], key=lambda b: len(b.levels)).group
            if within[block.group]
            else "",
        )
        for i, block in enumerate(blocks)
    )


def make_marks(design: Design) -> tuple[Marks, ...]:
    """Give every linear predictor its letters, in the order of `Design.predictors`."""
    outcome = design.spec.family.outcome
    marks = []
    for i, predictor in enumerate(design.predictors):
        parameter = predictor.name in PARAMETERS
        marks.append(
            Marks(
                predictor=predictor,
                coefficient=_COEFFICIENTS[i - 1] if parameter else "beta",
                first=int(outcome == "ordered" and not i),
                tag=parameter_symbol(predictor.name) if parameter else "",
                category=i + 2 if outcome == "category" else 0,
            )
        )
    return tuple(marks)


def parameter_symbol(name: str) -> str:
    """Return the symbol of a parameter of a family."""
    return PARAMETER_SYMBOLS.get(name, name)


def prior_symbols(design: Design, n: Notation) -> list[Symbol]:
    """Write the symbols of the parameters, in the order of `ResolvedPriors.entries`."""
    partial = design.spec.pooling == "partial"
    factors = {f.group: f for f in make_factors(design)}
    found: list[Symbol] = []
    effects: list[Symbol] = []
    for m in make_marks(design):
        if not m.predictor.name and design.spec.family.outcome == "ordered":
            found.append(Symbol(written=n.at("c", "k"), kind="cutpoints", marks=m))
        for k in range(len(m.predictor.terms)):
            written = n.indexed(m.beta, k + m.first)
            found.append(Symbol(written=written, kind="beta", marks=m, k=k))
        for block in m.predictor.blocks:
            f, columns = factors[block.group], range(len(block.columns))
            if not partial:
                for k in columns:
                    written = n.indexed(m.effect(f.letter), k, f.index)
                    effects.append(Symbol(written=written, kind="effect", marks=m, k=k))
                continue
            for k in columns:
                written = n.indexed(m.effect("sd", f.tag), k)
                found.append(Symbol(written=written, kind="sd", marks=m, k=k))
            if block.correlated:
                found.append(Symbol(written=n.indexed(m.effect("R", f.tag)), kind="cor", marks=m))
    for name in design.parameters:
        found.append(Symbol(written=n.indexed(parameter_symbol(name)), kind="parameter"))
    return [*found, *effects]
