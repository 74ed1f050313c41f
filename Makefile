.PHONY: build demo test bench fuzz packages fmt generate
.DEFAULT_GOAL := build

# target/release/: volctl, volctld, and the cloudstack-simulator of `volctl --sandbox`.
build:
	@tests/setup.sh build
	cargo build --release --bins

# The main job in a sandbox, without any cloud.
demo:
	@tests/setup.sh demo
	@cargo build --release --bins
	@tests/demo.sh

# Everything. A level that can't run fails; only VOLCTL_SKIP=lab leaves one out.
test:
	@tests/setup.sh test
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	RUST_TEST_THREADS=4 cargo test --lib --test integration -- --skip races::
	cargo test --test integration races::
	cargo build --release --bins
ifneq ($(VOLCTL_SKIP),lab)
	packaging/build-packages.sh
	packaging/build-packages.sh 99.0.0
	VOLCTL_BIN_DIR=$(CURDIR)/target/release cargo test --test lab -- --nocapture --test-threads=1
endif

# Tables of measurements beside peers and limits, on an idle machine, as root: the control plane in some 15 minutes, the NBD
# server beside the reference servers in another 15. BENCH_PART=control or BENCH_PART=nbd is one of them.
bench:
	@tests/setup.sh bench
ifneq ($(BENCH_PART),nbd)
	cargo build --release --bins
	@tests/bench/control.py target/release
endif
ifneq ($(BENCH_PART),control)
	cargo build --release --example nbd-bench-server
	@tests/bench/bench.py target/release/examples/nbd-bench-server
endif

# Hostile bytes at length: each target for FUZZ_SECONDS, from the stored corpus on. What is found stays under target/.
FUZZ_SECONDS ?= 600
fuzz:
	@tests/setup.sh fuzz
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@for target in nbd tls rpc cloudstack; do \
		mkdir -p target/fuzz/corpus/$$target && \
		cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz -s none $$target \
			target/fuzz/corpus/$$target tests/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=30 -rss_limit_mb=1024 -max_len=65536 || exit; \
	done

# target/packages/: the .deb and the .rpm, linted.
packages:
	@tests/setup.sh packages
	cargo build --release --bins
	packaging/build-packages.sh

fmt:
	cargo fmt
	cd tests/fuzz && cargo fmt

# Rewrites man/, the README's tables and packaging/config.toml from the definitions in src/.
generate:
	UPDATE_GENERATED=1 cargo test --test integration generated
