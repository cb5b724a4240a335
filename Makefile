# make run         set everything up and run the demo instance, with real mail flowing
# make test        set everything up and run lint and all tests
# make lint        ruff and mypy alone
# make test-mysql  the tests of databases on a real MySQL in MariaDB's place
# make soak        long crash and fuzz runs
# make fuzz        every parser, ten million inputs each, guided by what they reach
# make endurance   a day and more: a thousand kills, then 24 hours in which nothing may grow
# make bench       speed on this machine, beside Postfix and Dovecot

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests of whole servers wait more than they compute: two processes for each core.
WORKERS ?= $(shell expr $$(nproc) \* 2)
# Whoever is done takes over what waits behind a test that takes half a minute: a third less time.
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal
# Nothing takes too long in a long run.
SOAKING := -o faulthandler_timeout=0
# Root's server works as another user, who must get to its instance (not below /root, usually).
DEMO ?= $(shell if [ "$$(id -u)" = 0 ] && ! setpriv --reuid 65534 --clear-groups test -x "$(CURDIR)"; \
	then echo /var/tmp/restante-demo; else echo demo; fi)

.PHONY: run test lint test-mysql soak fuzz endurance bench clean

run: $(VENV)/.run
	$(BIN)/restante demo --dir $(DEMO)

test: $(VENV)/.dev peers lint
	$(PYTEST) -m 'not soak'

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# MySQL's packages and MariaDB's exclude one another: nothing is installed here.
test-mysql: $(VENV)/.dev
	mysqld=$$(./scripts/mysqld) && RESTANTE_TEST_MYSQLD=$$mysqld \
		$(PYTEST) -m 'mariadb and not soak' tests/unit tests/contract tests/service tests/interop

soak: $(VENV)/.dev peers
	$(PYTEST) $(SOAKING) -m soak
	$(PYTEST) $(SOAKING) --hypothesis-profile=soak tests/fuzz

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.guided --executions 10000000

endurance: $(VENV)/.dev
	$(BIN)/python -m tests.endurance kills
	$(BIN)/python -m tests.endurance flat

bench: $(VENV)/.bench
	./scripts/peers bench
	./scripts/restante-bench

.PHONY: peers
peers:
	./scripts/peers

$(VENV)/.run: pyproject.toml
	./scripts/venv $(PYTHON) $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml
	./scripts/venv $(PYTHON) $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.run

$(VENV)/.fuzz: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[dev,fuzz]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist
