"""Parameters given by a user, in whole arrays or one by one, made complete and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hmlm.design import Design, Variable
from hmlm.errors import HmlmError, listed, suggest
from hmlm.estimates import find_effects, term_label
from hmlm.families import PARAMETERS

_Place = tuple[str, tuple[int, ...]]


def complete_parameters(design: Design, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the parameters of a design as arrays by variable, checked.

    Parameters
    ----------
    design : Design
        The model.
    parameters : mapping of str to number, sequence or mapping
        As in `hmlm.simulation.simulate_outcomes`.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.given_parameters import complete_parameters
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> design = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).design
    >>> found = complete_parameters(
    ...     design, {"beta": [250, 10], "sd_Subject": [25, 6], "cor_Subject": 0.1, "sigma": 25}
    ... )
    >>> found["cor_Subject"].tolist()
    [[1.0, 0.1], [0.1, 1.0]]
    """
    places: dict[str, _Place] = {}
    found: dict[str, np.ndarray] = {}
    whole: set[str] = set()
    variables = {v.name: v for v in design.variables}
    for variable in design.variables:
        shape = tuple(len(design.coords[d]) for d in variable.dims)
        if variable.kind != "group":
            found[variable.name] = np.full(shape, np.nan)
            places |= {name: (variable.name, at) for name, at in number_names(design, variable)}
    for name, value in parameters.items():
        if name in variables:
            found[name] = _array(design, variables[name], value)
            whole.add(name)
    for name, value in parameters.items():
        if name in places and name not in whole:
            variable_name, at = places[name]
            found[variable_name][at] = _number(name, value)
        elif name not in variables:
            known = [*places, *variables]
            raise HmlmError(
                f"the model has no parameter '{name}'.{suggest(str(name), known)} It has "
                f"{listed(dict.fromkeys(known), 20)}."
            )
    _complete_correlations(design, found)
    lacking = [name for name, (v, at) in places.items() if np.isnan(found[v][at])]
    if design.spec.pooling == "none":
        lacking += [v.name for v in design.variables if v.kind == "group" and v.name not in found]
    if lacking:
        raise HmlmError(f"parameters lacks {listed(lacking)}: give every parameter a value.")
    _check_ranges(design, found)
    return found


def number_names(design: Design, variable: Variable) -> list[tuple[str, tuple[int, ...]]]:
    """Return the name of every number of a variable that is no group effects, with its place.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.given_parameters import number_names
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> design = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).design
    >>> [name for v in design.variables if v.kind != "group" for name, _ in number_names(design, v)]
    ['Intercept', 'Days', 'sd_Subject[Intercept]', 'sd_Subject[Days]',
     'cor_Subject[Intercept, Days]', 'sigma']
    """
    if variable.kind == "parameter":
        return [(variable.name, ())]
    names = [str(c) for c in design.coords[variable.dims[0]]]
    if variable.kind == "population":
        return [(term_label(design, variable.predictor, t), (k,)) for k, t in enumerate(names)]
    if variable.kind == "cor":
        return [
            (f"{variable.name}[{names[i]}, {names[j]}]", (i, j))
            for part in find_effects(design, variable).slices
            for i in range(part.start, part.stop)
            for j in range(i + 1, part.stop)
        ]
    return [(f"{variable.name}[{t}]", (k,)) for k, t in enumerate(names)]


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise HmlmError(f"parameter '{name}' must be a finite number, not {value!r:.60}.")
    return number


def _array(design: Design, variable: Variable, value: Any) -> np.ndarray:
    """Return the value of a whole variable with its shape."""
    name = variable.name
    shape = tuple(len(design.coords[d]) for d in variable.dims)
    if isinstance(value, Mapping) and len(shape) == 1:
        labels = [str(c) for c in design.coords[variable.dims[0]]]
        if set(map(str, value)) != set(labels):
            raise HmlmError(f"'{name}' must have a value for each of {listed(labels)}, no others.")
        by_label = {str(k): v for k, v in value.items()}
        value = [by_label[label] for label in labels]
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise HmlmError(f"'{name}' must be numbers, not {value!r:.60}.") from None
    if not np.isfinite(array).all():
        raise HmlmError(f"'{name}' has values that are no finite numbers.")
    if variable.kind == "cor" and array.ndim == 0:
        array = np.where(_correlated(design, variable), array, 0.0) + np.eye(shape[0])
        if shape[0] > 2:
            raise HmlmError(f"'{name}' must be a {shape[0]} x {shape[0]} matrix, not one number.")
    elif array.ndim == 0 and shape == (1,):
        array = array[None]
    if array.shape != shape:
        over = "; it goes by " + ", ".join(variable.dims) if shape else ""
        raise HmlmError(f"'{name}' must have shape {shape}, not {array.shape}{over}.")
    return array.copy()


def _correlated(design: Design, variable: Variable) -> np.ndarray:
    """Return which entries of a correlation matrix the model has, besides the diagonal."""
    block = find_effects(design, variable)
    where = np.zeros((len(block.columns), len(block.columns)), dtype=bool)
    for part in block.slices:
        where[part, part] = True
    return where & ~np.eye(len(where), dtype=bool)


def _complete_correlations(design: Design, found: dict[str, np.ndarray]) -> None:
    """Fill in what correlations given one by one leave open: diagonal, lower half, zeros."""
    for variable in design.variables:
        if variable.kind == "cor":
            R = found[variable.name]
            R[~_correlated(design, variable)] = 0.0
            np.fill_diagonal(R, 1.0)
            upper = np.triu(R, 1)
            lower = np.tril(R, -1)
            R[:] = upper + np.where(np.isnan(lower), upper.T, lower) + np.eye(len(R))


def _check_ranges(design: Design, found: Mapping[str, np.ndarray]) -> None:
    for variable in design.variables:
        if variable.name not in found:
            continue
        value, name = found[variable.name], variable.name
        if variable.kind == "sd" and (value < 0).any():
            raise HmlmError(f"'{name}' has a negative sd: sds are zero or more.")
        if variable.kind == "cor" and not (
            np.allclose(value, value.T) and np.linalg.eigvalsh(value)[0] > -1e-9
        ):
            raise HmlmError(f"'{name}' is no correlation matrix: symmetric and positive definite.")
        if variable.kind == "cutpoint" and (np.diff(value) <= 0).any():
            raise HmlmError(f"'{name}' must rise from one to the next, not {value.tolist()}.")
        if variable.kind == "parameter":
            unit = PARAMETERS[name].link == "logit"
            if not value >= 0 or (unit and not value <= 1) or (value == 0 and not unit):
                where = "between 0 and 1" if unit else "positive"
                raise HmlmError(f"'{name}' must be {where}, not {float(value):g}.")
