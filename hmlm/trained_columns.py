"""Columns of terms from merged rows, with the averages and knots of all rows of the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hmlm.encoding import Encoding, encode
from hmlm.errors import DataError, counted
from hmlm.lazy_columns import STATEFUL, stateful_calls

MOST_TRAINED = 20_000_000  # rows that splines and polynomials are made from


def train_encoding(text: str, frame: pd.DataFrame, counts: np.ndarray) -> Encoding:
    """Make the columns of a sum of terms from rows that stand for several each.

    `center` and `scale` take off and divide by averages over all rows of the table; the knots of
    splines and the coefficients of polynomials are made from all its rows, one column at a time.

    Parameters
    ----------
    text : str
        Terms that `hmlm.formula.parse_formula` has checked.
    frame : pandas.DataFrame
        Distinct rows.
    counts : ndarray of int, shape (R,)
        How many rows of the table each stands for.

    Raises
    ------
    DataError
        If a spline or polynomial has to be made from too many rows.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"x": [0.0, 4.0]})
    >>> train_encoding("0 + center(x)", rows, np.array([3, 1])).values.ravel().tolist()
    [-1.0, 3.0]
    """
    made = encode(text, frame, counts)
    calls = list(stateful_calls(made.source))
    if not calls or (counts == 1).all():
        return made
    for _, call in calls:
        x = _argument(made.source, call, frame)
        if call.callee in STATEFUL:
            mean = float(counts @ x / counts.sum())
            call.stateful_transform.mean = mean
            if call.callee == "scale":
                square = float(counts @ (x - mean) ** 2)
                call.stateful_transform.std = float(np.sqrt(square / counts.sum()))
            continue
        if counts.sum() > MOST_TRAINED:
            raise DataError(
                f"'{call}' is made from all {counted(int(counts.sum()), 'row')} at once, more than "
                f"{MOST_TRAINED:,}: write powers as I(x**2), or make its columns first."
            )
        environment = _environment(made.source, call)
        kwargs = {name: arg.eval(frame, environment) for name, arg in call.kwargs.items()}
        others = [arg.eval(frame, environment) for arg in call.args[1:]]
        fresh = type(call.stateful_transform)()
        fresh(np.repeat(x, counts), *others, **kwargs)
        call.stateful_transform = fresh
    values, offset = made.again(frame)
    return replace(made, values=values, offset=offset)


def _environment(source: Any, call: Any) -> Any:
    """Return the environment that formulae evaluates a call in."""
    for term in source.terms.values():
        for component in getattr(term, "components", ()):
            if getattr(component, "call", None) is not None:
                return component.env
    raise AssertionError(call)


def _argument(source: Any, call: Any, frame: pd.DataFrame) -> np.ndarray:
    values = call.args[0].eval(frame, _environment(source, call))
    return np.asarray(values, dtype=float)
