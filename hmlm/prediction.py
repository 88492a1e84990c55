"""Predictions for the rows of a fit and for new rows and groups, from draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hmlm.averaging import average_outcome
from hmlm.design import Block, Design, Predictor
from hmlm.errors import HmlmError
from hmlm.expectation import category_probabilities, draw_outcomes, expected_outcome
from hmlm.families import PARAMETERS
from hmlm.links import from_link
from hmlm.new_rows import GroupMode, Groups, NewRows, group_modes, new_rows

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["mean", "linear", "response"]
Fresh = Mapping[str, Any]  # effects of new groups: draws, or what draws those of some levels
NUMBERS_AT_ONCE = 2**21
HELD_EFFECTS = 2**24


def check_request(kind: str, modes: Mapping[str, GroupMode], prob: float) -> None:
    """Raise an HmlmError if predictions of that kind do not exist."""
    if kind not in get_args(Kind):
        raise HmlmError(f"kind is 'mean', 'linear' or 'response', not {kind!r}.")
    if not 0 < prob < 1:
        raise HmlmError(f"prob must lie between 0 and 1, not {prob}.")
    if kind == "response" and "average" in modes.values():
        raise HmlmError(
            "groups='average' is about expected outcomes, and a new observation is of one group: "
            "use groups='new' with kind='response'."
        )


def effect_covariance(estimates: Any, sd_name: str, cor_name: str) -> np.ndarray:
    """Return covariance matrices of group effects from sds and correlations, (..., q, q)."""
    sd = np.asarray(estimates[sd_name])
    q = sd.shape[-1]
    cor = estimates[cor_name] if cor_name in estimates else np.eye(q)
    # A correlation with an effect of variance zero is blank, and weighs nothing.
    return sd[..., :, None] * np.nan_to_num(np.asarray(cor)) * sd[..., None, :]


def block_covariance(values: Mapping[str, np.ndarray], p: Predictor, block: Block) -> np.ndarray:
    """Return the covariance matrices D of the effects of one block, shape (draws, q, q)."""
    return effect_covariance(values, p.named(f"sd_{block.group}"), p.named(f"cor_{block.group}"))


def effect_root(D: np.ndarray) -> np.ndarray:
    """Return roots R of covariance matrices, D = R R', singular ones among them, (..., q, q)."""
    values, vectors = np.linalg.eigh(D)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])


def draw_effects(root: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
    """Draw effects of new levels, (draws, levels, q), from roots of shape (draws, q, q)."""
    normal = rng.standard_normal((len(root), levels, root.shape[-1]))
    return np.asarray(np.einsum("skl,sjl->sjk", root, normal))


def chosen_draws(fit: Any, modes: Mapping[str, GroupMode]) -> dict[str, np.ndarray]:
    """Return the draws that predictions need, the chains put together.

    Parameters
    ----------
    fit : BayesFit
        The fit.
    modes : mapping of str to str
        What becomes of the effects of each factor: only those included are taken.
    """
    found = {}
    for variable in fit.design.variables:
        if variable.kind != "group" or modes.get(variable.group, "include") == "include":
            values = fit.variable(variable.name)
            found[variable.name] = values.reshape(-1, *values.shape[2:])
    return found


def linear_predictors(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    part: slice,
    fresh: Fresh | None = None,
    population: bool = False,
) -> list[np.ndarray]:
    """Return every linear predictor in some rows, each of shape (draws, rows).

    Effects that `rows` leaves out (at the population, or averaged over) are zero.

    Parameters
    ----------
    design : Design
        What was fitted.
    posterior : mapping of str to ndarray
        Draws of every variable, the draw on the first axis.
    rows : NewRows
        All rows.
    part : slice
        Which of them.
    fresh : mapping of str to ndarray or callable, optional
        Effects of new groups, which stand in place of those in `posterior`: draws of shape
        (draws, levels, q), or what makes those of some levels.
    population : bool
        Whether to leave all group effects out.
    """
    n_draws = _number_of_draws(posterior)
    etas = []
    for p, arrays in zip(design.predictors, rows.predictors, strict=True):
        offset = arrays.offset[part]
        if p.terms:
            eta = posterior[p.named("beta")] @ arrays.X[part].T
            if offset.any():
                eta += offset
        else:
            eta = np.repeat(offset[None], n_draws, axis=0)
        for k, block in enumerate(p.blocks):
            name = p.named(f"b_{block.group}")
            if population or rows.mode(block.group) in ("population", "average"):
                continue
            if fresh is not None and name in fresh:
                effects, at = _of_levels(fresh[name], arrays.new_index[k][part])
            else:
                effects, at = posterior[name], arrays.index[k][part]
            for m, z in enumerate(arrays.Z[k][part].T):
                eta += _effects_of_rows(effects, at, m, z)
        etas.append(eta)
    return etas


def _effects_of_rows(effects: np.ndarray, at: np.ndarray, m: int, z: np.ndarray) -> np.ndarray:
    """Return z times the m-th effect of every row's level, (draws, rows)."""
    if effects.shape[1] <= 4 * len(at):  # from a copy that is small, and contiguous
        found = np.ascontiguousarray(effects[:, :, m]).take(at, axis=1)
    else:
        found = effects[:, at, m]
    return np.multiply(found, z, out=found)


def _of_levels(effects: Any, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return effects of new groups and the place of every row's level among them."""
    if not callable(effects):
        return effects, at
    levels, place = np.unique(at, return_inverse=True)
    return effects(levels), place


def _number_of_draws(posterior: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(posterior.values())))


def _linear_variances(
    design: Design, posterior: Mapping[str, np.ndarray], rows: NewRows, part: slice
) -> list[np.ndarray | None]:
    """Return z'Dz of the effects that are averaged over, (draws, rows) for each predictor."""
    found: list[np.ndarray | None] = []
    for p, arrays in zip(design.predictors, rows.predictors, strict=True):
        variance: np.ndarray | None = None
        for block, Z in zip(p.blocks, arrays.Z, strict=True):
            if rows.mode(block.group) != "average":
                continue
            D = block_covariance(posterior, p, block)
            z = Z[part]
            pairs = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
            own = np.maximum(D.reshape(len(D), -1) @ pairs.T, 0.0)
            variance = own if variance is None else variance + own
        found.append(variance)
    return found


def family_values(
    design: Design, posterior: Mapping[str, np.ndarray], etas: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the family's parameters, of shapes that broadcast with (draws, rows)."""
    values = {name: posterior[name][:, None] for name in design.parameters}
    if design.known_se:
        values["sigma"] = np.ones((1, 1))
    for p, eta in zip(design.predictors, etas, strict=True):
        if p.name in PARAMETERS:
            values[p.name] = from_link(PARAMETERS[p.name].link, eta)
    return values


def expected_rows(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    fresh: Fresh | None = None,
    population: bool = False,
    linear: bool = False,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the expected outcome of some rows after the others, with the rows: (draws, rows).

    Of an ordinal or categorical outcome the probabilities of the categories, (draws, rows, K).
    With `linear` the linear predictor of the mean; of a categorical outcome all of them,
    (draws, rows, K - 1).
    """
    for part in _parts(design, posterior, rows):
        etas = linear_predictors(design, posterior, rows, part, fresh, population)
        if linear:
            many = design.spec.family.outcome == "category"
            yield part, np.stack(etas, axis=-1) if many else etas[0]
        else:
            yield part, _expected_part(design, posterior, rows, part, etas)


def _parts(design: Design, posterior: Mapping[str, np.ndarray], rows: NewRows) -> Iterator[slice]:
    """Cut rows into pieces whose draws fit into memory many times."""
    each = _number_of_draws(posterior) * max(1, len(category_labels(design)))
    step = max(1, NUMBERS_AT_ONCE // each)
    for start in range(0, rows.size, step):
        yield slice(start, start + step)


def _expected_part(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    part: slice,
    etas: list[np.ndarray],
) -> np.ndarray:
    def expected(values: list[np.ndarray], scale: np.ndarray | float) -> np.ndarray:
        return _expected(design, posterior, values, scale)

    with np.errstate(over="ignore", under="ignore"):
        if "average" not in rows.modes.values():
            return expected(etas, 1.0)
        names = [p.name for p in design.predictors]
        variances = _linear_variances(design, posterior, rows, part)
        return average_outcome(design.spec.family, names, etas, variances, expected)


def _expected(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    etas: list[np.ndarray],
    scale: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return what is expected of linear predictors that are divided by a scale."""
    family = design.spec.family
    eta = etas[0] if isinstance(scale, float) else etas[0] / scale
    if family.outcome in ("ordered", "category"):
        cuts = posterior["cutpoints"][:, None] if family.outcome == "ordered" else None
        if cuts is not None and not isinstance(scale, float):
            cuts = cuts / scale[..., None]
        return category_probabilities(family, [eta, *etas[1:]], cuts)
    return expected_outcome(family, eta, family_values(design, posterior, etas))


def category_labels(design: Design, linear: bool = False) -> tuple[str, ...]:
    """Return the categories that have a prediction each; none where a row has one number."""
    outcome = design.spec.family.outcome
    if outcome == "category":
        return design.categories[1:] if linear else design.categories
    return design.categories if outcome == "ordered" and not linear else ()


def new_groups(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Draw effects of new groups from N(0, D), correlated within each group.

    Returns
    -------
    dict of str to ndarray or callable
        For each variable of effects of factors whose mode is "new" (all, if `rows` has no modes)
        draws of shape (draws, levels, q); where these are many, what draws those of some levels,
        always the same ones for a level.

    Raises
    ------
    HmlmError
        If the model does not pool, so that there is no population of groups.
    """
    found: dict[str, Any] = {}
    n_draws = _number_of_draws(posterior)
    for p, arrays in zip(design.predictors, rows.predictors, strict=True):
        for block, new_index in zip(p.blocks, arrays.new_index, strict=True):
            if rows.modes and rows.mode(block.group) != "new":
                continue
            if design.spec.pooling == "none":
                group_modes(design, "new")
            root = effect_root(block_covariance(posterior, p, block))
            J, q = int(new_index.max()) + 1, len(block.columns)
            draw: Any = _level_by_level(root, int(rng.integers(2**62)))
            if n_draws * J * q <= HELD_EFFECTS:
                draw = draw_effects(root, J, rng)
            found[p.named(f"b_{block.group}")] = draw
    return found


def _level_by_level(root: np.ndarray, key: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what draws the effects of some levels, each from a stream of its own."""
    n_draws, q, _ = root.shape

    def draw(levels: np.ndarray) -> np.ndarray:
        found = np.empty((n_draws, len(levels), q))
        for k, level in enumerate(levels.tolist()):
            stream = np.random.Generator(np.random.Philox(key=[key, level]))
            found[:, k] = np.einsum("skl,sl->sk", root, stream.standard_normal((n_draws, q)))
        return found

    return draw


def predict_bayes(
    fit: Any,
    new_data: Any,
    kind: Kind,
    groups: Groups,
    prob: float,
    random_seed: int | None,
) -> pd.DataFrame:
    """Predict from posterior draws; see `BayesFit.predict`.

    Parameters
    ----------
    fit : BayesFit
        The fit.
    new_data, kind, groups, prob, random_seed
        As in `BayesFit.predict`.
    """
    import pandas as pd

    design: Design = fit.design
    check_request(kind, group_modes(design, groups), prob)
    rows = new_rows(design, new_data, groups, kind == "response")
    posterior = chosen_draws(fit, rows.modes)
    rng = np.random.default_rng(random_seed)
    fresh = new_groups(design, posterior, rows, rng)
    labels = category_labels(design, kind == "linear")
    out = np.empty((rows.size, max(len(labels), 1), 4))
    tails = [0.5 - prob / 2, 0.5 + prob / 2]
    if kind == "response":
        pieces = _new_outcomes(design, posterior, rows, fresh, rng)
    else:
        pieces = expected_rows(design, posterior, rows, fresh, linear=kind == "linear")
    for part, shown in pieces:
        # The draws side by side in memory: quantiles are many times faster.
        wide = np.ascontiguousarray(np.moveaxis(shown.reshape(*shown.shape[:2], -1), 0, -1))
        out[part, :, 0] = wide.mean(axis=-1)
        out[part, :, 1] = wide.std(axis=-1, ddof=1)
        lower, upper = np.quantile(wide, tails, axis=-1, overwrite_input=True)
        out[part, :, 2], out[part, :, 3] = lower, upper
    table = pd.DataFrame(out.reshape(-1, 4), columns=["estimate", "std_error", "lower", "upper"])
    if labels:
        table.insert(0, "category", np.tile(np.asarray(labels), rows.size))
        table.index = pd.Index(np.repeat(np.arange(rows.size), len(labels)))
    return table


def _new_outcomes(
    design: Design,
    posterior: Mapping[str, np.ndarray],
    rows: NewRows,
    fresh: Fresh,
    rng: np.random.Generator,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield new outcomes of some rows after the others; of categories as zeros and a one."""
    family = design.spec.family
    for part in _parts(design, posterior, rows):
        etas = linear_predictors(design, posterior, rows, part, fresh)
        with np.errstate(over="ignore", under="ignore"):
            if category_labels(design):
                yield part, _draw_categories(_expected(design, posterior, etas), rng)
                continue
            drawn = draw_outcomes(
                family,
                etas[0],
                family_values(design, posterior, etas),
                rng,
                None if rows.trials is None else rows.trials[part],
                None if rows.weights is None else rows.weights[part],
            )
        yield part, drawn


def _draw_categories(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which category a new outcome is in, as zeros and a one."""
    K = probabilities.shape[-1]
    u = rng.random(probabilities.shape[:-1])
    chosen = (u[..., None] > np.cumsum(probabilities, axis=-1)).sum(axis=-1)
    return np.asarray(np.eye(K)[np.minimum(chosen, K - 1)])
