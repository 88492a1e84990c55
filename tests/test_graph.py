import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hmlm
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


@pytest.mark.parametrize(
    ("formula", "family", "labels", "edges"),
    [
        (
            "p(cases, size) ~ x + (1 | g)",
            "binomial",
            {"y": "Binomial", "trials": "Data", "sd_g": "HalfStudentT", "z_g": "Normal"},
            {("trials", "y"), ("b_g", "y"), ("beta", "y")},
        ),
        (
            "x ~ 1 + (1 | g); sigma ~ 1 + x2 + (x2 | g)",
            "gaussian",
            {"y": "Normal", "sigma_sd_g": "HalfStudentT", "sigma_chol_g": "LKJCorr"},
            {("sigma_beta", "y"), ("sigma_b_g", "y"), ("sigma_sd_g", "sigma_b_g")},
        ),
        (
            "cases ~ x + (1 | g)",
            "zero-inflated-negative-binomial",
            {"y": "ZeroInflatedNegativeBinomial", "zi": "Beta", "alpha": "InverseGamma"},
            {("zi", "y"), ("alpha", "y")},
        ),
        (
            "grade ~ x + (1 | g)",
            "ordinal",
            {"y": "Categorical", "cutpoints_centered": "OrderedNormal"},
            {("cutpoints_centered", "cutpoints"), ("cutpoints", "y")},
        ),
    ],
)
def test_models_of_several_families(no_dot, formula, family, labels, edges):
    rng = np.random.default_rng(1)
    cases = rng.poisson(2, 60)
    frame = pd.DataFrame({"cases": cases, "size": cases + 5, "g": np.arange(60) // 10})
    frame["grade"] = np.minimum(cases, 3)
    frame["x"], frame["x2"] = rng.normal(size=(2, 60))
    graph = str(hmlm.Model(formula, frame, family=family).graph())
    nodes = nodes_of(graph)
    found = dict(re.findall(r'"([^"<]+)<br/>~ (\w+)"', graph))
    assert labels.items() <= found.items()
    drawn = set(re.findall(r"^  (n\d+) --> (n\d+)$", graph, re.M))
    assert {(nodes[a], nodes[b]) for a, b in edges} <= drawn


def test_import_is_light():
    code = "import sys, hmlm.graph, hmlm.equations; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"pymc", "pytensor", "graphviz", "formulae"} & set(run.stdout.split())
