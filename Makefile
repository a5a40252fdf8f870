# Build, test and check gloci-layout. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The build tags, for everything: no gpgme (it needs cgo), and none of cli's own
# documentation generator.
TAGS := containers_image_openpgp,urfave_cli_no_docs

VERSION ?= $(shell git describe --tags --always --dirty --match 'v*' 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
GO      ?= go
TOOLS   := $(CURDIR)/.tools/bin
PEERS   := $(TOOLS)/registry $(TOOLS)/crane $(TOOLS)/regctl $(TOOLS)/conformance
GOFILES  = $(shell git ls-files --cached --others --exclude-standard -- "*.go")

# -trimpath for all that go compiles, also within tests: else the packages that
# the program shares with its tests, and all tools with each other, are compiled
# once more.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath $(filter-out -trimpath,$(GOFLAGS))
export GOTOOLCHAIN ?= local
GOFLAGS_ALL := -tags=$(TAGS)
LDFLAGS     := -s -w -buildid= -X main.buildVersion=$(VERSION)

# Pinned tools: name, package, version.
golangci-lint := github.com/golangci/golangci-lint/v2/cmd/golangci-lint v2.15.0
gofumpt       := mvdan.cc/gofumpt v0.12.0
registry      := github.com/distribution/distribution/v3/cmd/registry v3.1.2
# Peers, for tests and benchmarks.
crane         := github.com/google/go-containerregistry/cmd/crane v0.22.1
regctl        := github.com/regclient/regclient/cmd/regctl v0.11.7

# The conformance suite of the distribution specification, for tests of serve.
conformance   := github.com/opencontainers/distribution-spec/conformance v0.0.0-20260831232431-97274622c111

# What the move of github.com/containers/image to its new name will use.
SUCCESSOR := go.podman.io/image/v5@v5.41.2

# The lowest Go release without known holes in os.Root and archive/tar.
GO_LEAST := 1.26.5

FUZZTIME   ?= 30s
BENCHFLAGS ?=
TESTFLAGS  ?=
# Of one package: the tests of the program kill it thousands of times.
TESTTIME   ?= 40m
RACE       := ./compress/... ./layout/... ./sync/...

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/gloci-layout
	$(GO) build -buildvcs=auto $(GOFLAGS_ALL) -ldflags '$(LDFLAGS)' -o bin/gloci-layout ./cmd/gloci-layout

.PHONY: install
install: build ## install the program, its manual pages and shell completions below PREFIX
	install -D -m 0755 bin/gloci-layout $(DESTDIR)$(PREFIX)/bin/gloci-layout
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	bin/gloci-layout man --quiet --dir $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/gloci-layout completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gloci-layout
	bin/gloci-layout completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gloci-layout
	bin/gloci-layout completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/gloci-layout.fish

.PHONY: test
test: $(PEERS) ## run all tests
	$(GO) test $(GOFLAGS_ALL) -timeout $(TESTTIME) $(TESTFLAGS) ./...

.PHONY: model
model: ## check the model of the publish protocol (MODEL_N publishers)
	scripts/model.sh

.PHONY: fmt
fmt: $(TOOLS)/gofumpt ## format the code
	@$(TOOLS)/gofumpt -w $(GOFILES)

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## run the linters
	$(TOOLS)/golangci-lint run --build-tags $(TAGS) ./...
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run scripts/*.sh; \
		else echo 'make lint: shellcheck is not installed: shell scripts are not checked' >&2; fi

# Everything but the tests, which `make test` runs.
.PHONY: check
check: check-go check-format check-mod check-vet lint check-generated check-darwin check-race ## check everything that tests do not

.PHONY: check-go
check-go:
	@printf '%s\n' $(GO_LEAST) "$$($(GO) list -m -f '{{.GoVersion}}')" | sort -VC || \
		{ echo 'go.mod: the go line must be $(GO_LEAST) or later' >&2; exit 1; }

.PHONY: check-format
check-format: $(TOOLS)/gofumpt
	@files=$$($(TOOLS)/gofumpt -l $(GOFILES)); \
		if [ -n "$$files" ]; then echo "not formatted (make fmt): $$files" >&2; exit 1; fi

.PHONY: check-mod
check-mod:
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: check-vet
check-vet:
	$(GO) vet $(GOFLAGS_ALL) ./...

.PHONY: generate
generate: ## write the generated part of docs/cli.md
	$(GO) test $(GOFLAGS_ALL) -count=1 -run '^TestReference$$' ./cmd/gloci-layout -args -update

.PHONY: check-generated
check-generated:
	$(GO) test $(GOFLAGS_ALL) -count=1 -run '^TestReference$$' ./cmd/gloci-layout

# Not optimized: that it builds is all that is asked.
.PHONY: check-darwin
check-darwin:
	GOOS=darwin GOARCH=arm64 $(GO) build -gcflags='all=-N -l' $(GOFLAGS_ALL) ./cmd/... ./compress/... ./layout/... ./sync/...

# The race detector needs cgo. What go test would vet, check-vet does.
.PHONY: check-race
check-race: $(TOOLS)/registry $(TOOLS)/conformance
	@if command -v gcc >/dev/null; then \
		CGO_ENABLED=1 $(GO) test $(GOFLAGS_ALL) -vet=off -timeout $(TESTTIME) -race -short $(RACE); \
	else echo 'make check-race: gcc is not installed: the race detector did not run' >&2; fi

# Builds and tests sync in a copy where the import of containers/image has the
# name under which that library goes on.
.PHONY: check-successor
check-successor: $(TOOLS)/registry ## build and test sync with the successor of containers/image
	copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; \
	git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- | tar -x -C "$$copy"; \
	export GLOCI_REGISTRY=$(TOOLS)/registry; \
	cd "$$copy"; \
	grep -rl --include='*.go' 'github.com/containers/image/v5' . | \
		xargs sed -i 's,github.com/containers/image/v5,$(firstword $(subst @, ,$(SUCCESSOR))),'; \
	$(GO) mod edit -droprequire=github.com/containers/image/v5 -require=$(SUCCESSOR); \
	$(GO) mod tidy; \
	$(GO) build $(GOFLAGS_ALL) ./...; \
	$(GO) test $(GOFLAGS_ALL) $(TESTFLAGS) ./sync/...

.PHONY: cover
cover: $(PEERS) ## run all tests and write cover.out and cover.html
	$(GO) test $(GOFLAGS_ALL) -coverpkg=./... -coverprofile=cover.out ./...
	$(GO) tool cover -html=cover.out -o cover.html
	$(GO) tool cover -func=cover.out | tail -n 1

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME
	for package in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$package"/*_test.go); do \
			echo "$$package $$target"; \
			$(GO) test $(GOFLAGS_ALL) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package"; \
		done; \
	done

.PHONY: bench
bench: build $(PEERS) ## measure against hash passes, tar and other tools (BENCHFLAGS)
	$(GO) run $(GOFLAGS_ALL) ./scripts/bench $(BENCHFLAGS)

# Needs chromium, node and npm; what it takes from npm is pinned by a lock file.
.PHONY: page
page: ## open the pages of serve and report in Chromium
	cd sync/serve/web/browsertest && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	GLOCI_BROWSER=1 $(GO) test $(GOFLAGS_ALL) -count=1 -run '^TestBrowser$$' -v ./sync/serve/web

.PHONY: screenshots
screenshots: ## take the pictures of docs/pages anew
	GLOCI_SHOTS=$(CURDIR)/docs/pages $(MAKE) page

.PHONY: demo
demo: build $(TOOLS)/registry ## the main job on real input, onto a registry that it starts itself
	scripts/demo.sh

.PHONY: reproduce
reproduce: ## build twice in different places and compare
	scripts/reproduce.sh

.PHONY: tools
tools: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt $(PEERS) ## install the pinned tools below .tools

# A tool that PATH has in the pinned version is used as it is. The stamp carries
# the version, so that a new pin installs anew.
define tool
$(TOOLS)/$(1): $(TOOLS)/.$(1)-$(lastword $($(1)))
$(TOOLS)/.$(1)-$(lastword $($(1))):
	@mkdir -p $(TOOLS); rm -f $(TOOLS)/$(1) $(TOOLS)/.$(1)-*
	@found=$$$$(command -v $(1) || true); \
	if [ -n "$$$$found" ] && $(GO) version -m "$$$$found" 2>/dev/null | grep -q "mod	.*	$(lastword $($(1)))	"; then \
		ln -s "$$$$found" $(TOOLS)/$(1); \
	else \
		echo "installing $(firstword $($(1))) $(lastword $($(1)))"; \
		GOFLAGS=-trimpath GOBIN=$(TOOLS) $(GO) install $(firstword $($(1)))@$(lastword $($(1))); \
	fi
	@touch $$@
endef
$(foreach t,golangci-lint gofumpt registry crane regctl conformance,$(eval $(call tool,$(t))))

.PHONY: clean
clean: ## remove what was built
	rm -rf bin cover.out cover.html


