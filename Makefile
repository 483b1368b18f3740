# `make help` lists the targets. `make demo` and `make test` set everything up by themselves.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
# ON makes compiler warnings errors, as CI does; a user's compiler may warn of more than ours.
GPUTAP_WERROR ?= OFF
CONFIGURE := cmake -S . -B build/dev -G Ninja -DCMAKE_BUILD_TYPE=Release -DGPUTAP_WERROR=$(GPUTAP_WERROR)

.DEFAULT_GOAL := help
.PHONY: help setup build gen demo test test-tools check lint types generated soak gpu-test bench wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## system packages, .venv with gputap in it, native build (idempotent)
	@tools/setup.sh

build: ## native parts into injectors/bin
	@mkdir -p build
	@$(CONFIGURE) > build/cmake.log 2>&1 || (rm -rf build/dev; $(CONFIGURE) > build/cmake.log 2>&1) || (cat build/cmake.log; exit 1)
	@cmake --build build/dev > build/ninja.log 2>&1 || (cat build/ninja.log; exit 1)
	@grep -A 5 'warning:' build/ninja.log >&2 || true
	@cmake --install build/dev --prefix . > build/install.log

gen: ## write the generated files
	@$(PY) -m gputap.profiler.schema_codegen
	@$(PY) tools/gen_cli_docs.py

demo: setup ## build, run a workload, attach, verdict, report
	@tools/setup_demo.sh
	@$(PY) -m gputap.cli demo

test: setup test-tools ## all tests but the long proofs
	@$(PYTEST)

test-tools:
	@tools/setup_test.sh

check: setup lint types generated ## lint, types, generated files, layering
	@$(PYTEST) -q tests/contract

lint:
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types:
	@.venv/bin/mypy

generated:
	@$(PY) -m gputap.profiler.schema_codegen --check
	@$(PY) tools/gen_cli_docs.py --check

soak: setup test-tools ## the long proofs: thousands of cycles, soaks (about an hour)
	@$(PYTEST) -m soak --timeout 7200 tests/soak

gpu-test: setup ## on a machine with a GPU: late attach, conformance, coexistence
	@$(PYTEST) -rs --timeout 300 tests/gpu

bench: setup ## every benchmark; JSON lines, kept in build/bench.json
	@$(PY) benchmarks/all.py

wheel: setup ## wheel and sdist into dist/
	@$(PY) -m build --no-isolation

clean: ## remove what was built
	@rm -rf build dist injectors/bin .mypy_cache .ruff_cache .pytest_cache
