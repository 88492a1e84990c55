"""A fit is made again from its file: the same predictions, tables and words."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.design import Design, make_design
from hmlm.errors import DataError, HmlmError
from hmlm.families import get_family
from hmlm.formula import parse_formula
from hmlm.spec import ModelSpec, with_pooling
from hmlm.status import Status
from hmlm.storage import EFFECT_PARTS, NUMBERS, check_spoken, design_averages, design_names
from hmlm.storage_format import Store, StoredArrays, damaged, open_store
from hmlm.storage_values import check_same_data, unpack_frame, unpack_value
from hmlm.table_columns import read_data

if TYPE_CHECKING:
    from hmlm.fitting.bayes_fit import BayesFit
    from hmlm.fitting.classical_fit import ClassicalFit


def load_fit(path: str | os.PathLike[str], data: Any = None) -> BayesFit | ClassicalFit:
    """Make a fit again from the file that `hmlm.storage.save_fit` wrote.

    Predictions, tables, status and summary are those of the fit that was saved, to the last bit.
    Group effects are read when they are first asked for, each array held against its checksum;
    nothing in a file is run.

    Parameters
    ----------
    path : str or path
        The file or folder.
    data : data frame, optional
        The table that the fit should be of: another one is refused.

    Returns
    -------
    BayesFit or ClassicalFit
        The fit.

    Raises
    ------
    HmlmError
        If there is no such file, it is none of hmlm's, it was written by a newer hmlm, or it is
        damaged.
    DataError
        If `data` are other data than those of the fit.

    Examples
    --------
    >>> import tempfile, hmlm
    >>> from hmlm.retrieval import load_fit
    >>> from hmlm.storage import save_fit
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> fit = model.fit(hmlm.NUTS(draws=200), random_seed=1, progressbar=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_fit(fit, f"{folder}/sleep.zarr", effects=False)
    ...     again = load_fit(f"{folder}/sleep.zarr")
    >>> again.predict().equals(fit.predict())
    True
    """
    place = Path(path).expanduser().absolute()  # effects may be read from another folder
    store = open_store(place)
    about = store.description
    try:
        design = _design(store, data)
        classes = _classes()
        method = unpack_value(about["method"], classes)
        status: Status = unpack_value(about["status"], classes)
        make = _bayes if about["kind"] == "bayes" else _classical
        return make(store, design, method, status, classes)
    except HmlmError as error:
        if str(place) in str(error):
            raise
        raise type(error)(f"'{place}' cannot be made a fit again: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise damaged(place, f"{type(error).__name__}: {error}") from error


def _classes() -> dict[str, type]:
    """Return the classes that a file may name."""
    from hmlm.default_priors import PredictorPriors, ResolvedPriors
    from hmlm.fitting.em import EM
    from hmlm.fitting.gibbs import Gibbs
    from hmlm.fitting.irls import GLM
    from hmlm.fitting.laplace import Laplace
    from hmlm.fitting.maximum_likelihood import ML, REML
    from hmlm.fitting.nuts import NUTS
    from hmlm.fitting.ols import OLS
    from hmlm.user_priors import PriorEntry

    methods = (NUTS, Gibbs, REML, ML, EM, OLS, GLM, Laplace)
    return {c.__name__: c for c in (*methods, Status, PriorEntry, PredictorPriors, ResolvedPriors)}


def _design(store: Store, data: Any) -> Design:
    """Make the design again, and check that draws and estimates belong to it."""
    about = store.description
    spec = _spec(about)
    table = about["table"]
    frame = unpack_frame(store.arrays("data"), table["columns"])
    if data is not None:
        try:
            given = read_data(spec, data).frame
        except DataError as error:
            raise DataError(f"the data are not those of '{store.path}': {error}") from error
        check_same_data(frame, given, store.path)
    held = unpack_frame(store.arrays("held"), about["held"]) if "held" in about else None
    grouped = replace(
        read_data(spec, frame), n_rows=table["n_rows"], missing=table["missing"], held=held
    )
    # Where nothing depends on earlier columns, "drop" is the same as "error".
    design = make_design(spec, grouped, "drop")
    names, averages = design_names(design), design_averages(design)
    same = names == about["names"] and len(averages) == len(about["averages"])
    if not same or not np.allclose(averages, about["averages"], rtol=1e-8, atol=1e-10):
        raise HmlmError(
            f"'{store.path}' was written by hmlm {about['versions']['hmlm']} with formulae "
            f"{about['versions'].get('formulae')}, which made other columns of the same data: load "
            "it with those, or fit the model again."
        )
    return design


def _spec(about: Mapping[str, Any]) -> ModelSpec:
    """Read the formula again, with all the checks that a formula goes through."""
    name, link = about["family"]
    priors = unpack_value(about["priors"], {})
    spec = parse_formula(about["formula"], get_family(name, link), priors, about["weights"])
    if spec.standard_error != about["standard_error"]:
        raise HmlmError("its formula and its standard errors do not agree.")
    check_spoken(spec, spec)
    kept = tuple(map(str, about["columns"]))
    if not set(kept) <= set(spec.columns):
        raise HmlmError("its formula and its columns do not agree.")
    return with_pooling(replace(spec, columns=kept), about["pooling"])


def _bayes(
    store: Store, design: Design, method: Any, status: Status, classes: Mapping[str, type]
) -> BayesFit:
    from hmlm.fitting.bayes_fit import BayesFit
    from hmlm.fitting.conditional_effects import draw_conditional_effects

    about = store.description
    later = list(about["effects"])
    parameters = store.arrays("posterior", [n for n in store.names("posterior") if n not in later])
    runs = tuple((int(seed), int(n)) for seed, n in about["runs"])
    draw: Callable[[], Mapping[str, np.ndarray]] | None = None
    missing = [n for n in design.dims if n not in parameters and n not in later]
    if later and not missing:
        draw = partial(StoredArrays, store, "posterior", later)
    elif about["conditional"]:
        draw = partial(draw_conditional_effects, design, parameters, runs)
    return BayesFit(
        design=design,
        method=method,
        priors=unpack_value(about["prior_table"], classes),
        status=status,
        random_seed=about["random_seed"],
        seconds=about["seconds"],
        _parameters=parameters,
        _stats=store.arrays("sample_stats"),
        _draw_effects=draw,
        _centered=unpack_value(about["centered"], classes),
        _runs=runs,
        _conditional=about["conditional"],
    )


def _classical(
    store: Store, design: Design, method: Any, status: Status, classes: Mapping[str, type]
) -> ClassicalFit:
    from hmlm.fitting.classical_fit import ClassicalFit, GroupEffects

    about = store.description
    parts = store.arrays("effects")
    trace = about["trace"]
    numbers: dict[str, Any] = {name: unpack_value(about[name], classes) for name in NUMBERS}
    uncertainty: dict[str, Any] = dict(store.arrays("uncertainty"))
    return ClassicalFit(
        design=design,
        method=method,
        status=status,
        estimates=store.arrays("estimates"),
        effects={
            group: GroupEffects(**{part: parts[f"{group} {part}"] for part in EFFECT_PARTS})
            for group in about["effects"]
        },
        trace=None if trace is None else unpack_frame(store.arrays("trace"), trace),
        **uncertainty,
        **numbers,
    )


load = load_fit
