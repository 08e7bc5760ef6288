# `make book` and `make test` on a clean clone are all it takes; each makes .venv when it is missing.

PYTHON ?= python3
JOBS ?= 2
RUN := .venv/bin/python
BENCH := .venv-bench/bin/python
# One thread for each test process: two processes with two threads each would wait for one another.
TESTS := OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile -rs

.PHONY: help venv test smoke book lint bench zoo clean

help:
	@echo "make book    execute the chapters that changed and build the book: _build/html/index.html"
	@echo "make test    all tests: library, notebooks, built book, configuration"
	@echo "make smoke   the tests that are fast enough for every commit"
	@echo "make lint    style of code and notebooks"
	@echo "make bench   timings against other packages, which go into .venv-bench"
	@echo "make zoo     train the shipped networks anew (hours)"
	@echo "make venv    the environment .venv, with the tested versions of all packages"
	@echo "make clean   remove what was built; .venv, .venv-bench and data/cache stay"

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@echo "== Making .venv with the versions of constraints.txt"
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

test: .venv/installed
	@echo "== Running all tests in $(JOBS) processes"
	$(TESTS)

smoke: .venv/installed
	@echo "== Running the tests that are fast enough for every commit"
	$(TESTS) -m smoke

book: .venv/installed
	@echo "== Executing the chapters that changed and building the book"
	$(RUN) book/build.py

lint: .venv/installed
	@echo "== Checking style, and that notebooks carry no outputs"
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/nbstripout --verify notebooks/*.ipynb

.venv-bench/installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	@echo "== Making .venv-bench: this library and the packages that it is timed against"
	$(PYTHON) -m venv .venv-bench
	$(BENCH) -m pip install --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt -e .
	@touch $@

# Options are those of benchmarks/metrics.py: make bench BENCH_OPTIONS=--publish renews the table behind the book's page.
bench: .venv-bench/installed
	@echo "== Timing this library against others"
	$(BENCH) benchmarks/run.py $(BENCH_OPTIONS)

zoo: .venv/installed
	@echo "== Training the networks of data/zoo"
	$(RUN) -m convergent.zoo
	$(RUN) -m convergent.encodings

clean:
	@echo "== Removing what was built (.venv, .venv-bench and data/cache stay)"
	rm -rf _build .pytest_cache .ruff_cache .hypothesis lib/convergent.egg-info
	find lib book tests benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} +
