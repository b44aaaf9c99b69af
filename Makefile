# Everything lives in .venv; a stamp file per requirements file says what is installed, so second runs do not reinstall.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# With a GPU (nvidia-smi answers) the CUDA build of jax is installed.
REQUIREMENTS := $(if $(shell nvidia-smi -L 2>/dev/null),requirements-cuda.txt,requirements.txt)
# Ray and Optuna, for sweeps; TUNE=0 leaves them out.
TUNE ?= 1
TUNING := $(if $(filter 0,$(TUNE)),,requirements-tune.txt)
STAMP := $(VENV)/.installed-$(REQUIREMENTS)$(if $(TUNING),-tune)

.PHONY: install demo test test-fast lint bench

install: $(STAMP)

$(STAMP): requirements.txt requirements-cuda.txt requirements-dev.txt requirements-tune.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS) -r requirements-dev.txt $(addprefix -r ,$(TUNING))
	touch $@

demo: install
	$(RUN) -m data.build simulated
	$(RUN) launch.py --config=configs/vqvae_idr0093.py:simulated --config.eval.profile.treatment="('sirna',)" \
		--config.eval.profile.mechanism=label --config.eval.cell_count_channel=DNA

test: install
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not eight_devices"
	JAX_NUM_CPU_DEVICES=8 $(RUN) -m pytest -n 2 -m eight_devices

# Unit tests without those that compile whole networks or start processes.
test-fast: install
	$(RUN) -m pytest -n 2 --dist loadfile -m "not eight_devices and not slow" tests/unit

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

bench: install
	$(RUN) experiments/throughput/measure.py
	$(RUN) experiments/loading/compare_building.py
