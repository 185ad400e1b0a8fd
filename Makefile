# The targets of this file are part of the project's stable surface.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build image test race demo bench bench-go bench-kube pgo lint generate deps deps-generate deps-bench deps-browser deps-vm vm test-vm test-kube test-containers test-cluster clean clean-vm clean-kube clean-containers

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w $(if $(VERSION),-X culvert/internal/version.release=$(VERSION))
# Developer tools are pinned in a module of their own.
TOOL := $(GO) tool -modfile=tools/go.mod
# What needs root gets it: nothing when make runs as root, sudo otherwise.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E env PATH="$$PATH")
EXEC := $(if $(SUDO),-exec '$(SUDO)')
PACKAGES ?= ./...
TESTFLAGS ?=
BENCHFLAGS ?=
# What the image is called: its version, and the name that deploy/culvert.yaml has.
IMAGE ?= localhost/culvert
IMAGEFILE ?= bin/culvert-image.tar
VMPACKAGES ?= ./encap ./dataplane/xsk ./internal/e2e ./bench/forward ./bench/pktgen
VMTAGS ?= vm
VMFLAGS ?=
KUBEPACKAGES ?= ./internal/kubetest ./ctrl/kube/... ./internal/e2e
# End-to-end tests that are about what is on the wire, and so about no goroutine that
# others do not start, or that measure: under the race detector all of them would take a
# quarter of an hour.
RACESKIP := RestartGap|OnTheWire|AsTheKernels|ExchangeEverything|BothFamilies|DualStack|BigFrames|UDPSegment|Traceroute|PathMTU|Jumbo|FragmentsIn|ErrorsPass|NarrowPath|OuterFragments|LabCommands|EveryPair|Flood|WriteUp|Encapsulations|Stacked|Routed|IPv6Alone|InContainer
KUBEFLAGS ?=
KUBEPROGRAMS := etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
CLUSTERFLAGS ?=
CONTAINERFLAGS ?=

# Every program under cmd, into bin/; culvertd with cmd/culvertd/default.pgo.
build:
	mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# An OCI archive of the three programs of a node, from scratch and without a registry: the same
# bytes from the same commit and Go. 'ctr -n k8s.io image import bin/culvert-image.tar' on each node.
image: build
	$(GO) run ./internal/ociimage/mkimage -o $(IMAGEFILE) -name $(IMAGE):$(or $(VERSION),devel),$(IMAGE):latest \
		-version '$(or $(VERSION),devel)' -created "$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 0)}" \
		bin/culvertd bin/culvert bin/culvert-cni

# All tests, those in namespaces of their own included. One package at a time:
# several measure. Compiling for speed takes longer than it would save.
test: deps deps-bench deps-browser
	$(GO) test -pgo=off -p 1 -timeout 20m $(EXEC) $(TESTFLAGS) $(PACKAGES)

# The same under the race detector.
race: deps deps-bench deps-browser
	scripts/need gcc:gcc /usr/include/stdlib.h:libc6-dev
	packages=$$($(GO) list $(PACKAGES)); \
	$(GO) test -pgo=off -p 1 -race -timeout 30m $(EXEC) $(TESTFLAGS) $$(grep -v /internal/e2e$$ <<< "$$packages" || true); \
	if grep -q /internal/e2e$$ <<< "$$packages"; then \
		$(GO) test -pgo=off -race -timeout 30m $(EXEC) $(TESTFLAGS) -skip '$(RACESKIP)' ./internal/e2e; fi

# Tests that need what this machine's kernel lacks (kernel IPIP, AF_XDP zero copy),
# in a virtual machine: docs/vm-tests.md. VMFLAGS='-v -run TestVMIPIP' chooses.
test-vm: vm
	$(GO) test -pgo=off -tags vmhost -count=1 -timeout 5m $(EXEC) ./internal/vm
	CGO_ENABLED=0 $(GO) test -pgo=off -tags $(VMTAGS) -p 1 -count=1 -timeout 9m -run '^TestVM' \
		-exec '$(SUDO) $(CURDIR)/bin/vm/vmexec' $(VMFLAGS) $(VMPACKAGES)

# Tests against a real etcd and API server, which are built the first time:
# docs/kube-tests.md. KUBEFLAGS='-v -run TestKubeServer' chooses.
test-kube: deps
	scripts/kube-binaries > /dev/null
	KUBETEST_BIN=$$(scripts/kube-binaries) $(GO) test -pgo=off -tags kube -p 1 -count=1 -timeout 15m -run '^TestKube' \
		$(EXEC) $(KUBEFLAGS) $(KUBEPACKAGES)

# Tests with cnitool, the CNI project's plugins, containerd and real containers, which
# are fetched the first time: docs/cni.md. CONTAINERFLAGS='-v -run TestContainersChain' chooses.
test-containers: deps
	scripts/container-binaries > /dev/null
	CONTAINER_BIN=$$(scripts/container-binaries) $(GO) test -pgo=off -tags containers -count=1 -timeout 10m -run '^TestContainers' \
		$(EXEC) $(CONTAINERFLAGS) ./internal/containers

# A real Kubernetes cluster of two nodes with Culvert installed as deploy/ says; its
# programs are built the first time: docs/cluster-tests.md.
test-cluster: deps
	scripts/container-binaries > /dev/null
	scripts/kube-binaries $(KUBEPROGRAMS) > /dev/null
	CONTAINER_BIN=$$(scripts/container-binaries) KUBETEST_BIN=$$(scripts/kube-binaries $(KUBEPROGRAMS)) \
		$(GO) test -pgo=off -tags cluster -count=1 -timeout 15m -run '^TestCluster' $(EXEC) $(CLUSTERFLAGS) ./internal/cluster

# What the virtual machine is made of: the kernel, kept in ~/.cache/culvert, and
# programs.
vm: deps-vm
	mkdir -p bin/vm
	scripts/vm-kernel > bin/vm/kernel
	CGO_ENABLED=0 $(GO) build -pgo=off -o bin/vm/ ./cmd/culvertd ./cmd/culvert ./cmd/culvert-cni ./internal/vm/vminit ./internal/vm/vmexec

# Two nodes and their pods in namespaces, traffic between them, what happened.
demo: deps build
	$(SUDO) bin/culvert lab demo

# Culvert beside the kernel and Open vSwitch on AF_XDP, in turn, on this machine: a
# quarter of an hour, or BENCHFLAGS='--quick'. Results and a page of charts in bench/out.
bench: deps-bench build
	$(SUDO) bin/culvert-bench run $(BENCHFLAGS)

# Benchmarks in memory, compiled as culvertd is; results in bench/out.
bench-go:
	mkdir -p bench/out
	$(GO) test -pgo=$(CURDIR)/cmd/culvertd/default.pgo -run '^$$' -bench . -benchmem $(TESTFLAGS) $(PACKAGES) | tee bench/out/go.txt

# A cluster of 5,000 nodes at a real API server: from objects to tables, some minutes.
bench-kube: deps
	scripts/kube-binaries > /dev/null
	KUBETEST_BIN=$$(scripts/kube-binaries) $(GO) test -pgo=off -tags kube -v -count=1 -timeout 30m $(EXEC) \
		-run '^TestKubeScale$$' ./internal/e2e -args -scale 5000 -flap 1m $(BENCHFLAGS)

# What the compiler is told of culvertd's hot path: where the pipeline's benchmark
# spends its time. To be made anew when that has changed much, on a quiet machine.
pgo:
	mkdir -p bench/out
	$(GO) test -run '^$$' -bench 'Pipeline/.*/.*/.*/flows=100000?$$/workers=1' -benchtime 2s \
		-o bench/out/pipeline.test -cpuprofile bench/out/pipeline.prof ./dataplane
	$(GO) tool pprof -proto bench/out/pipeline.test bench/out/pipeline.prof > cmd/culvertd/default.pgo

lint:
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(TOOL) golangci-lint run ./...

# What is generated and committed: BPF objects and reference pages.
generate: deps-generate
	$(GO) generate ./...

# Debian packages that tests and the demo use; only missing ones are installed.
deps:
	scripts/need ip:iproute2 ping:iputils-ping ethtool:ethtool iperf3:iperf3 tcpdump:tcpdump traceroute:traceroute nft:nftables

deps-generate:
	scripts/need clang:clang llvm-strip:llvm /usr/include/bpf/bpf_helpers.h:libbpf-dev

deps-bench: deps
	scripts/need ovs-vsctl:openvswitch-switch

# A test looks at the benchmark's page of charts.
deps-browser:
	scripts/need chromium:chromium

# QEMU boots the machine, the others unpack its kernel.
deps-vm: deps
	scripts/need qemu-system-x86_64:qemu-system-x86 depmod:kmod xz:xz-utils ldd:libc-bin
	@[ -c /dev/net/tun ] || { echo "the virtual machine's NICs hang on TAP devices: /dev/net/tun is missing (modprobe tun)" >&2; exit 1; }

clean:
	rm -rf bin bench/out

# The kernel as well, which is fetched again when it is needed.
clean-vm: clean
	rm -rf "$${CULVERT_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/culvert}/vm"

# etcd and the API server as well, which are built again.
clean-kube: clean
	rm -rf "$${CULVERT_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/culvert}/kube"

# containerd and the rest as well, which are fetched again.
clean-containers: clean
	rm -rf "$${CULVERT_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/culvert}/containers"
