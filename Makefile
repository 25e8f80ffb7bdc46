# `make help` tells what there is. What a target needs that is not there yet, it sets up first.

SCENARIOS ?= $(or $(SCENARIO),scenarios)
IMAGES ?=
RUN ?= runs/latest
PYTHON ?= python3
BIN := .venv/bin

# Half as many again as there are cores, those of a container's quota: many tests wait more than they compute.
TEST_WORKERS = $(BIN)/python -c 'from harness.host.resources import cores; print(cores().value * 3 // 2)'

# $(call flag,VARIABLE,OPTION): the option if the variable is set and is no word for "no".
flag = $(if $(filter-out 0 no off false,$($1)),$2)

# Where it is set, each of hundreds of processes compiles the harness anew, which is half of its start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup environment run test test-all mutation check unit atlas bench soak images repin list validate report shell doctor lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  options: SCENARIO='NAMES OR FILES' (run, list, validate, shell), WRITE=1 (atlas: docs/fault-atlas.md), TAGS=TAG K='EXPRESSION' PROVE=1 COLD=1 NIC=ADDRESS (run), HOST=ssh://USER@NAME another host (run, doctor), JOBS=N (run, test), IMAGES=NAMES (repin), RUN=DIRECTORY (report, mutation)"

setup: environment ## install what is missing: Python environment, QEMU, guest images
	@$(BIN)/harness images build --quiet

environment:
	@PYTHON='$(PYTHON)' .ci/setup

run: setup ## run the scenarios; PROVE=1 runs each counter-proof too, JOBS=N so many at once, COLD=1 boots each machine
	$(BIN)/harness run $(SCENARIOS) $(call flag,PROVE,--prove) $(call flag,COLD,--cold) $(if $(JOBS),-j $(JOBS)) $(if $(TAGS),-t '$(TAGS)') $(if $(K),-k '$(K)') $(if $(HOST),--host '$(HOST)') $(if $(NIC),$(NIC:%=--nic %))

test: environment ## everything CI runs: linters, unit and guest tests, scenarios but long ones with their counter-proofs; JOBS=N at once, BOOT_LONE=1 if the cache is new
	@$(MAKE) --no-print-directory -j 2 setup lint
	@# What fails in one of them does not keep the others from being run. The tests with guests follow each other: a worker
	@# that has nothing left takes some of another's.
	failed=0; \
	    $(BIN)/pytest tests -m 'not alone' -n $(or $(JOBS),$$($(TEST_WORKERS))) --dist worksteal || failed=$$?; \
	    $(BIN)/pytest tests -m alone || failed=$$?; \
	    $(BIN)/pytest scenarios --prove $(call flag,BOOT_LONE,--boot-lone) -m 'not long' -n $(or $(JOBS),auto) || failed=$$?; \
	    exit $$failed

mutation: environment ## try single changes to all evidence of RUN: none may keep a PASS without a listed reason
	$(BIN)/python -m tests.mutation $(RUN)

test-all: test ## everything of test, then a run of all scenarios and single changes to all of its evidence
	$(BIN)/harness run $(SCENARIOS) $(if $(JOBS),-j $(JOBS))
	$(BIN)/python -m tests.mutation runs/latest

check: environment ## linters, types, import layers and the tests that need no QEMU
	@$(MAKE) --no-print-directory lint unit

.PHONY: lint
lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=harness/guest_agent $(BIN)/mypy --strict --explicit-package-bases harness/guest_agent/*.py
	$(BIN)/lint-imports

unit:
	$(BIN)/pytest tests -m 'not qemu and not guest' -n $(or $(JOBS),auto)

atlas: setup ## provoke every VT-d fault, compare it with the spec; BARE=1 without guests, QEMU=qemu-11 on 11.1
	$(if $(QEMU),VTD_QEMU=$(QEMU)) $(BIN)/harness atlas $(call flag,BARE,--bare) $(call flag,PROVE,--prove) $(call flag,WRITE,--write) $(if $(JOBS),-j $(JOBS))

bench: setup ## measure what the harness costs beside the plain way; ONLY=A,B some figures, QUICK=1 few samples
	$(BIN)/harness bench $(if $(ONLY),--only $(ONLY)) $(call flag,QUICK,--quick)

soak: setup ## N=1000 runs of the scenarios in turn: no verdict may flip, nothing may stay behind; JOBS=N at once
	$(BIN)/harness soak $(or $(N),1000) $(SCENARIOS) $(call flag,PROVE,--prove) $(if $(JOBS),-j $(JOBS)) $(if $(K),-k '$(K)')

images: environment ## build the guest images and QEMU, and list them
	$(BIN)/harness images build
	$(BIN)/harness images list

repin: environment ## lock the newest packages for IMAGES (all)
	$(BIN)/harness images repin $(IMAGES)

list: environment ## list the scenarios and their variants
	$(BIN)/harness list $(SCENARIOS)

validate: environment ## check the scenario files without running them
	$(BIN)/harness validate $(SCENARIOS)

report: environment ## make the report of RUN again from its evidence
	$(BIN)/harness report $(RUN)

shell: setup ## boot the machine of SCENARIO and open a shell in its guest
	$(BIN)/harness shell $(or $(SCENARIO),$(filter-out scenarios,$(SCENARIOS)),unmapped-write)

doctor: environment ## one line for each thing needed, with the command that mends it
	$(BIN)/harness doctor $(if $(HOST),--host '$(HOST)')

lock: ## pin the newest Python packages in .ci/requirements.lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND='make lock' build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe \
	    --strip-extras --extra dev --build-deps-for editable --no-emit-index-url --no-emit-trusted-host \
	    --no-emit-find-links --no-emit-options --output-file .ci/requirements.lock pyproject.toml

clean: ## remove what was made here; the cache of images stays (see `make doctor` for its place)
	rm -rf .venv build runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
