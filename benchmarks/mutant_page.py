"""The page of mutation testing, made from benchmarks/mutants.json: see mutants.py."""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXCUSED = ROOT / "benchmarks" / "mutants_excused.toml"
PAGE = ROOT / "docs" / "trust" / "mutants.md"
ALIVE = ("survived", "no test")
HOW = """\
Each mutant changes one operator, number or condition of a line. The tests that run the line are
run, the quickest first, and the mutant is killed by the first that fails. Compiled kernels are run
as plain Python for this, with the tests that do not sample. Tests were written for survivors that
showed a gap, and these run again: of fresh mutants a somewhat smaller share would be killed."""


def is_kernel(module: str) -> bool:
    """Return whether a module holds compiled functions."""
    return "@nb.njit" in (ROOT / module).read_text(encoding="utf-8")


def excuses() -> Mapping[str, str]:
    """Return the reasons why survivors do no harm, by their keys."""
    if not EXCUSED.exists():
        return {}
    return tomllib.loads(EXCUSED.read_text(encoding="utf-8"))


def write_page(records: Sequence[Mapping[str, Any]]) -> str:
    """Write the page from the record and return its first sentence."""
    reasons = excuses()
    alive = [r for r in records if r["outcome"] in ALIVE]
    same = [r for r in alive if reasons.get(r["key"], "").startswith("the same")]
    killed, judged = len(records) - len(alive), len(records) - len(same)
    said = (
        f"{len(records):,} mutants, {killed:,} killed: **{killed / len(records):.1%}**. Of the "
        f"{len(alive)} survivors {len(same)} are the same program or the same numbers; of all "
        f"others {killed / judged:.1%} are killed."
    )
    lines = [
        "# Mutation testing of the likelihoods and the estimates",
        "",
        said,
        "",
        *HOW.splitlines(),
        "The sample is random, so the share in all mutants is known to about "
        f"{196 * (killed * len(alive) / len(records) ** 3) ** 0.5:.1f} points (95%).",
        "",
        "    make coverage && python benchmarks/mutants.py",
        "",
        "| part | mutants | killed | by a time-out | survived |",
        "|:--|--:|--:|--:|--:|",
    ]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for r in records:
        counts[_part(r["module"])][r["outcome"]] += 1
    for part, n in sorted(counts.items()):
        alive_there = n["survived"] + n["no test"]
        dead = n.total() - alive_there
        lines.append(f"| {part} | {n.total()} | {dead} | {n['time']} | {alive_there} |")
    lines += ["", "## Survivors", "", "| module | line | becomes | why |", "|:--|:--|:--|:--|"]
    for r in sorted(alive, key=lambda r: (r["module"], r["line"])):
        why = reasons.get(r["key"], "no test notices")
        cells = (f"`{c.replace('|', chr(92) + '|')}`" for c in (r["before"], r["after"]))
        lines.append(f"| `{r['module'].removeprefix('hmlm/')}` | {' | '.join(cells)} | {why} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return said


def _part(module: str) -> str:
    if module.startswith("hmlm/likelihoods/"):
        return "compiled kernels" if is_kernel(module) else "likelihoods"
    return "classical fits and samplers" if "/fitting/" in module else "estimates"
