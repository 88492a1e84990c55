"""A fit is written to a file with all that it takes to go on from it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from hmlm.cells import needs_rows
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.formula import parse_formula
from hmlm.linear import dependent_columns
from hmlm.spec import ModelSpec
from hmlm.storage_values import pack_frame, pack_value
from hmlm.storage_writer import ArrayGroup, write_store
from hmlm.version import __version__

LIBRARIES = "arviz formulae nutpie numba numpy pandas pymc scipy xarray zarr".split()
EFFECT_PARTS = ("modes", "covariance", "gain", "estimable")
NUMBERS = ("log_likelihood", "criterion", "n_parameters", "n_effective")


def save_fit(fit: Any, path: str | os.PathLike[str], *, effects: bool = True) -> None:
    """Write a fit to a file, from which `hmlm.retrieval.load_fit` makes it again.

    The file holds the draws (or estimates) with the table, formula, priors, settings, seed, status
    and versions, each array with a checksum, and opens in xarray and ArviZ too (group ``posterior``
    and the rest). It is written beside its place and then put there, so that a full disk or a
    process that is killed leaves an earlier file whole.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        What to save.
    path : str or path
        Where to: ``.zarr`` makes a folder, ``.zip`` the same in one file, ``.nc`` netCDF (with
        h5netcdf and h5py, or netCDF4). An earlier file of hmlm is replaced; anything else that
        has the name is left alone.
    effects : bool
        Whether to save the draws of the group effects, often most of the file. Without them, the
        effects of a gaussian model that were integrated out are drawn again when asked for, the
        same to the last bit; those of other fits are gone.

    Raises
    ------
    HmlmError
        If the suffix says nothing, the place is taken by something else, or writing fails.

    Examples
    --------
    >>> import tempfile, hmlm
    >>> from hmlm.retrieval import load_fit
    >>> from hmlm.storage import save_fit
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> fit = model.fit(hmlm.REML())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_fit(fit, f"{folder}/sleep.zip")
    ...     again = load_fit(f"{folder}/sleep.zip")
    >>> bool((again.estimates["beta"] == fit.estimates["beta"]).all())
    True
    """
    bayes = hasattr(fit, "_runs")
    if not bayes and not hasattr(fit, "vcov"):
        raise HmlmError(
            f"{type(fit).__name__} is no fit of one model: save what model.fit(...) returns."
        )
    design: Design = fit.design
    group = next(iter(design.spec.groups), "group")
    needs_rows(design.cells, "A saved fit", group, "Write its tables, as hmlm.tidy(fit)")
    arrays, columns = pack_frame(design.data.frame)
    spec = design.spec
    check_spoken(spec, parse_formula(spec.formula, spec.family, weights=spec.weights))
    description = {
        "kind": "bayes" if bayes else "classical",
        "formula": spec.formula,
        "columns": list(spec.columns),
        "family": [spec.family.name, spec.family.link],
        "pooling": spec.pooling,
        "weights": spec.weights,
        "standard_error": spec.standard_error,
        "collinear": chosen_collinear(design),
        "priors": pack_value(spec.priors),
        "method": pack_value(fit.method),
        "status": pack_value(fit.status),
        "table": {
            "columns": columns,
            "n_rows": int(design.data.n_rows),
            "missing": {k: int(n) for k, n in design.data.missing.items()},
        },
        "names": design_names(design),
        "averages": design_averages(design),
        "versions": _versions(),
    }
    groups = {"data": ArrayGroup(arrays=arrays, dims=dict.fromkeys(arrays, ("row",)))}
    if design.data.held is not None:
        arrays, description["held"] = pack_frame(design.data.held)
        groups["held"] = ArrayGroup(arrays=arrays, dims=dict.fromkeys(arrays, ("row",)))
    (_add_draws if bayes else _add_estimates)(fit, description, groups, effects)
    heads = {
        "formula": spec.formula,
        "family": str(spec.family),
        "inference_library": str(fit.method),
        "creation_library": "hmlm",
        "creation_library_version": __version__,
    }
    write_store(Path(path).expanduser(), groups, description, heads)


def chosen_collinear(design: Design) -> str:
    """Return "drop" where population columns were dropped because they depend on earlier ones."""
    dropped = any(dependent_columns(p.encoding.values) for p in design.predictors if p.aliased)
    return "drop" if dropped else "error"


def design_names(design: Design) -> dict[str, Any]:
    """Return the names that draws and estimates belong to, by linear predictor."""
    return {
        p.name: {
            "terms": list(p.terms),
            "aliased": list(p.aliased),
            "groups": {b.group: [len(b.levels), *b.columns] for b in p.blocks},
        }
        for p in design.predictors
    }


def design_averages(design: Design) -> list[float]:
    """Return the averages of the outcome and of all columns, to tell one encoding from another."""
    found = [design.y.mean()]
    for p in design.predictors:
        found += [*p.X.mean(axis=0), *(z for b in p.blocks for z in b.Z.mean(axis=0))]
    return [float(v) for v in found]


def check_spoken(spec: ModelSpec, again: ModelSpec) -> None:
    """Refuse a specification that its own formula, read again, does not give.

    Raises
    ------
    HmlmError
        If the two differ.
    """

    def said(s: ModelSpec) -> tuple[Any, ...]:
        mean = (s.outcome, s.terms, s.trials, s.standard_error, *map(str, s.group_terms))
        return (*mean, *map(str, s.distributional))

    if said(spec) != said(again):
        raise HmlmError(
            f"the formula '{spec.formula}' does not read the same again: write its columns in "
            "plain words, or between backquotes."
        )


def _versions() -> dict[str, str]:
    found = {"hmlm": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _add_draws(
    fit: Any, description: dict[str, Any], groups: dict[str, ArrayGroup], effects: bool
) -> None:
    design: Design = fit.design
    own = [v.name for v in design.variables if v.kind == "group"]
    draws: dict[str, np.ndarray] = dict(fit._parameters)
    later = [name for name in own if name not in draws]
    if not effects and not fit._conditional:
        draws = {k: v for k, v in draws.items() if k not in own} or draws
    kept: list[str] = []
    if effects and fit._draw_effects is not None:
        # Too many for memory: those that can be drawn again are; others are refused in words.
        kept = [n for n in later if not (fit._conditional and fit._too_many(n))]
        draws |= {name: fit.variable(name) for name in kept}
    chains, n = fit._shape
    base = {"chain": np.arange(chains), "draw": np.arange(n)}
    along = {d: _plain(v) for d, v in design.coords.items()}
    dims = {name: ("chain", "draw", *design.dims[name]) for name in draws}
    groups["posterior"] = ArrayGroup(arrays=draws, dims=dims, coords={**base, **along})
    stats = {name: np.asarray(values) for name, values in fit._stats.items()}
    groups["sample_stats"] = ArrayGroup(
        arrays=stats, dims=dict.fromkeys(stats, ("chain", "draw")), coords=base
    )
    groups["observed_data"] = ArrayGroup(
        arrays={"y": design.y}, dims={"y": ("row",)}, coords={"row": along["row"]}
    )
    description |= {
        "effects": kept,
        "prior_table": pack_value(fit.priors),
        "random_seed": fit.random_seed,
        "seconds": float(fit.seconds),
        "centered": pack_value(fit._centered),
        "runs": [list(map(int, run)) for run in fit._runs],
        "conditional": bool(fit._conditional),
    }


def _add_estimates(
    fit: Any, description: dict[str, Any], groups: dict[str, ArrayGroup], effects: bool
) -> None:
    groups["estimates"] = ArrayGroup(
        arrays={name: np.asarray(values) for name, values in fit.estimates.items()}
    )
    groups["uncertainty"] = ArrayGroup(arrays={"vcov": fit.vcov, "df": np.asarray(fit.df)})
    groups["effects"] = ArrayGroup(
        arrays={
            f"{group} {part}": np.asarray(getattr(found, part))
            for group, found in fit.effects.items()
            for part in EFFECT_PARTS
        }
    )
    description |= {"effects": list(fit.effects), "trace": None}
    description |= {name: pack_value(getattr(fit, name)) for name in NUMBERS}
    if fit.trace is not None:
        arrays, description["trace"] = pack_frame(fit.trace)
        groups["trace"] = ArrayGroup(arrays=arrays, dims=dict.fromkeys(arrays, ("iteration",)))


def _plain(values: Any) -> np.ndarray:
    """Coordinates as plain numbers or text."""
    array = np.asarray(values)
    return array.astype(str) if array.dtype == object else array
