# Run `make help`. Every target sets up what it needs first; `demo`, `test`, `flood` and `bench` need root, for namespaces and eBPF.
.PHONY: help build demo test test-kernels fuzz torture soak flood lint bench clean setup require-root

CARGO ?= cargo
# Programs that cargo installed, and those in the system's directories, whoever calls.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:/usr/sbin:/sbin

# What `meshd version` tells of its sources; nothing where they came without history.
ifneq ($(wildcard .git),)
export MESHD_GIT_COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
export MESHD_GIT_TREE_STATE := $(shell s=$$(git status --porcelain 2>/dev/null) && { test -z "$$s" && echo clean || echo dirty; })
export MESHD_BUILD_DATE := $(shell git log -1 --format=%cI 2>/dev/null)
endif

help:
	@echo 'make demo         a mesh of three pods on two nodes, on this machine, observed for some 20 s (root)'
	@echo 'make test         everything that is tested: format, lints, unit, pipeline and kernel tests (root)'
	@echo 'make test-kernels the kernel tests on Linux 6.1 and 6.12, booted in an emulator (root)'
	@echo 'make fuzz         every fuzzer for 5 minutes; FUZZ_SECONDS=N, FUZZ_SEED=N'
	@echo 'make torture      10 minutes of traffic, the daemon killed and stopped at random, every number checked (root)'
	@echo 'make soak         10 minutes of mixed traffic while the mesh changes, every byte and number checked (root)'
	@echo 'make flood        10 minutes of connects from one pod, while others are counted exactly (root)'
	@echo 'make build        target/release/meshd'
	@echo 'make lint         format and lints alone'
	@echo 'make bench        the benchmarks of bench/README.md (root)'
	@echo 'make setup        installs what the others need; they call it themselves'
	@echo 'make clean        removes what was built'

setup:
	@./setup.sh

build:
	@./setup.sh --build
	$(CARGO) build --locked --release --package dataplane

demo: require-root setup
	@demo/run

test: require-root setup lint
	$(CARGO) test --locked --workspace
	$(or $(CARGO_TARGET_DIR),target)/debug/meshd doctor

test-kernels: require-root
	@./setup.sh --kernels
	@tests/kernels/run $(KERNELS)

# One fuzzer after the other; `make test` runs each for some seconds.
fuzz: setup
	FUZZ_SECONDS=$${FUZZ_SECONDS:-300} $(CARGO) test --locked --workspace --exclude bench --lib --test inproc fuzz_ -- --nocapture --test-threads=1

# Anew each time; MESHD_TORTURE_SEED (one, or several with commas) repeats a run.
torture: require-root setup
	MESHD_TORTURE_SECONDS=$${MESHD_TORTURE_SECONDS:-600} MESHD_TORTURE_SEED=$${MESHD_TORTURE_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} \
		$(CARGO) test --locked --package tests --test torture

# Anew each time; MESHD_SOAK_SEED repeats a run.
soak: require-root setup
	MESHD_SOAK_SECONDS=$${MESHD_SOAK_SECONDS:-600} $(CARGO) test --locked --package tests --test soak

flood: require-root setup
	MESHD_FLOOD_SECONDS=600 $(CARGO) test --locked --package tests --test kernel flood -- --nocapture

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check bans licenses sources; \
	else echo 'lint: cargo-deny is not installed, deny.toml was not checked'; fi

bench: require-root setup
	$(CARGO) build --locked --release --package dataplane --package bench --bins
	failed=0; $(CARGO) bench --locked --package bench || failed=1; \
		$(or $(CARGO_TARGET_DIR),target)/release/kernel || failed=1; exit $$failed

clean:
	$(CARGO) clean

require-root:
	@[ "$$(id -u)" = 0 ] || { echo 'Network namespaces and eBPF need root: sudo env "PATH=$$PATH" make $(MAKECMDGOALS)' >&2; exit 1; }
