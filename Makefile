# The few commands that people type. PYTHON=python3.12 make run  picks another Python (3.11 or newer). Tests run JOBS at a time, each on one core.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
test test-real: export OMP_NUM_THREADS = 1
DATA := $(or $(TOPDOWN_DATA),$(wildcard ../shared/data))

.PHONY: run test test-real lab slides site outputs clean

run: .venv/course            ## install, run lesson 1 on the sample track, print what it reached
	$(BIN)/topdown run 1 --track sample

test: .venv/npm              ## everything that needs no GPU, without a network where the system can cut it off
	$(BIN)/python tests/offline.py $(BIN)/nbdev-test --n-workers $(JOBS)
	$(BIN)/python tests/offline.py $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not fresh and not real"
	$(BIN)/python -m pytest -m fresh

test-real: .venv/npm        ## the real track's contracts of the lessons that changed since the last release; ALL=1 for all
	TOPDOWN_DATA="$(DATA)" ALL=$(ALL) $(BIN)/python -m pytest -n $(JOBS) -m real

lab: .venv/course            ## JupyterLab on working copies of the lessons
	$(BIN)/topdown lab

slides: .venv/course         ## a lesson as live slides, whose cells can be run: make slides LESSON=1
	$(BIN)/topdown slides show $(or $(LESSON),1)

site: .venv/npm              ## the website in _docs with the slides: through Quarto where it is installed, else through pandoc alone
	$(BIN)/topdown slides build all --to _docs/slides
	$(BIN)/topdown site

outputs: .venv/dev           ## re-run the notebooks on the sample track and store what they print
	$(BIN)/python tests/outputs.py $(ONLY)

clean:                       ## remove the environment and what builds leave; your own files stay
	rm -rf .venv build dist _docs _proc .pytest_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c "import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f'Python 3.11 or newer is needed, this is {v[0]}.{v[1]}; try: make run PYTHON=python3.12')"
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "No environment could be made. On Debian and Ubuntu: sudo apt install python3-venv, then try again."; exit 1; }

.venv/course: pyproject.toml constraints.txt setup.py | .venv/bin/python
	@echo "Installing the course into .venv; the first time this takes some minutes and up to 6 GB of disk."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline]'
	@touch $@

.venv/dev: .venv/course
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/page: .venv/dev apps/page/package-lock.json
	$(BIN)/python -c "import shutil; from topdown.publish import find_package; shutil.copy(find_package(), '.venv')" \
	    || echo "Without npm's package onnxruntime-web the tests of the static page are left out."
	@touch $@

.venv/npm: .venv/page apps/site/package-lock.json apps/slides/package-lock.json
	$(BIN)/python -c "from topdown.slides import find_reveal; find_reveal(into='.venv')" || echo "Without npm's package reveal.js the slides cannot be built."
	mkdir -p $@ && cp apps/site/package.json apps/site/package-lock.json apps/site/.npmrc $@
	cd $@ && npm ci --ignore-scripts --no-audit --no-fund || echo "Without npm's packages axe-core and vnu-jar the site is checked less."
	@touch $@
