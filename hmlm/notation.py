"""How the symbols and priors of a model are written: as text for a terminal, or in LaTeX."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from hmlm.display import clip, latex_name
from hmlm.priors import Prior

_SUBSCRIPTS = str.maketrans("0123456789ijklmn", "₀₁₂₃₄₅₆₇₈₉ᵢⱼₖₗₘₙ")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "eta": "η",
    "mu": "μ",
    "nu": "ν",
    "pi": "π",
    "sigma": "σ",
    "phi": "φ",
}
_PARAMETERS = {"lam": r"\lambda", "lower": r"\text{lower}", "upper": r"\text{upper}"}


def _parts(symbol: str) -> tuple[str, str, list[str]]:
    """Return base, category and tags of a symbol such as ``sd``, ``sd_sigma_b`` or ``beta^2``."""
    head, *tags = symbol.split("_")
    base, _, category = head.partition("^")
    return base, category, tags


class Notation(ABC):
    """How the symbols of a model are written: the same equations as text or as LaTeX.

    A symbol is a letter, a word (``sd``) or the name of a Greek letter, then maybe ``^`` and the
    number of a category, then maybe tags, each after ``_``, that tell it from others.
    """

    mu: str
    eta: str
    weight: str
    dots: str
    at_most: str

    @abstractmethod
    def name(self, name: object) -> str:
        """Write a name of the user's."""

    @abstractmethod
    def number(self, value: int) -> str:
        """Write a count."""

    @abstractmethod
    def words(self, words: str) -> str:
        """Write words of hmlm's own."""

    @abstractmethod
    def row(self, name: object) -> str:
        """Write a column's value in row i."""

    @abstractmethod
    def indexed(self, symbol: str, k: int | None = None, index: str = "") -> str:
        """Write a symbol with a number, with a number and an index, or bare: β₁, b₁ⱼ, σ."""

    @abstractmethod
    def at(self, symbol: str, index: str = "i") -> str:
        """Write a symbol with an index only: σᵢ."""

    @abstractmethod
    def squared(self, symbol: str) -> str:
        """Write a square."""

    @abstractmethod
    def effect(self, symbol: str, k: int, group: str) -> str:
        """Write effect k of the group that row i belongs to."""

    @abstractmethod
    def vector(self, items: Sequence[str]) -> str:
        """Write a vector."""

    @abstractmethod
    def function(self, name: str, *arguments: str) -> str:
        """Write a distribution or a function with its arguments."""

    @abstractmethod
    def inverse(self, name: str, argument: str) -> str:
        """Write the inverse of a function."""

    @abstractmethod
    def times(self, *factors: str) -> str:
        """Write a product."""

    @abstractmethod
    def prior(self, prior: Any) -> str:
        """Write a prior with its numbers."""


class TextNotation(Notation):
    """Symbols for a terminal."""

    mu, eta, weight, dots, at_most = "μᵢ", "η", "wᵢ", "...", "≤"

    def name(self, name: object) -> str:
        """Write a name."""
        return clip(name)

    def number(self, value: int) -> str:
        """Write a count."""
        return f"{value:,}"

    def words(self, words: str) -> str:
        """Write words."""
        return words

    def row(self, name: object) -> str:
        """Write a column's value in row i."""
        return f"{clip(name)}ᵢ"

    def indexed(self, symbol: str, k: int | None = None, index: str = "") -> str:
        """Write a symbol with a number, an index, or both."""
        return self._symbol(symbol) + ("" if k is None else str(k) + index).translate(_SUBSCRIPTS)

    def at(self, symbol: str, index: str = "i") -> str:
        """Write a symbol with an index only."""
        return self._symbol(symbol) + index.translate(_SUBSCRIPTS)

    def _symbol(self, symbol: str) -> str:
        base, category, tags = _parts(symbol)
        above = f"⁽{category.translate(_SUPERSCRIPTS)}⁾" if category else ""
        below = "".join(_GREEK.get(tag, tag) for tag in tags)
        return _GREEK.get(base, base) + above + (f"_{below}" if below else "")

    def squared(self, symbol: str) -> str:
        """Write a square."""
        return f"{symbol}²"

    def effect(self, symbol: str, k: int, group: str) -> str:
        """Write effect k of the group that row i belongs to."""
        return f"{self.indexed(symbol, k)}[{clip(group, 24)}ᵢ]"

    def vector(self, items: Sequence[str]) -> str:
        """Write a vector."""
        shown = items if len(items) <= 6 else [*items[:2], "...", items[-1]]
        return f"({', '.join(shown)})"

    def function(self, name: str, *arguments: str) -> str:
        """Write a distribution or a function with its arguments."""
        return f"{name}({', '.join(arguments)})"

    def inverse(self, name: str, argument: str) -> str:
        """Write the inverse of a function."""
        return f"{name}⁻¹({argument})"

    def times(self, *factors: str) -> str:
        """Write a product."""
        return " ".join(factors)

    def prior(self, prior: Any) -> str:
        """Write a prior with the names of its parameters."""
        if isinstance(prior, Prior) and prior.name == "lkj":
            return self.function("LKJ", f"{prior.parameters['eta']:.4g}")
        return clip(prior, 70)


class LatexNotation(Notation):
    """Symbols for LaTeX and MathJax."""

    mu, eta, weight, dots, at_most = r"\mu_i", r"\eta", "w_i", r"\dots", r"\le"

    def name(self, name: object) -> str:
        """Write a name."""
        return latex_name(name)

    def number(self, value: int) -> str:
        """Write a count."""
        return f"{value:,}".replace(",", "{,}")

    def words(self, words: str) -> str:
        """Write words."""
        return rf"\text{{{words}}}"

    def row(self, name: object) -> str:
        """Write a column's value in row i."""
        return f"{latex_name(name)}_i"

    def indexed(self, symbol: str, k: int | None = None, index: str = "") -> str:
        """Write a symbol with a number, an index, or both."""
        comma = "," if index and k is not None and k > 9 else ""
        return self._symbol(symbol, "" if k is None else f"{k}{comma}{index}")

    def at(self, symbol: str, index: str = "i") -> str:
        """Write a symbol with an index only."""
        return self._symbol(symbol, index)

    def _symbol(self, symbol: str, *below: str) -> str:
        base, category, tags = _parts(symbol)
        if base in _GREEK:
            base = f"\\{base}"
        elif len(base) > 1:
            base = rf"\operatorname{{{base}}}"
        if category:
            base += f"^{{({category})}}"
        tag = " ".join(f"\\{tag}" if tag in _GREEK else tag for tag in tags)
        under = ",".join(filter(None, [tag, *below]))
        if not under:
            return base
        return f"{base}_{under}" if len(under) == 1 else f"{base}_{{{under}}}"

    def squared(self, symbol: str) -> str:
        """Write a square."""
        return f"({symbol})^2" if " " in symbol or "^" in symbol else f"{symbol}^2"

    def effect(self, symbol: str, k: int, group: str) -> str:
        """Write effect k of the group that row i belongs to."""
        return self._symbol(symbol, str(k), f"{latex_name(group)}[i]")

    def vector(self, items: Sequence[str]) -> str:
        """Write a column vector."""
        shown = items if len(items) <= 6 else [*items[:2], r"\vdots", items[-1]]
        return r"\begin{pmatrix} " + r" \\ ".join(shown) + r" \end{pmatrix}"

    def function(self, name: str, *arguments: str) -> str:
        """Write a distribution or a function with its arguments."""
        return rf"\operatorname{{{name}}}({', '.join(arguments)})"

    def inverse(self, name: str, argument: str) -> str:
        """Write the inverse of a function."""
        return rf"\operatorname{{{name}}}^{{-1}}({argument})"

    def times(self, *factors: str) -> str:
        """Write a product."""
        return r" \, ".join(factors)

    def prior(self, prior: Any) -> str:
        """Write a prior in the notation of the equations: a normal by its mean and variance."""
        if not isinstance(prior, Prior):
            return latex_name(prior)
        values = {p: latex_number(v) for p, v in prior.parameters.items()}
        if prior.name in ("normal", "half-normal"):
            values["sigma"] = self.squared(values["sigma"])
            return self.function(prior.name.capitalize(), *values.values())
        if prior.name == "lkj":
            return self.function("LKJ", *values.values())
        written = (f"{_PARAMETERS.get(p, f'\\{p}')} = {v}" for p, v in values.items())
        return self.function(prior.name.capitalize(), *written)


def latex_number(value: float) -> str:
    r"""Write a number with four digits, powers of ten as LaTeX.

    Examples
    --------
    >>> from hmlm.notation import latex_number
    >>> print(latex_number(2.5), latex_number(12345678))
    2.5 1.235 \times 10^{7}
    """
    text = f"{value:.4g}"
    power = re.fullmatch(r"(.+)e([+-]\d+)", text)
    return rf"{power[1]} \times 10^{{{int(power[2])}}}" if power else text


TEXT, LATEX = TextNotation(), LatexNotation()
