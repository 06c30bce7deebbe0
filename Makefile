# Two commands do everything: `make demo` and `make test`. What they need, they install.
.PHONY: demo test lint deps bench bench-peers bench-guard

# Passed on to `wheelhouse dev`: make demo ARGS="--port 9000 --fresh"
ARGS ?=

demo:
	@sh scripts/deps.sh demo
	cargo build --release --bin wheelhouse
	@exec ./target/release/wheelhouse dev $(ARGS)

test:
	@sh scripts/deps.sh test
	cargo test --workspace

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Every scenario beside its yardsticks, in one table and in bench/latest.json: about five minutes. A machine with
# nothing else to do gives figures that mean something. make bench ARGS="--only acks,idle"
bench:
	@sh scripts/deps.sh test
	cargo build --release --bin wheelhouse
	./target/release/wheelhouse bench suite $(ARGS)

# The same, beside what one would use instead: a Node server, BullMQ, Celery, RQ, from npm and PyPI.
bench-peers:
	@sh scripts/deps.sh test
	@sh scripts/bench-peers.sh
	cargo build --release --bin wheelhouse
	./target/release/wheelhouse bench suite --only acks,results,process,peers --peers target/bench-peers $(ARGS)

# Instructions of the hot paths against bench/guard.json.
bench-guard:
	@sh scripts/deps.sh guard
	@sh scripts/bench-guard.sh

# Only installs what `make demo` and `make test` need.
deps:
	@sh scripts/deps.sh test
