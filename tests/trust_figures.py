"""A pytest plugin (``-p trust_figures``) that writes what the tests measured into docs/trust.

A test records figures with ``record_property("trust", {"what": "tables drawn", "tables": 150})``.
Those of a file whose tests have all passed take the place of its former ones in figures.json, and
figures.md is made from it.
"""

import json
import os
import re
from dataclasses import dataclass

import numpy as np
import pytest

LARGEST, LEAST = ("largest", "slowest"), ("least", "smallest")
SETTINGS = {"test_hostile_frames.py": "HMLM_FUZZ", "test_random_densities.py": "HMLM_AGREE"}


@dataclass(frozen=True)
class Part:
    """A part of the page: its heading, its files of tests and what they show."""

    title: str
    files: tuple[str, ...]
    text: str


PARTS = (
    Part(
        "Exact posteriors",
        ("test_exact_posteriors.py", "test_known_se.py"),
        """
Means and sds of every parameter of a posterior are held against quadrature written for the purpose,
which shares no code with hmlm. Eight schools and the radon model of 85 counties are among them, and
small models of each structure: correlated slopes, nested, crossed, known errors, yes or no, and
counts. A z is a difference over its own Monte Carlo error: where draws are right, the root mean
square of many is near 1.""",
    ),
    Part(
        "REML and ML beside R",
        ("test_maximum_likelihood.py",),
        """
Estimates of hmlm beside those that lme4 and nlme gave for the same data, which were written down
(`tests/reference`).""",
    ),
    Part(
        "Random designs",
        ("test_random_designs.py",),
        """
Unbalanced designs of seven structures are drawn, some with sds of nothing. The restricted
likelihood that hmlm states is that of dense N x N matrices, and scipy finds no higher one.""",
    ),
    Part(
        "Densities",
        ("test_random_densities.py",),
        """
The compiled log density and its slopes beside those that PyMC has, on random models.""",
    ),
    Part(
        "Calibration in the tests",
        ("test_calibration.py", "test_calibration_bugs.py"),
        """
Three models are calibrated whenever the tests run, as twelve are by `make sbc` (further down), and
bugs are planted around the sampler or in the simulator. A bug is caught where ranks leave their
simultaneous 99% band; the twin without a bug has the same true values, and passes. A p is that of
a chi-square test of uniform ranks, the smallest of the quantities. A hundred simulations find bugs
as coarse as these. They do not reliably tell an LKJ prior with eta 1 from one with eta 2.""",
    ),
    Part(
        "Hostile input",
        ("test_hostile_frames.py", "test_hostile_formulas.py", "test_hostile_labels.py"),
        """
- **Tables** of hostile columns (nullable, categorical, dates, decimals, lists, 1e308, denormals,
  unicode, HTML; duplicate names, MultiIndex, empty; pandas, polars, Arrow, dicts) are drawn against
  models of many families. Each ends in a fit or in hmlm's own error. Such tables found six faults,
  which are mended: squares and offsets that overflow, signalling decimals, half surrogate pairs,
  malformed dicts, complex numbers in a column of objects.
- **Formulas** with imports, `eval`, lambda, attribute access, SQL, lookalike letters and null bytes
  in four places, long or deep ones (to a million characters, 500,000 parentheses) and drawn ones
  are fitted or refused within 10 seconds, with no program started and no file written.
- **Labels** and names of columns that are markup, scripts or paths are shown by models, summaries,
  comparisons and reports, and parsed as browsers do: no element, attribute, comment or script came
  from a label. Files stay at the path that was given.""",
    ),
    Part(
        "Faults",
        ("test_interruption.py", "test_faults.py", "test_slices.py", "test_storage.py"),
        """
- **Ctrl-C** while sampling returns what was drawn; the first sentence of the status says how much
  that is, and the draws are those of the whole run, bit for bit. `fit.extend` goes on from there.
- **A full disk**, tried with real failed writes, and processes killed while they write leave whole
  files of fits, reports and tables of groups in place.
- **Damage.** Files that are cut off are refused by name. A changed byte is noticed, or is in a
  place that holds nothing: such a file gives identical draws.
- **Workers.** One that is killed, or runs out of memory, in `fit_many` costs its own slice; on
  processes and on a Dask cluster.
- **Memory and threads.** Refits in one process do not let it grow, and fits made in three threads
  at once are bit for bit those made alone.""",
    ),
    Part(
        "Determinism",
        ("test_determinism.py",),
        """
The same seed gives the same bits from pandas, polars, Arrow and dicts, on one core or two, after
save and load, and in threads. From sums over a table that an engine adds up in parallel, the last
digits may differ between runs.""",
    ),
    Part(
        "Network",
        ("test_offline.py",),
        """
With sockets blocked, import, fits, sampling, reports, figures, save and load make no attempt to
connect, and no library of telemetry is loaded.""",
    ),
)


def z_figures(what, z):
    """Return the figures of differences over their Monte Carlo errors."""
    z = np.ravel(z)
    return {
        "what": what,
        "means and sds": z.size,
        "root mean square z": float(np.sqrt((z**2).mean())),
        "largest z": float(np.abs(z).max()),
    }


def together(name, values):
    """Return one figure from those of several cases of a test."""
    if any(isinstance(value, str) for value in values):
        return ", ".join(dict.fromkeys(map(str, values)))
    if name.startswith(LARGEST):
        return max(values)
    return min(values) if name.startswith(LEAST) else sum(values)


def combine(records):
    """Return one record of each thing that was measured, from those of the cases of a test."""
    found = {}
    for record in records:
        columns = found.setdefault(record["what"], {})
        for name, value in record.items():
            columns.setdefault(name, []).append(value)
    return [
        {name: rounded(together(name, values)) for name, values in columns.items()}
        for columns in found.values()
    ]


def rounded(value):
    """Keep three digits of a figure that is no count."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def shown(value):
    """Write a figure as a cell of a table."""
    if isinstance(value, str):
        return value.replace("|", r"\|")
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 0.001 else f"{value:.3g}"


def make_tables(rows):
    """Return a table of the rows, or several where rows have other columns than the first."""
    kinds = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    tables = []
    for names, same in kinds.items():
        texts = [isinstance(same[0][name], str) for name in names]
        lines = [["", *names[1:]], ["---" if text else "--:" for text in texts]]
        lines += [[shown(row[name]) for name in names] for row in same]
        tables.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return tables


def make_part(part, files):
    """Return the text of a part, from what was recorded of each file."""
    there = [files[name] for name in part.files if name in files]
    settings = "".join(f"{k}={v} " for file in there for k, v in file["settings"].items())
    n, skipped = (sum(file[name] for file in there) for name in ("passed", "skipped"))
    missing = ", ".join(name for name in part.files if name not in files)
    run = f"{n:,} tests passed" + (f", {skipped} skipped" if skipped else "")
    run += f" (not run for this page: {missing})" if missing else ""
    return [
        f"# {part.title}",
        part.text.strip("\n"),
        f"```sh\n{settings}pytest {' '.join(f'tests/{name}' for name in part.files)}\n```",
        f"{run if there else 'Not run for this page'}.",
        *make_tables([row for file in there for rows in file["figures"].values() for row in rows]),
    ]


def make_page(files):
    """Return the text of figures.md: every part, also where its tests have not been run."""
    return "\n\n".join(text for part in PARTS for text in make_part(part, files)) + "\n"


def natural(text):
    """Return a key that sorts 2 before 10."""
    return [(0, int(t), "") if t.isdigit() else (1, 0, t) for t in re.split(r"(\d+)", text) if t]


class Figures:
    """Collect what passed tests recorded, and write it."""

    def __init__(self, folder):
        self.folder = folder
        self.tests = {}
        self.failed = set()

    def pytest_runtest_logreport(self, report):
        """Keep the figures of a test that was called and passed, or that it was skipped."""
        path, line, name = report.location
        if report.failed:
            self.failed.add(os.path.basename(path))
        if report.skipped or (report.when == "call" and report.passed):
            figures = [dict(value) for key, value in report.user_properties if key == "trust"]
            tests = self.tests.setdefault(os.path.basename(path), {})
            tests[name] = (line, report.skipped, figures)

    def merged(self, files):
        """Return former files with those of this session in their places."""
        known = {name for part in PARTS for name in part.files}
        for file in (known & set(self.tests)) - self.failed:
            tests, setting, recorded = self.tests[file], SETTINGS.get(file, ""), {}
            for name in sorted(tests, key=lambda name: (tests[name][0], natural(name))):
                recorded.setdefault(name.split("[")[0], []).extend(tests[name][2])
            skipped = sum(skipped for _, skipped, _ in tests.values())
            files[file] = {
                "settings": {setting: os.environ[setting]} if setting in os.environ else {},
                "passed": len(tests) - skipped,
                "skipped": skipped,
                "figures": {name: combine(each) for name, each in recorded.items() if each},
            }
        return dict(sorted(files.items()))

    def pytest_sessionfinish(self, session, exitstatus):
        """Write the figures of the files whose tests have all been run and have passed."""
        tell = session.config.get_terminal_writer().line
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            tell("\nThe figures stay as they were: the tests were not run to the end.")
            return
        record = self.folder / "figures.json"
        old = json.loads(record.read_text("utf-8")) if record.exists() else {}
        files = self.merged(old)
        text = json.dumps(files, indent=1, ensure_ascii=False, allow_nan=False)
        record.write_text(text + "\n", "utf-8")
        (self.folder / "figures.md").write_text(make_page(files), "utf-8")
        tell(f"\nWrote {record} and figures.md.")
        if self.failed:
            tell(
                f"Tests failed, and figures stay as they were, in {', '.join(sorted(self.failed))}."
            )


def pytest_configure(config):
    """Collect in the process that sees the reports of all workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Figures(config.rootpath / "docs" / "trust"))
