# make train   environment, phantoms, both stages on them, masks for new images, figures
# make segment environment, outlines of lesions in IMAGE=scan.png, or in phantoms
# make test    environment, all tests
# make test-faults  environment, tests of resuming, stopping, killing and of several processes, the long ones too
# make test-clients  environment, the packed bundle in an environment of its own, MLflow, the commands of the docs
# make bench   environment, how fast each part is beside the plain way: a table, and benchmarks/results.json
# make test-fuzz   environment, long fuzzing of what reads files, for a night: FUZZ=20000 examples a test, 4 h at most
PYTHON ?= $(shell command -v python3.11 || command -v python3)
OUTPUT ?= runs/demo
FUZZ ?= 20000
IMAGE ?=
export OUTPUT IMAGE
export PYTHONWARNINGS ?= ignore

ENV := .venv/installed
MGCC := .venv/bin/python -m mgcc_monai

.PHONY: help train segment test test-faults test-clients test-fuzz bench lint clean

help:
	@sed -n 's/^# make/make/p' Makefile

$(ENV): setup.cfg pyproject.toml constraints.txt
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make PYTHON=/path/to/python3.11')"
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

train: $(ENV)
	$(MGCC) phantom --output "$$OUTPUT/new_images" --count 12 --seed 1 --overwrite
	$(MGCC) fit --preset demo --output_dir "$$OUTPUT"
	python="$$(pwd)/.venv/bin/python"; cd "$$OUTPUT" && "$$python" -m monai.bundle run inferring \
		--config_file segmentation/inference.json --dataset_dir new_images --output_dir masks --save_overlay true
	@$(MGCC) show --output_dir "$$OUTPUT"

segment: $(ENV)
	@test -n "$$IMAGE" || $(MGCC) phantom --output runs/phantoms --count 12 --seed 1 --overwrite
	$(MGCC) segment "$${IMAGE:-runs/phantoms}" --output runs/masks --overlay --overwrite

test: $(ENV)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile

test-faults: $(ENV)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "long or not long" tests/faults

test-clients: $(ENV)
	.venv/bin/python -m pip install --quiet mlflow pandas
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "clients or not clients" tests/clients tests/test_docs.py

test-fuzz: $(ENV)
	MGCC_FUZZ=$(FUZZ) OMP_NUM_THREADS=1 timeout 4h .venv/bin/python -m pytest tests/security/test_fuzz.py || test $$? -eq 124

bench: $(ENV)
	.venv/bin/python -m benchmarks

lint: $(ENV)
	.venv/bin/ruff check . && .venv/bin/ruff format --check .

clean:
	rm -rf .venv runs build *.egg-info
