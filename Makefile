# Everything needs only python3 (3.10 or later, with venv) and the package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test tests lint types torture fuzz bench clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## the main job on real text, and what came out
	rm -rf demo
	$(BIN)/tokenmill plan examples/books --documents blank-line --out demo
	$(BIN)/tokenmill prepare examples/books --documents blank-line --val-fraction 0.1 --out demo
	$(BIN)/tokenmill inspect demo
	$(BIN)/tokenmill inspect demo --doc 280
	$(BIN)/tokenmill verify demo

test: $(STAMP)  ## lint, types, tests: what CI runs; types are checked beside the tests
	$(MAKE) --no-print-directory --jobs 3 lint types tests

tests: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

torture: $(STAMP)  ## long campaigns, a line a file: whole corpora, kills, real memory limits (root)
	$(BIN)/python -m pytest tests/torture --quiet --override-ini addopts='-ra --strict-markers' \
		--override-ini console_output_style=classic

fuzz: $(STAMP)  ## hostile input for MINUTES (30): mutated inputs, manifests, journals, vocabularies
	$(BIN)/python -m tests.torture.fuzz

bench: $(STAMP)  ## the ratios of benchmarks/RESULTS.md (needs ../shared; hours at full size)
	$(BIN)/python benchmarks/bench.py speed

clean:
	rm -rf $(VENV) demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
