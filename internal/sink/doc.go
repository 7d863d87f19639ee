// Package sink is where a collector's events end: standard output, a file, or
// any other place that takes lines. A sink that needs a heavy library is a
// package below this one.
//
// A [Sink] gets a [Batch] of whole lines and says how many of them it took.
// There is no flush: a line that Write counts has left the process, so the
// collector's queue is the only buffer before the sink, and its account can
// tell queued from delivered without asking.
//
// # A disk that fills up
//
// A write may end in the middle of a line. [Lines] then cuts the file back to
// the end of the last whole line, which counts as taken, and goes on from there
// when there is room again. Where nothing can be cut back, as in a pipe, the
// next write starts with a newline. In neither case can the beginning of one
// event and the end of another be read as one.
package sink
