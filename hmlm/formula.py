"""From the text of a formula to a `ModelSpec`, in lme4's notation, with nothing evaluated.

A formula is scanned and parsed with formulae and checked against fixed tables of functions and
operators before anything is evaluated; it never sees the caller's variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from hmlm.errors import FormulaError, listed, suggest
from hmlm.families import Family, get_family
from hmlm.grammar import (
    DEEPER,
    HIGHER,
    OPERATORS,
    PAIRS,
    Token,
    check_expression,
    column_name,
    outside_calls,
    scan_formula,
    split_sum,
    write,
)
from hmlm.priors import check_priors
from hmlm.spec import GroupTerm, ModelSpec, ParameterTerms

_NAMES = frozenset({"IDENTIFIER", "BQNAME"})


def parse_formula(
    formula: str | Sequence[str],
    family: str | Family = "gaussian",
    priors: Mapping[str, Any] | None = None,
    weights: str | None = None,
    link: str | None = None,
    se: str | None = None,
) -> ModelSpec:
    """Read a formula in lme4's notation.

    Parameters
    ----------
    formula : str or sequence of str
        For example ``"y ~ x * z + (x | school/class)"``. Group terms are ``(1 | g)``,
        ``(x | g)`` (correlated), ``(x || g)`` (not correlated), ``(0 + x | g)``,
        ``(1 | g/h)`` and ``(1 | g:h)``. Functions: log, log2, log10, log1p, exp, sqrt, abs,
        scale, center, poly, bs, C, I, offset. A column whose name is not a plain word goes between
        backquotes. The outcome may be ``p(successes, trials)``, or ``se(y, standard_error)`` where
        standard errors are known. After a semicolon (or as the next of a list) a family parameter
        may have a formula of its own: ``"y ~ x + (1 | g); sigma ~ x"``.
    family : str or Family
        Family of the outcome.
    priors : mapping of str to Prior, optional
        Priors of the user.
    weights : str, optional
        Column of weights.
    link : str, optional
        Link of the family; its default when None.
    se : str, optional
        Column of known standard errors of the outcome.

    Returns
    -------
    ModelSpec
        What to fit.

    Raises
    ------
    FormulaError
        If the formula cannot be read, or names a function or an operator outside the table.

    Examples
    --------
    >>> from hmlm.formula import parse_formula
    >>> spec = parse_formula("score ~ ses + (ses | school/pupil)")
    >>> [str(term) for term in spec.group_terms]
    ['(ses | school)', '(ses | school:pupil)']
    """
    kind = get_family(family, link)
    first, *others = split_formulas(formula)
    outcome, right = _sides(first)
    if not outcome:
        raise FormulaError(f"there is no outcome before '~' in '{first}'.")
    explained, trials, error, columns = _read_outcome(outcome, se)
    terms, group_terms, names = _read_right(right, first)
    distributional = _read_parameters(others, kind)
    names += [name for _, more in distributional for name in more]
    if both := set(columns).intersection(names):
        raise FormulaError(
            f"'{min(both)}' stands on both sides of '~': an outcome cannot predict itself."
        )
    return ModelSpec(
        outcome=explained,
        terms=terms,
        group_terms=group_terms,
        columns=tuple(dict.fromkeys([*columns, *names])),
        family=kind,
        priors=check_priors(priors),
        weights=weights,
        trials=trials,
        standard_error=error,
        distributional=tuple(found for found, _ in distributional),
    )


def split_formulas(formula: str | Sequence[str]) -> list[str]:
    """Cut text at the semicolons outside of quotes; several formulas may also come as a list.

    Examples
    --------
    >>> split_formulas("y ~ x + (1 | g); sigma ~ x")
    ['y ~ x + (1 | g)', 'sigma ~ x']
    """
    if isinstance(formula, (list, tuple)):
        return [piece for text in formula for piece in split_formulas(text)] or [""]
    if not isinstance(formula, str):
        raise FormulaError(f"a formula is text, as 'y ~ x + (1 | g)', not {formula!r:.60}.")
    cuts, quote = [-1], ""
    for i, sign in enumerate(formula):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "`'\"":
            quote = sign
        elif sign == ";":
            cuts.append(i)
    found = [formula[a + 1 : b].strip() for a, b in pairwise([*cuts, len(formula)])]
    return [found[0], *filter(None, found[1:])]


def _sides(formula: str) -> tuple[list[Token], list[Token]]:
    """Return the tokens before and after '~'."""
    tokens = scan_formula(formula)
    tildes = [i for i, t in enumerate(tokens) if t.kind == "TILDE"]
    if len(tildes) != 1:
        raise FormulaError(
            f"a formula has one '~', as in 'y ~ x + (1 | g)'; there are {len(tildes)} in "
            f"'{formula}'."
        )
    left, right = tokens[: tildes[0]], tokens[tildes[0] + 1 :]
    if not right:
        raise FormulaError(f"there is nothing after '~' in '{formula}': write 'y ~ 1' for a mean.")
    return left, right


def _read_outcome(
    outcome: list[Token], se: str | None
) -> tuple[str, str | None, str | None, list[str]]:
    """Return outcome, trials and standard error as text, and the columns that they name."""
    if any(t.kind in OPERATORS - {"COMMA"} for t in outside_calls(outcome)):
        raise FormulaError(
            f"the outcome must be one column or one function of columns, not '{write(outcome)}': "
            "wrap arithmetic in I(...)."
        )
    columns = check_expression(outcome, outcome=True)
    trials, error = None, se
    if outcome[0].text in PAIRS and len(outcome) > 1:
        name = outcome[0].text
        inner = outcome[2:-1]
        depth = accumulate((t.kind in DEEPER) - (t.kind in HIGHER) for t in inner)
        cuts = [
            i
            for i, (t, d) in enumerate(zip(inner, depth, strict=True))
            if t.kind == "COMMA" and not d
        ]
        second = "trials" if name in ("p", "prop") else "standard error"
        if len(cuts) != 1:
            raise FormulaError(
                f"{name}(...) takes two columns, as {name}(y, {second.split()[0]}): see "
                f"'{write(outcome)}'."
            )
        outcome, other = inner[: cuts[0]], inner[cuts[0] + 1 :]
        if not outcome or len(other) != 1 or other[0].kind not in _NAMES | {"NUMBER"}:
            raise FormulaError(
                f"the second part of {name}(...) is the column of the {second}, not "
                f"'{write(other)}'."
            )
        if second == "trials":
            trials = other[0].name
        elif se is not None:
            raise FormulaError("standard errors are given twice: in se(...) and as se=.")
        else:
            error = other[0].name
    if any(t.text in PAIRS and t.kind == "IDENTIFIER" for t in outcome[:-1] if len(outcome) > 1):
        raise FormulaError(f"'{write(outcome)}' cannot stand inside another function.")
    text = outcome[0].name if len(outcome) == 1 else write(outcome)
    return text, trials, error, columns


def _read_right(right: list[Token], formula: str) -> tuple[str, tuple[GroupTerm, ...], list[str]]:
    """Return the population terms, the group terms and the columns of a right side."""
    names: list[str] = []
    population: list[Token] = []
    group_terms: list[GroupTerm] = []
    for sign, piece in split_sum(right, formula):
        if _is_group_term(piece):
            if sign == "-":
                raise FormulaError(f"a group term cannot be subtracted: '-{write(piece)}'.")
            terms, columns = _read_group_term(piece[1:-1])
            group_terms.extend(terms)
            names.extend(columns)
            continue
        if any(t.kind == "PIPE" for t in piece):
            raise FormulaError(
                f"'|' must stand inside its own parentheses, as in '(x | g)': see '{write(piece)}'."
            )
        population += [Token(kind="PLUS" if sign == "+" else "MINUS", text=sign), *piece]
    names = [*(check_expression(population) if population else []), *names]
    return _with_intercept(population), tuple(group_terms), names


def _read_parameters(formulas: list[str], family: Family) -> list[tuple[ParameterTerms, list[str]]]:
    """Read the formulas of family parameters, such as ``sigma ~ x + (1 | g)``."""
    found: list[tuple[ParameterTerms, list[str]]] = []
    for text in formulas:
        left, right = _sides(text)
        name = write(left)
        if name not in family.parameters:
            has = listed(family.parameters) or "none"
            raise FormulaError(
                f"'{name}' is no parameter of the {family.name} family; it has {has}."
                f"{suggest(name, family.parameters)}"
            )
        if name in {done.name for done, _ in found}:
            raise FormulaError(f"'{name}' has two formulas: write one.")
        terms, group_terms, names = _read_right(right, text)
        made = ParameterTerms(name=name, terms=terms, group_terms=group_terms)
        found.append((made, names))
    return found


def _is_group_term(piece: list[Token]) -> bool:
    if len(piece) < 3 or piece[0].kind != "LEFT_PAREN" or piece[-1].kind != "RIGHT_PAREN":
        return False
    inner = outside_calls(piece[1:-1])
    return any(t.kind == "PIPE" for t in inner)


def _read_group_term(inner: list[Token]) -> tuple[list[GroupTerm], list[str]]:
    whole = f"({write(inner)})"
    bars = [i for i, t in enumerate(inner) if t.kind == "PIPE"]
    double = len(bars) == 2 and bars[1] == bars[0] + 1
    if len(bars) != 1 and not double:
        raise FormulaError(f"a group term has one '|' or '||': see '{whole}'.")
    left, right = inner[: bars[0]], inner[bars[-1] + 1 :]
    if not left:
        raise FormulaError(f"there is nothing before '|' in '{whole}': write (1 | g).")
    if not right:
        raise FormulaError(f"there is no grouping column after '|' in '{whole}'.")
    columns = check_expression(left)
    factors: list[list[str]] = [[]]
    expect_name = True
    for token in right:
        if expect_name and token.kind in ("IDENTIFIER", "BQNAME"):
            factors[-1].append(_factor_name(token))
            columns.append(_factor_name(token))
        elif not expect_name and token.kind == "COLON":
            pass
        elif not expect_name and token.kind == "SLASH":
            factors.append(list(factors[-1]))
        else:
            raise FormulaError(
                f"after '|' come grouping columns joined by ':' or '/', as in (1 | school/class): "
                f"see '{whole}'."
            )
        expect_name = not expect_name
    if expect_name:
        raise FormulaError(f"'{whole}' ends in an operator.")
    terms = _with_intercept([Token(kind="PLUS", text="+"), *left])
    if terms == "0":
        raise FormulaError(f"there is no effect left in '{whole}'.")
    if "offset(" in terms:
        raise FormulaError(f"an offset belongs outside of '{whole}'.")
    found = [
        GroupTerm(group=":".join(dict.fromkeys(f)), terms=terms, correlated=not double)
        for f in factors
    ]
    return found, columns


def _factor_name(token: Token) -> str:
    name = column_name(token)
    if ":" in name:
        raise FormulaError(f"a grouping column cannot have ':' in its name: rename '{name}'.")
    return name


def _with_intercept(tokens: list[Token]) -> str:
    """Write a sum of terms with its intercept, 1 or 0, first."""
    intercept = True
    kept: list[Token] = []
    for sign, piece in split_sum(tokens, write(tokens)) if tokens else []:
        number = piece[0].text if len(piece) == 1 and piece[0].kind == "NUMBER" else None
        if number is None:
            kept += [Token(kind="PLUS" if sign == "+" else "MINUS", text=sign), *piece]
        elif number in ("0", "1"):
            intercept = (number == "1") == (sign == "+")
        else:
            raise FormulaError(f"the number {number} is no term: write 1, 0 or I(...).")
    text = write(kept)
    if not text:
        return "1" if intercept else "0"
    first = "1" if intercept else "0"
    return f"{first} {text}" if text.startswith(("+", "-")) else f"{first} + {text}"
