# Two commands matter: `make run` and `make test`. The work is in scripts/, this file only names it.

MODEL       ?=
ADDRESS     ?= 127.0.0.1:8080
MODELS_PATH ?= models
ARGS        ?=
PREFIX      ?= /usr/local

# The target directory is shared by all checkouts: see scripts/env.sh. An empty value means the usual place.
ifneq ($(strip $(CARGO_TARGET_DIR)),)
export CARGO_TARGET_DIR
endif

BIN   := $(CURDIR)/target/bin/ingle
CARGO := scripts/cargo.sh

.DEFAULT_GOAL := help
.PHONY: help run test build which check fmt clippy doc golden bench peers gpu-check install clean

help: ## this list
	@echo "Ingle: make TARGET [MODEL=name, path or URI] [ADDRESS=$(ADDRESS)] [MODELS_PATH=$(MODELS_PATH)] [ARGS='flags of ingle run']"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

run: build ## build, get the model, serve it (installs what is missing)
	@scripts/run.sh "$(MODEL)" "$(ADDRESS)" "$(MODELS_PATH)" $(ARGS)

test: ## everything that can be tested here, real models included
	@scripts/test.sh

build: ## the release program, at target/bin/ingle
	@scripts/build.sh

which: ## the path of this checkout's release program (make -s which)
	@echo "$(BIN)"
	@test -x "$(BIN)" || echo "not built yet: make build" >&2

check: fmt clippy test doc ## what a commit must pass

fmt: ## is the code formatted?
	@$(CARGO) fmt --all --check

clippy: ## lints, warnings as errors
	@$(CARGO) clippy --release --workspace --all-targets -- -D warnings

doc: ## the documentation, warnings as errors
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps

golden: ## renew the golden files, for review with git diff
	@UPDATE_GOLDEN=1 $(CARGO) test --release --workspace golden
	@git --no-pager diff --stat

# Not --benches: that runs the unit tests of every crate too, and they do not know criterion's arguments.
bench: ## the criterion benches (ARGS='-- --quick' for a short run)
	@$(CARGO) bench --workspace --bench '*' $(ARGS)

peers: ## the programs Ingle is measured against, outside the repository
	@scripts/peers.sh

gpu-check: ## device, prefill and decode tokens/s with and without the GPU
	@scripts/gpu-check.sh

install: build ## into PREFIX/bin, with the name local-ai beside it
	install -Dm755 "$(BIN)" "$(DESTDIR)$(PREFIX)/bin/ingle"
	ln -sf ingle "$(DESTDIR)$(PREFIX)/bin/local-ai"

clean: ## this checkout's programs (the shared target directory stays)
	rm -rf target/bin
