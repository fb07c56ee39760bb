# The project's one door. `make serve` and `make test` set up all they need; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
POETRY_VERSION := 2.5.1
MIRROR_VERSION := 0.6.5

VENV := .venv
POETRY := .tools/poetry/bin/poetry
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PARALLEL := OMP_NUM_THREADS=1# two processes with a thread for each core would mostly wait for each other
WORKERS := -n 2 --dist loadgroup --no-loadscope-reorder# what takes long comes first, for the end to be even
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1
KERNEL_TESTS := $(addprefix packages/model/tests/,cpu models/gemma3n/test_fused_layers.py models/gemma3n/test_chunks.py)
SOURCES := packages playground contract_tests benchmarks demo docs deploy conftest.py

export POETRY_VIRTUALENVS_IN_PROJECT := true

.PHONY: help
help: ## This list
	@echo "make serve    serve the bundled model; MODEL_NAME=google/gemma-3n-E4B-it make serve for the real one"
	@echo "make test     all tests, a real Triton included"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## /\1|/' | \
		while IFS='|' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

.PHONY: serve
serve: $(INSTALLED) ## Start Triton and the gateway; Ctrl-C ends both
	@exec $(RUN)/gemma-triton serve

.PHONY: test
test: $(INSTALLED) ## All tests; starts what they need itself
	@$(PARALLEL) $(RUN)/python -m pytest playground contract_tests deploy packages demo $(WORKERS) $(PYTEST)

.PHONY: unit
unit: $(INSTALLED) ## The tests that need no running server
	@$(PARALLEL) $(RUN)/python -m pytest packages demo $(WORKERS) $(PYTEST)

.PHONY: sanitize
sanitize: $(INSTALLED) ## The tests of the C++ kernels under AddressSanitizer and UBSan; needs g++
	@export CXX=g++ CPU_KERNEL_FLAGS="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0; \
	export LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)"; \
	$(RUN)/python -c 'import sys; from gemma_model.cpu import kernels; sys.exit(not kernels.load())'; \
	$(RUN)/python -m pytest $(KERNEL_TESTS) $(PYTEST)

.PHONY: contract
contract: $(INSTALLED) ## The tests of the whole: clients against the real stack, and what the containers run
	@$(RUN)/python -m pytest contract_tests $(if $(CONTRACT_BASE_URL),,deploy playground) $(PYTEST)

.PHONY: contract-long
contract-long: $(INSTALLED) ## The contract at length: 5,000 generated requests; reports in build/contract
	@CONTRACT_PROFILE=long $(RUN)/python -m pytest contract_tests -m "long or not long" \
		--junitxml=build/contract/junit.xml $(PYTEST)

.PHONY: audit
audit: $(INSTALLED) ## Known vulnerabilities in the installed packages; asks an advisory service in the network
	@mkdir -p build && $(RUN)/pip freeze --local --exclude-editable >build/installed.txt
	@# strict: an advisory service that does not know a package has not audited it
	@$(RUN)/pip-audit --strict --disable-pip --no-deps --requirement build/installed.txt

.PHONY: coverage
coverage: $(INSTALLED) ## The unit tests with a coverage report in build/coverage
	@$(RUN)/python -m pytest packages --cov --cov-report=term --cov-report=html:build/coverage $(PYTEST)

.PHONY: lint
lint: $(INSTALLED) ## Style, types and layers
	@$(RUN)/ruff check $(SOURCES)
	@$(RUN)/ruff format --check $(SOURCES)
	@$(RUN)/mypy $(wildcard packages/*/src packages/*/tests) playground contract_tests benchmarks demo docs deploy
	@$(RUN)/lint-imports
	@$(RUN)/python docs/configuration.py --check
	@$(RUN)/python docs/parameters.py --check
	@$(RUN)/python docs/plans.py --check

.PHONY: format
format: $(INSTALLED) ## Put the code into shape
	@$(RUN)/ruff check --fix --quiet $(SOURCES) || true
	@$(RUN)/ruff format $(SOURCES)

.PHONY: docs
docs: $(INSTALLED) ## Write the generated pages of docs/ anew
	@$(RUN)/python docs/configuration.py
	@$(RUN)/python docs/parameters.py
	@$(RUN)/python docs/plans.py

.PHONY: screenshots
screenshots: $(INSTALLED) ## Take the README's pictures of the playground anew, with the bundled model
	@PYTHONPATH=contract_tests:playground/tests/browser/driver $(RUN)/python playground/screenshots.py

.PHONY: demo-model
demo-model: $(INSTALLED) ## Train the bundled demo model anew: about two hours on two cores
	@$(RUN)/python -m demo

.PHONY: demo-eval
demo-eval: $(INSTALLED) ## Ask the bundled model held-out questions through the whole stack
	@PYTHONPATH=contract_tests $(RUN)/python -m demo.evaluate --card --show 2

.PHONY: doctor
doctor: $(INSTALLED) ## Check this machine and say what to do
	@$(RUN)/gemma-triton doctor

.PHONY: lock
lock: $(POETRY) ## Write poetry.lock anew
	@$(call poetry,lock)

.PHONY: install
install: $(INSTALLED) ## Only set up

.PHONY: clean
clean: ## Remove everything that make has made
	rm -rf $(VENV) .tools .cache build .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find packages playground demo contract_tests deploy -name __pycache__ -prune -exec rm -rf {} +

# Poetry asks the index's JSON API, which a mirror may lack; with the plugin and this variable it asks
# whatever index pip is configured for.
pip_index = .tools/poetry/bin/python -c \
	"from pip._internal.commands import create_command as c; print(c('install').parser.get_default_values().index_url)"
poetry = env -u VIRTUAL_ENV POETRY_PYPI_MIRROR_URL="$${POETRY_PYPI_MIRROR_URL:-$${PIP_INDEX_URL:-$$($(pip_index))}}" $(POETRY) $(1)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and neither was found. Install one, or say make PYTHON=/path/to/python"; exit 1; }
	@echo "==> virtual environment in $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(POETRY): $(VENV)/bin/python
	@echo "==> Poetry $(POETRY_VERSION) in .tools"
	@$(VENV)/bin/python -m venv .tools/poetry
	@.tools/poetry/bin/pip install --quiet --disable-pip-version-check \
		poetry==$(POETRY_VERSION) poetry-plugin-pypi-mirror==$(MIRROR_VERSION)

$(INSTALLED): $(POETRY) poetry.lock pyproject.toml $(wildcard packages/*/pyproject.toml) playground/pyproject.toml
	@echo "==> packages of poetry.lock (the first time about 5 GB, a few minutes)"
	@$(call poetry,sync --no-interaction)
	@touch $@
