# specshards: one command from survey spectra to image shards, one from shards to a model.
# Every target first makes .venv where it is missing or older than what it is made from.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

SURVEY   ?= lamost
DATA     ?=
CATALOG  ?=
LABELS   ?=
CUTS     ?=
WHERE    ?=
IMAGE    ?= map2d
ENCODING ?= png
PRESET   ?=
SPLIT    ?=
SPLIT_BY ?=
GROUP    ?=
WINDOW   ?=
N        ?=
WORKERS  ?=
SCHEDULER ?=
MEMORY   ?=
FORCE    ?=
TASK     ?= classify
SHARDS   ?= data/lamost/shards/map2d
BACKBONE ?= facebook/dino-vitb16
EPOCHS   ?=
MODEL    ?= runs/$(TASK)
INPUT    ?=
SIZE     ?= base
GRID     ?= own
QUICK    ?=
BUDGET   ?= 60
SEED     ?= 0
ARGS     ?=

VENV   := .venv
PYTHON := $(VENV)/bin/python
SPECSHARDS := $(PYTHON) -m specshards
STAMP  := $(VENV)/.made
# Whatever is in a value (blanks, quotes, $, ;, line ends), nothing of it is run: what was given is taken as it stands,
# and reaches the commands through the environment, where it is one word. Only ARGS are words of the shell.
VALUES := QUICK SURVEY DATA CATALOG LABELS CUTS WHERE IMAGE ENCODING PRESET SPLIT SPLIT_BY GROUP WINDOW N WORKERS SCHEDULER MEMORY FORCE \
    TASK SHARDS BACKBONE EPOCHS MODEL INPUT SIZE GRID OUT
$(foreach name,$(VALUES),$(if $(filter command environment,$(firstword $(origin $(name)))),\
    $(eval override $(name) := $$(value $(name)))))

# What was given, not what is only a default: `$(call given,--name,VALUE)` passes that alone.
GIVEN := $(foreach name,$(VALUES),$(if $(filter command environment override,$(firstword $(origin $(name)))),$(name)))
given = $(if $(filter $(2),$(GIVEN)),$(call flag,$(1),$(2)))

# OUT is the spectra's folder for `shards` and the run's folder for `train`.
shards: OUT ?= data/$(SURVEY)
train:  OUT ?= runs/$(TASK)
pretrain: OUT ?= runs/tokenizer
paper:  OUT ?= runs/paper
# MODEL=tokenizer:folder trains on what `make pretrain` left there.
train:  BACKBONE := $(if $(filter tokenizer:%,$(MODEL)),$(MODEL),$(BACKBONE))
# The tests start make themselves, with values of their own.
ifeq (,$(filter test,$(MAKECMDGOALS)))
export $(VALUES)
endif

# `$(call flag,--name,VALUE)` passes an option only where it has a value.
flag = $(if $(strip $($(2))),$(1) "$$$(2)")

.PHONY: help shards report train pretrain reconstruct evaluate baselines predict paper explain embed bench bench-render bench-encode bench-ingest bench-shards bench-load bench-train bench-compare test kills fuzz format clean distclean

help:  ## Say what the targets do
	@echo "specshards: astronomical spectra to image shards to a vision transformer"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make shards SURVEY=lamost|sdss|desi|apogee|...|table [DATA=folder|glob] [CATALOG=labels.csv|.fits [LABELS=mg_fe,mass|all]] [CUTS=paper]"
	@echo "              [WHERE=\"snrg > 10 and class == 'STAR'\"] [IMAGE=map2d|simple|overlap] [ENCODING=png|pnm|jpeg|flux]"
	@echo "              [PRESET=paper] [WINDOW=3600,9000] [SPLIT=0.8,0.1,0.1] [SPLIT_BY=sky|object|row] [GROUP=column]"
	@echo "              [N=2000] [OUT=data/SURVEY] [WORKERS=n] [MEMORY=2GiB] [SCHEDULER=tcp://...] [FORCE=1]"
	@echo "              (surveys: specshards ingest surveys; table: spectra of nobody in particular, as CSV)"
	@echo "  make report SHARDS=folder"
	@echo "  make train TASK=classify|subclass|redshift|teff|logg|feh|COLUMN[,...] [SHARDS=folder,folder]"
	@echo "              [BACKBONE=facebook/dino-vitb16|folder|tiny] [PRESET=paper|modern] [EPOCHS=n] [OUT=runs/TASK]"
	@echo "  make pretrain [SHARDS=folder,folder] [SIZE=base|tiny] [EPOCHS=n] [OUT=runs/tokenizer]     (ENCODING=flux)"
	@echo "  make train MODEL=tokenizer:runs/tokenizer TASK=redshift SHARDS=..."
	@echo "  make reconstruct MODEL=runs/tokenizer INPUT=file.fits|folder [GRID=3800:9200:1]"
	@echo "  make paper [SHARDS=folder,folder] [QUICK=1] [OUT=runs/paper]     (ENCODING=flux: all pictures)"
	@echo "  make evaluate MODEL=runs/classify"
	@echo "  make baselines MODEL=runs/classify SHARDS=data/dr10/shards/map2d"
	@echo "  make explain|embed MODEL=runs/classify INPUT=file.fits|folder"
	@echo "  make predict  MODEL=runs/classify INPUT=file.fits|folder [OUT=predictions.csv|.parquet]"
	@echo
	@echo "  Without DATA, 'make shards' makes a mock survey in the real file layouts and runs the same job on it."
	@echo "  More options: ARGS='--help' on each of them."

shards: $(STAMP)  ## Survey files -> spectra Parquet -> image shards
	@$(SPECSHARDS) shards make --survey "$$SURVEY" --out "$$OUT" $(call flag,--data,DATA) \
	    $(call flag,--catalog,CATALOG) $(call flag,--labels,LABELS) $(call flag,--cuts,CUTS) $(call flag,--where,WHERE) \
	    $(call flag,--n,N) --image "$$IMAGE" --encoding "$$ENCODING" \
	    $(call flag,--preset,PRESET) $(call flag,--split,SPLIT) $(call flag,--split-by,SPLIT_BY) \
	    $(call flag,--group,GROUP) $(call flag,--window,WINDOW) \
	    $(call flag,--workers,WORKERS) $(call flag,--scheduler,SCHEDULER) $(call flag,--memory,MEMORY) \
	    $(if $(filter 1 yes true,$(FORCE)),--force) $(ARGS)

report: $(STAMP)  ## The page of a finished data set, SHARDS/report.html, made again
	@$(SPECSHARDS) shards report "$$SHARDS" $(ARGS)

train: $(STAMP)  ## Shards -> fine-tuned vision transformer in OUT
	@$(SPECSHARDS) train fit --task "$$TASK" --shards "$$SHARDS" --backbone "$$BACKBONE" --out "$$OUT" \
	    $(call flag,--epochs,EPOCHS) $(call flag,--preset,PRESET) $(ARGS)

pretrain: $(STAMP)  ## Flux shards, any surveys -> a self-supervised tokenizer of spectra in OUT
	@$(SPECSHARDS) tokenizer pretrain --shards "$$SHARDS" --size "$$SIZE" --out "$$OUT" \
	    $(call flag,--epochs,EPOCHS) $(ARGS)

reconstruct: $(STAMP)  ## The spectra of INPUT as tokenizer MODEL draws them, on GRID; how odd each is
	@$(SPECSHARDS) tokenizer reconstruct "$$INPUT" --model "$$MODEL" --grid "$$GRID" $(call flag,--out,OUT) $(ARGS)

paper: $(STAMP)  ## SHARDS (without any: a mock SLOMOST) -> tables and figures of A&A 709, A122 in OUT
	@$(SPECSHARDS) train paper --out "$$OUT" $(call given,--shards,SHARDS) $(call given,--backbone,BACKBONE) \
	    $(call flag,--epochs,EPOCHS) $(call flag,--preset,PRESET) $(if $(filter 1 yes true,$(QUICK)),--quick) $(ARGS)

evaluate: $(STAMP)  ## Metrics, tables and figures of MODEL on val and test
	@$(SPECSHARDS) train evaluate --model "$$MODEL" $(ARGS)

baselines: $(STAMP)  ## k-NN, forest and support vectors on SHARDS (ENCODING=flux) of MODEL's spectra, beside it
	@$(SPECSHARDS) train baselines --model "$$MODEL" --shards "$$SHARDS" $(ARGS)

explain: $(STAMP)  ## Where MODEL looks in the spectra of INPUT
	@$(SPECSHARDS) train explain --model "$$MODEL" --input "$$INPUT" $(call flag,--out,OUT) $(ARGS)

embed: $(STAMP)  ## MODEL's vectors of INPUT, nearest neighbours, anomaly score
	@$(SPECSHARDS) train embed --model "$$MODEL" --input "$$INPUT" $(call flag,--out,OUT) $(ARGS)

predict: $(STAMP)  ## MODEL's predictions for INPUT as Parquet or CSV
	@$(SPECSHARDS) train predict --model "$$MODEL" --input "$$INPUT" $(call flag,--out,OUT) $(ARGS)

bench: $(STAMP)  ## Run all benchmarks, a quarter of an hour on two cores; ARGS='--only load,train --peers', ARGS=--quick
	@$(SPECSHARDS) bench run $(ARGS)

bench-render: $(STAMP)  ## Time the renderers on one core against a memset of the picture and matplotlib
	@$(SPECSHARDS) bench render $(ARGS)

bench-encode: $(STAMP)  ## Time the encodings of a sample, and their bytes, against OpenCV's PNG and JPEG
	@$(SPECSHARDS) bench encode $(ARGS)

bench-ingest: $(STAMP)  ## Time reading, Parquet, whole jobs and memory of ingest against a plain astropy loop
	@$(SPECSHARDS) bench ingest $(ARGS)

bench-shards: $(STAMP)  ## Time shards from Parquet to tar, stage by stage and as jobs, against csv.gz + matplotlib
	@$(SPECSHARDS) bench shards $(ARGS)

bench-load: $(STAMP)  ## Time the loaders beside webdataset, loose files and ceilings; ARGS=--peers adds litdata, MosaicML
	@$(SPECSHARDS) bench load $(ARGS)

bench-train: $(STAMP)  ## Time training steps with the loader against cached batches, on a GPU where there is one
	@$(SPECSHARDS) bench train $(ARGS)

# Folders of these names lie here, so that make would have nothing to do for them, and say so.
.PHONY: ingest common render benchmarks tests docs src
ingest common render benchmarks tests docs src:
	@echo "error: make $@: no such target; use 'make shards SURVEY=... DATA=...' (ingest and pictures in one), \
	or specshards ingest build, specshards shards build; 'make help' lists the targets" >&2; exit 2

# The words behind the target are the two records, not targets.
ifeq (bench-compare,$(firstword $(MAKECMDGOALS)))
COMPARED := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(COMPARED)
$(COMPARED):
	@:
endif

bench-compare: $(if $(word 2,$(COMPARED)),$(STAMP))  ## Two records, or folders of them, side by side: make bench-compare A.json B.json
	@[ $(words $(COMPARED)) -eq 2 ] || { echo "usage: make bench-compare A.json B.json   (files or folders; ARGS='--fail-above 1.2')" >&2; exit 2; }
	@$(SPECSHARDS) bench compare $(COMPARED) $(ARGS)

test: $(STAMP)  ## Lint, types, floors and tests
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo --no-cache
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2 --dist loadfile $(ARGS)

kills: $(STAMP)  ## Stop every job in the middle, in three ways, and compare its rerun: minutes; ARGS='--kills 40 --only shards'
	@$(PYTHON) -m tests.kills $(ARGS)

fuzz: $(STAMP)  ## Damaged files by the thousand for BUDGET seconds; each refused, or read as its bytes say
	@OMP_NUM_THREADS=1 $(PYTHON) -m tests.fuzz --budget '$(BUDGET)' --seed '$(SEED)' $(call flag,--workers,$(WORKERS)) $(ARGS)

format: $(STAMP)  ## Format the code and mend what ruff can
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:  ## Remove caches and benchmark scratch; data/, runs/ and .venv stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info benchmarks/results/local
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv too; data/ and runs/ stay
	@rm -rf $(VENV) .venv-peers

$(STAMP): pyproject.toml constraints.txt
	@echo "making $(VENV): Python packages at the versions of constraints.txt (some minutes the first time)"
	@python=; for p in python3 python3.13 python3.12 python3.11; do \
	    if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; then python=$$p; break; fi; \
	done; \
	[ -n "$$python" ] || { echo "error: no Python 3.11 or newer found; install one (apt install python3)" >&2; exit 1; }; \
	rm -rf $(VENV); \
	$$python -m venv $(VENV) || { echo "error: '$$python -m venv' failed; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
