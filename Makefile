# make benchmark [DATA=synthetic] [PROFILE=default]   train, score, track and rank the models
# make report [DATA=...] [PROFILE=...]                write the results of a benchmark to reports/
# make ui                                             the MLflow UI on the local store
# make test | lint | format | speed                   for developers

DATA ?= synthetic
PROFILE ?= $(if $(filter synthetic,$(DATA)),default,quick)
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: benchmark report test ui lint format speed environment
.DEFAULT_GOAL := help

.PHONY: help
help:
	@head -4 Makefile | sed 's/^# //'

# Made again when what it is made of changes; otherwise free.
.venv/installed: pyproject.toml constraints.txt
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "emseg needs Python 3.11 or newer")'
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# A downloaded archive has no git; DVC must be told, or it refuses to work.
environment: .venv/installed
	@test -e .git || printf '[core]\n    no_scm = true\n' > .dvc/config.local

benchmark: environment
ifeq ($(PROFILE),default)
ifneq ($(DATA),synthetic)
	$(error PROFILE=default is for synthetic sections; use PROFILE=quick, best or paper with DATA=$(DATA))
endif
	dvc repro
	emseg leaderboard runs/benchmark
else
	folder="$$(python -m pipelines.workspace "$(DATA)" "$(PROFILE)")" && cd "$$folder" && dvc repro && \
		emseg leaderboard runs/benchmark
endif

report: environment
	python -m pipelines.report "$(if $(filter default,$(PROFILE)),runs/benchmark,workspaces/$(DATA)-$(PROFILE)/runs)" \
		"reports/$(DATA)-$(PROFILE)" --title "$(DATA), profile $(PROFILE)" \
		--command "make benchmark DATA=$(DATA) PROFILE=$(PROFILE)"

speed: environment
	python -m benchmarks.separation
	python -m benchmarks.augmentation
	python -m benchmarks.training
	python -m benchmarks.tuning
	python -m benchmarks.prediction
	python -m benchmarks.metrics
	python -m benchmarks.volume
	python -m benchmarks.serving

# Tests compute on one thread each; two at a time fill two cores.
test: environment
	OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile

ui: environment
	emseg ui

lint: environment
	ruff check
	ruff format --check
	mypy

format: environment
	ruff check --fix
	ruff format
