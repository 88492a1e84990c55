"""A table of cells that can be read in a terminal, a notebook, a paper or a README."""

from __future__ import annotations

import html
import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def number(value: Any, digits: int = 3) -> str:
    """Write a number for a table; blank where there is none.

    Examples
    --------
    >>> number(0.51198), number(float("nan")), number(12345.678), number(0.00000123)
    ('0.512', '', '12346', '1.23e-06')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    value = float(value)
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    if 0 < size < 10.0**-digits / 2:
        return f"{value:.{digits - 1}e}"
    if size >= 1e7:
        return f"{value:.{digits}e}"
    places = digits if size < 100 else (min(digits, 1) if size < 10_000 else 0)
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def p_text(value: float) -> str:
    """Write a p-value as R does: four digits, and '<.0001' below that."""
    if math.isnan(value):
        return ""
    return "<.0001" if value < 1e-4 else f"{value:.4f}"


def escape_latex(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Table:
    """Cells with a head, a title and notes.

    Attributes
    ----------
    header : sequence of str
        Heads of the columns.
    rows : sequence of sequence of str
        The cells.
    title : str
        Line above the table.
    notes : sequence of str
        Lines below the table.
    left : int
        How many of the first columns are text, set flush left; the others are numbers.
    over : sequence of (str, int)
        Heads that span several columns, with how many.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = ()
    left: int = 1
    over: Sequence[tuple[str, int]] = ()

    def __str__(self) -> str:
        """Return the table as text, as wide as it needs to be."""
        from rich.console import Console

        console = Console(
            file=io.StringIO(),
            width=250,
            color_system=None,
            legacy_windows=False,
            force_jupyter=False,  # in a notebook, rich would show the table and leave no text
        )
        console.print(self.__rich__())
        text = console.file.getvalue()  # type: ignore[attr-defined]
        lines = [line.rstrip() for line in text.splitlines()]
        return "\n".join([*filter(None, [self.title]), *lines, *self.notes])

    def __rich__(self) -> Any:
        """Return the rich table that terminals show."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0)
        )
        heads = self._stacked_heads() if self.over else list(self.header)
        for i, head in enumerate(heads):
            table.add_column(Text(head), justify="left" if i < self.left else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*[Text(cell) for cell in row])
        return table

    def _stacked_heads(self) -> list[str]:
        """Heads with those that span columns above them, broken where they are wider than it."""
        above: list[list[str]] = []
        for name, width in self.over:
            column = len(above)
            room = max(len(row[column]) for row in [self.header, *self.rows])
            above.append(textwrap.wrap(name, max(room, 1), break_long_words=False))
            above += [[]] * (width - 1)
        height = max(map(len, above))
        return [
            "\n".join([*[""] * (height - len(lines)), *lines, head])
            for lines, head in zip(above, self.header, strict=True)
        ]

    def to_html(self) -> str:
        """Return the table as HTML, every label escaped."""
        parts = ["<table>"]
        if self.title:
            parts.append(f"<caption>{html.escape(self.title)}</caption>")
        parts.append("<thead>")
        if self.over:
            cells = "".join(f'<th colspan="{w}">{html.escape(n)}</th>' for n, w in self.over)
            parts.append(f"<tr>{cells}</tr>")
        parts.append("<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in self.header) + "</tr>")
        parts.append("</thead><tbody>")
        for row in self.rows:
            cells = "".join(
                f'<td style="text-align:{"left" if i < self.left else "right"}">'
                f"{html.escape(cell)}</td>"
                for i, cell in enumerate(row)
            )
            parts.append(f"<tr>{cells}</tr>")
        parts.append("</tbody></table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_markdown(self) -> str:
        """Return the table in Markdown."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

        heads = list(self.header)
        if self.over:
            spans = [name for name, width in self.over for _ in range(width)]
            heads = [
                f"{s} {h}".strip() if s else h for s, h in zip(spans, self.header, strict=True)
            ]
        rule = [":--" if i < self.left else "--:" for i in range(len(heads))]
        lines = [line(heads), line(rule), *(line(r) for r in self.rows)]
        head = [f"**{self.title}**", ""] if self.title else []
        notes = ["", *self.notes] if self.notes else []
        return "\n".join([*head, *lines, *notes])

    def to_latex(self) -> str:
        """Return the table as a LaTeX tabular, with the rules of booktabs."""
        align = "l" * self.left + "r" * (len(self.header) - self.left)
        lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
        if self.over:
            spans = [rf"\multicolumn{{{w}}}{{c}}{{{escape_latex(n)}}}" for n, w in self.over]
            lines.append(" & ".join(spans) + r" \\")
        lines.append(" & ".join(escape_latex(h) for h in self.header) + r" \\")
        lines.append(r"\midrule")
        lines += [" & ".join(escape_latex(c) for c in row) + r" \\" for row in self.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [f"% {line}" for note in self.notes for line in note.splitlines()]
        return "\n".join(lines)
