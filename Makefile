# Everything runs through uv, which makes the environment on first use. `make check` is what CI checks before the tests.
# Files of tests side by side, those that take longest first.
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder
.DEFAULT_GOAL := help
.PHONY: help setup format lint types imports security check audit release test-fast test trust-smoke trust trust-full clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## make the environment
	uv sync

format: ## format the code and sort the imports
	uv run ruff format .
	uv run ruff check --fix .

lint: ## style and likely mistakes
	uv run ruff format --check .
	uv run ruff check .

types: ## static types
	uv run mypy

imports: ## imports point one way
	uv run lint-imports --no-logo

security: ## calls that would let a file run code, and what bandit finds
	uv run python checks/banned_calls.py
	uv run bandit --quiet --recursive src --configfile pyproject.toml

check: lint types imports security audit ## lint, types, imports, security, known holes

audit: ## known holes of installed packages; asks an advisory service
	uv run python checks/audit_packages.py

release: ## build twice, and compare
	uv run python checks/release.py

test-fast: ## tests without whole searches
	uv run pytest $(SIDE_BY_SIDE) -m "not slow"

test: ## all tests
	uv run pytest $(SIDE_BY_SIDE)

trust-smoke: ## every promise of docs/trust.md in little, in minutes; part of CI
	uv run python benchmarks/trust/suite.py --size smoke --at-once 2

trust: ## the same in a quarter of an hour
	uv run python benchmarks/trust/suite.py --size selection --at-once 2

trust-full: ## the same with the whole counts, in hours
	uv run python benchmarks/trust/suite.py --size full --json trust.json

clean: ## remove caches and builds (runs/ stays)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
