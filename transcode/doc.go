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
// Time for an event of the recorded corpus, each recording once through a new
// transcoder, one core of an AMD EPYC (family 26) with Go 1.26
// (BenchmarkTranscode):
//
//	recording            protojson   without memo    with memo    Scan
//	a  default flags      10,740 ns     584 ns 1/18    518 ns 1/21   198 ns
//	b  all metadata       92,290 ns   4,480 ns 1/21  1,760 ns 1/52   381 ns
//	c  short processes     3,840 ns     181 ns 1/21    204 ns 1/19    92 ns
//	d  odd names           7,250 ns     407 ns 1/18    442 ns 1/16   151 ns
//
// The recordings c and d are short, of 694 and 558 events: what the memo costs to
// fill is most of its figure there. Compiling the descriptor takes 78 us and
// 68 KB (BenchmarkCompile).
//
// [Scan] reads, without transcoding, the few fields that decide an event's way.
package transcode
