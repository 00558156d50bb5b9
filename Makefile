# Everything runs in .venv, made on first use from the hashed lock.
PY := .venv/bin/python
BIN := .venv/bin

.PHONY: paper test test-capture test-cluster validate bench bench-all rivals lint format lock clean

paper: .venv/ready
	$(BIN)/topomoe paper

test: lint
	$(PY) -m pytest --numprocesses 2 --dist loadfile

# What needs PyTorch and transformers: too large for everyone's lock, so beside it.
test-capture: .venv-capture/ready
	.venv-capture/bin/python -m pytest -m capture

# Sweeps on a real Dask scheduler and workers, in an environment of their own: the lock does not
# hold the extra.
test-cluster: .venv-cluster/ready
	.venv-cluster/bin/python -m pytest -m cluster

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The simulator against theory, its other fidelities and published hardware.
validate: .venv/ready
	$(BIN)/topomoe validate

bench: .venv/ready
	$(BIN)/topomoe bench

# Every load, every cluster, the paper's program on 64 servers, 16,384 GPUs, and other simulators
# where they are installed.
bench-all: .venv/ready
	$(BIN)/topomoe bench --all

# ns.py for bench-all, beside our environment; SimGrid is a Debian package (libsimgrid-dev).
rivals: .rivals/bin/python

.rivals/bin/python:
	python3 -m venv .rivals
	.rivals/bin/pip install --quiet ns.py==0.4.3

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/ready: requirements.lock pyproject.toml
	python3 -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv-capture/ready: requirements.lock pyproject.toml
	python3 -m venv .venv-capture
	.venv-capture/bin/pip install --quiet --require-hashes -r requirements.lock
	.venv-capture/bin/pip install --quiet --no-build-isolation -e ".[capture]"
	touch $@

.venv-cluster/ready: requirements.lock pyproject.toml
	python3 -m venv .venv-cluster
	.venv-cluster/bin/pip install --quiet --require-hashes -r requirements.lock
	.venv-cluster/bin/pip install --quiet --no-build-isolation -e ".[cluster]"
	touch $@

# Re-resolves the pins; needs uv (https://docs.astral.sh/uv/).
lock:
	printf "hatchling==1.33.0\neditables\n" | \
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --no-annotate --extra dev \
	  -o requirements.lock pyproject.toml -

clean:
	rm -rf .venv .venv-capture .venv-cluster .rivals
