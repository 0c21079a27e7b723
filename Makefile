# Sampan: `make` lists the targets. `make demo` and `make test` need nothing but Debian and Go.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CGO_ENABLED := 0
export PATH := $(CURDIR)/bin:$(CURDIR)/bin/tools:$(PATH):/usr/sbin:/sbin

PREFIX   ?= /usr/local
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT   ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X github.com/sampan-project/sampan/core/wire.Release=$(VERSION) -X github.com/sampan-project/sampan/core/wire.Commit=$(COMMIT)
PROGRAMS := sampan sampand sampan-runtime sampan-log-tls sampan-registry sampan-lazy
PLUGINS  := $(patsubst plugins/%/main.go,%,$(wildcard plugins/*/*/main.go))
SHARED   ?= ../shared
# The race detector needs cgo, and what is executed inside containers must be static.
STATIC   := -tags netgo,osusergo -ldflags '-linkmode external -extldflags -static'

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: need-demo build ## Build an image, run it, publish a port, from a Starlark script; leaves nothing behind
	@examples/hello/demo

.PHONY: test
test: need-test build fixtures ## Run every test: unit tests, the real kernel, the real docker client
	go vet ./...
	SAMPAN_BIN=$(CURDIR)/bin go tool gotestsum --format pkgname --format-hide-empty-pkg -- -count=1 -p 1 -timeout 25m ./...

.PHONY: quick
quick: ## Run the unit tests of the rooms that need no root (seconds)
	go test -short ./core/fault/... ./core/wire/... ./core/client/... ./starlark/... ./stdlib/... ./cmd/sampan/... ./tests/house/...

.PHONY: build
build: ## Build the programs to bin/ and the plugins to bin/plugins/
	@mkdir -p bin/plugins
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)
	@set -e; for p in $(PLUGINS); do \
	  echo go build -o bin/plugins/sampan-$${p/\//-} ./plugins/$$p; \
	  go build -trimpath -ldflags '$(LDFLAGS)' -o bin/plugins/sampan-$${p/\//-} ./plugins/$$p; done
	@# A copy starts faster than the file that the linker has just written (docs/performance.md).
	@set -e; for f in $(PROGRAMS:%=bin/%) bin/plugins/*; do cp $$f $$f.copy; mv $$f.copy $$f; done

.PHONY: lint
lint: bin/tools/golangci-lint ## Run gofmt, go vet and golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'))" || { gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'); exit 1; }
	go vet ./...
	golangci-lint run

bin/tools/golangci-lint:
	GOBIN=$(CURDIR)/bin/tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@latest

.PHONY: race
race: need-test ## Run the tests of core/ under the race detector (needs gcc)
	@.ci/need gcc=gcc
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 go test -race -p 1 $(STATIC) ./core/... ./starlark/... ./plugins/... ./cmd/...

.PHONY: generate
generate: ## Make the generated code again (protobuf, system call tables)
	@.ci/need protoc=protobuf-compiler
	go generate ./...

.PHONY: features
features: need-test build fixtures ## Run the scenarios and print which of the 431 checklist items they prove
	SAMPAN_BIN=$(CURDIR)/bin go run ./tests/features -write docs/features.md

.PHONY: compat
compat: need-test build ## Compare every docker command with Debian's dockerd, and write docs/compatibility.md
	SAMPAN_COMPAT=write SAMPAN_BIN=$(CURDIR)/bin go test -count=1 -v -timeout 30m ./tests/compat

.PHONY: conformance
conformance: build ## Run the OCI validation suite with runc and with ours, here and in the virtual machine, write docs/conformance.md
	@.ci/need runc=runc
	vm=$${VM_RUN:-$(SHARED)/lab/vm-run}; [ -x "$$vm" ] || vm=; go run ./tests/conformance -vm "$$vm" -write docs/conformance.md

.PHONY: registry-conformance
registry-conformance: build ## Run the OCI distribution suite with our registry and Debian's, write docs/registry-conformance.md (DISTRIBUTION_SPEC: a checkout of the suite)
	@.ci/need docker-registry=docker-registry
	go run ./tests/distribution -write docs/registry-conformance.md

.PHONY: vm
vm: build fixtures ## Run the scenarios and the runtime's tests on pure cgroup v2, in a virtual machine (VM_RUN names the program that boots it)
	@VM_RUN=$${VM_RUN:-$(SHARED)/lab/vm-run} tests/vm

.PHONY: bench
bench: need-test build ## Print start latency and density beside runc, crun, Docker and Podman (docs/performance.md)
	@tests/bench/runtime
	@tests/bench/start
	@tests/bench/density
	@tests/bench/images

.PHONY: crash
crash: need-test build ## Kill the daemon at every point of what users do, and its driver at every moment, and look whether all is whole again
	SAMPAN_CRASH_ALL=1 SAMPAN_BIN=$(CURDIR)/bin go test -count=1 -v -timeout 2h -run '^TestKilledAtEveryPoint$$|^TestLazyKilledAtEveryPoint$$|^TestDriverDies$$' ./tests/crash
	go test -count=1 -tags crashpoints ./core/cluster/store

SOAK_TIME ?= 1h
.PHONY: soak
soak: need-test build ## Make 10,000 containers; then 16 clients at random for SOAK_TIME (1h) while the daemon is killed; look for what is left
	SAMPAN_SOAK=1 SAMPAN_BIN=$(CURDIR)/bin go test -count=1 -v -timeout 2h -run '^TestSoak$$' ./cmd/sampan-runtime
	SAMPAN_SOAK=1 SAMPAN_BIN=$(CURDIR)/bin go test -count=1 -v -timeout 2h -run '^TestScenarios$$/^growth$$' ./tests/clients
	SAMPAN_SOAK_TIME=$(SOAK_TIME) SAMPAN_SOAK_OPERATIONS=10000 SAMPAN_BIN=$(CURDIR)/bin go test -count=1 -v -timeout 25h -run '^TestStorm$$|^TestNoGrowth$$' ./tests/crash

.PHONY: install
install: build ## Install the programs under PREFIX (/usr/local), and the service for systemd and for sysvinit
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/sampan/plugins $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)/etc/init.d
	install -m 0755 $(PROGRAMS:%=bin/%) $(DESTDIR)$(PREFIX)/bin/
	install -m 0755 bin/plugins/* $(DESTDIR)$(PREFIX)/libexec/sampan/plugins/
	bin/sampan man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/sampan completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/sampan
	bin/sampan completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_sampan
	bin/sampan completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sampan.fish
	sed 's|@BINDIR@|$(PREFIX)/bin|' cmd/sampand/service/sampan.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/sampan.service
	install -m 0644 cmd/sampand/service/sampan.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/
	install -m 0644 cmd/sampand/service/sampan.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/sampan.conf
	sed 's|@BINDIR@|$(PREFIX)/bin|' cmd/sampand/service/sampan.init >$(DESTDIR)/etc/init.d/sampan && chmod 0755 $(DESTDIR)/etc/init.d/sampan

.PHONY: package
package: ## Make a Debian package of VERSION in build/packages, which is a package source then
	rm -rf build/package && $(MAKE) install DESTDIR=$(CURDIR)/build/package PREFIX=/usr
	cmd/sampand/service/package deb build/package $$(echo $(VERSION) | sed 's/^v//; s/^[^0-9]/0~&/') build/packages
	cmd/sampand/service/package index build/packages

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin build

# What a machine must have. Each word is COMMAND=PACKAGE.
.PHONY: need-demo need-test
need-demo:
	@.ci/need busybox=busybox-static curl=curl
need-test:
	@.ci/need busybox=busybox-static conmon=conmon containerd=containerd curl=curl docker=docker.io dockerd=docker.io docker-registry=docker-registry dpkg-deb=dpkg mmdebstrap=mmdebstrap podman=podman skopeo=skopeo sshd=openssh-server systemd-socket-activate=systemd tini-static=tini

# A Debian root filesystem and the packages that the scenarios install into it, made once.
.PHONY: fixtures
fixtures: build/fixtures/done
build/fixtures/done: tests/scenario/fixtures
	tests/scenario/fixtures build/fixtures
	@touch $@
