"""What is shipped is whole: wheel, data, pins and citation, with no address of any registry."""

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hmlm

ROOT = Path(__file__).parents[1]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def test_wheel_holds_the_package_and_its_data_only(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "hmlm = hmlm.__main__:main" in wheel.read(entry_points).decode()
    info = f"hmlm-{hmlm.__version__}.dist-info/"
    files = {name for name in names if not name.startswith(info)}
    data = {f"hmlm/_data/{path.name}" for path in (ROOT / "data").iterdir()}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hmlm").rglob("*.py")}
    assert files == modules | data | {"hmlm/py.typed"}
    assert info + "licenses/LICENSE" in names


def test_sdist_holds_what_it_takes_to_test_it(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = ["README.md", "LICENSE", "CITATION.cff", "Makefile", "constraints.txt"]
    wanted += ["data/index.json", "hmlm/py.typed", "tests/test_packaging.py"]
    assert set(wanted) <= names


@pytest.mark.slow
def test_installed_wheel_loads_every_data_set(built, tmp_path):
    """With pandas alone beside it, away from the checkout."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(*pip, "--no-deps", built[1])
    run(*pip, "--constraint", ROOT / "constraints.txt", "pandas")
    code = (
        "import hmlm\n"
        "for name in hmlm.list_datasets()['name']:\n"
        "    print(name, len(hmlm.load_dataset(name)))\n"
        "print(hmlm.__file__)"
    )
    *rows, place = run(python, "-I", "-c", code, cwd=tmp_path).stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path)
    listed = hmlm.list_datasets()
    assert rows == [f"{name} {n}" for name, n in zip(listed["name"], listed["rows"], strict=True)]


def test_citation_is_valid_and_of_this_version():
    schema = "vendor.citation-file-format"  # comes with check-jsonschema: no network
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "CITATION.cff")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {hmlm.__version__}\n" in citation


def test_changelog_names_this_version():
    assert f"## {hmlm.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_are_pins_and_nothing_else():
    pin = re.compile(r"[a-z0-9-]+==[0-9a-z.]+( ; [a-z_]+ [!=<>]=? '[\w.]+'( (and|or) .+)?)?")
    assert [line for line in CONSTRAINTS if not pin.fullmatch(line)] == []


def test_each_dependency_is_pinned():
    pins = {canonicalize_name(line.split("==")[0]): Requirement(line) for line in CONSTRAINTS}
    groups = PROJECT["dependency-groups"]
    required = [*PROJECT["project"]["dependencies"]]
    required += [each for name in ("dev", "test", "notebooks", "bench") for each in groups[name]]
    for text in required:
        wanted = Requirement(text)
        assert canonicalize_name(wanted.name) in pins, text
        (pinned,) = pins[canonicalize_name(wanted.name)].specifier
        assert wanted.specifier.contains(pinned.version), text


def test_no_file_names_a_registry_host():
    halves = [
        ("pypi", ".org"),
        ("python", "hosted"),
        ("npm", "js."),
        ("debian", ".org"),
        ("anaconda", ".org"),
        ("conda-", "forge.org"),
        ("crates", ".io"),
        ("cran.r-", "project.org"),
    ]
    host = re.compile("|".join(re.escape("".join(pair)) for pair in halves), re.IGNORECASE)
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    named = {
        str(path.relative_to(ROOT)): found.group()
        for path in paths
        if path.is_file() and (found := host.search(path.read_bytes().decode("utf-8", "ignore")))
    }
    assert not named
