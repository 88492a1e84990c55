"""The parameters of a model that are not group effects, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.design import Design
from hmlm.errors import HmlmError, listed, suggest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter.

    Attributes
    ----------
    component, group, term : str
        Its row in the tidy table.
    variable : str
        The variable of the fit that holds it.
    place : tuple of int
        Where in that variable it stands.
    """

    component: str
    group: str
    term: str
    variable: str
    place: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name that a user writes: ``Days``, ``sd_Subject[Days]``, ``sigma``."""
        return f"{self.variable}[{self.term}]" if self.group else self.term

    def value(self, estimates: Mapping[str, np.ndarray]) -> float:
        """Return its value among estimates by variable."""
        return float(np.asarray(estimates[self.variable])[self.place])


def parameters_of(design: Design) -> list[Parameter]:
    """List the parameters of a design, in the order of the tidy table."""
    found: list[Parameter] = []
    for variable, dims in design.dims.items():
        kind, _, group = variable.partition("_")
        if variable == "beta":
            rows: list[tuple[str, str, tuple[int, ...]]] = [
                ("population", t, (k,)) for k, t in enumerate(design.terms)
            ]
            group = ""
        elif not dims:
            rows, group = [("residual", variable, ())], ""
        elif kind == "sd":
            rows = [("sd", t, (k,)) for k, t in enumerate(_block(design, group).columns)]
        elif kind == "cor":
            block = _block(design, group)
            rows = [
                ("cor", f"{block.columns[i]}, {block.columns[j]}", (i, j))
                for part in block.slices
                for i in range(part.start, part.stop)
                for j in range(i + 1, part.stop)
            ]
        else:
            continue
        found += [
            Parameter(component=c, group=group, term=t, variable=variable, place=at)
            for c, t, at in rows
        ]
    return found


def _block(design: Design, group: str) -> Any:
    return next(b for b in design.blocks if b.group == group)


def chosen_parameters(design: Design, names: str | Iterable[str] | None) -> list[Parameter]:
    """Return the parameters of these names; all of them when None.

    Raises
    ------
    HmlmError
        If there is none of that name.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> design = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).design
    >>> [p.name for p in chosen_parameters(design, None)][:4]
    ['Intercept', 'Days', 'sd_Subject[Intercept]', 'sd_Subject[Days]']
    """
    known = parameters_of(design)
    if names is None:
        return known
    by_name = {p.name: p for p in known}
    chosen = []
    for name in [names] if isinstance(names, str) else names:
        if name not in by_name:
            raise HmlmError(
                f"there is no parameter '{name}'.{suggest(name, by_name)} The model has "
                f"{listed(by_name)}."
            )
        chosen.append(by_name[name])
    return chosen


def interval_table(
    parameters: Iterable[Parameter],
    estimates: Mapping[str, np.ndarray],
    bounds: Iterable[tuple[float, float]],
    prob: float,
    interval: str,
) -> pd.DataFrame:
    """Lay intervals out with the keys of the tidy table."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "component": p.component,
                "group": p.group,
                "term": p.term,
                "estimate": p.value(estimates),
                "lower": lower,
                "upper": upper,
                "prob": prob,
                "interval": interval,
            }
            for p, (lower, upper) in zip(parameters, bounds, strict=True)
        ]
    )
