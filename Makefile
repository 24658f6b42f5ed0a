# make help lists what there is. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
READY := $(VENV)/.ready
BENCH := $(VENV)/bench/.ready
TENSORFLOW := $(VENV)/tensorflow/.ready
TRACKERS := $(VENV)/trackers/.ready
PROJECT := {{cookiecutter.project_slug}}
WHEEL := $(wildcard $(PROJECT)/vendor/*.whl)
FRAMEWORK := pytorch
# What a framework computes with, where that is no part of it.
WITH_keras := jax
RUFF := $(RUN)ruff
FROM := install --quiet --disable-pip-version-check -c requirements/constraints.txt
INSTALL := $(RUN)python -m pip $(FROM)

.DEFAULT_GOAL := help
.PHONY: help demo test lint wheel bench docs picture clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.$(FRAMEWORK) ## Generate a project in ./demo and run its workflow; again to carry on (FRAMEWORK=jax or keras)
	@$(RUN)python scripts/demo.py $(FRAMEWORK)

test: $(READY) ## Run all tests (TESTS="-m 'not slow'" for the fast ones)
	$(RUN)python -m pytest -n 2 --dist worksteal -q $(TESTS)

lint: $(READY) ## Check style, format and types of the template (a fresh project is checked by test)
	$(RUFF) check --config pyproject.toml .
	$(RUFF) format --config pyproject.toml --check .
	$(RUN)mypy

wheel: $(READY) ## Build the kit's wheel that projects carry, after a change of kit/
	$(RUN)python scripts/wheel.py

bench: $(BENCH) $(TENSORFLOW) ## Measure what surviving costs, side by side; prints one table of ratios
	@$(RUN)python benchmarks

docs: $(READY) ## Write docs/reference.md from the code, services.md from services.yaml
	$(RUN)python scripts/reference.py
	$(RUN)python scripts/services.py

picture: $(READY) ## Take the README's pictures (needs chromium and chromium-driver)
	$(RUN)python scripts/record_terminal.py
	$(RUN)python scripts/picture.py

clean: ## Remove .venv, ./demo and caches
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache

# The demo needs less than the tests, and a newcomer shouldn't wait for the rest. Each stamp holds the
# seconds that its installation took. The kit's wheel is installed again when it has changed, which
# pip doesn't see where the version is the same.
$(READY): $(VENV)/.pytorch requirements/dev.txt
	@echo "Installing what the tests need into $(VENV) ..."
	@begun=$$(date +%s); $(INSTALL) -r requirements/dev.txt && echo $$(($$(date +%s) - begun)) > $@

# Environments that see all of the first, torch included, which nothing in them can move: one with the
# frameworks that are compared with, so that a step of theirs is measured with the same bytes, and one
# with TensorFlow, one with the clients of trackers.
$(BENCH) $(TENSORFLOW) $(TRACKERS): $(VENV)/%/.ready: $(READY) requirements/%.txt requirements/constraints.txt
	@echo "Installing requirements/$*.txt into $(VENV)/$* ..."
	@begun=$$(date +%s); $(RUN)python -m venv --clear $(VENV)/$* \
	  && $(RUN)python -c 'import site; print(*site.getsitepackages(), sep="\n")' \
	    > $$(echo $(VENV)/$*/lib/python*/site-packages)/beside.pth \
	  && $(VENV)/$*/bin/python -m pip $(FROM) -r requirements/$*.txt \
	  && echo $$(($$(date +%s) - begun)) > $@

$(VENV)/.%: requirements/demo.txt requirements/constraints.txt $(WHEEL)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing $* and what the project needs into $(VENV) ..."
	@begun=$$(date +%s); $(PYTHON) -m venv $(VENV) && $(INSTALL) -r requirements/demo.txt "gradlab[$*]" $(WITH_$*) \
	  && $(INSTALL) --force-reinstall --no-deps "$(WHEEL)" \
	  && echo $$(($$(date +%s) - begun)) > $@
