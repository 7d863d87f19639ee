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
// event and the end of another be read as one. [OpenFile] does the same to what
// a process that was killed left.
//
// # Rotation
//
// A [File] is rotated between two lines, inside Write: it is renamed, a new one is
// opened, the oldest is removed; a few system calls. Compression takes longer, so
// [File.Run] does it beside the writing, which never waits for it. Neither can
// fail a Write: the file grows on, the rotated one stays plain.
//
// A kill at any moment leaves whole files under final names. Before the rename
// and after it there is nothing to mend; a compressed file gets its name when it
// is on the disk, and only then the plain one goes, so a reader may see both for a
// moment, and after a kill until the next start.
package sink
