# Two commands do everything: `make demo` and `make test`. What they need, they install.
.PHONY: demo test chaos chaos-proof lint deps

# Passed on to `wheelhouse dev`: make demo ARGS="--port 9000 --fresh"
ARGS ?=

demo:
	@sh scripts/deps.sh demo
	cargo build --release --bin wheelhouse
	@exec ./target/release/wheelhouse dev $(ARGS)

test:
	@sh scripts/deps.sh test
	cargo test --workspace
	$(MAKE) chaos-proof

# Faults for as long as you like (docs/testing-faults.md): make chaos SEEDS=20 SECONDS=120, make chaos SEED=7
SEEDS ?= 5
SECONDS ?= 120
chaos:
	@sh scripts/deps.sh test
	CHAOS_SEEDS=$(if $(SEED),1,$(SEEDS)) CHAOS_SECONDS=$(SECONDS) $(if $(SEED),CHAOS_SEED=$(SEED)) \
		cargo test --test chaos the_promises -- --nocapture

# The same checks fail where the fence is switched off; the feature is in no other build.
chaos-proof:
	cargo test --features test-faults --test chaos proof

lint:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings

# Only installs what `make demo` and `make test` need.
deps:
	@sh scripts/deps.sh test
