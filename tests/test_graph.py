import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hmlm.errors import HmlmError
from hmlm.graph import MermaidGraph, draw_graph

ROOT = Path(__file__).parents[1]
ODD = 'h`"]<img src=x onerror=1> %%{init}%% #quot; end\n'


@pytest.fixture(scope="module")
def model():
    import pymc as pm

    coords = {"batch:cask": list("abc"), "row": range(6), f"d{ODD}": [1, 2]}
    with pm.Model(coords=coords) as model:
        x = pm.Data("x", np.arange(6.0), dims="row")
        mu = pm.Normal("mu")
        sd = pm.HalfNormal("sd_batch:cask")
        z = pm.Normal("z_batch:cask", dims="batch:cask")
        b = pm.Deterministic("b_batch:cask", sd * z, dims="batch:cask")
        odd = pm.Normal(ODD, dims=f"d{ODD}")
        pm.Potential("bound", -odd.sum())
        mean = mu + b[np.array([0, 0, 1, 1, 2, 2])] * x
        pm.Normal("y", mean, 1.0, observed=np.zeros(6), dims="row")
    return model


@pytest.fixture
def no_dot(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)


@pytest.fixture
def mermaid(model, no_dot):
    return draw_graph(model)


def nodes_of(graph):
    return {label: node for node, label in re.findall(r'^ +(n\d+)\W+"(.*?)<br/>', str(graph), re.M)}


def test_mermaid_where_there_is_no_dot(mermaid):
    assert isinstance(mermaid, MermaidGraph)
    nodes = nodes_of(mermaid)
    assert len(nodes) == 8
    edges = set(re.findall(r"^  (n\d+) --> (n\d+)$", str(mermaid), re.M))
    expected = {
        ("sd_batch:cask", "b_batch:cask"),
        ("z_batch:cask", "b_batch:cask"),
        ("b_batch:cask", "y"),
        ("mu", "y"),
        ("x", "y"),
    }
    assert {(nodes[a], nodes[b]) for a, b in expected} < edges
    assert len(edges) == len(expected) + 1
    assert '["batch:cask (3)"]' in str(mermaid)
    assert "(6)" in str(mermaid)


def test_every_kind_of_variable_has_its_shape(mermaid):
    text = str(mermaid)
    assert '(["mu<br/>~ Normal"]):::free' in text
    assert '(["y<br/>~ Normal"]):::observed' in text
    assert '["b_batch:cask<br/>~ Deterministic"]:::fixed' in text
    assert '[("x<br/>~ Data")]:::data' in text
    assert '{{"bound<br/>~ Potential"}}:::potential' in text


def test_odd_names_are_escaped(mermaid):
    lines = str(mermaid).splitlines()
    shape = re.compile(
        r"graph TD|  end|  classDef \w+ [\w#:,]+|  n\d+ --> n\d+"
        r'|  subgraph p\d+ \["[^"<>`%{}\[\]]*"\]'
        r'|  +n\d+[(\[{]+"[^"<>`%{}\[\]]*<br/>~ [\w ]+"[)\]}]+:::\w+'
    )
    assert [line for line in lines if not shape.fullmatch(line)] == []


def test_the_graph_is_the_same_every_time(model, mermaid):
    assert str(draw_graph(model)) == str(mermaid)


def test_notebooks_get_every_form(mermaid):
    bundle = mermaid._repr_mimebundle_()
    assert bundle["text/plain"] == bundle["text/vnd.mermaid"] == str(mermaid) == repr(mermaid)
    assert bundle["text/markdown"] == f"```mermaid\n{mermaid}\n```\n"
    assert mermaid._repr_markdown_() == bundle["text/markdown"]
    assert bundle["text/markdown"].count("```") == 2
    assert json.dumps(bundle)
    assert set(mermaid._repr_mimebundle_(include={"text/plain"})) == {"text/plain"}
    assert "text/plain" not in mermaid._repr_mimebundle_(exclude={"text/plain"})


def test_saving(mermaid, tmp_path):
    page = mermaid.save(tmp_path / "model.md")
    assert page.read_text(encoding="utf-8") == mermaid._repr_markdown_()
    graph = mermaid.save(str(tmp_path / "model.mmd"))
    assert graph.read_text(encoding="utf-8") == f"{mermaid}\n"
    with pytest.raises(HmlmError, match=r"saved as \.md or \.mmd, not 'model\.png'"):
        mermaid.save(tmp_path / "model.png")


def test_graphviz_where_there_is_dot(model, monkeypatch):
    graphviz = pytest.importorskip("graphviz")
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")
    graph = draw_graph(model)
    assert isinstance(graph, graphviz.Digraph)
    assert "b_batch:cask" in graph.source


def test_mermaid_where_there_is_no_graphviz(model, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert isinstance(draw_graph(model), MermaidGraph)


def test_import_is_light():
    code = "import sys, hmlm.graph, hmlm.equations; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"pymc", "pytensor", "graphviz", "formulae"} & set(run.stdout.split())
