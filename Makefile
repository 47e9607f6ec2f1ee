# Everything a reader runs. POSIX make and sh; needs Python 3.11 to 3.13 and git. `make` alone lists the targets.
.POSIX:
.PHONY: help figures ablations test chaos teachers onnx live bench true-scale preflight gpu-check verify publish pace explore exercises readme site slides test-site lab lint lock

PYTHON ?= python3
PROFILE ?= quick
UV ?= uv
# glibc gives big blocks back to the system and faults them in again at every operator: a quarter of the time on 2 cores.
run = MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 exec .venv/bin/python -m
real = DISTILL_FOLDER="$${FOLDER:-$$DISTILL_FOLDER}"

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

figures: .venv/.installed ## draw every figure and table [PROFILE=quick] [ID=g-tab1] [SEED=1] [DATASET=fashion_mnist FOLDER=..]
	@$(real) $(run) distill_lib.run figures --profile "$(PROFILE)" $${ID:+--id "$$ID"} $${SEED:+--seed "$$SEED"} $${DATASET:+--dataset "$$DATASET"}

ablations: .venv/.installed ## draw the ablations of both papers at the committed size [PROFILE=laptop] [SEED=1]
	@$(MAKE) figures PROFILE="$${PROFILE:-laptop}" ID=g-abl-range
	@$(MAKE) figures PROFILE="$${PROFILE:-laptop}" ID=s-abl-alpha

test: .venv/.installed ## all tests, as CI runs them: two workers of one thread, each a file at a time
	$(run) pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

chaos: .venv/.installed ## kill runs 200 times and compare what comes out with an undisturbed run, an hour [KILLS=20]
	PYTHONPATH=tests $(run) chaos $${KILLS:+--kills "$$KILLS"}

teachers: .venv/.installed ## train the shipped weights that are missing, or [NAMES="teacher-plain .."] [FOLDER=..]; a tiny decoder for any autoencoder [VAE=.. PICTURES=..]
	$(real) $(run) distill_lib.run teachers $(NAMES) $(if $(VAE),--vae "$(VAE)" --pictures "$(PICTURES)")

onnx: .venv/.installed ## write shipped students as ONNX graphs to runs/onnx/ [NAMES="onestep-scenes .."]
	$(run) distill_lib.run onnx $(NAMES)

live: .venv/.installed ## write the page of models that draw in the browser to runs/site/live/
	$(run) distill_lib.run live

bench: .venv/.installed ## time our code against the plain way [PROFILE=quick]
	PYTHONPATH=tests $(run) bench --profile "$(PROFILE)"

true-scale: .venv/.installed ## time Stable Diffusion and SDXS at their true sizes, random weights, 16 GB, some 10 minutes [ID=s-tab2]
	$(run) distill_lib.run true-scale $${ID:+--id "$$ID"}

preflight: .venv/.installed ## try a teacher on this machine in two minutes, before hours are spent TEACHER=folder [PROFILE=gpu]
	@$(run) distill_lib.run preflight "$${TEACHER?name a folder: make preflight TEACHER=..}" --profile "$${PROFILE:-gpu}"

gpu-check: .venv/.installed ## try on a GPU all that has never run on one, ten minutes [PARTS="updates pictures"]
	@$(run) distill_lib.run gpu-check $${PARTS}

verify: .venv/.installed ## redraw, and compare with the committed figures/laptop
	$(run) distill_lib.run verify

publish: .venv/.installed ## put the outputs of a run back into notebooks/ [PROFILE=quick]
	$(run) distill_lib.run publish --profile "$(PROFILE)"

pace: .venv/.installed ## keep how long the last whole run took here, for the minutes left that others see [PROFILE=quick]
	$(run) distill_lib.run pace --profile "$(PROFILE)"

explore: .venv/.installed ## draw the pictures behind the sliders of notebooks/explore.ipynb, a minute
	$(run) distill_lib.run explore

exercises: .venv/.installed ## run the notebooks of exercises and explore.ipynb, two minutes, and keep their outputs
	$(run) distill_lib.run exercises

readme: .venv/.installed ## renew README, the pages behind it and its pictures, from manifests and results
	$(run) distill_lib.run readme

site: .venv/.site ## build the site of notebooks and results in runs/site/, without running anything
	@$(run) distill_lib.run site

slides: .venv/.site ## build the slides of docs/lesson-90min.md in runs/slides/, from tagged cells
	@$(run) distill_lib.run slides

test-site: .venv/.site ## follow every link of the site, and draw in chromium, if it is there, on the page of make live
	$(run) pytest -q -rs tests/test_site_pages.py tests/test_slides.py tests/test_live.py -m ""

lab: .venv/.installed ## open the notebooks in JupyterLab
	$(run) distill_lib.run lab

lint: .venv/.installed ## ruff, rules and format
	$(run) ruff check .
	$(run) ruff format --check .

# uv keeps each pin that pyproject.toml still allows; delete a line of the lock to move that package.
lock: ## renew requirements.lock and requirements-site.lock from pyproject.toml (needs uv)
	cp requirements.lock requirements.lock.new
	$(UV) pip compile -q --universal --python-version 3.11 --extra dev --no-annotate --no-header \
	    -o requirements.lock.new pyproject.toml
	{ grep '^#' requirements.lock; grep -Ev "^(nvidia-|cuda-|triton=)|(sys_platform|os_name) == '(win32|nt|emscripten)'" \
	    requirements.lock.new; } > requirements.lock.part
	mv requirements.lock.part requirements.lock
	rm requirements.lock.new
	$(UV) pip compile -q --universal --python-version 3.11 --extra site --no-annotate --no-header \
	    -c requirements.lock -o requirements-site.lock.new pyproject.toml
	{ grep '^#' requirements-site.lock; grep -vxF -f requirements.lock requirements-site.lock.new | \
	    grep -Ev "^(nvidia-|cuda-|triton=)|(sys_platform|os_name) == '(win32|nt|emscripten)'"; } > requirements-site.lock.part
	mv requirements-site.lock.part requirements-site.lock
	rm requirements-site.lock.new

# The stamp is written last: an installation that was cut off is done again.
.venv/.installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("distill_lib needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.12 ..")'
	@echo "Installing the environment into .venv, up to 7 GB: some ten minutes, in which pip says nothing"
	"$(PYTHON)" -m venv .venv
	$(run) pip install -q --disable-pip-version-check -r requirements.lock
	$(run) pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch .venv/.installed

.venv/.site: .venv/.installed requirements-site.lock
	$(run) pip install -q --disable-pip-version-check -r requirements-site.lock
	touch .venv/.site
