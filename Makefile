# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` work on a bare machine with python3 (3.10 to 3.13) and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := setup.cfg pyproject.toml

MODELS := deploy/models
DEMO := $(MODELS)/EfficientNetLite0_infer

# How many test files run at once; each may use all CPUs for a moment.
WORKERS ?= 2

# TensorRT's Python API, which our calls are checked against; its libraries are not needed.
TENSORRT_BINDINGS := 10.16.1.11 11.4.0.106
ifeq ($(shell uname -s),Linux)
BINDINGS := $(TENSORRT_BINDINGS:%=.cache/tensorrt-bindings/%)
endif

# NVIDIA's server, which ours is compared with. With numpy 2 its Python back end ends at the first string
# tensor; OpenCV asks for numpy 2, but runs with 1.26.
TRITON := .cache/triton
TRITON_PYTHON ?= $(PYTHON)

# Engines whose tests must not be skipped, because the extras below install them; and more, such as
# `make test ALSO_REQUIRED=,cpp` where the C++ part is built.
ifeq ($(shell uname -sm),Linux x86_64)
export HGDEPLOY_REQUIRED_ENGINES ?= paddle,onnxruntime,openvino,mnn,ncnn,tensorrt-rtx,tensorrt-bindings$(ALSO_REQUIRED)
endif
export HGDEPLOY_REQUIRED_ENGINES ?= paddle,onnxruntime,openvino$(ALSO_REQUIRED)

.PHONY: demo test test-slow cpp cpp-test cpp-sanitize triton-env gpu-check lint format docs clean

demo: $(VENV)/.cpu $(DEMO)/inference.json
	$(BIN)/python deploy/python/predict_cls.py -c deploy/configs/EfficientNetLite0.yaml

$(DEMO)/inference.json: | $(VENV)/.cpu
	$(BIN)/hgdeploy models download EfficientNetLite0 --output $(MODELS)

test: $(VENV)/.test $(BINDINGS)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  -m 'not slow and not alone' --durations 10
	$(BIN)/python -m pytest -m 'alone and not slow'

test-slow: $(VENV)/.test $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),triton-env)
	$(BIN)/python -m pytest -m slow

triton-env: $(TRITON)/.ready

$(TRITON)/.ready:
	@$(TRITON_PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else \
	  "Triton needs Python 3.10 to 3.12, and $(TRITON_PYTHON) is %d.%d; try make TRITON_PYTHON=python3.11" % v)'
	$(TRITON_PYTHON) -m venv --clear $(TRITON)
	$(TRITON)/bin/python -m pip install --quiet 'numpy>=1.26,<2' pyyaml pillow rich 'onnxruntime>=1.20,<2'
	$(TRITON)/bin/python -m pip install --quiet --no-deps nvidia-pytriton==0.7.0 \
	  'opencv-python-headless>=4.12,<6' 'simplejpeg>=1.9,<2'
	@touch $@

# The C++ library and program, in build/cpp; the packages that they need are in deploy/cpp/packages.txt.
CPP_BUILD := build/cpp
OPENVINO_DIR = $$($(BIN)/python -c 'import openvino.utils as u; print(u.get_cmake_path())')

cpp: $(VENV)/.test
	cmake -S deploy/cpp -B $(CPP_BUILD) -DHGDEPLOY_OPENVINO=ON -DOpenVINO_DIR=$(OPENVINO_DIR) $(CPP_OPTIONS)
	cmake --build $(CPP_BUILD) --parallel $$(nproc)

cpp-test: cpp
	ctest --test-dir $(CPP_BUILD) --output-on-failure
	HGDEPLOY_CPP_BUILD=$(CURDIR)/$(CPP_BUILD) $(BIN)/python -m pytest tests/cpp

# The same under AddressSanitizer and UndefinedBehaviorSanitizer.
cpp-sanitize:
	$(MAKE) cpp-test CPP_BUILD=build/cpp-sanitize CPP_OPTIONS=-DHGDEPLOY_SANITIZE=ON

# On a machine with an NVIDIA GPU, with whatever is installed: see docs/tensorrt.md.
gpu-check:
	@$(BIN)/python benchmarks/gpu_check.py $(GPU_CHECK)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Makes the site in build/site; a warning is an error (mkdocs.yml). The variable stops the theme's own
# announcement.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# pnnx demands torch, which it does not use.
$(VENV)/.test $(VENV)/.dev: NO_DEPS := pnnx
# Each stamp installs a set of extras, and also counts as the stamp of the smaller sets.
$(VENV)/.cpu: EXTRAS := cpu
$(VENV)/.test: EXTRAS := cpu,openvino,convert,mnn,ncnn,test
$(VENV)/.test: STANDS_FOR := .cpu
$(VENV)/.docs: EXTRAS := docs
$(VENV)/.dev: EXTRAS := cpu,openvino,convert,mnn,ncnn,test,docs,dev
$(VENV)/.dev: STANDS_FOR := .cpu .test .docs
$(VENV)/.cpu $(VENV)/.test $(VENV)/.docs $(VENV)/.dev: $(SETUP) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	$(if $(NO_DEPS),$(BIN)/python -m pip install --quiet --no-deps $(NO_DEPS))
	@touch $@ $(addprefix $(VENV)/,$(STANDS_FOR))

.cache/tensorrt-bindings/%: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ tensorrt-cu13-bindings==$*
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else \
	  "HGDeploy needs Python 3.10 to 3.13, and $(PYTHON) is %d.%d; try make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache build deploy/python/*.egg-info
