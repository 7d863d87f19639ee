// Package transcode turns Tetragon's events from protobuf bytes into JSON,
// without Go structs in between.
//
// [Compile] makes tables of a message descriptor, once; a [Transcoder] then
// interprets them over the bytes of each message. The JSON equals, byte for byte
// but for its random spaces, what protojson writes with UseProtoNames:
//
//   - fields in the order of the descriptor, under their proto names, without
//     those that hold zero values;
//   - 64-bit integers as strings, enums by name (by number if it has none),
//     bytes in standard base64, maps sorted by key;
//   - Timestamp, Duration and the wrapper types in their own forms.
//
// Where protojson refuses invalid UTF-8, each maximal invalid run becomes one
// U+FFFD and is counted, so that no event is lost for it.
//
// There are two forms of the interpreter. The fast one (run.go) emits fields as
// they come and relies on the order that Go's marshaller writes; as soon as a
// message does not keep it, the whole message goes through the careful one
// (careful.go), which collects the fields of each message, merges them as
// protobuf prescribes, and is its readable twin in the tests.
//
// A third part, the memo (memo.go), keeps the JSON of sub-messages that came
// twice: the processes of events, and their capabilities and namespaces, come
// again byte for byte. [Options.CacheBytes] bounds it.
//
// Processor time for an event of the recorded corpus, each recording once with a
// new transcoder, medians of nine interleaved rounds on one core of an AMD EPYC
// (family 26) with Go 1.26 (tetracast bench transcode):
//
//	recording            protojson    without memo     with memo    Scan
//	a  default flags      12,030 ns     510 ns 1/24    380 ns 1/32   174 ns
//	b  all metadata      103,540 ns   3,760 ns 1/28  1,460 ns 1/71   816 ns
//	c  short processes     4,290 ns     148 ns 1/29    139 ns 1/31    70 ns
//	d  odd names           7,780 ns     327 ns 1/24    258 ns 1/30   111 ns
//
// Copying b's output takes 950 ns and one look at its input 390 ns, for 118 MB of
// JSON are in no cache: most of what is left there is memory. Code written by
// hand for process_exec and process_kprobe takes three times as long as the
// transcoder without its memo. Compiling the descriptor takes some 100 us and 100
// KB; a process has its first event out 5 ms after its start.
//
// What was tried and left out:
//
//   - A hash over all bytes of a piece instead of its ends: 7 to 10 % slower on b.
//   - Keeping a piece at its second sight only: the missed finds cost more than
//     the stores that it saves.
//   - More memory than 4 MiB: from 16 to 256 MiB 0.7 % more is found in b, and
//     nothing in a.
//   - Profile-guided optimisation: 2 to 4 %.
//   - Strings 32 bytes at a time with the standard library's experimental SIMD
//     package (wide_simd.go, AVX2): without the memo 5 % on a, nothing measurable on
//     the others, whose strings are short or found in the memo. Ten would make it
//     the default; so it is built with GOEXPERIMENT=simd only, and tested with it.
//
// [Scan] reads, without transcoding, the few fields that decide an event's way.
package transcode
