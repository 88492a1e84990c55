"""The plugin that writes the figures of the tests: what it merges, and how it writes it."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from trust_figures import PARTS, Figures, combine, make_tables, natural, shown, z_figures

OFFLINE, FRAMES = "test_offline.py", "test_hostile_frames.py"


def report(name, *figures, file=OFFLINE, line=1, when="call", outcome="passed"):
    return SimpleNamespace(
        location=(f"tests/{file}", line, name),
        when=when,
        passed=outcome == "passed",
        skipped=outcome == "skipped",
        failed=outcome == "failed",
        user_properties=[["trust", figure] for figure in figures] + [["other", 1]],
    )


@pytest.fixture
def finish(tmp_path):
    """Run a session of reports, and return the record and the page that are there after it."""
    said = []

    def run(*reports, exitstatus=0):
        plugin = Figures(tmp_path)
        for each in reports:
            plugin.pytest_runtest_logreport(each)
        writer = SimpleNamespace(line=said.append)
        config = SimpleNamespace(get_terminal_writer=lambda: writer)
        plugin.pytest_sessionfinish(SimpleNamespace(config=config), exitstatus)
        record, page = tmp_path / "figures.json", tmp_path / "figures.md"
        if not record.exists():
            return None, None
        return json.loads(record.read_text("utf-8")), page.read_text("utf-8")

    return run


def test_cases_of_a_test_are_put_together():
    first = {"what": "cuts", "tried": 3, "slowest (s)": 0.123456, "least draws": 9, "of": "sd"}
    other = {"what": "cuts", "tried": 4, "slowest (s)": 0.1, "least draws": 5, "of": "beta"}
    alone = {"what": "bytes", "tried": 1}
    both = {"tried": 7, "slowest (s)": 0.123, "least draws": 5, "of": "sd, beta"}
    assert combine([first, alone, other]) == [{"what": "cuts", **both}, alone]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (12345, "12,345"),
        (12345.6, "12,346"),
        (12.345, "12.3"),
        (0.0, "0"),
        (0.00012345, "0.00012"),
        (1.26e-7, "1.3e-07"),
        ("a | b", r"a \| b"),
    ],
)
def test_cells(value, cell):
    assert shown(value) == cell


def test_rows_with_the_same_figures_share_a_table():
    rows = [{"what": "a", "n": 1}, {"what": "b", "of": "x"}, {"what": "c", "n": 2}]
    first = "|  | n |\n| --- | --: |\n| a | 1 |\n| c | 2 |"
    assert make_tables(rows) == [first, "|  | of |\n| --- | --- |\n| b | x |"]


def test_figures_are_those_of_passed_calls_in_the_order_of_the_file(finish, monkeypatch):
    monkeypatch.setenv("HMLM_FUZZ", "20")
    figures = [{"what": f"w{k}", "n": k} for k in range(12)]
    record, page = finish(
        report("test_b[10]", figures[10], line=9),
        report("test_b[9]", figures[9], line=9),
        report("test_b[9]", figures[9], line=9, when="teardown"),
        report("test_a", figures[1], line=2),
        report("test_c", line=20, when="setup", outcome="skipped"),
        report("test_d", figures[4], file=FRAMES),
        report("test_e", figures[5], file="test_of_no_part.py"),
    )
    assert list(record) == [FRAMES, OFFLINE]
    assert (record[OFFLINE]["passed"], record[OFFLINE]["skipped"]) == (3, 1)
    assert record[OFFLINE]["figures"] == {"test_a": [figures[1]], "test_b": figures[9:11]}
    assert page.index("# Hostile input") < page.index("# Network")
    assert "```sh\nHMLM_FUZZ=20 pytest tests/test_hostile_frames.py" in page
    assert "```sh\npytest tests/test_offline.py\n```\n\n3 tests passed, 1 skipped.\n\n" in page
    assert "\n\n1 tests passed (not run for this page: test_hostile_formulas.py, " in page
    assert page.endswith("| w1 | 1 |\n| w9 | 9 |\n| w10 | 10 |\n")


def test_a_file_that_ran_again_takes_the_place_of_its_former_figures(finish):
    old, new = {"what": "old", "n": 1}, {"what": "new", "n": 2}
    _, first = finish(report("test_a", old), report("test_d", old, file=FRAMES))
    record, page = finish(report("test_b", new))
    assert record[OFFLINE]["figures"] == {"test_b": [new]}
    assert record[FRAMES]["figures"] == {"test_d": [old]}
    assert finish(report("test_a", old))[1] == first != page


def test_a_file_with_a_failed_test_keeps_its_former_figures(finish):
    old, new = {"what": "w", "n": 1}, {"what": "w", "n": 2}
    failed = report("test_b", new, outcome="failed")
    assert finish(report("test_a", new), failed, exitstatus=1)[0] == {}
    finish(report("test_a", old), report("test_d", old, file=FRAMES))
    record, _ = finish(
        report("test_a", new), failed, report("test_d", new, file=FRAMES), exitstatus=1
    )
    assert record[OFFLINE]["figures"] == {"test_a": [old]}
    assert record[FRAMES]["figures"] == {"test_d": [new]}


def test_nothing_is_written_where_tests_were_not_run_to_the_end(finish):
    assert finish(report("test_a", {"what": "w", "n": 1}), exitstatus=2) == (None, None)


def test_make_runs_every_file_of_the_parts(request):
    files = [f"tests/{name}" for part in PARTS for name in part.files]
    assert len(files) == len(set(files))
    root = request.path.parents[1]
    assert not [name for name in files if not (root / name).is_file()]
    command = (root / "Makefile").read_text("utf-8").split("\ntrust: ")[1].split("\n\n")[0]
    assert sorted(re.findall(r"tests/\w+\.py", command)) == sorted(files)


def test_numbers_in_names_are_sorted_as_numbers():
    assert sorted(["t[10]", "t[9]", "t[a]", "t"], key=natural) == ["t", "t[9]", "t[10]", "t[a]"]


def test_figures_of_z():
    found = z_figures("w", np.array([[3.0, -4.0]]))
    assert found == {
        "what": "w",
        "means and sds": 2,
        "root mean square z": pytest.approx(np.sqrt(12.5)),
        "largest z": 4.0,
    }
    assert {type(value) for value in found.values()} == {str, int, float}  # as xdist can send
