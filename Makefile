# make demo [CLIP=file] [MODEL=name]: a video backbone on a real clip, compiled kernels against the reference.
# make test: all tests. make lint, make bench, make clean. make readme: README's figures from the committed results.
# Each sets up .venv first; that needs python3 (with venv and headers), g++ and cmake, and takes everything else from
# PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
SOURCES := CMakeLists.txt setup.py pyproject.toml $(shell find csrc -type f)
MODEL ?= swin3d_t

# Threads that wait must leave their core to others: two runs of the tests share the machine.
PYTEST = OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q

.PHONY: demo test test-cuda test-others lint bench readme gpu gpu-profile clean

demo: $(VENV)/.demo
	$(BIN)/vtfast demo --model $(MODEL) $(if $(CLIP),"$(CLIP)")

# Side by side: to compile and emulate the CUDA kernels takes about as long as all other tests.
test: $(VENV)/.test
	$(MAKE) --jobs=2 --output-sync=target test-cuda test-others

test-cuda: $(VENV)/.test
	$(PYTEST) tests/cuda tests/emulation

test-others: $(VENV)/.test
	$(PYTEST) tests --ignore=tests/cuda --ignore=tests/emulation

lint: $(VENV)/.lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -c "import clang_format; clang_format.clang_format()" --dry-run -Werror $$(find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
	$(BIN)/python -m mypy

bench: $(VENV)/.bench
	$(BIN)/vtfast bench

readme: $(VENV)/.build
	$(BIN)/python -m benchmarks.readme

# For the machine's own python, which has to have torch for its GPU and what the build needs: no environment is made and
# nothing is fetched. GPU_OUT=folder copies the results there as well.
gpu:
	$(PYTHON) -m benchmarks.gpu $(if $(GPU_OUT),--output "$(GPU_OUT)")

gpu-profile:
	$(PYTHON) -m benchmarks.gpu.profile $(if $(GPU_OUT),--output "$(GPU_OUT)")

clean:
	rm -rf $(VENV) build *.egg-info vtfast/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A torch that the calling python has is used as it is, through a .pth file (which, unlike --system-site-packages, also
# sees another virtual environment's); without one, a pinned torch is installed.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	if $(PYTHON) -c "import torch; assert tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 11)" 2>/dev/null; then \
	  $(PYTHON) -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])" \
	    > $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/existing_torch.pth; \
	else \
	  $(PIP) torch==2.13.0; \
	fi
	touch $@

$(VENV)/.build: $(VENV)/.torch $(SOURCES)
	$(PIP) "setuptools>=77" ninja "pybind11>=3.0"
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.build
	$(PIP) --no-build-isolation --editable ".[demo]"
	touch $@

# Oracles of the tests: torchvision would ask for exactly its own torch, and mmaction2, of which they run two files, for
# most of OpenMMLab.
$(VENV)/.test: pyproject.toml | $(VENV)/.build
	$(PIP) --no-build-isolation --editable ".[test]"
	$(PIP) --no-deps torchvision==0.28.0 mmaction2==1.2.0
	touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.test
	$(PIP) --no-build-isolation --editable ".[bench]"
	touch $@

$(VENV)/.lint: pyproject.toml | $(VENV)/.test
	$(PIP) --no-build-isolation --editable ".[lint]"
	touch $@
