// Package rivals sets the transcoder beside decoders that the product does not
// want among its dependencies, so it is a module of its own:
//
//	go test -bench . -benchtime 3x
package rivals
