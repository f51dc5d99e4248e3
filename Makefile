# make demo: install, then run the quickstart on scikit-learn's digits. make test: install, then run all checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread per process; pytest-xdist runs one process per core.
export OMP_NUM_THREADS ?= 1
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile
EXTRAS := dev search export hub crowd serve explain tensorboard seg mmcv-lite openmmlab
comma := ,
space := $(subst ,, )
PLATFORM := $(shell $(PYTHON) -c "import platform as p; print(*p.python_version_tuple()[:2], p.system(), p.machine())")

.PHONY: demo test test-slow test-docs test-fork audit lint lock install headless browser clean

demo: install
	$(BIN)/ean quickstart --resume

test: lint browser
	$(PYTEST)

# Slow tests: installation from scratch, CIFAR-100 end to end.
test-slow: install
	$(PYTEST) -m slow -s

# Every command in every document, on synthetic data.
test-docs: install
	$(PYTEST) -m docs --dist load tests/test_document_commands.py

# The maintained fork of OpenMMLab's libraries (same import names), in a separate environment.
test-fork:
	PYTHON=$(PYTHON) bash tests/fork.sh .venv-fork

# Known vulnerabilities of installed packages, from PyPI's data; pip-audit runs in a separate environment. Fails if a
# package could not be audited.
audit: install
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	$(BIN)/python tests/audit.py .venv-audit/bin/pip-audit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# requirements.lock: every package of the tested environment with its hashes, for Python 3.11 on Linux x86-64, from
# pyproject.toml and constraints.txt. OpenCV is the headless build, which needs no desktop libraries.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	echo 'opencv-python; python_version < "3"' > .venv-lock/overrides.txt
	printf '%s\n' pip opencv-python-headless | .venv-lock/bin/uv pip compile --quiet --generate-hashes --no-header \
	  --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint constraints.txt \
	  --override .venv-lock/overrides.txt $(EXTRAS:%=--extra %) --output-file requirements.lock pyproject.toml -

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt requirements.lock
	@echo "installing into $(VENV): takes a few minutes, and several GB for PyTorch"
	$(PYTHON) -m venv $(VENV)
ifeq ($(PLATFORM),3 11 Linux x86_64)
# The headless build has the same files.
	$(BIN)/python -m pip uninstall -qq --yes opencv-python
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
else
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(subst $(space),$(comma),$(EXTRAS))]"
	$(BIN)/python -c "import cv2" 2> /dev/null || $(MAKE) headless
endif
	touch $@

# mmengine imports OpenCV, whose default build needs desktop libraries; if they are missing, use the headless build.
headless:
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless
	$(BIN)/python -m pip install --quiet --constraint constraints.txt opencv-python-headless

# The web page tests drive Debian's Chromium; if it cannot be installed, they are skipped.
browser:
	@command -v chromium > /dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo "installing chromium for the web page tests" \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium \
	  > /dev/null; } || echo "chromium not found: the web page tests are skipped"

clean:
	rm -rf $(VENV) .venv-fork .venv-audit .venv-lock quickstart work_dirs build dist .pytest_cache .mypy_cache .ruff_cache
