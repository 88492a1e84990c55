"""Imports inside hmlm run one way, files stay short, and importing hmlm stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hmlm

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hmlm"

# The stage of each module and folder of hmlm (a folder is one place: its modules share its stage).
# A module imports from its own stage or an earlier one, never from a later one.
STAGES = {
    "errors": 0,
    "version": 0,
    "data": 0,
    "datasets": 0,
    "families": 0,
    "foreign_priors": 0,
    "links": 0,
    "priors": 0,
    "status": 0,
    "palette": 0,
    "tables": 0,
    "cells": 0,
    "source_files": 0,
    "placing": 0,
    "progress": 0,
    "value_checks": 0,
    "display": 1,
    "notation": 1,
    "spec": 1,
    "rank_uniformity": 1,
    "study": 1,
    "prior_distributions": 1,
    "storage_values": 1,
    "storage_writer": 1,
    "storage_format": 1,
    "sources": 1,
    "column_facts": 1,
    "lazy_rows": 1,
    "aggregation": 1,
    "cell_frames": 1,
    "group_samples": 1,
    "table_columns": 1,
    "encoding": 2,
    "resolving": 2,
    "grammar": 2,
    "formula": 2,
    "linear": 2,
    "blocks": 2,
    "outcome": 2,
    "design": 2,
    "lazy_columns": 2,
    "trained_columns": 2,
    "made_rows": 2,
    "lazy_table": 2,
    "summed_data": 2,
    "aggregated_data": 2,
    "tables_read": 2,
    "design_checks": 2,
    "mixed_equations": 3,
    "group_rows": 2,
    "default_priors": 3,
    "prior_scales": 3,
    "user_priors": 3,
    "letters": 3,
    "levels": 3,
    "likelihoods": 3,
    "models": 3,
    "estimates": 4,
    "classical_prediction": 4,
    "given_parameters": 4,
    "averaging": 4,
    "log_likelihood": 4,
    "outcome_distribution": 4,
    "storage": 4,
    "expectation": 4,
    "new_rows": 4,
    "prediction": 4,
    "summaries": 4,
    "fitting": 5,
    "prior_draws": 5,
    "prior_densities": 5,
    "check_advice": 5,
    "group_statistics": 5,
    "check_statistics": 5,
    "replicates": 5,
    "checks": 5,
    "refitting": 5,
    "comparison": 6,
    "predictive_density": 6,
    "hat_matrix": 6,
    "marginal": 6,
    "data_grid": 6,
    "contrasts": 6,
    "averages": 6,
    "simulation_runs": 6,
    "sensitivity": 6,
    "implied_priors": 6,
    "implied_quantities": 6,
    "integrated_likelihood": 6,
    "information": 6,
    "folds": 6,
    "held_out": 6,
    "cross_validation": 6,
    "group_likelihood": 6,
    "retrieval": 6,
    "missing_outcomes": 6,
    "pooled_fit": 6,
    "pooling_factors": 6,
    "prior_overlap": 6,
    "r_squared": 6,
    "variance_parts": 6,
    "variance": 6,
    "likelihood_ratio": 6,
    "group_tables": 6,
    "group_weights": 6,
    "pooling_limits": 6,
    "equations": 7,
    "graph": 7,
    "plots": 7,
    "model": 8,
    "report_parts": 8,
    "report_figures": 8,
    "report_sections": 8,
    "report_subject": 8,
    "report": 8,
    "calibration": 8,
    "power_study": 8,
    "simulation": 8,
    "imputation": 8,
    "slices": 8,
    "exploration": 8,
    "exploration_figures": 8,
    "exploration_lines": 8,
    "exploration_page": 8,
    "exploration_posterior": 8,
    "exploration_server": 8,
    "exploration_text": 8,
    "demo": 9,
    "__main__": 9,
    "__init__": 9,
}
# Methods of a fit are doors: what they open is imported when they are called, and may come later.
DOORS = {"hmlm.fitting.fit_methods"}
HEAVY = {"arviz", "formulae", "matplotlib", "numba", "nutpie", "pymc", "pytensor", "xarray"}


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def stage_key(module: str) -> str:
    """Return the entry of STAGES that a module falls under: `hmlm.fitting.nuts` -> `fitting`."""
    return module.split(".")[1] if "." in module else "__init__"


def imported_modules(
    tree: ast.AST, module: str, is_package: bool, known: set[str]
) -> Iterator[tuple[str, int]]:
    """Yield each module of hmlm that `tree` imports, with the line, wherever the import stands.

    Imports in functions and under TYPE_CHECKING count, and so do those that name a module as text.
    """
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            inside = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in known else base for name in inside]
        elif isinstance(node, ast.Call) and called_name(node) in {"import_module", "__import__"}:
            names = [module_in_text(node, module, package)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "hmlm":
                yield name, node.lineno


def called_name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def module_in_text(call: ast.Call, module: str, package: str) -> str:
    text = call.args[0] if call.args else None
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return package + text.value if text.value.startswith(".") else text.value
    assert module == "hmlm", (
        f"{module}, line {call.lineno}: only hmlm/__init__.py may import a module whose name is "
        "computed; nobody can see where this import goes."
    )
    return ""


def doors_removed(tree: ast.Module) -> ast.Module:
    """Return a module without its classes' bodies and what it imports for type checking alone."""
    kept = [node for node in tree.body if not isinstance(node, (ast.ClassDef, ast.If))]
    return ast.Module(body=kept, type_ignores=[])


@pytest.fixture(scope="module")
def graph() -> dict[str, dict[str, int]]:
    """Each module with the modules of hmlm that it imports and the line of the first import."""
    edges: dict[str, dict[str, int]] = {}
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        edges[module] = {}
        is_package = path.name == "__init__.py"
        within = doors_removed(tree) if module in DOORS else tree
        for target, line in imported_modules(within, module, is_package, set(MODULES)):
            edges[module].setdefault(target, line)
    return edges


def test_each_module_has_a_stage():
    keys = {stage_key(module): module for module in MODULES}
    missing = [module for key, module in keys.items() if key not in STAGES]
    assert not missing, f"Give these a stage in STAGES (in {Path(__file__).name}): {missing}"


def test_each_stage_has_its_module():
    gone = set(STAGES) - {stage_key(module) for module in MODULES}
    assert not gone, f"hmlm has no such module; take these out of STAGES: {sorted(gone)}"


def test_each_import_names_a_module_that_exists(graph):
    wrong = [
        f"{module}, line {line} imports {target}"
        for module, targets in graph.items()
        for target, line in targets.items()
        if target not in MODULES
    ]
    assert not wrong, "hmlm has no such module:\n" + "\n".join(wrong)


def test_imports_run_from_a_later_stage_to_an_earlier_one(graph):
    wrong = [
        f"{module}, line {line} (stage {here}) imports {target} (stage {there})"
        for module, targets in graph.items()
        for target, line in targets.items()
        if (here := STAGES.get(stage_key(module), 99)) < (there := STAGES.get(stage_key(target), 0))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + ", imported by ".join(error.args[1]))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import hmlm.a", {"hmlm.a"}),
        ("from hmlm import a, b", {"hmlm.a", "hmlm"}),
        ("from hmlm.a import x", {"hmlm.a"}),
        ("from hmlm.room.inner import x", {"hmlm.room.inner"}),
        ("from . import inner", {"hmlm.room.inner"}),
        ("from .inner import x", {"hmlm.room.inner"}),
        ("from .. import a", {"hmlm.a"}),
        ("from ..a import x", {"hmlm.a"}),
        ("def f():\n    from hmlm.a import x", {"hmlm.a"}),
        ("if TYPE_CHECKING:\n    from hmlm.a import X", {"hmlm.a"}),
        ("importlib.import_module('hmlm.a')", {"hmlm.a"}),
        ("import_module('.inner', __package__)", {"hmlm.room.inner"}),
        ("import numpy\nfrom pandas import DataFrame", set()),
    ],
)
def test_every_kind_of_import_is_seen(code, expected):
    known = {"hmlm", "hmlm.a", "hmlm.room", "hmlm.room.inner", "hmlm.room.other"}
    found = imported_modules(ast.parse(code), "hmlm.room.other", False, known)
    assert {name for name, _ in found} == expected


def test_computed_import_is_refused():
    tree = ast.parse("import_module(f'hmlm.{name}')")
    with pytest.raises(AssertionError, match="computed"):
        list(imported_modules(tree, "hmlm.a", False, {"hmlm.a"}))


def test_no_public_name_hides_a_module():
    modules = {name.rpartition(".")[2] for name in MODULES} - {"hmlm"}
    assert not modules & set(hmlm.__all__)


def test_every_file_is_short():
    limits = {"hmlm": 400, "tests": 500}
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for folder in limits
        for path in (ROOT / folder).rglob("*.py")
    }
    names = {path.relative_to(ROOT): lines for path, lines in lengths.items()}
    long = {str(name): lines for name, lines in names.items() if lines > limits[name.parts[0]]}
    assert not long, f"Longer than {limits}: {long}"


def test_import_of_hmlm_loads_nothing_heavy():
    code = "import sys, hmlm; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(run.stdout.split())
