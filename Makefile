# The commands of everyday work. `make` lists them.
#
# Each one installs what it needs and does not find; CI runs the same ones.

.DEFAULT_GOAL := help
.PHONY: help run simulate stack smoke load load-watched stress spike soak breakpoint backup restore test scale bench faults drill truth panels mutants-ops security fuzz-api mutants lint lint-ops dashboards audit \
    coverage docs sqlx build-release secrets up down image clean

# Many tests wait rather than compute.
threads := $(shell expr 3 '*' `getconf _NPROCESSORS_ONLN`)
target := $(or $(CARGO_TARGET_DIR),target)
program := $(target)/debug/switchboard

# Whatever the caller's environment says, sources are checked against .sqlx and not against a database.
export SQLX_OFFLINE := true

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Run the server with a database of its own and demo data; ARGS="..." is passed on
	@scripts/setup postgres
	cargo build --locked
	@# With no shell or cargo in between, Ctrl-C reaches the server once, and make waits until it has drained.
	exec $(program) serve --demo $(ARGS)

simulate: ARGS ?= --seed 1 --speed 600
simulate: ## Send a day's calls and requests to the server of `make run`; ARGS="--seed 1 --speed 600"
	@scripts/setup
	cargo build --locked
	exec $(program) simulate $(ARGS)

stack: ## Watch the server of `make run`: Prometheus, Alertmanager, exporters, and a sink that prints what they say
	@scripts/setup promtool alertmanager blackbox-exporter node-exporter postgres-exporter redis-exporter
	exec scripts/stack $(ARGS)

smoke: ## Play the whole journey for half a minute, with k6; and see that a misspelt tag fails a run
	@scripts/setup postgres python
	cargo build --locked
	scripts/load smoke selftest

# What the release build has to show on its own; what is promised of a machine that does other things too is 100.
load: export P99_MS ?= 25
load: ## Carry 400 requests a second, with k6; RATE=400, DURATION=60s, P99_MS=25, BASE_URL, PROMETHEUS
stress: ## Twice and three times as much, and back; DURATION=60s for each
spike: ## Ten times as much within ten seconds, and back; DURATION=20s
soak: ## Half as much for half an hour; DURATION=30m
breakpoint: ## Find the highest rate that keeps the promises; DURATION=20s for each step
# With load first it would be a directive of make.
stress spike soak breakpoint load:
	@scripts/setup postgres python
	cargo build --locked --release
	scripts/load $@

load-watched: ## The load beside `make stack`, whose Prometheus must have no alert but Watchdog meanwhile
	@scripts/setup postgres python promtool alertmanager blackbox-exporter node-exporter postgres-exporter redis-exporter
	cargo build --locked --release
	scripts/load watched load

backup: ## Back up the database and the files of `make run`; ARGS="--to DIR"
	@scripts/setup postgres
	cargo build --locked
	exec $(program) backup $(ARGS)

restore: ## Read a backup back: ARGS="--from DIR", and --force to replace what is there
	@scripts/setup postgres
	cargo build --locked
	exec $(program) restore $(ARGS)

test: ## Run all tests
	@scripts/setup postgres redis promtool python
	cargo test --locked -- --test-threads=$(threads)
	cargo test --locked --test stack
	scripts/security --check

scale: ## Measure lists, searches and exports over a million service requests; prints the plans
	@scripts/setup postgres
	cargo test --locked --test scale -- --nocapture

bench: ## Measure the release build beside pgbench, and what telemetry costs; keeps docs/PERFORMANCE.md; ARGS="--seconds 3 endpoints"
	@scripts/setup postgres redis wrk
	@# What it is measured against stands in its place for a moment.
	cargo build --locked --release --features unobserved
	mkdir -p $(target)/unobserved
	cp $(target)/release/switchboard $(target)/unobserved/
	cargo build --locked --release
	scripts/bench $(ARGS)

faults: ## Break what the server stands on, one fault at a time; keeps promised and measured in docs/RELIABILITY.md
	@scripts/setup postgres redis haproxy python
	cargo build --locked
	scripts/faults $(ARGS)

drill: ## Make every alert fire, reach its receiver and resolve; keeps the table in docs/DRILL.md; ALERT=PostgresDown for one
	@scripts/setup postgres redis haproxy python promtool alertmanager blackbox-exporter node-exporter
	cargo build --locked
	scripts/drill $(ALERT)

truth: ## Count 100,000 requests on both sides, and the series that a flood of made-up ones makes
	@scripts/setup postgres redis
	cargo test --locked --test truth -- --nocapture --test-threads=1

panels: ## Ask every query of every panel of a real Prometheus, after k6's journey and during faults
	@scripts/setup postgres redis python promtool alertmanager blackbox-exporter node-exporter postgres-exporter redis-exporter
	cargo build --locked
	scripts/panels $(ARGS)

mutants-ops: ## Break rules, objectives, routes and dashboards one by one, and list who noticed
	@scripts/setup promtool python
	cargo test --locked --test mutants -- --nocapture

security: ## Run every test that docs/SECURITY.md names; prints item, test, result
	@scripts/setup postgres redis promtool python cargo-deny
	cargo build --locked
	@# cargo-deny looks at every platform's dependencies, a build fetches only this one's.
	cargo fetch --locked
	scripts/security

fuzz-api: ## Send what the OpenAPI document allows, and what not, to a server; FUZZ_SECONDS=20 a role, FUZZ_SEED=1
	@scripts/setup postgres python
	cargo build --locked
	scripts/fuzz-api

mutants: ## Break rights, moves, tokens and keys line by line; fail if tests notice fewer than 85 %
	@scripts/setup cargo-mutants
	scripts/mutants

lint: ## Check formatting, lints, documentation, dependencies, .sqlx and shell scripts
	@scripts/setup rustfmt clippy cargo-deny postgres shellcheck
	cargo fmt --check
	shellcheck $$(grep -l -m 1 '^#!.*bash$$' scripts/* .ci/run 2>/dev/null)
	@# cargo-deny looks at every platform's dependencies, a build fetches only this one's.
	cargo fetch --locked
	cargo deny --offline check bans licenses sources
	cargo clippy --locked --all-targets -- -D warnings
	@# To cargo, tests with `test = false` are none of all targets.
	cargo clippy --locked --test stack --test scale --test security --test faults --test drill --test truth --test artifacts \
	    --test mutants -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	scripts/sqlx-prepare --check

lint-ops: ## Check rules, dashboards, runbooks, Alertmanager, compose, collector, load tests; ARGS="compose k6"
	@scripts/setup postgres promtool alertmanager blackbox-exporter haproxy python shellcheck npm
	cargo build --locked
	scripts/lint-ops $(ARGS)
	cargo test --locked --test artifacts

dashboards: ## Write grafana/dashboards from grafana/src
	@scripts/setup python npm
	scripts/dashboards

audit: ## Look for known vulnerabilities in the dependencies; needs the network
	@scripts/setup cargo-deny
	cargo deny check advisories

coverage: ## Run all tests, fail below 85 % of lines; writes target/coverage/
	@scripts/setup llvm-tools cargo-llvm-cov postgres redis promtool
	cargo llvm-cov clean --workspace
	cargo llvm-cov --locked --no-report -- --test-threads=$(threads)
	cargo llvm-cov --locked --no-report --test stack
	cargo llvm-cov report --html --output-dir target/coverage
	cargo llvm-cov report --lcov --output-path target/coverage/lcov.info
	cargo llvm-cov report --fail-under-lines 85

docs: ## Write docs/METRICS.md, docs/ALERTS.md and the rules of the objectives from what they follow from
	@scripts/setup
	cargo build --locked
	@mkdir -p docs
	@# Through another file: a failure must not leave half a page.
	$(program) metrics > docs/METRICS.md.new
	mv docs/METRICS.md.new docs/METRICS.md
	SWITCHBOARD_WRITE=1 cargo test --locked --test artifacts -- slo_rules alerts_page

sqlx: ## Write .sqlx after a query or a migration changed
	@scripts/setup postgres
	scripts/sqlx-prepare

build-release: ## Build the optimised program, target/release/switchboard
	@scripts/setup
	SWITCHBOARD_REVISION=$(revision) cargo build --locked --release

# What build_info shows.
revision = $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
compose = SWITCHBOARD_REVISION=$(revision) docker compose -f docker-compose.yml -f deploy/compose.demo.yml

image: ## Build the images of the server and of its backups, with Docker
	docker build --target run --build-arg REVISION=$(revision) --build-arg VERSION=$(version) --tag switchboard:local .
	docker build --target backup --build-arg REVISION=$(revision) --build-arg VERSION=$(version) \
	    --tag switchboard-backup:local .

secrets: ## Make the secrets of docker-compose.yml that are missing, in deploy/secrets
	@scripts/secrets

up: secrets ## Run all of it with Docker Compose and a made-up company: deploy/README.md
	$(compose) --profile backup build
	$(compose) up --detach --wait $(ARGS)

down: ## Stop what `make up` started; the data stays
	$(compose) down $(ARGS)

clean: ## Remove what was built; the data of `make run` stays
	cargo clean
