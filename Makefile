# make benchmark [DATA=synthetic] [PROFILE=default] [SET="KEY=VALUE ..."]   train, score, track and rank the models
# make report [DATA=...] [PROFILE=...] [SET=...]   write the results of a benchmark to reports/
# make ui                                          the MLflow UI on the local store
# make test | lint | format | speed                for developers

# Without options a benchmark runs here; else in projects/DATA-PROFILE, a project of its own. Its settings are those of
# the profile and of SET, and are written anew each time; its data come from data/sources here, where they are.

DATA ?= synthetic
PROFILE ?= $(if $(filter synthetic,$(DATA)),default,quick)
PYTHON ?= python3
SET ?=
BIN := $(CURDIR)/.venv/bin
HERE := $(and $(filter synthetic,$(DATA)),$(filter default,$(PROFILE)),$(if $(strip $(SET)),,yes))
PROJECT := projects/$(DATA)-$(PROFILE)
PROFILE_OPTION := $(if $(filter default,$(PROFILE)),,--profile "$(PROFILE)")
FROM := $(if $(wildcard data/sources/$(DATA)/*),--from "../../data/sources/$(DATA)" --overwrite,)
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
ifneq ($(HERE),)
	dvc repro
	emseg leaderboard runs/benchmark
else
	rm -f "$(PROJECT)/params.yaml" "$(PROJECT)/profiles.yaml" "$(PROJECT)/dvc.yaml"
	emseg init "$(PROJECT)" --data "$(DATA)" $(PROFILE_OPTION)
ifneq ($(strip $(SET)),)
	cd "$(PROJECT)" && emseg set $(SET)
endif
ifneq ($(DATA),synthetic)
	cd "$(PROJECT)" && emseg data add "$(DATA)" $(FROM)
endif
	cd "$(PROJECT)" && dvc repro && emseg leaderboard runs/benchmark
endif

report: environment
	emseg report "$(if $(HERE),runs/benchmark,$(PROJECT)/runs/benchmark)" "reports/$(DATA)-$(PROFILE)" \
		--title "$(DATA), profile $(PROFILE)" \
		--command 'make benchmark DATA=$(DATA) PROFILE=$(PROFILE)$(if $(strip $(SET)), SET="$(strip $(SET))")'

speed: environment
	python -m benchmarks.reading
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
	OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

ui: environment
	emseg ui

lint: environment
	ruff check
	ruff format --check
	mypy

format: environment
	ruff check --fix
	ruff format
