"""A model whose group effects are sampled, written into the buffer of the compiled density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from hmlm.default_priors import PredictorPriors, ResolvedPriors
from hmlm.design import Design
from hmlm.families import PARAMETERS
from hmlm.likelihoods.buffer import Buffer
from hmlm.likelihoods.conditional_pull import conditional_pull
from hmlm.likelihoods.effect_map_kernel import BLOCK_ROW
from hmlm.likelihoods.family_kernel import CODES
from hmlm.likelihoods.glmm_kernel import HEADER, PREDICTOR_ROW, SCALAR_ROW
from hmlm.likelihoods.glmm_posterior import PackedBlock, RowPosterior
from hmlm.likelihoods.preliminary import Preliminary, cut_coordinates
from hmlm.likelihoods.prior_kernel import encode_prior
from hmlm.likelihoods.rows import Rows
from hmlm.likelihoods.scales import Scale, make_scale
from hmlm.likelihoods.special_kernel import LINKS
from hmlm.likelihoods.starting import starting_coordinates


def pack_rows(
    design: Design,
    rows: Rows,
    priors: ResolvedPriors,
    at: Preliminary,
    centred: Mapping[str, bool] | None = None,
) -> RowPosterior:
    """Write a model into the buffer of the compiled density.

    Parameters
    ----------
    design : Design
        The model.
    rows : Rows
        Its rows.
    priors : ResolvedPriors
        Its priors.
    at : Preliminary
        A Gaussian picture of the posterior, from which coordinates and start are made.
    centred : mapping of str to bool, optional
        By grouping factor, whether effects are centred; where not given, the coordinates of each
        group lie between the two forms by what its rows say.
    """
    N, R = len(rows.y), len(rows.predictors)
    family = design.spec.family
    K = max(len(design.categories) - 1, 0) if family.outcome == "ordered" else 0
    out = Buffer(
        HEADER
        + PREDICTOR_ROW * R
        + BLOCK_ROW * len(rows.blocks)
        + SCALAR_ROW * len(design.parameters)
    )
    table = np.zeros(out.length)
    table[2:9] = [
        CODES[family.name],
        LINKS[family.link],
        N,
        R,
        len(rows.blocks),
        len(design.parameters),
        K,
    ]
    table[9:13] = [out.add(values) for values in (rows.y, rows.n, rows.w, rows.m)]
    table[13] = HEADER
    table[14] = table[13] + PREDICTOR_ROW * R
    table[15] = table[14] + BLOCK_ROW * len(rows.blocks)
    maps = [np.linalg.cholesky(cov) if len(cov) else cov for cov in at.beta_cov]
    start: list[float] = [0.0] * sum(len(beta) for beta in at.beta)
    for r in range(R):
        row = int(table[13]) + PREDICTOR_ROW * r
        first = sum(len(beta) for beta in at.beta[:r])
        table[row : row + PREDICTOR_ROW] = _predictor(out, design, rows, priors, at, maps, r, first)
    scale_places = []
    for k, block in enumerate(rows.blocks):
        scale_places.append(len(start))
        if design.spec.pooling == "partial":
            scales = _scales(rows, priors, at, k)
            sd = np.sqrt(np.diagonal(at.D[k]))
            half = np.linalg.cholesky(at.D[k])
            start += starting_coordinates(block.block, half, np.diag(sd), 1.0, list(scales))
    scalars = {}
    for k, name in enumerate(design.parameters):
        scale = Scale(prior=priors.parameters[name])
        scalars[name] = (len(start), scale)
        row = int(table[15]) + SCALAR_ROW * k
        slot = family.parameters.index(name) + 1
        table[row : row + SCALAR_ROW] = [*_encode(scale.prior), slot, len(start)]
        start.append(scale.coordinate(at.scalars[name]))
    first_cut = len(start)
    table[17], table[18] = first_cut, -1
    x_means = design.predictors[0].spread.mean if K else np.zeros(0)
    if K:
        assert priors.cutpoints is not None
        table[16] = out.add(_encode(priors.cutpoints))
        if design.terms and not priors.x_means.any():
            table[18] = out.add(np.append(x_means @ at.beta[0], x_means @ maps[0]))
        start += cut_coordinates(at.cuts).tolist()
    packed: list[PackedBlock] = []
    n_effects = n_entries = n_sds = 0
    for k, block in enumerate(rows.blocks):
        row = int(table[14]) + BLOCK_ROW * k
        q, J = len(block.block.columns), len(block.block.levels)
        prefix = rows.predictors[block.predictor].predictor.name
        form = 2
        if centred and block.block.group in centred:
            form = int(centred[block.block.group])
        values, told, begin = _block(
            out, design, rows, priors, at, maps, k, form, scale_places[k], len(start)
        )
        values[22], values[24], values[25] = n_effects, n_entries, n_sds
        table[row : row + BLOCK_ROW] = values
        partial = design.spec.pooling == "partial"
        packed.append(
            PackedBlock(
                rows=block,
                prefix=prefix,
                scales=_scales(rows, priors, at, k) if partial else (),
                first_sd=scale_places[k],
                form=form,
                first=n_effects,
                told=told,
            )
        )
        start += begin
        n_effects += J * q
        n_entries += q * q
        n_sds += q
    table[1] = len(start)
    table[19] = rows.constant
    table[20] = _count_table(out, design, rows)
    table[21:24] = [n_effects, n_entries, n_sds]
    return RowPosterior(
        design=design,
        rows=rows,
        buffer=out.finish(table),
        beta0=tuple(at.beta),
        beta_map=tuple(maps),
        blocks=tuple(packed),
        scalars=scalars,
        first_cut=first_cut,
        x_means=x_means,
        start=np.array(start),
    )


def _count_table(out: Buffer, design: Design, rows: Rows) -> int:
    """Write Poisson counts as a table of groups by patterns; -1 where they are no such table."""
    first = rows.predictors[0]
    family = design.spec.family
    if family.name != "poisson" or family.link != "log" or first.pattern is None:
        return -1
    if len(rows.blocks) != 1 or not rows.blocks[0].plain:
        return -1
    index = rows.blocks[0].index
    J, C = len(rows.blocks[0].block.levels), len(first.X)
    if J * C > 4 * len(rows.y):
        return -1
    counts = np.zeros((J, C))
    np.add.at(counts, (index, first.pattern), rows.n)
    by_pattern = np.bincount(first.pattern, weights=rows.y, minlength=C)
    by_group = np.bincount(index, weights=rows.y, minlength=J)
    return out.add(np.concatenate([by_pattern, by_group, counts.reshape(-1)]))


def _encode(prior: Any) -> np.ndarray:
    code = encode_prior(prior)
    assert code is not None
    return code


def _predictor(
    out: Buffer,
    design: Design,
    rows: Rows,
    priors: ResolvedPriors,
    at: Preliminary,
    maps: list[np.ndarray],
    r: int,
    first: int,
) -> list[float]:
    """Return the row of one predictor in its table."""
    own = rows.predictors[r]
    name = own.predictor.name
    mine: PredictorPriors = priors.predictor(name)
    beta, M = at.beta[r], maps[r]
    p = len(beta)
    P = np.eye(p)
    if mine.constant.any():
        P = P + np.outer(mine.constant, mine.x_means)
    columns = (own.X @ M).T if p else np.empty((0, len(own.X)))
    role, link = 0, 0
    if name in PARAMETERS:
        role = design.spec.family.parameters.index(name) + 1
        link = int(PARAMETERS[name].link == "logit")
    elif name:
        role = 10 + r
    prior_rows = [_encode(prior) for prior in mine.beta]
    return [
        p,
        first,
        len(own.X),
        out.add(columns),
        out.add(own.X @ beta + own.offset),
        -1 if own.pattern is None else out.add(own.pattern),
        out.add(np.array(prior_rows)),
        out.add(np.concatenate([P @ beta, (P @ M).reshape(-1)])),
        role,
        link,
    ]


def _scales(rows: Rows, priors: ResolvedPriors, at: Preliminary, k: int) -> tuple[Scale, ...]:
    """Choose the coordinates of a block's sds by what the rows can tell from zero."""
    block = rows.blocks[k]
    name = rows.predictors[block.predictor].predictor.name
    sd = np.sqrt(np.diagonal(at.D[k]))
    information = at.weight[block.predictor] @ block.Z**2 / len(block.block.levels)
    told = (2.0 / len(block.block.levels)) ** 0.25 / np.sqrt(np.maximum(information, 1e-12))
    turns = np.clip(told, 0.05 * sd, 20.0 * sd)
    own = priors.predictor(name).sd[block.block.group]
    return tuple(make_scale(prior, turn) for prior, turn in zip(own, turns, strict=True))


def _block(
    out: Buffer,
    design: Design,
    rows: Rows,
    priors: ResolvedPriors,
    at: Preliminary,
    maps: list[np.ndarray],
    k: int,
    form: int,
    first_sd: int,
    first: int,
) -> tuple[list[float], np.ndarray, list[float]]:
    """Return the row of one block in its table, what its rows say, and where it starts."""
    block = rows.blocks[k]
    own, r = block.block, block.predictor
    J, q = len(own.levels), len(own.columns)
    name = rows.predictors[r].predictor.name
    D, b = at.D[k], at.effects[k]
    pull = conditional_pull(rows, at, k)
    H = pull.H
    p = len(at.beta[r])
    starts = columns = values_at = -1
    if pull.earlier:
        places = np.cumsum([0, *(e.size for e in at.effects)])
        wide = sparse.csr_array((J * q, int(places[-1])))
        for i, matrix in pull.earlier:
            shifted = (matrix.data, matrix.indices + places[i], matrix.indptr)
            wide = wide + sparse.csr_array(shifted, wide.shape)
        starts, columns, values_at = out.add(wide.indptr), out.add(wide.indices), out.add(wide.data)
    C = np.linalg.inv(H + np.linalg.inv(D))
    told = 1.0 - np.einsum("jaa->j", C @ np.linalg.inv(D)) / q
    mine = priors.predictor(name)
    given = design.spec.pooling != "partial"
    scales = () if given else _scales(rows, priors, at, k)
    eta = mine.cor[own.group].parameters["eta"] if own.correlated and not given else 1.0
    sd = np.sqrt(np.diagonal(D))
    begin = np.zeros((J, q))
    if form == 1:
        begin = (b - at.means[k]) / sd
    elif form == 0:
        begin = np.clip((b - at.means[k]) @ np.linalg.inv(np.linalg.cholesky(D)).T, -3, 3)
    values: list[float] = [
        r,
        q,
        J,
        form,
        -1 if given else out.add(np.array([s.encode() for s in scales])),
        first_sd,
        len(own.parts),
        out.add(np.array(own.parts)),
        eta,
        first,
        out.add(block.index),
        -1 if block.plain else out.add(block.Z.T),
        out.add(H),
        out.add(pull.constant),
        out.add((pull.by_beta @ maps[r]).T if p else np.empty(0)),
        starts,
        columns,
        values_at,
        out.add(sd),
        float(given),
        out.add(sd),
        out.add(at.means[k]) if given else -1,
        0,
        -1 if block.starts is None else out.add(block.starts),
        0,
        0,
    ]
    return values, told, begin.reshape(-1).tolist()


def rows_cover(design: Design, priors: ResolvedPriors) -> str:
    """Return why the compiled density of rows cannot serve a model, or an empty string."""
    partial = design.spec.pooling == "partial"
    for p in design.predictors:
        own = priors.predictor(p.name)
        for term, prior in zip(p.terms, own.beta, strict=True):
            if prior.support in ("interval", "unit") or encode_prior(prior) is None:
                return f"the prior of {term} has edges"
            if prior.support == "positive":
                return f"the prior of {term} is positive"
        for block in p.blocks:
            for prior in own.sd[block.group] if partial else ():
                if encode_prior(prior) is None or prior.support == "interval":
                    return f"the kernel has no {prior.name} prior for an sd"
            if not partial and any(prior.name != "normal" for prior in own.b[block.group]):
                return f"the priors of the coefficients of {block.group} are not all normal"
    for name, prior in priors.parameters.items():
        if encode_prior(prior) is None:
            return f"the kernel has no {prior.name} prior, which {name} has"
    return ""
