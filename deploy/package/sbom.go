package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

// bom is a bill of materials in CycloneDX 1.6, as far as a Go binary can fill it
// (https://cyclonedx.org/docs/1.6/json/).
type bom struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp time.Time `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// application describes a binary.
func (r *release) application(name, path string) (component, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return component{}, err
	}
	sum := sha256.Sum256(binary)
	return component{
		Ref: name, Type: "application", Name: name, Version: r.version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}, nil
}

// writeSBOM writes what the linker put into the binaries: exactly the modules that
// are in tetracast, and the Go release whose standard library it holds. The agent,
// a component of its own, has no other ones.
func (r *release) writeSBOM() error {
	whole, err := r.application("tetracast", r.path)
	if err != nil {
		return err
	}
	agent, err := r.application("tetracast-agent", r.agent)
	if err != nil {
		return err
	}
	for _, setting := range r.info.Settings {
		whole.Properties = append(whole.Properties, property{"go:build:" + setting.Key, setting.Value})
	}
	stdlib := module("stdlib", strings.TrimPrefix(r.info.GoVersion, "go"), "")
	b := bom{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata:     metadata{Timestamp: r.time, Component: whole},
		Components:   []component{agent, stdlib},
		Dependencies: []dependency{{Ref: whole.Ref, DependsOn: []string{stdlib.Ref}}},
	}
	for _, dep := range r.info.Deps {
		used := replaced(dep)
		if used.Version == "" {
			return fmt.Errorf("%s is replaced by a folder: no bill of materials can name it", dep.Path)
		}
		c := module(used.Path, used.Version, used.Sum)
		b.Components = append(b.Components, c)
		b.Dependencies[0].DependsOn = append(b.Dependencies[0].DependsOn, c.Ref)
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.sbom(), append(text, '\n'), 0o644)
}

// module is a Go module by its package URL. Its sum, as in go.sum, is no digest of
// a file, so it stands among the properties.
func module(path, version, sum string) component {
	url := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	c := component{Ref: url, Type: "library", Name: path, Version: version, PURL: url}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}

func replaced(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}
