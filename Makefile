# make demo and make test set everything up by themselves; they need python3 and make.

PYTHON ?= python3
PYTHON_2_11 ?= $(shell for p in $(PYTHON) python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)

AIRFLOW_3.3 := 3.3.2
AIRFLOW_2.11 := 2.11.2
NEW := .venv/airflow-3.3
OLD := .venv/airflow-2.11
T ?= tests
B ?= *
# All tests share two workers, one of which has the real Airflows; picked ones print as they go.
WORKERS := $(if $(filter tests,$(T)),-n 2 --dist loadgroup)
PYTEST := -m pytest -q --strict-markers -p no:cacheprovider $(WORKERS) $(T)

.PHONY: help demo ui test test-all lint bench clean

help:  ## say what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /	/' | expand -t 14

demo: $(NEW)/ready  ## run the main job on a real Airflow against the sandbox
	@$(NEW)/bin/python tests/demo.py

ui: $(NEW)/ready  ## the same, then leave Airflow's web page up until Ctrl-C
	@$(NEW)/bin/python tests/demo.py --ui

test: $(NEW)/ready  ## run the tests on Airflow 3.3; T=tests/api picks some
	@echo "== Tests on Airflow $(AIRFLOW_3.3)"
	@$(NEW)/bin/python $(PYTEST)

test-all: test $(OLD)/ready  ## the same, then all tests on Airflow 2.11
	@echo "== Tests on Airflow $(AIRFLOW_2.11)"
	@$(OLD)/bin/python $(PYTEST)

lint: $(NEW)/ready  ## check style, types and the direction of imports
	@echo "== ruff, mypy, import-linter"
	@$(NEW)/bin/ruff check .
	@$(NEW)/bin/ruff format --check .
	@$(NEW)/bin/mypy
	@$(NEW)/bin/lint-imports

bench: $(NEW)/ready  ## print the figures of tests/benchmarks; B=triggers picks one
	@for f in tests/benchmarks/bench_$(B).py; do echo "== $$f"; $(NEW)/bin/python $$f || exit 1; done

clean:  ## remove what the other targets made
	rm -rf .venv .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist

$(NEW)/ready: pyproject.toml .constraints/airflow-3.3.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "This needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	@$(call setup,$(PYTHON),$(NEW),$(AIRFLOW_3.3),3.3)

$(OLD)/ready: pyproject.toml .constraints/airflow-2.11.txt
	@test -n "$(PYTHON_2_11)" || \
	{ echo "Airflow 2.11 needs Python 3.11 or 3.12; name one with PYTHON_2_11=..."; exit 1; }
	@$(call setup,$(PYTHON_2_11),$(OLD),$(AIRFLOW_2.11),2.11)

define setup
	echo "== Setting up $(2) with Airflow $(3) (a minute or two, once)"; \
	rm -rf $(2); $(1) -m venv $(2) || { echo "This needs Python's venv module (Debian: python3-venv)."; exit 1; }; \
	$(2)/bin/python -m pip install -q --disable-pip-version-check -c .constraints/airflow-$(4).txt \
	apache-airflow==$(3) -e '.[dev]' && touch $(2)/ready
endef
