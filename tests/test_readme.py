"""The README tells the truth: its code runs and gives its table, and its links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool():
    """Import tools/update_readme.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("update_readme", ROOT / "tools/update_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(table):
    """Rows of a printed table: names and numbers."""
    rows = {}
    for line in table.splitlines():
        numbers = re.findall(r"(?<= )-?\d+(?:\.\d+)?(?= |$)", line)
        name = re.split(r" {2,}-?\d", line)[0].strip()
        if numbers and name and "Level" not in name:
            rows[re.sub(r" +", " ", name)] = [float(n) for n in numbers]
    return rows


def test_table_is_what_the_code_prints(tool):
    """If not: python tools/update_readme.py. Draws may differ a little from machine to machine."""
    there, here = cells(tool.TABLE.search(TEXT)[2]), cells(tool.run_code(TEXT))
    assert list(there) == list(here)
    assert "sd id Intercept" in there
    for name, old in there.items():
        new = here[name]
        assert len(old) == len(new)
        assert new[:4] == pytest.approx(old[:4], abs=0.06 if name.startswith("cor") else 0.02)
        assert new[6:] == pytest.approx(old[6:], abs=0.0011)


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert "docs/images/groups.png" in links
    assert "docs/images/shrinkage.png" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_commands_come_first():
    assert TEXT.index("make demo") < TEXT.index("make test") < TEXT.index("```python")
    assert TEXT.index("```python") < TEXT.index("```text") < TEXT.index("docs/images/groups.png")
