# Each target first makes the environment that it needs, with nothing but a Python 3.12 or newer and its pip.
# tools/find_python.sh finds that Python; `make demo PYTHON=/path/to/python` chooses it.

VENV := .venv
PEERS := .venv-bench
PY := $(VENV)/bin/python
PEERS_PY := $(PEERS)/bin/python
INSTALL := -m pip --disable-pip-version-check install --quiet
PINNED := $(INSTALL) --constraint constraints.txt

export PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test docs bench sbc fuzz trust coverage mutants audit format constraints clean distclean

help:
	@echo "make demo         fit a first model and see what comes back (hmlm demo)"
	@echo "make test         lint, type check, tests, doctests, notebooks, wheel, documentation"
	@echo "make docs         build the documentation into docs/_build/html"
	@echo "make bench        time hmlm beside other packages, which get an environment of their own"
	@echo "make sbc          simulation-based calibration and coverage: an hour or two"
	@echo "make fuzz         10,000 hostile tables: five minutes"
	@echo "make trust        write the figures of docs/trust anew, by the tests that measure them"
	@echo "make coverage     which lines the tests run: half an hour"
	@echo "make mutants      which changed lines the tests notice: an hour, after make coverage"
	@echo "make audit        known weaknesses of what is installed (asks services on the network)"
	@echo "make format       format the code, and mend what ruff can mend"
	@echo "make constraints  write constraints.txt anew, with the newest releases"
	@echo "make clean        remove what tests and builds leave; make distclean, the environments too"

demo: $(VENV)/.demo
	$(VENV)/bin/hmlm demo

test: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	tools/install_chromium.sh
	$(PY) -m pytest --numprocesses auto --dist loadgroup
	$(MAKE) docs

docs: $(VENV)/.docs
	$(PY) tools/make_gallery.py
	$(PY) -m sphinx -W --keep-going -n -q -b html docs docs/_build/html

bench: $(VENV)/.bench $(PEERS)/.peers
	PEERS_PYTHON=$(PEERS_PY) $(PY) benchmarks/run.py

sbc: $(VENV)/.test
	$(PY) benchmarks/calibration_suite.py
	$(PY) benchmarks/coverage_study.py

fuzz: $(VENV)/.test
	HMLM_FUZZ=10000 $(PY) -m pytest -q tests/test_hostile_frames.py

trust: $(VENV)/.test
	HMLM_FUZZ=10000 HMLM_AGREE=1000 PYTHONPATH=tests $(PY) -m pytest -q -p trust_figures --numprocesses 2 --dist loadgroup \
	  tests/test_exact_posteriors.py tests/test_known_se.py \
	  tests/test_maximum_likelihood.py tests/test_random_designs.py tests/test_random_densities.py \
	  tests/test_calibration.py tests/test_calibration_bugs.py \
	  tests/test_hostile_frames.py tests/test_hostile_formulas.py tests/test_hostile_labels.py \
	  tests/test_interruption.py tests/test_faults.py tests/test_slices.py tests/test_storage.py \
	  tests/test_determinism.py tests/test_offline.py

# The suite with the test that runs each line, then what runs kernels without sampling, as plain Python.
MEASURED := $(CURDIR)/build/coverage
MEASURE := -q --cov --cov-context=test --cov-report= --durations=0 --durations-min=0 -r p \
  -p no:cacheprovider -p no:unraisableexception -W ignore::ResourceWarning \
  --deselect tests/test_faults.py::test_a_disk_that_is_full_leaves_every_kind_of_file # coverage writes too
PLAIN := $(addprefix tests/test_,recorded_densities.py effect_draws.py special_kernels.py glmm_density.py kernel.py sampled.py)

coverage: $(VENV)/.mutants
	rm -rf $(MEASURED) && mkdir -p $(MEASURED)
	$(PY) -m pytest -q -p no:cacheprovider $(PLAIN) # kernels are compiled before anything is traced
	COVERAGE_FILE=$(MEASURED)/suite $(PY) -m pytest $(MEASURE) --numprocesses 2 --dist loadgroup >$(MEASURED)/log_suite.txt
	-COVERAGE_FILE=$(MEASURED)/plain PYTHONPATH=tests $(PY) -m pytest $(MEASURE) -p plain_kernels $(PLAIN) >$(MEASURED)/log_plain.txt
	$(PY) benchmarks/line_coverage.py

mutants: $(VENV)/.mutants
	$(PY) benchmarks/mutants.py

audit: $(VENV)/.audit
	$(PY) -m pip_audit --strict --requirement constraints.txt --no-deps --disable-pip

format: $(VENV)/.test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

constraints: $(VENV)/.lock
	$(PY) -m uv pip compile pyproject.toml --all-extras --group dev --group test --group notebooks --group bench --group docs \
	  --group mutants --group audit --universal --python-version 3.12 --upgrade --no-annotate --no-header --quiet --output-file constraints.txt

clean:
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf docs/_build docs/api/names docs/gallery docs/notebooks/*.ipynb
	find . -path './.venv*' -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(PEERS)

# The environments. A stamp is older than pyproject.toml or constraints.txt when something is to be installed.
$(PY) $(PEERS_PY):
	python=$$(tools/find_python.sh) && "$$python" -m venv --clear $(@D:/bin=)

$(VENV)/.demo: $(PY) pyproject.toml constraints.txt
	@echo "Installing hmlm and what it needs into $(VENV): once, about a minute."
	$(PY) $(PINNED) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PY) $(PINNED) 'pip>=25.1'
	$(PY) $(PINNED) --group dev --group test --group notebooks
	@touch $@

$(addprefix $(VENV)/.,docs bench audit): $(VENV)/.%: $(VENV)/.demo
	$(PY) $(PINNED) 'pip>=25.1'
	$(PY) $(PINNED) --group $*
	@touch $@

$(VENV)/.mutants: $(VENV)/.test
	$(PY) $(PINNED) --group mutants
	@touch $@

$(VENV)/.lock: $(VENV)/.demo
	$(PY) $(PINNED) 'pip>=25.1'
	$(PY) $(INSTALL) --group lock
	@touch $@

$(PEERS)/.peers: $(PEERS_PY) pyproject.toml
	$(PEERS_PY) $(INSTALL) 'pip>=25.1'
	$(PEERS_PY) $(INSTALL) --group peers
	@touch $@
