"""The parts of a report: HTML with every label escaped, tables, and figures as inline images."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from hmlm.display import clean
from hmlm.errors import HmlmError
from hmlm.placing import find_place, put_whole
from hmlm.tables import Table

SUFFIXES = (".html", ".htm")
DOTS_PER_INCH = 140

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #1f2328; background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; margin: 2rem 0 0.5rem; padding-bottom: 0.2rem;
  border-bottom: 1px solid #8c959f; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 0.5rem; }
a { color: #0b5394; }
nav ul { padding: 0; margin: 1rem 0; list-style: none; display: flex; flex-wrap: wrap; }
nav li { margin: 0 1rem 0 0; }
nav a { display: inline-block; padding: 0.25rem 0; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: 0.9em; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0.75rem 0; }
.scroll:focus-visible { outline: 2px solid #0b5394; }
pre { margin: 0; padding: 0.75rem; background: #f3f5f7; overflow-wrap: normal; width: max-content;
  min-width: 100%; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: 0.25rem 0; }
th, td { padding: 0.2rem 0.6rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid #d8dee4; }
th { font-weight: 600; }
tbody th { font-weight: 400; }
.left { text-align: left; }
.over { text-align: center; }
.misfit { font-weight: 700; color: #a40e26; }
.look { font-weight: 700; color: #7a4b00; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .note { font-size: 0.9rem; color: #454c54; }
@page { margin: 1.5cm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.1rem 0.3rem; white-space: normal; }
  pre { white-space: pre-wrap; width: auto; font-size: 8pt; }
  h2, h3 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  thead { display: table-header-group; }
}
""".strip()


def escape(value: object) -> str:
    r"""Return a label as HTML text: markup, quotes and control characters written out.

    Parameters
    ----------
    value : object
        A name, a level or a sentence.

    Examples
    --------
    >>> from hmlm.report_parts import escape
    >>> escape('<b>"a"\n')
    '&lt;b&gt;&quot;a&quot;\\n'
    """
    return html.escape(clean(value))


def paragraphs(sentences: Iterable[object], style: str = "") -> str:
    """Return each sentence as a paragraph.

    Parameters
    ----------
    sentences : iterable
        The sentences, not escaped; empty ones are left out.
    style : str
        Class of the paragraphs.

    Examples
    --------
    >>> from hmlm.report_parts import paragraphs
    >>> paragraphs(["x < y", ""])
    '<p>x &lt; y</p>'
    """
    start = f'<p class="{style}">' if style else "<p>"
    return "\n".join(f"{start}{escape(s)}</p>" for s in sentences if str(s))


def bullets(sentences: Iterable[object]) -> str:
    r"""Return sentences as a list with bullets; nothing where there are none.

    Parameters
    ----------
    sentences : iterable
        The sentences, not escaped.

    Examples
    --------
    >>> from hmlm.report_parts import bullets
    >>> bullets(["one"])
    '<ul>\n<li>one</li>\n</ul>'
    """
    items = "\n".join(f"<li>{escape(s)}</li>" for s in sentences)
    return f"<ul>\n{items}\n</ul>" if items else ""


def scrolling(inside: str, label: str) -> str:
    """Return a box that scrolls by itself, by keyboard too, so that the page need not.

    Parameters
    ----------
    inside : str
        HTML.
    label : str
        What is in the box, for those who do not see it; not escaped.

    Examples
    --------
    >>> from hmlm.report_parts import scrolling
    >>> scrolling("<pre>y</pre>", "Equations").startswith('<div class="scroll" role="region"')
    True
    """
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">\n'
        f"{inside}\n</div>"
    )


def table_html(table: Table, caption: str) -> str:
    """Return a table in a box that scrolls by itself, its notes below.

    Parameters
    ----------
    table : Table
        The cells; its title is left out.
    caption : str
        What the table shows, not escaped.

    Examples
    --------
    >>> from hmlm.report_parts import table_html
    >>> from hmlm.tables import Table
    >>> page = table_html(Table(header=["group", "rows"], rows=[["<i>", "3"]]), "Sizes")
    >>> '<th scope="row" class="left">&lt;i&gt;</th>' in page
    True
    """
    lines = ["<table>", f"<caption>{escape(caption)}</caption>", "<thead>"]
    if table.over:
        cells = "".join(
            f'<th scope="colgroup" colspan="{width}" class="over">{escape(name)}</th>'
            if name
            else f'<td colspan="{width}"></td>'
            for name, width in table.over
        )
        lines.append(f"<tr>{cells}</tr>")
    cells = "".join(_head_cell(h, i < table.left) for i, h in enumerate(table.header))
    lines += [f"<tr>{cells}</tr>", "</thead>", "<tbody>"]
    for row in table.rows:
        named = next((i for i, c in enumerate(row[: table.left]) if c), None)
        cells = "".join(_cell(c, i < table.left, i == named) for i, c in enumerate(row))
        lines.append(f"<tr>{cells}</tr>")
    lines += ["</tbody>", "</table>"]
    box = scrolling("\n".join(lines), caption)
    return "\n".join(filter(None, [box, paragraphs(table.notes, "note")]))


def _head_cell(text: str, left: bool) -> str:
    place = ' class="left"' if left else ""
    return f'<th scope="col"{place}>{escape(text)}</th>' if text else f"<td{place}></td>"


def _cell(text: str, left: bool, heads: bool) -> str:
    if heads:
        return f'<th scope="row" class="left">{escape(text)}</th>'
    style = "left" if left else ""
    if text in ("misfit", "look"):
        style = f"{style} {text}".strip()
    return f'<td class="{style}">{escape(text)}</td>' if style else f"<td>{escape(text)}</td>"


def figure_html(draw: Callable[[], Any], alt: str, caption: str) -> str:
    """Return a figure as an image in the page itself.

    Parameters
    ----------
    draw : callable
        Draws the figure and returns its axes, one or an array.
    alt : str
        What the figure shows, for those who do not see it; not escaped.
    caption : str
        Line below the figure; not escaped.

    Returns
    -------
    str
        HTML. Figures that the drawing opened are closed again, also where it fails.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.canvas import new_axes
    >>> from hmlm.report_parts import figure_html
    >>> page = figure_html(lambda: new_axes(1, 1, (2, 2))[0, 0], "Nothing", "Empty axes.")
    >>> page.startswith('<figure><img src="data:image/png;base64,')
    True
    """
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    try:
        figure = np.ravel(np.asarray(draw(), dtype=object))[0].figure
        stream = io.BytesIO()
        figure.savefig(
            stream,
            format="png",
            dpi=DOTS_PER_INCH,
            facecolor="white",
            metadata={"Software": None},
        )
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
    code = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{code}" alt="{escape(alt)}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def page_html(title: str, head: str, sections: Sequence[tuple[str, str]], foot: str) -> str:
    """Put a page together: title, list of sections, sections.

    Parameters
    ----------
    title : str
        Title of the window, not escaped.
    head : str
        HTML above the sections, with the only ``h1``.
    sections : sequence of (str, str)
        Heading of each section (not escaped) and its HTML.
    foot : str
        Last line, not escaped.

    Examples
    --------
    >>> from hmlm.report_parts import page_html
    >>> page = page_html("T", "<h1>T</h1>", [("Data", "<p>3 rows</p>")], "hmlm")
    >>> page.startswith("<!DOCTYPE html>"), '<h2 id="data">Data</h2>' in page
    (True, True)
    """
    names = [("-".join(heading.lower().split()), heading, body) for heading, body in sections]
    links = "\n".join(f'<li><a href="#{name}">{escape(h)}</a></li>' for name, h, _ in names)
    bodies = "\n".join(
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(h)}</h2>\n{body}\n</section>'
        for name, h, body in names
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}\n</style>",
            "</head>",
            "<body>",
            f"<header>\n{head}\n</header>",
            f'<nav aria-label="Sections">\n<ul>\n{links}\n</ul>\n</nav>',
            f"<main>\n{bodies}\n</main>",
            f"<footer>\n{paragraphs([foot], 'note')}\n</footer>",
            "</body>",
            "</html>",
            "",
        ]
    )


def check_place(path: str | PathLike[str]) -> Path:
    """Return where a report is to be written, or say why it cannot be.

    Parameters
    ----------
    path : str or path
        A file that ends in ``.html`` or ``.htm``; one that is there is replaced.

    Raises
    ------
    HmlmError
        If the path is a folder, has another ending, or lies in no folder.

    Examples
    --------
    >>> from hmlm.report_parts import check_place
    >>> check_place("report.html").name
    'report.html'
    """
    given: Any = path
    if not isinstance(given, str | PathLike):
        raise HmlmError(f"path is the name of a file, such as 'report.html', not {given!r:.60}.")
    place = Path(path)
    if place.is_dir():
        raise HmlmError(
            f"'{place}' is a folder, and a report is one file: write it to "
            f"'{place / 'report.html'}'."
        )
    if place.suffix.lower() not in SUFFIXES:
        raise HmlmError(f"a report is a page of HTML: let '{place}' end in .html.")
    find_place(place)
    return place


def put_text(place: Path, text: str) -> None:
    """Write a file beside its place and put it there in one step.

    Parameters
    ----------
    place : Path
        Where to, from `check_place`.
    text : str
        What to write.

    Raises
    ------
    HmlmError
        If it cannot be written; what was there before is then as it was.
    """
    with put_whole(place) as made, made.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
