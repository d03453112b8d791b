PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-interop coverage check dead docs clean

demo: .venv/ready  ## train and measure the atoms of SmolLM2-135M on Wikipedia, with no hub and no key
	$(BIN)/python train.py

test: .venv/ready  ## the tests, with the same set-up
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(MEASURE)

coverage: ## the tests, with the share of the lines that they run; at least 90%
	$(MAKE) test MEASURE="--cov --cov-report=term"

docs: .venv/ready  ## build/site, with warnings as errors
	$(BIN)/mkdocs build --strict

dead: .venv/ready  ## code that nothing calls
	$(BIN)/vulture

test-interop: .venv-interop/ready  ## round trips and parity with the packages of others, in an environment of its own
	OMP_NUM_THREADS=1 .venv-interop/bin/python -m pytest -q -o addopts= --import-mode=importlib -W ignore peers

.venv-interop/ready: peers/requirements.txt peers/requirements-no-deps.txt
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet -r peers/requirements.txt
	.venv-interop/bin/python -m pip install --quiet --no-deps -r peers/requirements-no-deps.txt
	touch $@

check: .venv/ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

.venv/ready: requirements.txt requirements-embedded.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-embedded.txt
	touch $@

clean:
	rm -rf .venv .venv-interop outputs multirun
