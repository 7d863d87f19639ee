# What a developer types. .ci/run is what has to pass.
.PHONY: check test race bench fuzz update

check: ## everything that CI runs
	.ci/run

test:
	go test ./...

race:
	go test -race ./...

bench: ## each room beside its rivals and its floor
	go test -run xxx -bench . ./datagram ./metadata ./transcode ./internal/udp ./internal/source ./internal/collector
	go test -run xxx -bench Export -benchtime 5x ./cmd/tetracast

FUZZTIME ?= 1m
fuzz: ## every parser for FUZZTIME
	@for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep ^Fuzz); do \
	    echo "$$package $$target"; \
	    go test -run xxx -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -parallel 2 $$package || exit 1; \
	  done; \
	done

update: ## write the golden files anew
	go test ./cmd/tetracast ./internal/sink/compact -update
