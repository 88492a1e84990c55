"""The command `hmlm`: what it prints, where, and with which exit code."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import hmlm
from hmlm.__main__ import main
from hmlm.demo import run_demo

ROOT = Path(__file__).parents[1]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "scores.csv"
    rng = np.random.default_rng(1)
    school = np.repeat(["a", "b", "c", "d"], 6)
    hours = rng.uniform(0, 5, 24)
    score = 2 + hours + rng.standard_normal(4).repeat(6) + 0.5 * rng.standard_normal(24)
    pd.DataFrame({"school": school, "hours": hours, "score": score}).to_csv(path, index=False)
    return path


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"hmlm {hmlm.__version__}"


def test_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "hmlm", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(command in done.stdout for command in ("demo", "fit", "datasets"))


def test_datasets_are_listed(capsys):
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    for name, formula in hmlm.list_datasets()[["name", "formula"]].itertuples(index=False):
        assert name in out
        assert formula in out


def test_fit_prints_the_summary(capsys):
    formula = "alcuse ~ coa + peer + time + (time | id)"
    assert main(["fit", "alcohol", formula, "--method", "reml"]) == 0
    out = capsys.readouterr().out
    fit = hmlm.Model(formula, hmlm.load_dataset("alcohol")).fit(hmlm.REML())
    assert out == f"{fit.summary()}\n"
    assert "619.7211" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--method", "reml"], "Fit by REML"),
        (["--method", "ml"], "Fit by ML"),
        (["--method", "ols"], "Fit by OLS (complete pooling)"),
        (["--method", "ols", "--pooling", "none"], "Fit by OLS (no pooling)"),
        (["--method", "reml", "--weights", "hours"], "Fit by REML"),
    ],
)
def test_fit_reads_a_file(table, capsys, options, expected):
    assert main(["fit", str(table), "score ~ hours + (1 | school)", *options]) == 0
    assert expected in capsys.readouterr().out


def test_fit_samples_the_same_draws_again(table, capsys):
    arguments = ["fit", str(table), "score ~ hours + (1 | school)", "--draws", "100", "--seed", "3"]
    texts = []
    for _ in range(2):
        assert main(arguments) == 0
        texts.append(capsys.readouterr().out)
    assert "Fit by NUTS" in texts[0]
    assert texts[0] == texts[1]


def test_fit_writes_a_report(table, tmp_path, capsys):
    path = tmp_path / "report.html"
    formula = "score ~ hours + (1 | school)"
    arguments = ["fit", str(table), formula, "--method", "reml", "--seed", "1"]
    assert main([*arguments, "--report", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(formula)
    assert out.endswith(f"Report: {path}\n")
    assert formula in path.read_text(encoding="utf-8")


def test_report_that_cannot_be_written_is_refused_before_the_fit(table, tmp_path, capsys):
    before = table.read_bytes()
    for place in (tmp_path, table, tmp_path / "nowhere" / "report.html"):
        arguments = [str(table), "score ~ (1 | school)", "--method", "reml"]
        assert main(["fit", *arguments, "--report", str(place)]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err.startswith("hmlm: error: ")
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv", "y ~ x + (1 | g)"], "there is no file 'nowhere.csv' and no data set"),
        ([".", "y ~ x + (1 | g)"], "cannot read '.' as CSV"),
        (["alcohol", "alcuse ~ tme + (1 | id)"], "Did you mean 'time'?"),
        (["alcohol", "alcuse ~ __import__('os') + (1 | id)"], "hmlm: error: "),
        (["alcohol", "alcuse ~ time + (1 | id)", "--family", "gausian"], "gaussian"),
        (["alcohol", "alcuse ~ time + (1 | id)", "--method", "ols", "--pooling", "partial"], "OLS"),
    ],
)
def test_errors_are_one_sentence_on_stderr(capsys, arguments, message):
    method = [] if "--method" in arguments else ["--method", "reml"]
    assert main(["fit", *arguments, *method]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("hmlm: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_bad_bytes_and_empty_files_are_refused(tmp_path, capsys):
    for name, content in (("empty.csv", b""), ("bytes.csv", b"a,b\n\xff\xfe\x00,1\n")):
        (tmp_path / name).write_bytes(content)
        assert main(["fit", str(tmp_path / name), "b ~ 1 + (1 | a)", "--method", "reml"]) == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["fit", "alcohol"],
        ["fit", "a", "b", "--method", "magic"],
        ["demo", "--draws", "0"],
    ],
)
def test_wrong_arguments_exit_with_two(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: hmlm" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 200])
def test_demo_prints_four_fits_and_saves_two_figures(tmp_path, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    paths = run_demo(tmp_path / "new" / "demo", draws=100, console=console, progressbar=False)
    out = console.file.getvalue()
    assert [path.name for path in paths] == ["groups.png", "shrinkage.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert str(path) in out
    assert "Level 2: id j = 1, ..., 82" in out
    assert "NUTS: " in out
    assert "0.571" in out  # coa by REML
    assert "0.905" in out  # residual sd of the regression
    tables = out.count("\nalcuse ~ coa + peer + time + (time | id)\n")
    assert tables == (2 if width == 200 else 4)
    lines = out.partition("Side by side")[2].splitlines()
    assert max(map(len, lines)) <= max(width, len(str(paths[1])))


def test_demo_is_a_command(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path), "--draws", "50", "--seed", "2"]) == 0
    assert str(tmp_path / "shrinkage.png") in capsys.readouterr().out
