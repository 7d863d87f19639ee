# What a developer types. .ci/run is what has to pass.
.PHONY: check test race bench bench-gate bench-metadata-page fuzz kills restarts torture soak interop package update

PEERS ?= $(HOME)/.cache/tetracast-peers

check: ## everything that CI runs
	.ci/run

test:
	go test ./...

race:
	go test -race ./...

bench: ## each room beside its rivals and its floor
	go test -run xxx -bench . ./datagram ./metadata ./transcode ./internal/udp ./internal/source ./internal/collector
	go run ./cmd/tetracast bench transcode
	go run ./cmd/tetracast bench udp
	go run ./cmd/tetracast bench formats
	go run ./cmd/tetracast bench frame
	go run ./cmd/tetracast bench collect
	go run ./cmd/tetracast bench pipeline --peers $(PEERS)
	go run ./cmd/tetracast bench metadata

bench-gate: ## figures that must not grow, counted by valgrind
	TETRACAST_GATE=1 go test -count=1 ./exporter ./transcode ./internal/bench -run Instructions -v

bench-metadata-page: ## docs/metadata-performance.md from a run on this machine, with instructions, in some minutes
	go build -o tetracast ./cmd/tetracast
	./tetracast bench metadata --valgrind --page docs/metadata-performance.md

FUZZTIME ?= 1m
fuzz: ## every parser for FUZZTIME
	@for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep ^Fuzz); do \
	    echo "$$package $$target"; \
	    go test -run xxx -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -parallel 2 $$package || exit 1; \
	  done; \
	done

kills: ## kill -9 in the middle of writing the metadata file, 200 times
	TETRACAST_KILLS=200 go test -count=1 ./metadata -run Killed -v

torture: ## the file source for five minutes: rotation, compression, retention, kill -9, a slow destination; and many random worlds
	TETRACAST_TORTURE=5m go test -count=1 ./cmd/tetracast -run TestFileTorture -v -timeout 10m
	TETRACAST_WORLDS=2000 go test -count=1 ./internal/source/filetail -run TestWorld -timeout 15m

restarts: ## export ended fifty times by SIGKILL and fifty in order, under full load, held against a witness
	TETRACAST_RESTARTS=50 go test -count=1 ./cmd/tetracast -run 'TestKills|TestRestarts' -v -timeout 20m

soak: ## the long runs: ten minutes with faults coming and going, millions of datagrams and of junk
	TETRACAST_SOAK=10m go test ./cmd/tetracast -run TestSoak -v -timeout 15m
	TETRACAST_FLOOD=1000000 go test ./internal/collector -run Flood -v -timeout 15m
	go run ./cmd/tetracast bench udp --rounds 1 --datagrams 10000000
	go run ./cmd/tetracast bench collect --rounds 1 --events 10000000

interop: ## with collectors of other projects, which it installs below PEERS
	test/interop/peers.sh $(PEERS)
	cd test/interop && TETRACAST_PEERS=$(PEERS) TETRACAST_REQUIRE_PEERS="rsyslog syslog-ng telegraf telegraf-syslog graygelf otel otel-syslog" go test -v ./...

package: ## .deb, .rpm, image, bill of materials and checksums, into dist
	cd deploy/package && go run . $(if $(VERSION),-version $(VERSION)) -out ../../dist

update: ## write the golden files anew, and the chart's copies of rules and dashboards
	go test ./cmd/tetracast ./internal/metrics ./internal/sink/compact -update
	cd test/deploy && go test -count=1 . -update
