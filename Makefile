# make setup && make quickstart. Variables: PYTHON (3.11 or newer), VENV, EXTRAS, PYTEST (more arguments), RUN (for report).

PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= metaworld,so101,lerobot,dev
PYTEST ?=
RUN    ?= runs/quickstart/run

PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.setup-done
GL     := $(PY) -c 'from metalora_jax.envs import gl; print("off-screen rendering with", gl.choose())'

.PHONY: setup quickstart scene test lint format docs report peer openpi libero test-libero

setup: $(STAMP)

# The stamp makes setup run again when the lists of packages change, and only then.
$(STAMP): pyproject.toml third_party/libero.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --editable '.[$(EXTRAS)]'
	$(if $(findstring libero,$(EXTRAS)),$(PY) -m pip install --quiet --no-deps -r third_party/libero.txt)
	@$(GL) 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update && { apt-get install -y --no-install-recommends libosmesa6 \
	      || apt-get install -y --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri; }; \
	  fi; \
	  $(GL); }
	@touch $@
	@echo 'set up: run "source $(VENV)/bin/activate", or call $(VENV)/bin/python, to use it'

quickstart: setup
	$(PY) experiments/quickstart.py

# The first minute of it alone.
scene: setup
	$(PY) experiments/scene.py

test: setup
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

# LIBERO's physics wants another MuJoCo than Meta-World's, hence an environment of its own; third_party/libero.md has the pins.
libero:
	$(MAKE) setup VENV=.venv-libero EXTRAS=libero,dev

test-libero:
	$(MAKE) test VENV=.venv-libero EXTRAS=libero,dev PYTEST="-m libero -n 1 $(PYTEST)"

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# Into site/, offline; a warning is an error.
docs: setup
	@$(PY) -c 'import material, mkdocstrings' 2>/dev/null || $(PY) -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# lerobot with peft, for comparison, in an environment for each version. 0.4.4 pins an older PyTorch and much that SmolVLA
# does not use, hence --no-deps; 0.6.1 (Python 3.12) is what people install today, and runs this package as its plugin.
PEER_OLD := .venv-peer-0.4.4
PEER_NEW := .venv-peer-0.6.1
PYTHON_NEW ?= python3.12

peer: $(PEER_OLD)/.done $(PEER_NEW)/.done

$(PEER_OLD)/.done: experiments/peer/requirements-0.4.4.txt
	$(PYTHON) -m venv $(PEER_OLD)
	$(PEER_OLD)/bin/pip install --quiet --upgrade pip
	$(PEER_OLD)/bin/pip install --quiet torch==2.13.0 -r $<
	$(PEER_OLD)/bin/pip install --quiet --no-deps lerobot==0.4.4
	@touch $@

$(PEER_NEW)/.done: experiments/peer/requirements-0.6.1.txt pyproject.toml third_party/lerobot_policy_metalora/pyproject.toml
	@$(PYTHON_NEW) -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
	  || { echo 'lerobot 0.6.1 needs Python 3.12, and $(PYTHON_NEW) is none: make peer PYTHON_NEW=...'; exit 1; }
	$(PYTHON_NEW) -m venv $(PEER_NEW)
	$(PEER_NEW)/bin/pip install --quiet --upgrade pip
	$(PEER_NEW)/bin/pip install --quiet -r $< --editable .[so101] --editable third_party/lerobot_policy_metalora
	@touch $@

# openpi from its checkout, OPENPI=path/to/openpi, with what its JAX policies and its training step use.
openpi: .venv-openpi/.done

.venv-openpi/.done: experiments/peer/requirements-openpi.txt
	@test -f '$(OPENPI)/scripts/train.py' || { echo 'say where openpi is checked out: make openpi OPENPI=path/to/openpi'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo 'the pins of openpi need Python 3.11 or 3.12, and $(PYTHON) is none: make openpi PYTHON=...'; exit 1; }
	$(PYTHON) -m venv .venv-openpi
	.venv-openpi/bin/pip install --quiet --upgrade pip
	.venv-openpi/bin/pip install --quiet -r $<
	.venv-openpi/bin/pip install --quiet --no-deps --editable '$(OPENPI)' --editable '$(OPENPI)/packages/openpi-client'
	@touch $@

report: setup
	$(PY) -m metalora_jax.evaluation.reports $(RUN)
