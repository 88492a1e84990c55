"""A model whose group effects are sampled as the numbers that the compiled density reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmlm.design import Design
from hmlm.likelihoods.posterior import correlation_factors
from hmlm.likelihoods.preliminary import cuts_from
from hmlm.likelihoods.rows import BlockRows, Rows
from hmlm.likelihoods.scales import Scale


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PackedBlock:
    """Coordinates of one block of group effects.

    Attributes
    ----------
    rows : BlockRows
        The block.
    prefix : str
        Name of its predictor, empty for the mean.
    scales : tuple of Scale
        How its sds depend on their coordinates; empty where they are given (no pooling).
    first_sd : int
        Coordinate of the first sd; correlations follow.
    form : int
        How its effects depend on theirs; see `hmlm.likelihoods.effect_map_kernel`.
    first : int
        Place of its first effect among all effects.
    told : ndarray, shape (J,)
        How much the rows of each group say about its effects, between 0 and 1.
    """

    rows: BlockRows
    prefix: str
    scales: tuple[Scale, ...]
    first_sd: int
    form: int
    first: int
    told: np.ndarray

    @property
    def description(self) -> str:
        """How its effects are written, in a sentence."""
        name = f"'{self.rows.block.group}'" + (f" in {self.prefix}" if self.prefix else "")
        if self.form == 1:
            return f"Group effects of {name}: centred."
        if self.form == 0:
            return f"Group effects of {name}: not centred."
        low, high = f"{self.told.min():.0%}", f"{self.told.max():.0%}"
        much = low if low == high else f"{low} to {high}"
        return (
            f"Group effects of {name}: each centred as far as its own rows determine it ({much})."
        )

    def named(self, variable: str) -> str:
        """Return the name of one of its variables: ``sd_school``, ``sigma_b_school``."""
        name = f"{variable}_{self.rows.block.group}"
        return f"{self.prefix}_{name}" if self.prefix else name


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RowPosterior:
    """The log posterior of a model with its group effects among the coordinates.

    Attributes
    ----------
    design : Design
        The model.
    rows : Rows
        Its rows.
    buffer : ndarray
        What the compiled density reads.
    beta0, beta_map : tuple of ndarray
        For every predictor, ``beta = beta0 + beta_map @ x``.
    blocks : tuple of PackedBlock
        Group effects.
    scalars : mapping of str to (int, Scale)
        Coordinate and transformation of the family parameters that are one number.
    first_cut : int
        Coordinate of the first cutpoint.
    x_means : ndarray
        What the columns of an ordinal model were centred by.
    start : ndarray, shape (dim,)
        Where sampling starts.
    """

    design: Design
    rows: Rows
    buffer: np.ndarray
    beta0: tuple[np.ndarray, ...]
    beta_map: tuple[np.ndarray, ...]
    blocks: tuple[PackedBlock, ...]
    scalars: Mapping[str, tuple[int, Scale]]
    first_cut: int
    x_means: np.ndarray
    start: np.ndarray

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.start)

    @property
    def addresses(self) -> tuple[int, int]:
        """Addresses of the compiled density and of the function that copies coordinates."""
        from hmlm.likelihoods.compiled import expand_address
        from hmlm.likelihoods.glmm_density import logp_address

        return logp_address.address, expand_address.address

    def log_density(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log density at the sampler's coordinates, to a constant, and its gradient."""
        from hmlm.likelihoods.glmm_density import log_density

        gradient = np.empty(self.dim)
        return log_density(x, self.buffer, gradient), gradient

    def parameters(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Turn coordinates into parameters on the user's scale, group effects left out.

        Parameters
        ----------
        x : ndarray, shape (..., dim)
            Coordinates.

        Returns
        -------
        dict of str to ndarray
            By the names of ``design.dims``, in that order.
        """
        found: dict[str, np.ndarray] = {}
        at = 0
        for p, beta0, beta_map in zip(
            self.design.predictors, self.beta0, self.beta_map, strict=True
        ):
            if p.terms:
                found[p.named("beta")] = beta0 + x[..., at : at + len(beta0)] @ beta_map.T
            at += len(beta0)
        for block in self.blocks:
            if not block.scales:
                continue
            own = block.rows.block
            at, q = block.first_sd, len(own.columns)
            signed = np.stack(
                [s.value(x[..., at + k]) for k, s in enumerate(block.scales)], axis=-1
            )
            found[block.named("sd")] = np.abs(signed)
            if own.correlated:
                n_z = sum(s * (s - 1) // 2 for s in own.parts)
                L = correlation_factors(x[..., at + q : at + q + n_z], own.parts)
                turned = np.where(signed < 0, -1.0, 1.0)[..., :, None] * L
                found[block.named("cor")] = turned @ np.swapaxes(turned, -1, -2)
        for name, (c, scale) in self.scalars.items():
            found[name] = scale.value(x[..., c])
        if self.design.spec.family.outcome == "ordered":
            K = len(self.design.categories) - 1
            cuts = cuts_from(x[..., self.first_cut : self.first_cut + K])
            if self.design.terms:
                cuts = cuts + (found["beta"] @ self.x_means)[..., None]
            found["cutpoints"] = cuts
        return {name: found[name] for name in self.design.dims if name in found}

    def effects(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Turn coordinates, shape (draws, dim), into group effects, each (draws, J, q)."""
        from hmlm.likelihoods.glmm_density import draw_effects

        out = np.empty((len(x), int(self.buffer[21])))
        draw_effects(self.buffer, np.ascontiguousarray(x), out)
        found = {}
        for block in self.blocks:
            J, q = len(block.rows.block.levels), len(block.rows.block.columns)
            found[block.named("b")] = out[:, block.first : block.first + J * q].reshape(-1, J, q)
        return {name: found[name] for name in self.design.dims if name in found}
