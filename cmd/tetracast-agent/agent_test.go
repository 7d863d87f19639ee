package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestNoServer: the agent links neither a NATS server nor a client, nor what only
// other commands need.
func TestNoServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, "tetracast/exporter") {
		t.Fatalf("go list says nothing of the exporter: %s", out)
	}
	for _, p := range packages {
		if strings.Contains(p, "nats-io") || p == "tetracast/metadata/natsstore" {
			t.Errorf("the agent holds %s", p)
		}
	}
}

// TestCommands: the agent exports, examines its host, and says what it is.
func TestCommands(t *testing.T) {
	root := newRoot()
	var names []string
	for _, c := range root.Commands() {
		names = append(names, c.Name())
	}
	if !slices.Equal(names, []string{"config", "doctor", "export", "version"}) {
		t.Errorf("the agent has the commands %v", names)
	}
	export, _, err := root.Find([]string{"export"})
	if err != nil || export.Flags().Lookup("udp-destination") == nil {
		t.Errorf("export has no --udp-destination: %v", err)
	}
}
