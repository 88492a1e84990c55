"""What formulae makes of a checked formula, mended in four places.

formulae 0.9 cannot compare a nested call with a plain one (``scale(log(x)) + scale(z)``), leaves
parentheses out of the names of terms (``I((x + z) * 2)``), wants every level of an ordered factor
in ``C(f)`` among new rows, and lets the terms that ``/`` and ``:`` make share a factor, which then
has the coding of the last one.
"""

from __future__ import annotations

import operator
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from formulae.environment import Environment
from formulae.matrices import DesignMatrices
from formulae.parser import Parser
from formulae.resolver import Resolver
from formulae.scanner import Scanner
from formulae.terms import Call, Term
from formulae.terms.call_resolver import CallResolver, LazyCall, LazyOperator
from formulae.terms.terms import Model as Terms

FUNCTIONS = {
    name: getattr(np, name) for name in ("log", "log2", "log10", "log1p", "exp", "sqrt", "abs")
}


def _plain(column: pd.Series) -> pd.Series:
    """Forget the levels of a factor of which some are not there."""
    levels = getattr(column.dtype, "categories", ())
    return column.astype(object) if column.nunique() < len(levels) else column


class _Call(LazyCall):
    """A function call that is equal to nothing but another call, and a C() of any levels."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LazyCall) and bool(super().__eq__(other))

    def __hash__(self) -> int:
        return hash(str(self))

    def eval(self, data_mask: Any, env: Any) -> Any:
        """Return the value of the call."""
        if self.callee == "C":
            data_mask = pd.DataFrame({name: _plain(c) for name, c in data_mask.items()})
        return super().eval(data_mask, env)


class _Parentheses(LazyOperator):
    """An expression in parentheses, which its name keeps."""

    def __init__(self, inside: Any) -> None:
        super().__init__(operator.pos, inside)

    def __str__(self) -> str:
        return f"({self.args[0]})"

    def eval(self, data_mask: Any, env: Any) -> Any:
        """Return the value of what is inside."""
        return self.args[0].eval(data_mask, env)


class _Arguments(CallResolver):
    """Reads the arguments of a call."""

    def visitGroupingExpr(self, expr: Any) -> Any:
        """Keep the parentheses."""
        return _Parentheses(expr.expression.accept(self))

    def visitCallExpr(self, expr: Any) -> Any:
        """Make a call that compares."""
        call = super().visitCallExpr(expr)
        return _Call(call.callee, call.args, call.kwargs)


class _Terms(Resolver):
    """Reads a sum of terms."""

    def visitCallExpr(self, expr: Any) -> Any:
        """Leave the arguments to `_Arguments`."""
        return Term(Call(_Arguments(expr).resolve()))


def resolve(text: str, frame: pd.DataFrame) -> tuple[DesignMatrices, list[str]]:
    """Evaluate a formula that has been checked, in an environment that holds only functions.

    Parameters
    ----------
    text : str
        The formula.
    frame : pandas.DataFrame
        Complete rows.

    Returns
    -------
    DesignMatrices
        formulae's matrices.
    list of str
        The name of every term.
    """
    terms = _Terms(Parser(Scanner(text).scan()).parse()).resolve()
    description = terms if isinstance(terms, Terms) else Terms(terms)
    for term in description.common_terms:
        if isinstance(term, Term):
            term.components = deepcopy(term.components)
    matrices = DesignMatrices(description, frame, Environment([FUNCTIONS]))
    return matrices, [term.name for term in description.common_terms]
