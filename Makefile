# The two commands of the README are `make demo` and `make test`; `make help` lists all.
PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/quickstart.yaml
RUN ?= runs/quickstart
PORT ?= 8000
# Processes that share the tests, file by file, each with one thread; 0 for all tests in one process.
WORKERS ?= 2
export PYTHON VENV
DUIHUA = $(VENV)/bin/duihua

.PHONY: help setup demo demo-train test lint format page wheel clean
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/ready ## Make .venv with the duihua command and everything that tests need
$(VENV)/ready: pyproject.toml constraints.txt tools/setup_environment.sh $(shell find web -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
	bash tools/setup_environment.sh

demo: demo-train ## Train the whole road on the starter data, then serve the chat page
	$(DUIHUA) serve $(RUN) --port $(PORT)

demo-train: setup ## The same without serving
	$(DUIHUA) data get starter
	$(DUIHUA) run $(RECIPE) --output $(RUN)

test: setup ## Run the whole test suite
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile

lint: setup ## Style, types and the import contract
	$(VENV)/bin/ruff check src tests tools benchmarks hatch_build.py
	$(VENV)/bin/ruff format --check src tests tools benchmarks hatch_build.py
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup ## Rewrite the code in the project's style
	$(VENV)/bin/ruff check --fix src tests tools benchmarks hatch_build.py
	$(VENV)/bin/ruff format src tests tools benchmarks hatch_build.py

page: setup ## Build the chat page anew
	$(VENV)/bin/python tools/build_page.py

wheel: setup ## Build the wheel and the source archive into dist/
	$(VENV)/bin/python -m build

clean: ## Remove what can be made again (not runs/, not the environment)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
