// Package deploy holds the tests of deploy/helm: our chart, and the values for
// Tetragon's own, rendered with Helm's engine, decoded strictly into the types of
// the Kubernetes API, and held to what they have to be. It is a module of its own
// because of all that Helm and Kubernetes bring.
package deploy
