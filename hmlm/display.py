r"""How names, tables and sums are written in a terminal, in LaTeX and in HTML.

Names of columns and groups come from the user's table, so they are escaped here and nowhere else.
In LaTeX a name becomes ``\text{...}`` with every special character outside of it, in math mode:
that is read alike by LaTeX, MathJax 2 to 4 (with and without its textmacros) and KaTeX.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence

from rich.cells import cell_len

_JOINERS = "\u200c\u200d"  # invisible, but part of the spelling of some scripts and emoji
_IN_MATH = {
    "\\": r"\backslash ",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"{\lbrace}",
    "}": r"{\rbrace}",
    "~": r"{\sim}",
    "^": r"{\wedge}",
    "<": r"{<}",
    ">": r"{>}",
}


def clean(name: object) -> str:
    r"""Return a name with control characters, line breaks and direction marks written out.

    Examples
    --------
    >>> from hmlm.display import clean
    >>> clean("a\nb")
    'a\\nb'
    """
    return "".join(
        c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode()
        for c in str(name)
    )


def clip(name: object, width: int = 36) -> str:
    """Return a cleaned name at most `width` columns wide, its middle left out if it is longer.

    Examples
    --------
    >>> from hmlm.display import clip
    >>> clip("a_very_long_name", 9)
    'a_ve…name'
    """
    text = clean(name)
    if cell_len(text) <= width:
        return text
    half = (width - 1) // 2
    start, end = width - 1 - half, len(text) - half
    while cell_len(text[:start]) > width - 1 - half:
        start -= 1
    while cell_len(text[end:]) > half:
        end += 1
    return f"{text[:start]}…{text[end:]}"


def latex_name(name: object) -> str:
    r"""Return a name as LaTeX for math mode, unable to end its ``\text`` or to call a macro.

    Examples
    --------
    >>> from hmlm.display import latex_name
    >>> print(latex_name("log_radon"), latex_name("coa"))
    {\text{log}\_\text{radon}} \text{coa}
    """
    parts = [
        "".join(_IN_MATH[c] for c in run) if special else rf"\text{{{''.join(run)}}}"
        for special, run in itertools.groupby(clean(name), key=_IN_MATH.__contains__)
    ]
    if not parts:
        return r"\text{}"
    return f"{{{''.join(parts)}}}" if len(parts) > 1 or parts[0][0:6] != r"\text{" else parts[0]


def html_name(name: object) -> str:
    """Return a name as HTML code, where MathJax and KaTeX look for no formulas.

    Examples
    --------
    >>> from hmlm.display import html_name
    >>> html_name("<b>$x$")
    '<code>&lt;b&gt;$x$</code>'
    """
    return f"<code>{html.escape(clean(name))}</code>"


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    """Return a table of cells that are HTML already."""

    def line(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(f'<{tag} style="text-align: left">{c}</{tag}>' for c in cells)
            + "</tr>"
        )

    body = "\n".join(line(row, "td") for row in rows)
    caption = f'<caption style="text-align: left"><strong>{title}</strong></caption>'
    return (
        f"<table>\n{caption}\n<thead>{line(head, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n"
        "</table>"
    )


def text_table(rows: Sequence[Sequence[str]], width: int, flexible: int = 0) -> list[str]:
    """Return rows of cells as indented lines with aligned columns.

    Where the lines would be wider than `width`, the cells of column `flexible` are clipped.
    """
    widths = [max(map(cell_len, map(clean, column))) for column in zip(*rows, strict=True)]
    spare = width - 2 * len(widths) - (sum(widths) - widths[flexible])
    widths[flexible] = min(widths[flexible], max(spare, 12))
    lines = []
    for row in rows:
        cells = [clip(c, w) for c, w in zip(row, widths, strict=True)]
        padded = [c + " " * (w - cell_len(c)) for c, w in zip(cells, widths, strict=True)]
        lines.append(("  " + "  ".join(padded)).rstrip())
    return lines


def wrap_words(text: str, width: int, indent: str = "", hanging: str = "") -> list[str]:
    """Break a sentence into lines at most `width` columns wide."""
    lines, line, empty = [], indent, True
    for word in clean(text).split(" "):
        word = clip(word, width - cell_len(hanging) - 1)
        if not empty and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line, empty = hanging, True
        line, empty = (line if empty else f"{line} ") + word, False
    return [*lines, line]


def wrap_sum(
    chunks: Sequence[Sequence[str]], widths: Sequence[Sequence[int]], room: int
) -> list[str]:
    """Break a sum into lines, each but the first starting with a plus.

    A sum that does not fit into one line starts a new one with every chunk.

    Parameters
    ----------
    chunks : sequence of sequence of str
        The terms: those of the population, then those of each grouping factor.
    widths : sequence of sequence of int
        How wide each term is when it is shown.
    room : int
        Width of a line.
    """
    flat = list(itertools.chain.from_iterable(chunks))
    if sum(map(sum, widths)) + 3 * (len(flat) - 1) <= room:
        return [" + ".join(flat)]
    lines: list[list[str]] = []
    for chunk, sizes in zip(chunks, widths, strict=True):
        used = room + 1
        for term, size in zip(chunk, sizes, strict=True):
            if used + 3 + size > room:
                lines.append([])
                used = -1
            lines[-1].append(term)
            used += 3 + size
    sums = [" + ".join(line) for line in lines]
    return [sums[0], *(f"+ {s}" for s in sums[1:])]
