# Everything a builder does. Needs Go; race and interop need a C compiler, interop needs cargo too.
# Tools are pinned in tools/ and built once into bin/tools (a few minutes the first time, no C needed).
SHELL     := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

TOOLS     ?= $(CURDIR)/bin/tools
GO_TEST   ?= go test
FUZZTIME  ?= 30s
ARGS      ?=
OLDEST_PG := 15
# Where the user postgres gets in, whom the failovers run as.
PATRONI   ?= /var/lib/vss-cloud/patroni

# Folders of generated code and its sources.
GENERATED := api/vsspb db
# Where they are; verify generates in a copy.
IN        ?= .

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## The whole platform on this machine, with a tenant "demo" (ARGS="..." are flags of vssctl dev)
	go build -o bin/vssctl ./cmd/vssctl
	@exec bin/vssctl dev $(ARGS)

.PHONY: build
build: ## bin/vss-api and bin/vssctl
	go build -o bin/ ./cmd/...

.PHONY: test
test: ## All Go tests, and those of storage on the oldest PostgreSQL that we support too
	$(GO_TEST) -timeout 20m ./...
	VSS_TEST_POSTGRES=$(OLDEST_PG) $(GO_TEST) -timeout 20m ./storage/...

.PHONY: docs-test
docs-test: ## What README says to run, run word for word
	$(GO_TEST) -count=1 .

.PHONY: race
race: ## The same with the race detector
	CGO_ENABLED=1 $(MAKE) --no-print-directory test GO_TEST="$(GO_TEST) -race"

.PHONY: lint
lint: $(TOOLS)/golangci-lint.installed ## The linters of .golangci.yml
	$(TOOLS)/golangci-lint run ./...

.PHONY: generate
generate: $(TOOLS)/tools.installed $(TOOLS)/buf.installed ## Generated code from .proto and .sql files
	cd $(IN)/api/vsspb && PATH="$(TOOLS):$$PATH" buf generate
	$(TOOLS)/sqlc generate --file $(IN)/db/sqlc.yaml

.PHONY: verify
verify: $(TOOLS)/tools.installed $(TOOLS)/buf.installed ## Generated code and go.mod files are current, Go files are formatted
	@again=$$(mktemp -d); trap 'rm -rf "$$again"' EXIT; \
	tar -cf - $(GENERATED) | tar -xf - -C "$$again"; \
	grep -rlE '^// Code generated .* DO NOT EDIT\.$$' --include='*.go' "$$again" | xargs rm -f; \
	$(MAKE) --no-print-directory generate IN="$$again"; \
	for dir in $(GENERATED); do diff -ru "$$dir" "$$again/$$dir" || { echo 'generated code is stale: make generate' >&2; exit 1; }; done
	@for mod in $$(find . -name go.mod); do \
		go -C "$$(dirname "$$mod")" mod tidy -diff || { echo "$$mod is stale: go mod tidy" >&2; exit 1; }; done
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not gofmt-clean: $$unformatted" >&2; exit 1; }

.PHONY: interop
interop: ## The released Rust clients against a server of this tree
	tools/interop/run.sh

.PHONY: torture
torture: ## Faults under load, judged by a model of the contract (SEED= and ROUND= replay; LONG=1: 100 crashes, 1e6 operations, long fuzzing)
	go -C tools/torture run . --root $(CURDIR) $(if $(SEED),--seed $(SEED)) $(if $(ROUND),--round $(ROUND)) $(if $(LONG),--operations 1000000 --crashes 100 --stores 16)
	$(if $(LONG),@$(MAKE) --no-print-directory fuzz FUZZTIME=10m)

.PHONY: torture-failover
torture-failover: ## The primary changes under load, by Patroni of the distribution and the newest (14 minutes, Debian 12, root)
	tools/torture/failover/install.sh $(PATRONI)
	go -C tools/torture run . failover --root $(CURDIR) --newer $(PATRONI)/bin/patroni $(ARGS)

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME (30s)
	@grep -rHoE --include='*_test.go' --exclude-dir=tools '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file target; do \
		echo "$$file $${target#func }"; \
		go test -run '^$$' -fuzz "^$${target#func }$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
	done

.PHONY: bench
bench: ## All Go benchmarks
	go test -run '^$$' -bench . -benchmem -timeout 60m ./...

.PHONY: tools
tools: $(TOOLS)/tools.installed $(TOOLS)/buf.installed $(TOOLS)/golangci-lint.installed ## The pinned tools into bin/tools, which the others do when they need one

# A module for each tool whose dependencies would move another's; a changed go.mod builds it again.
INSTALL = GOBIN="$(TOOLS)" CGO_ENABLED=0 go -C $(<D) install tool && touch $@
$(TOOLS)/tools.installed: tools/go.mod tools/go.sum
	$(INSTALL)
$(TOOLS)/%.installed: tools/%/go.mod tools/%/go.sum
	$(INSTALL)
