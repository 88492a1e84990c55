"""How the grouping factors of a design lie: nested in each other, or crossed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Block, Design


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Structure:
    """The order in which group effects are integrated out.

    Attributes
    ----------
    chain : tuple of Block
        Factors from the finest to the coarsest, each nested in the next.
    parents : tuple of ndarray of int
        For each factor of the chain the position of every level's parent in the next one; zeros
        for the last.
    rest : tuple of Block
        Factors that are crossed with the chain.
    """

    chain: tuple[Block, ...]
    parents: tuple[np.ndarray, ...]
    rest: tuple[Block, ...]

    @property
    def rest_size(self) -> int:
        """Number of effects of the crossed factors."""
        return sum(len(b.levels) * len(b.columns) for b in self.rest)

    @property
    def description(self) -> str:
        """The structure in words."""
        nested = " in ".join(b.group for b in self.chain)
        crossed = " and ".join(b.group for b in self.rest)
        return f"{nested} crossed with {crossed}" if crossed else nested


def parent_of(inner: Block, outer: Block) -> np.ndarray | None:
    """Return each inner level's outer level, or None where a level has several.

    Examples
    --------
    >>> import hmlm
    >>> pastes = hmlm.load_dataset("pastes")
    >>> design = hmlm.Model("strength ~ 1 + (1 | sample) + (1 | batch)", pastes).design
    >>> parent_of(*design.blocks)[:5].tolist()
    [0, 0, 0, 1, 1]
    """
    if len(inner.levels) < len(outer.levels):
        return None
    parent = np.zeros(len(inner.levels), dtype=np.int64)
    parent[inner.index] = outer.index
    return parent if np.array_equal(parent[inner.index], outer.index) else None


def find_structure(design: Design) -> Structure:
    """Find the chain of nested factors to integrate out first, and the factors crossed with it.

    The chain starts at the factor with the most effects, and takes in each factor that the last
    one is nested in, whether or not the formula says so with ``/``.
    """
    blocks = sorted(design.blocks, key=lambda b: -len(b.levels) * len(b.columns))
    chain, parents = [blocks[0]], []
    for block in sorted(blocks[1:], key=lambda b: -len(b.levels)):
        parent = parent_of(chain[-1], block)
        if parent is not None:
            chain.append(block)
            parents.append(parent)
    inside = {b.group for b in chain}
    rest = tuple(b for b in design.blocks if b.group not in inside)
    last = np.zeros(len(chain[-1].levels), dtype=np.int64)
    return Structure(chain=tuple(chain), parents=(*parents, last), rest=rest)
