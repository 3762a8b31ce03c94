# Two commands do everything: `make serve` and `make test`. All work is done in the folder of this file, which may have
# spaces in its path; PYTHON=/path/to/python3 chooses another interpreter, PILLARBOX_HOME another home.

SHELL := /bin/sh
export PYTHON
# Where `make test-peers` unpacks programs of other mail servers; nothing of them is ever installed.
export PILLARBOX_PEERS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pillarbox/peers

.PHONY: help install serve test test-peers bench
.NOTPARALLEL:

help:
	@echo 'make serve        build .venv and run the server here, with ports that any user may bind'
	@echo 'make test         format, lint, types, layers, and every test'
	@echo 'make test-peers   the same, with the mail programs it can talk to installed first (needs root)'
	@echo 'make bench        measure, and write docs/benchmarks.md (best as root)'
	@echo 'make install      build .venv and stop'

install:
	@sh tools/venv

serve: install
	@home=$$(sh tools/home) && exec .venv/bin/pillarbox serve --home "$$home"

test:
	@sh tools/venv test
	@if [ -n "$$CI" ]; then sh tools/peers; fi
	@sh tools/verify

test-peers:
	@sh tools/venv test
	@sh tools/peers
	@sh tools/verify

bench:
	@sh tools/venv test
	@if [ "$$(id -u)" = 0 ]; then sh tools/peers; fi
	@PATH="$$PATH:$$PILLARBOX_PEERS/bin" .venv/bin/python -m bench
