# Two commands do everything: `make demo` and `make test`. What they need, they install.
.PHONY: demo test test-typescript test-python chaos chaos-proof fuzz lint deps bench bench-peers bench-scale bench-fleet bench-jobs bench-cluster bench-guard bench-lists bench-reports bench-console pictures

# Passed on to `wheelhouse dev`: make demo ARGS="--port 9000 --fresh"
ARGS ?=

demo:
	@sh scripts/deps.sh demo
	@program="$$(sh scripts/build.sh --bin wheelhouse)" && exec "$$program" dev $(ARGS)

test:
	@sh scripts/deps.sh test
	cargo test --workspace
	sh scripts/example-worker.sh
	@export WHEELHOUSE_PROGRAM="$$(sh scripts/tested-program.sh)" && test -n "$$WHEELHOUSE_PROGRAM" && \
		$(MAKE) --jobs=2 --output-sync=target test-typescript test-python && \
		$${PYTHON:-python3} scripts/test-examples.py
	$(MAKE) chaos-proof

# The clients, each by itself: what they mostly do is wait, so `make test` runs both at the same time.
test-typescript:
	sh scripts/test-typescript.sh

test-python:
	sh scripts/test-python.sh

# Faults for as long as you like (docs/testing-faults.md): make chaos SEEDS=20 SECONDS=120, make chaos SEED=7
SEEDS ?= 5
SECONDS ?= 120
# single: one Redis; sentinel: a master, two replicas and three sentinels; cluster: three masters, each with a replica, both
# with redis.replicas_to_wait = 1; disk: one Redis whose machine loses its power, with redis.fsyncs_to_wait = 1.
# SHARDED=1: what wakes programs of a cluster is published and heard on sharded channels alone.
# WAIT=0: both are 0, and the checker reports what is lost.
TOPOLOGY ?= single
chaos:
	@sh scripts/deps.sh test
	CHAOS_TOPOLOGY=$(TOPOLOGY) CHAOS_SEEDS=$(if $(SEED),1,$(SEEDS)) CHAOS_SECONDS=$(SECONDS) $(if $(SEED),CHAOS_SEED=$(SEED)) \
		$(if $(WAIT),CHAOS_WAIT=$(WAIT)) $(if $(SHARDED),CHAOS_SHARDED=$(SHARDED)) \
		cargo test --test chaos the_promises_of_commands -- --nocapture

# The same checks fail where the fence is switched off; the feature is in no other build.
chaos-proof:
	cargo test --features test-faults --test chaos proof

# Also: what dependencies may be (deny.toml), and that the words which docs/glossary.md has retired stay away.
# Made-up input for everything that reads what others wrote, a minute of each target (docs/testing-faults.md):
# make fuzz TARGET=frame TIME=600
TARGET ?= all
TIME ?= 60
fuzz:
	cargo run --release --example fuzz -- $(TARGET) $(TIME)

lint:
	sh scripts/deny.sh
	cargo fmt --all --check
	cargo fmt --check --manifest-path examples/worker/Cargo.toml
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo test --quiet --workspace --lib glossary

# Every scenario beside its yardsticks, in one table and in bench/latest.json: about five minutes. A machine with
# nothing else to do gives figures that mean something. make bench ARGS="--only acks,idle"
bench:
	@sh scripts/deps.sh test
	@sh scripts/build.sh --bin wheelhouse >/dev/null
	@program="$$(sh scripts/build.sh --package wheelhouse-bench)" && exec "$$program" $(ARGS)

# The same, beside what one would use instead: a Node server, BullMQ, Celery, RQ, from npm and PyPI.
bench-peers:
	@sh scripts/deps.sh test
	@sh scripts/bench-peers.sh
	@sh scripts/build.sh --bin wheelhouse >/dev/null
	@program="$$(sh scripts/build.sh --package wheelhouse-bench)" && \
		exec "$$program" --only acks,results,process,peers --peers target/bench-peers $(ARGS)

# What a fleet of up to a thousand workers asks of Redis, what a PUBLISH costs beside watched tenants, and how long requests
# take to move: a minute or two.
bench-scale:
	@sh scripts/deps.sh test
	@python3 scripts/bench-scale.py

# What sixty real workers ask of Redis and PostgreSQL, at rest and for each job, and how long commands take: two minutes. make bench-fleet ARGS="--workers 60,200"
bench-fleet:
	@sh scripts/deps.sh test
	@WHEELHOUSE_PROGRAM="$$(sh scripts/build.sh --bin wheelhouse)" python3 scripts/bench-fleet.py $(ARGS)

# How many jobs a second a gateway and two workers carry from end to end, on each database: two minutes.
bench-jobs:
	@sh scripts/deps.sh test
	@WHEELHOUSE_PROGRAM="$$(sh scripts/build.sh --bin wheelhouse)" python3 scripts/bench-jobs.py $(ARGS)

# The pictures of the console in docs/images, as a test makes them.
pictures:
	@sh scripts/deps.sh test
	@WHEELHOUSE_PICTURES=1 sh scripts/console.sh npx vitest run --project integration test/integration/console.test.ts

# What a command costs on a cluster of six nodes, beside one Redis: two minutes.
bench-cluster:
	@sh scripts/deps.sh test
	@program="$$(sh scripts/build.sh --bin wheelhouse)" && exec python3 scripts/bench-cluster.py "$$program"

# What lists, claims and ends cost in SQL among a million jobs, in an empty database that keeps them afterwards:
# make bench-lists URL=sqlite:///tmp/lists.db, URL=postgres://…, ARGS="--only claims --rows 100000"
bench-lists:
	@program="$$(sh scripts/build.sh --package wheelhouse-bench --bin lists)" && exec "$$program" --database-url $(URL) $(ARGS)

# One worker with very many jobs that report their progress four times a second: Redis commands and SQL writes for each update,
# memory, and how many arrive: make bench-reports ARGS="--jobs 1000,10000 --database-url postgres://…"
bench-reports:
	@sh scripts/deps.sh test
	@program="$$(sh scripts/build.sh --package wheelhouse-bench --bin reports)" && exec "$$program" $(ARGS)

# The console's list with ten thousand jobs, of which two hundred a second change, in headless Chromium: make bench-console FRAMES=200
bench-console:
	@sh scripts/deps.sh test
	@PROFILE=release sh scripts/console.sh npx tsx bench/console.ts

# Instructions of the hot paths against bench/guard.json.
bench-guard:
	@sh scripts/deps.sh guard
	@sh scripts/bench-guard.sh

# Only installs what `make demo` and `make test` need.
deps:
	@sh scripts/deps.sh test
