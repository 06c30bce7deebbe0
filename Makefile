# Two commands do everything: `make demo` and `make test`. What they need, they install.
.PHONY: demo test lint deps

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

# Only installs what `make demo` and `make test` need.
deps:
	@sh scripts/deps.sh test
