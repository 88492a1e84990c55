"""Drawings of a PyMC model: with graphviz where it is installed, with Mermaid everywhere else."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmlm.errors import HmlmError

if TYPE_CHECKING:
    import graphviz
    import pymc as pm

_SHAPES = {
    "Free Random Variable": ('(["', '"])', "free"),
    "Observed Random Variable": ('(["', '"])', "observed"),
    "Deterministic": ('["', '"]', "fixed"),
    "Data": ('[("', '")]', "data"),
    "Potential": ('{{"', '"}}', "potential"),
}
_SHORTENED = {"invgamma": "InverseGamma", "lognormal": "LogNormal", "t": "StudentT"}
_STYLES = ("classDef observed fill:#9e9e9e,color:#000", "classDef data fill:#e0e0e0,color:#000")


@dataclass(frozen=True, eq=False, slots=True)
class MermaidGraph:
    r"""A graph in Mermaid's language, which JupyterLab, GitHub and many editors draw.

    Attributes
    ----------
    source : str
        The text of the graph.

    Examples
    --------
    >>> from hmlm.graph import MermaidGraph
    >>> graph = MermaidGraph("graph TD\n  mu --> y")
    >>> print(graph)
    graph TD
      mu --> y
    """

    source: str

    def __str__(self) -> str:
        """Return the text of the graph."""
        return self.source

    def __repr__(self) -> str:
        """Return the text of the graph."""
        return self.source

    def _repr_markdown_(self) -> str:
        return f"```mermaid\n{self.source}\n```\n"

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """Return the graph as plain text, as Markdown and as JupyterLab's Mermaid output."""
        bundle = {
            "text/plain": self.source,
            "text/markdown": self._repr_markdown_(),
            "text/vnd.mermaid": self.source,
        }
        return {
            kind: text
            for kind, text in bundle.items()
            if (not include or kind in include) and kind not in (exclude or ())
        }

    def save(self, path: str | Path) -> Path:
        r"""Write the graph to a file.

        Parameters
        ----------
        path : str or Path
            A name that ends in ``.md`` (a Markdown page with the graph) or ``.mmd`` (the graph).

        Returns
        -------
        Path
            The file.

        Raises
        ------
        HmlmError
            A `ValueError`, if the name ends otherwise.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from hmlm.graph import MermaidGraph
        >>> folder = Path(tempfile.mkdtemp())
        >>> MermaidGraph("graph TD").save(folder / "model.mmd").read_text()
        'graph TD\n'
        """
        path = Path(path)
        if path.suffix not in (".md", ".mmd"):
            raise HmlmError(
                f"a Mermaid graph is saved as .md or .mmd, not '{path.name}'. For a picture, "
                "install graphviz (the Python package and its program 'dot') and draw again."
            )
        text = self._repr_markdown_() if path.suffix == ".md" else f"{self.source}\n"
        path.write_text(text, encoding="utf-8")
        return path


def draw_graph(pm_model: pm.Model) -> graphviz.Digraph | MermaidGraph:
    """Draw a PyMC model: its variables, what each depends on, and its dimensions as plates.

    Parameters
    ----------
    pm_model : pymc.Model
        The model.

    Returns
    -------
    graphviz.Digraph or MermaidGraph
        The first where the Python package graphviz and its program ``dot`` are installed. Both
        show as a picture in a notebook.

    Examples
    --------
    >>> import pymc as pm
    >>> from hmlm.graph import draw_graph
    >>> with pm.Model(coords={"id": ["a", "b"]}) as model:
    ...     mu = pm.Normal("mu")
    ...     b = pm.Normal("b_id", mu, 1, dims="id")
    >>> print(draw_graph(model))  # doctest: +SKIP
    graph TD
      n0(["mu<br/>~ Normal"]):::free
      subgraph p0 ["id (2)"]
        n1(["b_id<br/>~ Normal"]):::free
      end
      n0 --> n1
    """
    if importlib.util.find_spec("graphviz") is not None and shutil.which("dot") is not None:
        import pymc as pm

        return pm.model_to_graphviz(pm_model)
    return MermaidGraph(_mermaid(pm_model))


def _mermaid(pm_model: Any) -> str:
    """Write a model in Mermaid's language.

    `pymc.model_to_mermaid` writes names as they are and the plates in an order that changes from
    run to run; a name with a colon, such as ``b_batch:cask``, ends its graph. Here every variable
    has a safe identifier and every label is escaped.
    """
    from pymc.model_graph import ModelGraph

    graph = ModelGraph(pm_model)
    plates = {
        node.var.name: (plate.dim_info, node.node_type.value)
        for plate in graph.get_plates()
        for node in plate.variables
    }
    names = [name for name in pm_model.named_vars if name in plates]
    known = {name: f"n{i}" for i, name in enumerate(names)}
    inside: dict[Any, list[str]] = {}
    for name in names:
        dim_info, kind = plates[name]
        opening, closing, style = _SHAPES[kind]
        label = f"{_escape(name)}<br/>~ {_escape(_distribution(pm_model[name], kind))}"
        inside.setdefault(dim_info, []).append(f"{known[name]}{opening}{label}{closing}:::{style}")
    lines = ["graph TD"]
    for plate, (dim_info, nodes) in enumerate(inside.items()):
        if not dim_info:
            lines += [f"  {node}" for node in nodes]
            continue
        sizes = zip(dim_info.names, dim_info.lengths, strict=True)
        label = " x ".join(f"{name} ({n})" if name else str(n) for name, n in sizes)
        lines.append(f'  subgraph p{plate} ["{_escape(label)}"]')
        lines += [f"    {node}" for node in nodes]
        lines.append("  end")
    parents = graph.make_compute_graph()
    for child in names:
        found = [name for name in names if name in parents.get(child, ())]
        lines += [f"  {known[name]} --> {known[child]}" for name in found]
    return "\n".join([*lines, *(f"  {style}" for style in _STYLES)])


def _distribution(variable: Any, kind: str) -> str:
    if not kind.endswith("Random Variable"):
        return kind
    import pymc as pm
    from pymc.model_graph import random_variable_symbol

    # PyMC writes its own HalfStudentT as Halfstudentt, BetaBinomial as Beta_binomial, and so on.
    spelled = {name.lower(): name for name in pm.distributions.__all__} | _SHORTENED
    found = str(random_variable_symbol(variable)).lstrip("_")
    return spelled.get(found.replace("_", "").lower(), found)


def _escape(label: str) -> str:
    """Write every character that could mean something to Mermaid, Markdown or HTML as its code."""
    return re.sub(
        r"[^\w \-.,:()~]",
        lambda match: f"#{ord(match[0])};" if match[0].isprintable() else " ",
        label,
    )
