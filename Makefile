# `make` lists what can be made. The steps are in jobs/local/, each a script to read in one go.
.DEFAULT_GOAL := help
.PHONY: help env study figures site reproduce publish test test-all test-faults test-slurm bench check lock lab clean

BIN := .venv/bin
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

env: ## .venv with the locked packages, Horovod built with MPI and Gloo (PYTHON=… to choose one)
	@jobs/local/environment.sh

study: env ## train six models and two by IVON on real digits with 2 ranks, then table and figures
	@jobs/local/study.sh

# Tests of one process run side by side; those that start ranks one at a time, since two ranks fill
# two cores.
test: check ## check, then all tests but the long ones
	$(BIN)/pytest -m "not ranks and not long" --numprocesses logical --dist loadfile
	$(BIN)/pytest -m "ranks and not long"

test-all: test ## test, then the long ones: the study, kills, a browser, Slurm, two hosts, elastic runs
	$(BIN)/pytest -m long

# From the compact records in figures/<question>, which git keeps; nothing is trained.
figures: env ## the questions' figures anew from their compact records, and what READMEs say of them (a minute)
	@$(BIN)/python -m jobs.local.figures
	@$(BIN)/python -m jobs.simulation.run --draw
	@$(BIN)/python -m jobs.local.answers
	@$(BIN)/python -m jobs.local.readme

site: env ## all notebooks, executed, as pages in site/ that need no network (minutes)
	@$(BIN)/python -m jobs.local.pages

reproduce: env ## make the runs of a question and its figures, QUESTION=convergence; says its cost first
	@$(BIN)/python -m jobs.local.reproduce $(QUESTION) $(if $(DRY_RUN),--dry-run)

publish: study ## take the study's figures and tables into figures/digits
	@jobs/local/study.sh tiny
	$(BIN)/python -m jobs.local.publish runs/digits runs/tiny figures/digits

test-slurm: env ## the job scripts on a real Slurm of one node (part of test-all where it is installed)
	$(BIN)/pytest tests/jobs/test_slurm.py

test-faults: env ## kill runs of two ranks a hundred times at random, resume each, compare the bits
	$(BIN)/python tests/faults/kills.py --kills 100 --seed $(or $(SEED),1)

bench: env ## time a step against TFP's layers, and two ranks against one: figures/bench (half an hour)
	$(BIN)/python -m jobs.bench.steps --out figures/bench
	$(BIN)/python -m jobs.bench.ops --out figures/bench
	$(BIN)/python -m jobs.bench.startup --out figures/bench
	$(BIN)/python -m jobs.bench.table --out figures/bench
	$(BIN)/python -m jobs.bench.virtual_ranks --out figures/bench/virtual_ranks.csv
	$(BIN)/python -m jobs.bench.ranks --out figures/bench/ranks.csv
	$(BIN)/python -m jobs.bench.ranks --settings --repeats 3 --models CNN_FC BNN_FC_flip CNN_conv \
		--batches 64 --out figures/bench/horovod.csv

check: env ## formatter, linter, types, job scripts, and notebooks stored without outputs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x .ci/run $(wildcard jobs/*.sh jobs/*/*.sh tests/*/*.sh)
	$(if $(NOTEBOOKS),jobs/local/strip.sh --verify $(NOTEBOOKS))

lock: env ## renew requirements.lock from pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(BIN)/uv pip compile pyproject.toml --extra build --extra cpu --extra dev --extra lab \
		--universal --python-version 3.11 --generate-hashes \
		--custom-compile-command 'make lock' --quiet $(UPGRADE) --output-file requirements.lock

lab: env ## JupyterLab on the notebooks
	@bash -c 'source jobs/lab.sh && notebooks_in_git'
	$(BIN)/jupyter lab --notebook-dir . \
		--MappingKernelManager.transport_encryption=auto \
		--FileContentsManager.post_save_hook=bnnlib.interactive.saving.after_save \
		$(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## remove caches and build leftovers; never runs/ or .venv
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bnnlib tests notebooks jobs -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +
