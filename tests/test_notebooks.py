"""The notebooks run, and the executed copies beside them are theirs and clean."""

import importlib.util
import os
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).parents[1]
TEXTS = sorted((ROOT / "notebooks").glob("*.py"))
SOLUTION = re.compile(r"<details>.*?```python\n(.*?)```.*?</details>", re.DOTALL)
each_notebook = pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)


def executor():
    """Import tools/execute_notebooks.py, which is no part of the package."""
    place = ROOT / "tools" / "execute_notebooks.py"
    spec = importlib.util.spec_from_file_location("execute_notebooks", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def executed(text):
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_there_are_notebooks_and_each_has_its_text():
    assert TEXTS
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == {p.stem for p in TEXTS}


@each_notebook
def test_executed_copy_has_the_same_cells(text):
    """If not: python tools/execute_notebooks.py."""
    there, here = (
        [(c.cell_type, c.source) for c in n.cells] for n in (executed(text), jupytext.read(text))
    )
    assert there == here


@each_notebook
def test_executed_copy_is_whole_and_clean(text):
    notebook = executed(text)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(set(cell.metadata) == set() for cell in code)
    assert {output.output_type for output in outputs(notebook)}.isdisjoint({"error"})
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    shown = "\n".join(
        str({**o, "data": {k: v for k, v in o.get("data", {}).items() if k != "image/png"}})
        for o in outputs(notebook)
    )
    places = [
        str(ROOT),
        str(Path.home()),
        "/home/",
        "/Users/",
        "/tmp/",
        "site-packages",
        ":\\\\Users",
    ]
    assert not [place for place in places if len(place) > 3 and place in shown]
    assert not re.search(r"0x[0-9a-f]{8,}", shown)


@pytest.mark.slow
@each_notebook
def test_notebook_and_its_solutions_run(text, monkeypatch):
    tool = executor()
    monkeypatch.setenv("HMLM_DRAWS", "200")
    notebook = tool.read(text)
    told = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    solutions = [code for source in told for code in SOLUTION.findall(source)]
    assert solutions
    notebook.cells += [new_code_cell(code) for code in solutions]
    monkeypatch.setitem(os.environ, "PYTHONWARNINGS", "default")
    done = tool.execute(notebook)
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
