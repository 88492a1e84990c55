"""The equations of a model, level by level, in either notation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hmlm.design import Block, Design
from hmlm.display import Notation, clip

if TYPE_CHECKING:
    from hmlm.default_priors import ResolvedPriors


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """A grouping factor with its letters: b and j for the first, c and k for the second.

    Attributes
    ----------
    block : Block
        Its effects.
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
class Equation:
    """One equation; its right side is a sum of chunks of terms."""

    left: str
    relation: str
    chunks: tuple[tuple[str, ...], ...]


def _is_within(inner: Block, outer: Block) -> bool:
    """Whether every level of one factor lies within one level of the other."""
    if len(inner.levels) <= len(outer.levels):
        return False
    pairs = np.unique(inner.index.astype(np.int64) * len(outer.levels) + outer.index)
    return len(pairs) == len(inner.levels)


def make_factors(design: Design) -> tuple[Factor, ...]:
    """Give every grouping factor its letters and its level, counted from the rows upward."""
    blocks = design.blocks
    within = {b.group: [o for o in blocks if _is_within(b, o)] for b in blocks}
    levels: dict[str, int] = {}
    for block in sorted(blocks, key=lambda b: -len(b.levels)):
        inner = [levels[b.group] for b in blocks if block in within[b.group]]
        levels[block.group] = 1 + max(inner, default=1)
    letters, indices = "bcdfghpqrstuvz", "jklmn"
    return tuple(
        Factor(
            block=block,
            letter=letters[i] if i < len(letters) else f"b{i}",
            index=indices[i % len(indices)],
            tag=f"_{letters[i] if i < len(letters) else f'b{i}'}" if len(blocks) > 1 else "",
            level=levels[block.group],
            outer=max(within[block.group], key=lambda b: len(b.levels)).group
            if within[block.group]
            else "",
        )
        for i, block in enumerate(blocks)
    )


def _row_equations(design: Design, factors: tuple[Factor, ...], n: Notation) -> list[Equation]:
    """Write level 1: the distribution of a row, and its mean."""
    family = design.spec.family
    variance = f"{n.sigma2} / {n.weight}" if design.weights is not None else n.sigma2
    if family.name == "gaussian":
        distribution = n.function("Normal", n.mu, variance)
    else:
        distribution = n.function(family.name.capitalize(), n.mu)
    mean = n.mu if family.link == "identity" else n.function(family.link, n.mu)
    population = [
        n.indexed("beta", k) if term == "Intercept" else n.times(n.indexed("beta", k), n.row(term))
        for k, term in enumerate(design.terms)
    ]
    if design.offset is not None:
        terms = getattr(design.encoding.source, "terms", {}).values()
        offsets = [label for t in terms if t.kind == "offset" for label in t.labels]
        population += [n.row(label) for label in offsets or ["offset"]]
    chunks = [population]
    for f in factors:
        effects = [(n.effect(f.letter, k, f.group), c) for k, c in enumerate(f.block.columns)]
        chunks.append([e if c == "Intercept" else n.times(e, n.row(c)) for e, c in effects])
    sums = tuple(tuple(chunk) for chunk in chunks if chunk) or (("0",),)
    rows = [
        Equation(left=n.row(design.spec.outcome), relation="~", chunks=((distribution,),)),
        Equation(left=mean, relation="=", chunks=sums),
    ]
    if design.weights is not None:
        weights = n.row(design.spec.weights)
        rows.append(Equation(left=n.weight, relation="=", chunks=((weights,),)))
    return rows


def _group_equations(
    f: Factor, pooling: str, priors: ResolvedPriors | None, n: Notation
) -> list[Equation]:
    """Write a level above the rows: the distribution of a factor's effects."""

    def equation(left: str, relation: str, right: str) -> Equation:
        return Equation(left=left, relation=relation, chunks=((right,),))

    members = [n.indexed(f.letter, k, f.index) for k in range(len(f.block.columns))]
    if pooling == "none":
        own = priors.b[f.group] if priors is not None else None
        return [
            equation(m, "~", n.prior(own[k]) if own is not None else n.words("its own prior"))
            for k, m in enumerate(members)
        ]
    several = sum(size > 1 for size in f.block.parts) > 1
    equations, number = [], 0
    for part in f.block.slices:
        sds = [n.indexed(f"sd{f.tag}", k) for k in range(part.start, part.stop)]
        if len(sds) == 1:
            right = n.function("Normal", "0", n.squared(sds[0]))
            equations.append(equation(members[part.start], "~", right))
            continue
        number += 1
        D, R = (n.indexed(f"{s}{f.tag}", number if several else None) for s in "DR")
        diagonal = n.function("diag", *(sds if len(sds) <= 4 else [*sds[:2], n.dots, sds[-1]]))
        lkj = n.function("LKJ", n.eta)
        if priors is not None:
            lkj = n.prior(priors.cor[f.group])
        equations += [
            equation(n.vector(members[part]), "~", n.function("MVN", "0", D)),
            equation(D, "=", n.times(diagonal, R, diagonal)),
            equation(R, "~", lkj),
        ]
    return equations


def make_levels(
    design: Design, priors: ResolvedPriors | None, n: Notation
) -> list[tuple[str, list[Equation]]]:
    """Write each level with its heading, from the rows upward."""
    factors = make_factors(design)
    count = _count(n, "i", len(design.y))
    sections = [(n.words("Level 1: rows ") + count, _row_equations(design, factors, n))]
    for f in sorted(factors, key=lambda f: f.level):
        heading = n.name(f"Level {f.level}: {clip(f.group, 24)} ") + _count(n, f.index, f.size)
        if f.outer:
            heading += n.name(f", each in one {clip(f.outer, 20)}")
        if design.spec.pooling == "none":
            heading += n.words(", each on its own")
        sections.append((heading, _group_equations(f, design.spec.pooling, priors, n)))
    return sections


def _count(n: Notation, index: str, size: int) -> str:
    return f"{index} = 1, {n.dots}, {n.number(size)}"
