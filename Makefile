# The commands of the project. They install what they need; `make help` lists them.
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
PARALLEL := OMP_NUM_THREADS=1# two processes with one thread per core would slow each other down
WORKERS := -n 2 --dist loadgroup --no-loadscope-reorder# long tests first, so that both workers end at the same time
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1
KERNEL_TESTS := $(addprefix packages/model/tests/,cpu models/gemma3n/test_cpu_layers.py models/gemma3n/test_chunks.py weights/test_packed_weight.py)
SOURCES := packages playground contract_tests benchmarks demo docs deploy conftest.py

export POETRY_VIRTUALENVS_IN_PROJECT := true

.PHONY: help
help: ## Show this list
	@echo "make serve    serve the bundled model; MODEL_NAME=google/gemma-3n-E4B-it make serve for the real one"
	@echo "make test     run all tests, including those with a real Triton"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## /\1|/' | \
		while IFS='|' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

.PHONY: serve
serve: $(INSTALLED) ## Start Triton, the API and the playground; Ctrl-C stops them
	@exec $(RUN)/gemma-triton serve

.PHONY: test
test: $(INSTALLED) ## Run all tests; they start the servers that they need
	@$(PARALLEL) $(RUN)/python -m pytest playground contract_tests deploy packages demo $(WORKERS) $(PYTEST)

.PHONY: unit
unit: $(INSTALLED) ## Run the tests that need no running server
	@$(PARALLEL) $(RUN)/python -m pytest packages demo $(WORKERS) $(PYTEST)

.PHONY: sanitize
sanitize: $(INSTALLED) ## Run the tests of the C++ kernels under AddressSanitizer and UBSan; needs g++
	@export CXX=g++ CPU_KERNEL_FLAGS="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0; \
	export LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)"; \
	$(RUN)/python -c 'import sys; from gemma_model.cpu import kernels; sys.exit(not kernels.load())'; \
	$(RUN)/python -m pytest $(KERNEL_TESTS) --ignore packages/model/tests/cpu/test_arm.py $(PYTEST)

.PHONY: contract
contract: $(INSTALLED) ## Run the end-to-end tests: clients with the real stack, and the commands of the containers
	@$(RUN)/python -m pytest contract_tests $(if $(CONTRACT_BASE_URL),,deploy playground) $(PYTEST)

.PHONY: contract-long
contract-long: $(INSTALLED) ## Run the long contract tests: 5,000 generated requests; reports in build/contract
	@CONTRACT_PROFILE=long $(RUN)/python -m pytest contract_tests -m "long or not long" \
		--junitxml=build/contract/junit.xml $(PYTEST)

.PHONY: containers
containers: $(INSTALLED) ## Build the images and test them on a container engine, faults included; half an hour on two cores
	@$(RUN)/python -m pytest deploy/tests/test_engine_*.py -m long -s $(PYTEST)

.PHONY: audit
audit: $(INSTALLED) ## Check the installed packages for known vulnerabilities; needs the network
	@mkdir -p build && $(RUN)/pip freeze --local --exclude-editable >build/installed.txt
	@# --strict: fail for a package that the advisory service does not know
	@$(RUN)/pip-audit --strict --disable-pip --no-deps --requirement build/installed.txt

.PHONY: coverage
coverage: $(INSTALLED) ## Run the unit tests, with a coverage report in build/coverage
	@$(RUN)/python -m pytest packages --cov --cov-report=term --cov-report=html:build/coverage $(PYTEST)

.PHONY: lint
lint: $(INSTALLED) ## Check style, types, import layers and generated pages
	@$(RUN)/ruff check $(SOURCES)
	@$(RUN)/ruff format --check $(SOURCES)
	@$(RUN)/mypy $(wildcard packages/*/src packages/*/tests) playground contract_tests benchmarks demo docs
	@$(RUN)/mypy deploy # apart: it has a conftest.py, as contract_tests has
	@$(RUN)/lint-imports
	@$(RUN)/python docs/configuration.py --check
	@$(RUN)/python docs/parameters.py --check
	@$(RUN)/python docs/anthropic_parameters.py --check
	@$(RUN)/python docs/plans.py --check

.PHONY: format
format: $(INSTALLED) ## Format the code
	@$(RUN)/ruff check --fix --quiet $(SOURCES) || true
	@$(RUN)/ruff format $(SOURCES)

.PHONY: docs
docs: $(INSTALLED) ## Generate pages of docs/
	@$(RUN)/python docs/configuration.py
	@$(RUN)/python docs/parameters.py
	@$(RUN)/python docs/anthropic_parameters.py
	@$(RUN)/python docs/plans.py

.PHONY: screenshots
screenshots: $(INSTALLED) ## Take the README's screenshots of the playground, with the bundled model
	@PYTHONPATH=contract_tests:playground/tests/browser/driver $(RUN)/python playground/screenshots.py

.PHONY: demo-model
demo-model: $(INSTALLED) ## Train the bundled demo model: about two hours on two cores
	@$(RUN)/python -m demo

.PHONY: demo-eval
demo-eval: $(INSTALLED) ## Evaluate the bundled model on held-out data, through the complete stack
	@PYTHONPATH=contract_tests $(RUN)/python -m demo.evaluate --card --show 2

.PHONY: doctor
doctor: $(INSTALLED) ## Check this machine, and show how to fix what is wrong
	@$(RUN)/gemma-triton doctor

.PHONY: lock
lock: $(POETRY) ## Update poetry.lock
	@$(call poetry,lock)

.PHONY: install
install: $(INSTALLED) ## Install the packages

.PHONY: clean
clean: ## Remove all generated files
	rm -rf $(VENV) .tools .cache build .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find packages playground demo contract_tests deploy -name __pycache__ -prune -exec rm -rf {} +

# Poetry uses the JSON API of the package index, which a mirror may not have. With the plugin and this variable
# it uses the index that pip is configured for.
pip_index = .tools/poetry/bin/python -c \
	"from pip._internal.commands import create_command as c; print(c('install').parser.get_default_values().index_url)"
poetry = env -u VIRTUAL_ENV POETRY_PYPI_MIRROR_URL="$${POETRY_PYPI_MIRROR_URL:-$${PIP_INDEX_URL:-$$($(pip_index))}}" $(POETRY) $(1)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is required, and neither was found. Install one of them, or use make PYTHON=/path/to/python"; exit 1; }
	@echo "==> virtual environment in $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(POETRY): $(VENV)/bin/python
	@echo "==> Poetry $(POETRY_VERSION) in .tools"
	@$(VENV)/bin/python -m venv .tools/poetry
	@.tools/poetry/bin/pip install --quiet --disable-pip-version-check \
		poetry==$(POETRY_VERSION) poetry-plugin-pypi-mirror==$(MIRROR_VERSION)
	@touch $@

$(INSTALLED): $(POETRY) poetry.lock pyproject.toml $(wildcard packages/*/pyproject.toml) playground/pyproject.toml
	@echo "==> installing the packages of poetry.lock (the first time about 5 GB, a few minutes)"
	@$(call poetry,sync --no-interaction)
	@touch $@
