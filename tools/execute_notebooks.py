"""Execute the notebooks and write them with their output: notebooks/*.py -> notebooks/*.ipynb.

The text (.py, by jupytext) is what is edited; the .ipynb beside it is made from it, here.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from unittest import mock

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
TRANSIENT = ("execution", "lines_to_next_cell")


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook from its text, with cell ids that do not change from run to run."""
    notebook = jupytext.read(path)
    for k, cell in enumerate(notebook.cells):
        cell.id = f"{path.stem}-{k:02d}"
    return notebook


def execute(notebook: nbformat.NotebookNode, timeout: int = 600) -> nbformat.NotebookNode:
    """Run all cells, in the folder of the notebooks, with the hmlm of this checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    with mock.patch.dict(os.environ, PYTHONPATH=path):
        os.environ.pop("MPLBACKEND", None)  # the kernel's own shows figures in the notebook
        client.execute()
    return notebook


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs from one machine or run to another and says nothing."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for key in TRANSIENT:
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                size = re.sub(r" object at 0x[0-9a-f]+", "", str(data.get("text/plain", "")))
                data["text/plain"] = size
    return notebook


def main() -> int:
    """Execute and write every notebook, or those that the arguments name, as 02_radon."""
    paths = [FOLDER / f"{Path(name).stem}.py" for name in sys.argv[1:]]
    for path in paths or sorted(FOLDER.glob("*.py")):
        notebook = clean(execute(read(path)))
        nbformat.validate(notebook)
        nbformat.write(notebook, path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb").relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
