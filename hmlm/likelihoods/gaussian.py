"""From a design to the sums of its Gaussian likelihood, in the form that suits its structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hmlm.design import Block, Design
from hmlm.likelihoods.covariance import sds_and_correlations
from hmlm.likelihoods.crossed import Crossed, make_crossed
from hmlm.likelihoods.crossproducts import (
    OneFactor,
    one_factor,
    population_basis,
    squares,
    sum_log_weights,
)
from hmlm.likelihoods.profiled import GaussianSums, shapes_of, split_theta
from hmlm.likelihoods.structure import find_structure
from hmlm.likelihoods.tree import Level, Tree, make_tree

LARGEST_DENSE_REST = 100


def known_sigma2(design: Design) -> float | None:
    """Return the residual variance on the scale of the sums; None where it is to be estimated.

    Where the standard errors of the outcome are known, its variance is 1 / weight. The sums take
    the weights over their average, so that Lambda, the spread of the groups over sigma, is of the
    order of one in any unit; sigma^2 is then one over the average weight.

    Examples
    --------
    >>> import hmlm
    >>> eight = hmlm.load_dataset("eight_schools")
    >>> design = hmlm.Model("se(y, sigma) ~ 1 + (1 | school)", eight).design
    >>> round(known_sigma2(design) ** 0.5, 2)
    11.52
    """
    if not design.known_se:
        return None
    return 1.0 / design.mean_weight


def gaussian_sums(design: Design, largest_rest: int = LARGEST_DENSE_REST) -> GaussianSums:
    """Sum a design once; the rows are not needed afterwards.

    One factor whose groups share designs becomes a `OneFactor`; nested factors, and crossed ones
    with few levels, a `Tree`; crossed ones with many levels a `Crossed`. Weights from known
    standard errors are divided by their average; see `known_sigma2`.
    """
    if design.known_se:
        design = _relative_weights(design)
    if not design.blocks:
        return no_factor(design)
    structure = find_structure(design)
    if structure.rest_size > largest_rest:
        fine = structure.chain[0]
        return make_crossed(design, fine, tuple(b for b in design.blocks if b is not fine))
    if len(structure.chain) == 1 and not structure.rest:
        return one_level(one_factor(design, structure.chain[0]), structure.chain[0])
    return make_tree(design, structure)


def _relative_weights(design: Design) -> Design:
    """Divide the weights by their average, also those that made-up rows hold already."""
    average = design.mean_weight
    if design.cells is None or design.cells.ones is None or design.cells.within is None:
        assert design.weights is not None
        return replace(design, weights=design.weights / average)
    root, cells = np.sqrt(average), design.cells
    cells = replace(
        cells,
        ones=design.cells.ones / root,
        within=design.cells.within / average,
        log_weights=cells.log_weights - cells.n * float(np.log(average)),
        mean_weight=1.0,
    )
    return replace(
        design,
        data=replace(design.data, cells=cells),
        y=design.y / root,
        X=design.X / root,
        blocks=tuple(replace(b, Z=b.Z / root, cells=cells) for b in design.blocks),
    )


def no_factor(design: Design) -> Tree:
    """Sum a design without group effects."""
    basis = population_basis(design)
    M = np.column_stack([basis.Q, basis.residual])
    return Tree(
        n=design.n_rows,
        basis=basis,
        levels=(),
        MM=squares(design, M),
        sum_log_weights=sum_log_weights(design),
    )


def one_level(sums: OneFactor, block: Block) -> OneFactor | Tree:
    """Return the smaller form of a model with one factor: shared designs, or every group."""
    if sums.sharing_pays:
        return sums
    J = len(sums.ZM)
    level = Level(
        blocks=(block,),
        shapes=(sums.shape,),
        bases=(sums.T,),
        parent=np.zeros(J, dtype=np.int64),
        starts=np.zeros(1, dtype=np.int64),
        order=np.arange(J),
        S=sums.ZZ[sums.which],
        B=sums.ZM,
    )
    return Tree(
        n=sums.n,
        basis=sums.basis,
        levels=(level,),
        MM=sums.MM,
        sum_log_weights=sums.sum_log_weights,
    )


def blocks_of(sums: GaussianSums, design: Design) -> list[Block]:
    """Return the blocks in the order of theta."""
    if isinstance(sums, OneFactor):
        return [design.blocks[0]]
    if isinstance(sums, Tree):
        return [b for level in sums.levels for b in level.blocks]
    return [sums.fine, *sums.rest]


def spread_at(
    sums: GaussianSums, design: Design, theta: np.ndarray, sigma2: float
) -> dict[str, np.ndarray]:
    """Return sds and correlations of the group effects on the user's scale, by variable."""
    found = {}
    blocks, thetas = blocks_of(sums, design), split_theta(theta, sums)
    for block, part, shape, T in zip(blocks, thetas, shapes_of(sums), bases_of(sums), strict=True):
        half = T @ shape.unpack(part)
        sd, cor = sds_and_correlations(sigma2 * half @ half.T)
        found[f"sd_{block.group}"] = sd
        if block.correlated:
            found[f"cor_{block.group}"] = cor
    return found


def bases_of(sums: GaussianSums) -> list[np.ndarray]:
    """Return the change of basis of every block, in the order of theta."""
    if isinstance(sums, OneFactor):
        return [sums.T]
    if isinstance(sums, Tree):
        return [T for level in sums.levels for T in level.bases]
    assert isinstance(sums, Crossed)
    return [sums.fine_T, *sums.rest_T]
