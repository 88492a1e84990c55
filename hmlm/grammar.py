"""The words of a formula, and the fixed tables that say which of them may stand where.

Everything here reads text: nothing is evaluated, and nothing outside the text is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from types import MappingProxyType
from typing import Any

from hmlm.errors import FormulaError, listed, suggest

FUNCTIONS = frozenset(
    "log log2 log10 log1p exp sqrt abs scale center poly bs C I offset p prop se "
    "Treatment Sum".split()
)
OUTCOME_FUNCTIONS = frozenset("log log2 log10 log1p exp sqrt abs scale center I p prop se".split())
PAIRS = frozenset({"p", "prop", "se"})
ONE_ARGUMENT = FUNCTIONS - {"poly", "bs", "C"} - PAIRS
KEYWORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "bs": frozenset({"df", "degree", "center", "lower_bound", "upper_bound"}),
        "poly": frozenset({"degree", "raw"}),
        "C": frozenset({"contrast"}),
        "Treatment": frozenset({"reference", "ref"}),
        "Sum": frozenset({"omit"}),
    }
)
OPERATORS = frozenset({"PLUS", "MINUS", "STAR", "STAR_STAR", "SLASH", "COLON", "COMMA", "EQUAL"})
COMPARISONS = frozenset(
    {"EQUAL_EQUAL", "BANG_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"}
)
VALUES = frozenset({"IDENTIFIER", "NUMBER", "STRING", "BQNAME", "PYTHON_LITERAL"})
DEEPER = frozenset({"LEFT_PAREN", "LEFT_BRACE"})
HIGHER = frozenset({"RIGHT_PAREN", "RIGHT_BRACE"})
KINDS = OPERATORS | COMPARISONS | VALUES | DEEPER | HIGHER | {"TILDE", "PIPE"}
MAX_LENGTH = 10_000
MAX_DEPTH = 40
MAX_TERMS = 2_000
MAX_POWER = 1_000
MAX_BASIS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One word or sign of a formula, with the kind that formulae gives it."""

    kind: str
    text: str

    @property
    def name(self) -> str:
        """The text without backquotes."""
        return self.text.strip("`") if self.kind == "BQNAME" else self.text


def scan_formula(formula: str) -> list[Token]:
    """Cut a formula into tokens and check its length, its parentheses and its signs.

    Raises
    ------
    FormulaError
        If it is no text, too long, or holds something that has no meaning in a formula.
    """
    from formulae.scanner import ScanError, Scanner

    if not isinstance(formula, str):
        raise FormulaError(f"a formula is text, as 'y ~ x + (1 | g)', not {formula!r:.60}.")
    if len(formula) > MAX_LENGTH:
        raise FormulaError(f"the formula has {len(formula):,} characters; at most {MAX_LENGTH:,}.")
    if not formula.strip():
        raise FormulaError("the formula is empty: write 'outcome ~ predictors + (1 | group)'.")
    try:
        scanned = Scanner(formula).scan(add_intercept=False)
    except IndexError as error:
        raise FormulaError(f"a backquote is not closed in '{formula}'.") from error
    except (ScanError, ValueError) as error:
        raise FormulaError(
            f"cannot read '{formula}': {error}. A column whose name is not a plain word goes "
            "between backquotes, as `my column`; a power is written I(x**2)."
        ) from error
    tokens = [Token(kind=t.kind, text=t.lexeme) for t in scanned if t.kind != "EOF"]
    depth = 0
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.kind not in KINDS:
            raise FormulaError(f"'{token.text}' has no meaning in a formula: see '{formula}'.")
        if token.kind in VALUES | HIGHER and following and following.kind in VALUES:
            raise FormulaError(
                f"there is nothing between '{token.text}' and '{following.text}' in '{formula}': "
                "put +, : or * there. A column whose name has a space goes between backquotes."
            )
        if token.kind == "TILDE" and depth:
            raise FormulaError(f"'~' cannot stand inside parentheses: see '{formula}'.")
        depth += (token.kind in DEEPER) - (token.kind in HIGHER)
        if depth < 0:
            raise FormulaError(f"there is a ')' too many in '{formula}'.")
        if depth > MAX_DEPTH:
            raise FormulaError(f"parentheses are nested more than {MAX_DEPTH} deep.")
    if depth:
        raise FormulaError(f"there is a ')' missing in '{formula}'.")
    return tokens


def write(tokens: Iterable[Token]) -> str:
    """Write tokens as text, spaced as people write formulas."""
    spaced = {"PLUS", "MINUS", "STAR", "PIPE", "TILDE"}
    parts = []
    for token in tokens:
        if token.kind in spaced:
            parts.append(f" {token.text} ")
        elif token.kind == "COMMA":
            parts.append(", ")
        else:
            parts.append(token.text)
    return "".join(parts).replace("  ", " ").strip()


def outside_calls(tokens: Iterable[Token]) -> list[Token]:
    """Return the tokens outside of any parentheses."""
    depth, outside = 0, []
    for token in tokens:
        depth -= token.kind in HIGHER
        if depth == 0:
            outside.append(token)
        depth += token.kind in DEEPER
    return outside


def split_sum(tokens: list[Token], formula: str) -> list[tuple[str, list[Token]]]:
    """Split at the + and - that stand outside parentheses, each piece with its sign."""
    pieces: list[tuple[str, list[Token]]] = []
    current: list[Token] = []
    sign, depth = "+", 0
    for token in tokens:
        if depth == 0 and token.kind in ("PLUS", "MINUS"):
            if current:
                pieces.append((sign, current))
                sign = "+"
            elif pieces:
                raise FormulaError(f"two signs follow each other in '{formula}'.")
            sign, current = token.text, []
            continue
        depth += (token.kind in DEEPER) - (token.kind in HIGHER)
        current.append(token)
    if not current:
        raise FormulaError(f"'{formula}' ends in a sign.")
    return [*pieces, (sign, current)]


def column_name(token: Token) -> str:
    """Return the column that a name stands for.

    Raises
    ------
    FormulaError
        If the name has a dot or begins with an underscore outside of backquotes, or is the one
        that the constant has in every table.
    """
    if token.kind == "IDENTIFIER" and ("." in token.text or token.text.startswith("_")):
        raise FormulaError(
            f"'{token.text}' is not a plain column name: a formula reaches nothing outside the "
            f"data. If it is a column, write it between backquotes: `{token.text}`."
        )
    if token.name == "Intercept":
        raise FormulaError(
            "'Intercept' is the name of the constant, written 1: rename the column of that name."
        )
    return token.name


def check_expression(tokens: list[Token], outcome: bool = False) -> list[str]:
    """Check every name in an expression against the tables and return its columns.

    Raises
    ------
    FormulaError
        If something outside the tables is named, or stands where it has no meaning.
    """
    columns: list[str] = []
    calls: list[str] = []
    power = 1.0
    nothing = Token(kind="", text="")
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else nothing
        after = tokens[i + 1] if i + 1 < len(tokens) else nothing
        inside = any(calls)
        if token.kind in DEEPER:
            if not inside:
                power = 1.0
            calls.append(_opens(token, before))
        elif token.kind in HIGHER:
            if not calls:
                raise FormulaError(f"there is a ')' too many in '{write(tokens)}'.")
            calls.pop()
        elif token.kind in ("TILDE", "PIPE") and calls:
            raise FormulaError(f"'{token.text}' cannot stand inside {calls[-1]}(...).")
        elif token.kind == "COMMA" and (not calls or calls[-1] in ONE_ARGUMENT | {""}):
            where = f"{calls[-1]}(...) takes one argument" if calls and calls[-1] else "a stray ','"
            raise FormulaError(f"{where}: see '{write(tokens)}'.")
        elif token.kind == "IDENTIFIER":
            if after.kind == "LEFT_PAREN":
                _check_function(token.text, outcome, calls)
            elif after.kind == "EQUAL":
                _check_keyword(token.text, calls)
            elif not _is_contrast(token, before, calls):
                columns.append(column_name(token))
        elif token.kind == "BQNAME":
            columns.append(column_name(token))
        elif token.kind == "NUMBER":
            power *= _check_number(token, before, calls)
            if power > MAX_POWER:
                raise FormulaError(f"the power in '{write(tokens)}' is too high.")
        elif token.kind in ("STRING", "PYTHON_LITERAL"):
            _check_constant(token, before, after, inside)
        elif not inside and token.kind in COMPARISONS | {"EQUAL"}:
            raise FormulaError(
                f"'{token.text}' has no meaning outside I(...): write I(x {token.text} 0) for a "
                "comparison; the outcome is followed by '~'."
            )
        elif not inside and token.kind == "STAR_STAR":
            if before.kind not in HIGHER or after.kind != "NUMBER":
                raise FormulaError(
                    f"'{before.text}**{after.text}' is no power outside I(...): write "
                    "I(x**2) for a square, (a + b)**2 for all interactions of two."
                )
    text = write(tokens).removeprefix("+ ")
    if problem := _parse_problem(text):
        raise FormulaError(f"cannot read '{text}': {problem}.")
    return columns


def _opens(token: Token, before: Token) -> str:
    """Return the function whose arguments a parenthesis opens; '' where it only groups."""
    if token.kind == "LEFT_BRACE":
        return "I"
    if before.kind in VALUES - {"IDENTIFIER"} or before.kind in HIGHER:
        raise FormulaError(f"'{before.text}(' calls something that is not a function.")
    return before.text if before.kind == "IDENTIFIER" else ""


def _is_contrast(token: Token, before: Token, calls: list[str]) -> bool:
    named = token.text in ("Treatment", "Sum") and before.kind in ("COMMA", "EQUAL")
    return bool(named and calls and calls[-1] == "C")


def _check_function(name: str, outcome: bool, calls: list[str]) -> None:
    allowed = OUTCOME_FUNCTIONS if outcome else FUNCTIONS - PAIRS
    if name in ("Treatment", "Sum") and not (calls and calls[-1] == "C"):
        raise FormulaError(f"{name}(...) goes inside C(...), as C(x, {name}('a')).")
    if name not in allowed:
        where = "the outcome" if outcome else "a formula"
        extra = ""
        if name in PAIRS:
            call = "se(y, standard_error)" if name == "se" else "p(successes, trials)"
            extra = f" {call} belongs before '~'."
        raise FormulaError(
            f"'{name}' is not a function that {where} may use.{extra}"
            f"{suggest(name, allowed)} Allowed: {listed(sorted(allowed), 20)}. Anything else: make "
            "a column of it first."
        )


def _check_keyword(name: str, calls: list[str]) -> None:
    call = calls[-1] if calls else ""
    if name not in KEYWORDS.get(call, frozenset()):
        where = f"{call}(...)" if call else "a formula"
        raise FormulaError(f"{where} takes no '{name}='.")


def _check_number(token: Token, before: Token, calls: list[str]) -> float:
    """Check a number and return it if it is an exponent, else 1."""
    value = float(token.text)
    if not any(calls):
        if before.kind == "STAR_STAR":
            if not (value.is_integer() and 1 <= value <= 10):
                raise FormulaError(f"'**{token.text}' outside I(...): write **2, **3 ... **10.")
        elif token.text not in ("0", "1") or before.kind in ("STAR", "SLASH", "COLON"):
            raise FormulaError(f"the number {token.text} is no term: write 1, 0 or I(...).")
    elif before.kind == "STAR_STAR":
        return max(value, 1.0)
    elif calls[-1] in ("poly", "bs") and value > MAX_BASIS and before.kind in ("COMMA", "EQUAL"):
        raise FormulaError(f"{calls[-1]}(...) makes at most {MAX_BASIS} columns.")
    return 1.0


def _check_constant(token: Token, before: Token, after: Token, inside: bool) -> None:
    if not inside:
        raise FormulaError(f"the constant {token.text} is no term: name a column.")
    starts = before.kind in COMPARISONS | {"LEFT_PAREN", "COMMA", "EQUAL"}
    if not starts or after.kind not in COMPARISONS | {"RIGHT_PAREN", "RIGHT_BRACE", "COMMA"}:
        raise FormulaError(f"there is no arithmetic with {token.text}.")


@lru_cache(maxsize=512)
def _parse_problem(text: str) -> str:
    from formulae.parser import ParseError, Parser
    from formulae.scanner import Scanner

    try:
        parser = Parser(Scanner(text).scan(add_intercept=False))
        tree = parser.parse()
    except (ParseError, AttributeError, IndexError, RecursionError) as error:
        return str(error) or "it ends too early"
    if not parser.at_end():
        return f"'{parser.peek().lexeme}' is not expected there"
    if _count_terms(tree) > MAX_TERMS:
        return f"it expands to more than {MAX_TERMS:,} terms"
    return ""


def _count_terms(node: Any) -> int:
    """Count the terms that a sum of terms expands to, at most."""
    from formulae.expr import Binary, Grouping, Literal, Unary

    later = []
    while isinstance(node, Binary):
        later.append((node.operator.kind, node.right))
        node = node.left
    count = _count_terms(node.expression) if isinstance(node, Grouping) else 1
    count = _count_terms(node.right) if isinstance(node, Unary) else count
    for kind, right in reversed(later):
        if kind == "STAR_STAR":
            order = right.value if isinstance(right, Literal) else 1
            count = sum(comb(count, k) for k in range(1, int(order) + 1))
            continue
        other = _count_terms(right)
        both = {"PLUS": (1, 0), "STAR": (1, 1), "COLON": (0, 1), "SLASH": (0, 1)}
        plus, times = both.get(kind, (0, 0))
        count = count * (kind != "COLON") + plus * other + times * count * other
    return count
