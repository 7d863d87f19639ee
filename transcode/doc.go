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
// [Scan] reads, without transcoding, the few fields that decide an event's way.
package transcode
