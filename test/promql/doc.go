// Package promql has the parser of Prometheus read each query of the dashboards and
// rules, and looks whether each metric that they name is served. The parser is heavy,
// so this is a module of its own:
//
//	go test ./...
package promql
