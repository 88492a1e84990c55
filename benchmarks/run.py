"""Time hmlm beside the packages that people would use instead, and print the ratios.

    python benchmarks/run.py [--only SECTION ...] [--repeats N]

Every figure comes from a process of its own, with BLAS held to one thread; ratios of one run are
what counts, seconds are those of this machine. Peers run with the Python in $PEERS_PYTHON, R's
with Rscript where it is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from large_tables import FORMULAS, write_columns, write_predictors, write_waves  # noqa: E402
from tasks import FACTORS, FAMILIES, MODELS, POSTERIOR, REML, table  # noqa: E402

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
# Debian's libraries: R takes those that are installed last unless others are preloaded by name.
BLAS = {
    "lme4, reference BLAS": ("blas/libblas.so.3", "lapack/liblapack.so.3"),
    "lme4, OpenBLAS": ("openblas-pthread/libblas.so.3", "openblas-pthread/liblapack.so.3"),
}
CONSOLE = Console(width=110)
MOST, FREE = 16e9, 4e9  # bytes that a peer may take, and that must stay free for others


def run(
    command: Sequence[str], timeout: float, most: float | None = None, **extra: str
) -> dict[str, Any] | str:
    """Run a worker; return its figures, or in words how it failed.

    A worker that may take only `most` bytes is also stopped when it would leave too few for others.
    """
    environment = {**os.environ, **ONE_THREAD, **extra}
    worker = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    end, peak, cpu, why = time.monotonic() + timeout, 0.0, 0.0, ""
    while not why:
        try:
            out, err = worker.communicate(timeout=min(0.2, timeout))
            break
        except subprocess.TimeoutExpired:
            held, spent = usage(worker.pid) if most else (0.0, 0.0)
        peak, cpu = max(peak, held), max(cpu, spent)
        scarce = held > FREE and psutil.virtual_memory().available < FREE
        if most and (held > most or scarce):
            why = f"out of memory at {peak / 1e9:.1f} GB"
        elif time.monotonic() > end:
            why = f"more than {timeout:.0f} s" + (f", {peak / 1e9:.1f} GB" if most else "")
    if why:
        os.killpg(worker.pid, signal.SIGKILL)  # its chains run in processes of their own
        err = worker.communicate()[1]
        read = [line for line in err.splitlines() if line.startswith("read in")]
        return ", ".join([why, *([f"{cpu:.0f} s of CPU"] if most else []), *read])
    if worker.returncode:
        lines = (err or out).strip().splitlines()
        return f"failed: {lines[-1].split(': ', 1)[-1][:100]}" if lines else "failed"
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found if most is None else {"gigabytes": peak / 1e9, "cpu": cpu, **found}


def usage(pid: int) -> tuple[float, float]:
    """Return the bytes of memory and seconds of CPU that a process and its children have taken."""
    held = spent = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(pid)
        for process in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                held += process.memory_info().rss
                spent += sum(process.cpu_times()[:2])
    return held, spent


def hmlm(*arguments: object, timeout: float = 900) -> dict[str, Any] | str:
    """Run hmlm's worker."""
    return run([sys.executable, str(HERE / "hmlm_worker.py"), *map(str, arguments)], timeout)


def peer(
    *arguments: object, timeout: float = 600, most: float | None = None
) -> dict[str, Any] | str:
    """Run a worker of the other Python packages."""
    python = os.environ.get("PEERS_PYTHON", "")
    if not python:
        return "not run: PEERS_PYTHON is not set"
    return run([python, str(HERE / "peers_worker.py"), *map(str, arguments)], timeout, most)


def r_peer(function: str, name: str, repeats: int, timeout: float, **extra: str) -> Any:
    """Run lme4 or rstanarm."""
    if shutil.which("Rscript") is None:
        return "not run: no Rscript"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        frame = table(name)
        frame.to_csv(path, index=False)
        groups = ",".join(c for c in frame if c in FACTORS)
        formula = FAMILIES[name][2] if name in FAMILIES else MODELS[name][1]
        command = ["Rscript", str(HERE / "peers.R"), function, str(path), formula]
        return run([*command, str(repeats), groups], timeout, None, **extra)


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table."""
    shown = Table(title=title, title_justify="left")
    for k, head in enumerate(heads):
        shown.add_column(head, justify="left" if k < 2 else "right")
    for row in rows:
        shown.add_row(*row)
    CONSOLE.print(shown)


def cell(found: dict[str, Any] | str, key: str, digits: int = 3) -> str:
    """Write one figure, or why there is none."""
    if isinstance(found, str):
        return found if key == "seconds" else ""
    return f"{found[key]:,.{digits}f}" if key in found else ""


def posterior(repeats: int) -> None:
    """Seconds per 1,000 effective draws, and of the first fit in a fresh process."""
    _posteriors(POSTERIOR, "stan_lmer", repeats)
    ours, theirs = hmlm("imports", "hmlm"), peer("imports", "bambi")
    CONSOLE.print(
        f"import hmlm {cell(ours, 'seconds')} s, import bambi {cell(theirs, 'seconds')} s\n"
    )


def families(repeats: int) -> None:
    """Other families: posterior, Laplace's approximation, and a million rows of counts."""
    _posteriors(tuple(FAMILIES), "stan_glmer", repeats)
    rows = []
    for name in FAMILIES:
        found = {"hmlm": hmlm("laplace", name, 5 * repeats), "glmer": r_peer("glmer", name, 3, 600)}
        for package, f in found.items():
            ours = found["hmlm"]
            both = isinstance(f, dict) and isinstance(ours, dict)
            ratio = f["seconds"] / ours["seconds"] if both else None
            rows.append(
                [
                    name,
                    package,
                    cell(f, "seconds", 4),
                    f"{ratio:.1f}x" if ratio else "",
                    cell(f, "log_likelihood", 4),
                ]
            )
    show(
        "Laplace: formula and frame included",
        ["model", "package", "seconds", "ratio", "log-likelihood"],
        rows,
    )
    f = hmlm("poisson", 10_000, 1_000_000)
    figures = [cell(f, k, d) for k, d in (("seconds", 1), ("ess", 0), ("divergences", 0))]
    show(
        "Poisson counts, two categorical predictors, 10,000 groups",
        ["rows", "package", "posterior s", "least ESS", "diverg.", "GB"],
        [["1,000,000", "hmlm", *figures, cell(f, "gigabytes", 1)]],
    )


def _posteriors(names: Sequence[str], stan: str, repeats: int) -> None:
    """Print seconds per 1,000 effective draws of some models."""
    rows = []
    for name in names:
        ours = hmlm("posterior", name, repeats)
        theirs = {"bambi": peer("bambi", name, 1)}
        limit = 1800 if name != "egsingle" else 60
        theirs["rstanarm"] = r_peer(stan, name, 1, limit)
        each = {
            package: 1000 * f["seconds"] / f["ess"]
            for package, f in {"hmlm": ours, **theirs}.items()
            if isinstance(f, dict)
        }
        for package, f in {"hmlm": ours, **theirs}.items():
            ratio = each[package] / each["hmlm"] if package in each and "hmlm" in each else None
            rows.append(
                [
                    name,
                    package,
                    cell(f, "seconds"),
                    cell(f, "ess", 0),
                    cell(f, "divergences", 0),
                    f"{each[package]:.3f}" if package in each else "",
                    f"{ratio:,.0f}x" if ratio else "",
                    cell(f, "first", 1),
                ]
            )
    show(
        "Posterior: 4 chains x (1,000 + 1,000) draws, from the call to draws in hand",
        ["model", "package", "seconds", "least ESS", "diverg.", "s / 1,000 ESS", "ratio", "first"],
        rows,
    )


def reml(repeats: int) -> None:
    """Seconds of REML, formula and frame included."""
    rows = []
    libraries = {
        label: [str(p) for name in names for p in Path("/usr/lib").glob(f"*/{name}")]
        for label, names in BLAS.items()
    }
    for name in REML:
        n = repeats if name == "insteval" else 10 * repeats
        found = {"hmlm": hmlm("reml", name, n), "mixedlm": peer("mixedlm", name, n)}
        if name == "sleepstudy":
            found["statsmodels"] = peer("statsmodels", name, n)
        for label, paths in libraries.items():
            if len(paths) == len(BLAS[label]):
                found[label] = r_peer("lmer", name, 1, 600, LD_PRELOAD=":".join(paths))
        for package, f in found.items():
            ours = found["hmlm"]
            both = isinstance(f, dict) and isinstance(ours, dict)
            ratio = f["seconds"] / ours["seconds"] if both else None  # type: ignore[index]
            rows.append(
                [
                    name,
                    package,
                    cell(f, "seconds", 4),
                    f"{ratio:.2f}x" if ratio else "",
                    cell(f, "log_likelihood", 4),
                    cell(f, "gigabytes", 2),
                ]
            )
    show(
        "REML: formula and frame included",
        ["model", "package", "seconds", "ratio", "log-likelihood", "GB"],
        rows,
    )


def scaling(repeats: int) -> None:
    """Time of one log density with gradient, by rows and by groups."""
    del repeats
    rows = []
    for n in (10_000, 100_000, 1_000_000, 10_000_000):
        found = hmlm("density", "y ~ x + (x | g)", 1_000, n)
        rows.append([f"{n:,} rows", "1,000 groups", cell(found, "microseconds", 2)])
    for groups in (100, 1_000, 10_000, 100_000, 1_000_000):
        found = hmlm("density", "y ~ 1 + (1 | g)", groups, 4 * groups)
        rows.append(["random intercept", f"{groups:,} groups", cell(found, "microseconds", 2)])
    show("One log density and gradient", ["size", "groups", "microseconds"], rows)


def large(repeats: int) -> None:
    """Many groups: REML and posterior, seconds and memory."""
    del repeats
    rows = []
    for label, groups, n in (
        ("ten waves, a tenth missing", 1_000_000, 0),
        ("continuous slope", 10_000, 1_000_000),
        ("continuous slope", 100_000, 1_000_000),
    ):
        f = hmlm("large", groups, n, timeout=1800)
        figures = [cell(f, k, d) for k, d in (("reml", 1), ("posterior", 1), ("ess", 0))]
        rows.append([label, f"{groups:,}", cell(f, "rows", 0), *figures, cell(f, "gigabytes", 1)])
    show(
        "Many groups",
        ["design", "groups", "rows", "REML s", "posterior s", "least ESS", "GB"],
        rows,
    )


def aggregate(repeats: int) -> None:
    """Fit from sums: a Parquet file larger than memory, and a frame of four million rows."""
    with tempfile.TemporaryDirectory() as folder:
        for name, write, rows in (
            ("predictors", write_predictors, 4_000_000),
            ("waves", write_waves, 100_000_000),
        ):
            path = write(Path(folder) / f"{name}.parquet", rows, 100_000)
            _aggregate_ours(name, path, rows, max(2, repeats))
            _aggregate_peers(name, path, rows)


def _aggregate_ours(name: str, path: Path, rows: int, repeats: int) -> None:
    """Print the seconds of each stage, and the memory."""
    runs = [hmlm("aggregate", name, path) for _ in range(repeats)]
    shown = []
    for label, found in ((f"run {k + 1}", f) for k, f in enumerate(runs)):
        stages = [cell(found, k, 1) for k in ("model", "reml", "posterior")]
        rest = [cell(found, k, d) for k, d in (("ess", 0), ("divergences", 0), ("gigabytes", 2))]
        cpu = (
            sum(found[f"{k}_cpu"] for k in ("model", "reml", "posterior"))
            if isinstance(found, dict)
            else 0.0
        )
        if isinstance(found, str):
            stages[0] = found
        shown.append([label, *stages, f"{cpu:.1f}", *rest])
    show(
        f"hmlm from sums: {FORMULAS[name]}, {rows:,} rows, 100,000 groups",
        ["", "Model s", "REML s", "posterior s", "CPU s", "least ESS", "diverg.", "GB"],
        shown,
    )


def _aggregate_peers(name: str, path: Path, rows: int) -> None:
    """Print what other packages need for the same, at most 300 seconds and 16 GB."""
    limits: dict[str, Any] = {"timeout": 300.0, "most": MOST}
    found = {}
    for package in ("bambi", "statsmodels", "mixedlm"):
        found[package] = peer("large", package, name, path, **limits)
    if shutil.which("Rscript"):
        columns = write_columns(path, path.with_suffix(""))
        command = ["Rscript", str(HERE / "peers.R"), "columns", str(columns), FORMULAS[name]]
        found["lme4"] = run(command, **limits)
        shutil.rmtree(columns)
    shown = [
        [package, *(cell(f, key, 1) for key in ("seconds", "cpu", "read", "gigabytes"))]
        for package, f in found.items()
    ]
    show(
        f"Others, at most 300 s and 16 GB: {FORMULAS[name]}, {rows:,} rows",
        ["package", "seconds", "CPU s", "to read", "GB"],
        shown,
    )


def main() -> None:
    """Run the sections."""
    sections = {
        "reml": reml,
        "posterior": posterior,
        "families": families,
        "scaling": scaling,
        "large": large,
        "aggregate": aggregate,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for name in options.only:
        sections[name](options.repeats)


if __name__ == "__main__":
    main()
