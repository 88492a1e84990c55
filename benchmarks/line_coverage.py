"""Write docs/trust/line_coverage.md from what `make coverage` measured, and hold it to 95%.

The lines that the tests run, and the lines of the compiled kernels that they run as plain Python
(tests/plain_kernels.py), where a tracer sees them.
"""

from __future__ import annotations

import io
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile

from coverage import Coverage

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "build" / "coverage"
PAGE = ROOT / "docs" / "trust" / "line_coverage.md"
LEAST = 95.0
LOW = 90.0


def measure(files: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return the lines of each module that can run, and those that do."""
    coverage = Coverage(data_file=str(MEASURED / ".both"))
    coverage.combine([str(MEASURED / name) for name in files], keep=True)
    with NamedTemporaryFile(suffix=".json") as file:
        coverage.json_report(outfile=file.name)
        found = json.loads(Path(file.name).read_text(encoding="utf-8"))
    sums = {name: at["summary"] for name, at in found["files"].items()}
    return {
        str(Path("hmlm") / name.rpartition("hmlm/")[2]): (s["num_statements"], s["covered_lines"])
        for name, s in sums.items()
    }


def page(modules: dict[str, tuple[int, int]]) -> tuple[str, float]:
    """Return the text of the page, and the share of all lines in percent."""
    rooms: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for name, counts in modules.items():
        parts = Path(name).parts
        rooms[f"hmlm/{parts[1]}" if len(parts) > 2 else "hmlm"].append(counts)
    total, run = (sum(column) for column in zip(*modules.values(), strict=True))
    out = io.StringIO()
    out.write(
        "# Line coverage\n\n"
        f"The tests run {run:,} of {total:,} lines: **{100 * run / total:.1f}%**. Compiled kernels "
        "are run as plain Python for this, on the same tests where these do not sample.\n\n"
        "    make coverage\n\n"
        "| folder | modules | lines | run | |\n|:--|--:|--:|--:|--:|\n"
    )
    for room, counts in sorted(rooms.items()):
        n, k = (sum(column) for column in zip(*counts, strict=True))
        out.write(f"| `{room}` | {len(counts)} | {n:,} | {k:,} | {100 * k / max(n, 1):.1f}% |\n")
    low = {m: (n, k) for m, (n, k) in modules.items() if n and 100 * k / n < LOW}
    if low:
        out.write(f"\nModules below {LOW:.0f}%: ")
        out.write(", ".join(f"`{m}` ({100 * k / n:.0f}%)" for m, (n, k) in sorted(low.items())))
        out.write(".\n")
    return out.getvalue(), 100 * run / total


def main() -> int:
    """Write the page; return 1 where fewer lines run than should."""
    text, share = page(measure(("suite", "plain")))
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0 if share > LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
