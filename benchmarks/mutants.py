"""Mutation testing of the likelihoods and the estimates: do the tests notice a changed line?

    make coverage                                    # which test runs which line
    python benchmarks/mutants.py --sample 600        # new mutants of a random sample
    python benchmarks/mutants.py --again             # the survivors once more, after new tests

Each mutant changes one operator, number or condition of a module (the operators are those of
cosmic-ray). It is run with the tests that run its line, the quickest first, and killed by the first
that fails. Compiled kernels are run as plain Python for this, with the tests that do not sample.
The record is benchmarks/mutants.json, and docs/trust/mutants.md is made from it; reasons why a
survivor does no harm stand in benchmarks/mutants_excused.toml.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import json
import os
import queue
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mutant_page import ALIVE, excuses, is_kernel, write_page

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "mutants.json"
MEASURED = ROOT / "build" / "coverage"

FITTING = (
    "bootstrap conditional_effects degrees_of_freedom em gibbs heterogeneity irls kenward_roger "
    "laplace maximum_likelihood ols parameters profile"
).split()
ESTIMATES = (
    "estimates group_likelihood group_weights hat_matrix information integrated_likelihood "
    "likelihood_ratio linear log_likelihood mixed_equations pooling_factors pooling_limits "
    "summaries variance variance_parts"
).split()
PLUMBING = {"__init__.py", "compiled.py", "threads.py"}
# Changes that a reader might make by mistake. Others of cosmic-ray (`+` to `<<`) stop the program
# at once, and would flatter the figure.
OPERATORS = (
    *(f"ReplaceBinaryOperator_{a}" for a in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul")),
    *(f"ReplaceBinaryOperator_{a}" for a in ("Pow_Mul", "FloorDiv_Mul", "Mod_Mul")),
    *(f"ReplaceComparisonOperator_{a}" for a in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    *(f"ReplaceComparisonOperator_{a}" for a in ("Lt_Gt", "Gt_Lt", "LtE_GtE", "GtE_LtE")),
    *(f"ReplaceComparisonOperator_{a}" for a in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")),
    *(f"ReplaceUnaryOperator_{a}" for a in ("USub_UAdd", "Delete_Not", "Delete_USub")),
    "AddNot",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
)
PRELOADED = (
    "arviz formulae hypothesis matplotlib.pyplot numba pandas pymc pytest scipy.optimize "
    "scipy.stats"
).split()
SECONDS = 30.0  # of tests for a mutant, by their own times; the quickest are taken
LIMIT, LEAST = 3.0, 30.0  # a mutant is killed when its tests take 3 times as long and 30 s more


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One change: where it is, and the line before and after."""

    module: str
    operator: str
    occurrence: int
    line: int
    before: str
    after: str

    @property
    def key(self) -> str:
        """What the mutant is known by when lines have moved."""
        return f"{self.module}: {self.before} => {self.after}"


def modules() -> list[Path]:
    """Return the modules that are changed."""
    package = ROOT / "hmlm"
    likelihoods = [p for p in (package / "likelihoods").glob("*.py") if p.name not in PLUMBING]
    fitting = [package / "fitting" / f"{name}.py" for name in FITTING]
    return sorted([*likelihoods, *fitting, *(package / f"{name}.py" for name in ESTIMATES)])


# Mutants


def all_mutants(path: Path) -> list[Mutant]:
    """Return every change of a module, one line of it each."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    code = path.read_text(encoding="utf-8")
    lines, module = code.splitlines(), str(path.relative_to(ROOT))
    made: list[Mutant] = []
    for name in OPERATORS:
        operator = cosmic_ray.plugins.get_operator(f"core/{name}")()
        at = 0
        for node in ast_nodes(get_ast(code)):
            for start, _ in operator.mutation_positions(node):
                made.append(
                    Mutant(
                        module=module,
                        operator=name,
                        occurrence=at,
                        line=start[0],
                        before=lines[start[0] - 1].strip(),
                        after="",
                    )
                )
                at += 1
    return [m for m in made if not _is_type(m.before)]


def _is_type(line: str) -> bool:
    return line.startswith(("import ", "from ", "@")) or '"""' in line


def mutated(mutant: Mutant) -> str:
    """Return the whole code of a module with its change."""
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    code = (ROOT / mutant.module).read_text(encoding="utf-8")
    operator = cosmic_ray.plugins.get_operator(f"core/{mutant.operator}")()
    changed = mutate_code(code, operator, mutant.occurrence)
    assert changed is not None, mutant
    return changed


def with_change(mutant: Mutant) -> Mutant | None:
    """Return the mutant with its line after the change; None where nothing changes."""
    before = (ROOT / mutant.module).read_text(encoding="utf-8").splitlines()
    after = mutated(mutant).splitlines()
    different = [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
    if not different:
        return None
    at = different[0]
    found = {"line": at + 1, "before": before[at].strip(), "after": after[at].strip()}
    return Mutant(**{**asdict(mutant), **found})


def draw_mutants(size: int, seed: int) -> list[Mutant]:
    """Return a random sample of all changes, each as likely as any other."""
    every = [m for path in modules() for m in all_mutants(path)]
    random.Random(seed).shuffle(every)
    print(f"{len(every):,} mutants in {len(modules())} modules")
    drawn, seen = [], set()
    for mutant in every:
        whole = with_change(mutant)
        if whole is None or (whole.module, whole.line, whole.after) in seen:
            continue
        seen.add((whole.module, whole.line, whole.after))
        drawn.append(whole)
        if len(drawn) == size:
            break
    return drawn


@functools.cache
def lines_of_functions(module: str) -> set[int]:
    """Return the lines inside functions, which do not run on import."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {k for f in functions for k in range(f.body[0].lineno, (f.end_lineno or 0) + 1)}


# Tests


class Tests:
    """Which tests of a run under `make coverage` pass, which lines they run, and how long."""

    def __init__(self, name: str) -> None:
        from coverage import CoverageData

        self._data = CoverageData(str(MEASURED / name))
        self._data.read()
        self._times: dict[str, float] = defaultdict(float)
        self._passed: set[str] = set()
        row = re.compile(r"^([\d.]+)s (?:call|setup) +(\S.*)$")
        for line in (MEASURED / f"log_{name}.txt").read_text(encoding="utf-8").splitlines():
            if found := row.match(line):
                self._times[found[2].strip()] += float(found[1])
            elif line.startswith("PASSED "):
                self._passed.add(line.removeprefix("PASSED ").strip())
        self._by_module: dict[str, dict[int, list[str]]] = {}

    def of(self, mutant: Mutant, seconds: float = SECONDS) -> tuple[list[str], float]:
        """Return the tests that run the line of a mutant, quickest first, and their seconds."""
        lines = self._by_module.get(mutant.module)
        if lines is None:
            lines = self._by_module[mutant.module] = defaultdict(list)
            for file in self._data.measured_files():
                if file.endswith(f"/{mutant.module}"):
                    for line, contexts in self._data.contexts_by_lineno(file).items():
                        lines[line] += contexts
        names = {c.rpartition("|")[0] for c in lines.get(mutant.line, [])} & self._passed
        if mutant.line not in lines_of_functions(mutant.module):
            # It runs when the module is imported: all tests that run anything of the module.
            names = {c.rpartition("|")[0] for at in lines.values() for c in at} & self._passed
        # What a shared fixture runs is put down to the first test that wants it.
        mirror = f"tests/test_{Path(mutant.module).stem}.py::"
        names |= {name for name in self._passed if name.startswith(mirror)}
        chosen, total = [], 0.0
        for name in sorted(names, key=lambda n: (self._times[n], n)):
            if chosen and total + self._times[name] > seconds:
                break
            total += self._times[name]
            chosen.append(name)
        return chosen, total


# Running


def make_copy(folder: Path) -> None:
    """Copy what the tests need, with the compiled functions that are there."""
    for name in ("hmlm", "tests", "data", "notebooks", "docs", "tools", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("_build"))
    for name in ("conftest.py", "pyproject.toml", "README.md", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy2(ROOT / name, folder / name)


def preload() -> None:
    """Import what all tests import, so that a process forked from this one need not."""
    for name in PRELOADED:
        importlib.import_module(name)


def run_tests(folder: Path, tests: Sequence[str], plain: bool, limit: float) -> tuple[str, str]:
    """Run tests in a child of this process: what became of them, and the last words."""
    log = folder / "tests.log"
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(log, "wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.chdir(folder)
        sys.path[:0] = [str(folder), str(folder / "tests")]
        os.environ["PYTHONPATH"] = str(folder)
        import pytest

        plugin = ["-p", "plain_kernels"] if plain else []
        options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=line", *plugin]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # it was imported before
        os._exit(int(pytest.main([*options, *tests])))
    began = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "time", f"more than {limit:.0f} s"
        time.sleep(0.02)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    failed = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    code = os.waitstatus_to_exitcode(status)
    if any(line.startswith("ERROR: not found") for line in said):
        raise RuntimeError(f"no such test: {said}")
    outcome = {0: "survived", 5: "no test"}.get(code, "killed")
    return outcome, (failed or said or [f"ended with {code}"])[-1][:200]


def work(place: str, jobs: Any, results: Any) -> None:
    """Run mutants that come through a queue, in a copy of the project; every 20th unchanged too."""
    folder = Path(place)
    preload()
    for number, (mutant, tests, limit) in enumerate(iter(jobs.get, None)):
        path = folder / mutant.module
        whole = path.stat()
        if number % 20 == 0:
            outcome, said = run_tests(folder, tests, is_kernel(mutant.module), 3 * limit)
            if outcome != "survived":
                raise RuntimeError(f"tests of the unchanged {mutant.module} fail: {said}")
        began = time.monotonic()
        try:
            path.write_text(mutated(mutant), encoding="utf-8")
            outcome, said = run_tests(folder, tests, is_kernel(mutant.module), limit)
        finally:
            shutil.copy2(ROOT / mutant.module, path)
            os.utime(path, ns=(whole.st_atime_ns, whole.st_mtime_ns))
        results.put((mutant, outcome, said, round(time.monotonic() - began, 1)))


def run_mutants(mutants: Sequence[Mutant], seconds: float, workers: int) -> Iterable[Any]:
    """Yield each mutant with its outcome, as it comes."""
    suite, plain = Tests("suite"), Tests("plain")
    fork = get_context("fork")
    jobs, results = fork.Queue(), fork.Queue()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(k) for k in range(workers)]
        for folder in folders:
            make_copy(folder)
        there = [fork.Process(target=work, args=(str(f), jobs, results)) for f in folders]
        for process in there:
            process.start()
        waiting = 0
        for mutant in mutants:
            tests = plain if is_kernel(mutant.module) else suite
            chosen, expected = tests.of(mutant, seconds)
            if not chosen:
                yield mutant, "no test", "", 0.0
                continue
            jobs.put((mutant, chosen, LEAST + LIMIT * expected))
            waiting += 1
        for _ in there:
            jobs.put(None)
        while waiting:
            try:
                yield results.get(timeout=5)
            except queue.Empty:
                if any(process.exitcode for process in there):
                    raise RuntimeError("a worker ended: see what it says above") from None
            else:
                waiting -= 1
        for process in there:
            process.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mutants, add to the record, write the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--sample", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of tests for a mutant")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="only those that survived before")
    parser.add_argument("--only", default="", help="a part of the names of modules")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    chosen = parser.parse_args(arguments)
    old = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []
    records = {r["key"]: r for r in old}
    names = Mutant.__dataclass_fields__
    if chosen.page:
        print(write_page(list(records.values())))
        return 0
    if chosen.again:
        known = excuses()
        alive = (r for r in old if r["outcome"] in ALIVE and r["key"] not in known)
        mutants = [Mutant(**{k: r[k] for k in names}) for r in alive]
    else:
        mutants = [m for m in draw_mutants(chosen.sample, chosen.seed) if m.key not in records]
    mutants = [m for m in mutants if chosen.only in m.module]
    for k, found in enumerate(run_mutants(mutants, chosen.seconds, chosen.workers)):
        mutant, outcome, said, seconds = found
        records[mutant.key] = {
            **asdict(mutant),
            "key": mutant.key,
            "outcome": outcome,
            "by": said,
            "seconds": seconds,
        }
        print(f"{k + 1}/{len(mutants)} {outcome:8} {seconds:5.1f} s  {mutant.key}", flush=True)
        lines = ",\n".join(json.dumps(r) for r in records.values())
        RECORD.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(write_page(list(records.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
