# Everything sets itself up. Only Python 3.11 or newer, with its venv module, and make are needed.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SERVER_READY := .venv-fhir/.ready
WRITERS := $(filter-out tests/spec/test_%.py tests/spec/conftest.py,$(wildcard tests/spec/*.py)) $(wildcard tests/docs/*_page.py)

# Without compiled files each of the processes that the tests start compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test soak fuzz audit coverage mutation test-lowest test-newest lint format docs notebooks site clean

demo: $(READY) $(SERVER_READY)
	$(BIN)/python examples/demo.py .venv-fhir/bin/sekmet

# Files in their order: by the number of their tests, those with a few long ones would be left to the end.
test: lint $(SERVER_READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# 100,000 mutated resources through the decoder, three ways, and through all of normalize; make test has 2,000.
fuzz: $(READY)
	MUTATED_RESOURCES=100000 $(BIN)/python -m pytest tests/hostile/test_mutated_resources.py

# Known vulnerabilities of the pinned versions, asked of the advisory database of the Python Packaging Authority; that it
# cannot be reached is a failure, too.
audit: $(READY)
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# Every branch of times, the engine, the lake and the resolver is taken by a test; prints those that are not, and fails.
coverage: $(READY)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest tests/test_times.py tests/lake tests/upkeep tests/ontology tests/spec tests/features tests/generative tests/normalize tests/feast tests/report
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# How many of a sample of small changes to times, engine and resolver the tests notice; prints those that they do not.
mutation: $(READY)
	MUTANTS=$${MUTANTS:-200} $(BIN)/python tests/mutation/run.py

# The tests of what touches dependencies most, with the lowest and with the newest versions that pyproject.toml allows.
TOUCHY := tests/features tests/normalize tests/lake tests/feast

test-lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/packaging/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/lowest.txt -e '.[dev]'
	.venv-lowest/bin/python -m pytest $(TOUCHY)

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -e '.[dev]'
	.venv-newest/bin/python -m pytest $(TOUCHY)

# The long versions of the tests of crashes, damage, order and concurrency; FAULT_SECONDS=600 ends the first earlier.
soak: $(READY)
	FAULTS=2000 FLIPS=1000 SEEDS=10 COMMITS=50 $(BIN)/python -m pytest -s tests/faults tests/upkeep tests/lake

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages that are generated, from the tables of tests/spec and from the code. A test fails when one is stale.
docs: $(READY)
	set -e; for writer in $(WRITERS); do PYTHONPATH=tests $(BIN)/python $$writer; done

# What the notebooks show. A test fails when it is stale.
notebooks: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/test_notebooks.py

# The documentation as a site, to be read from site/index.html.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf demo build site dist .venv .venv-fhir .venv-audit .venv-lowest .venv-newest .pytest_cache .coverage* .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The FHIR server of the demo and its test pins versions of its own, so it has an environment of its own.
$(SERVER_READY): Makefile
	$(PYTHON) -m venv .venv-fhir
	.venv-fhir/bin/python -m pip install --quiet --disable-pip-version-check sekmet-fhir==0.1.1
	touch $@
