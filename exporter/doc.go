// Package exporter sends Tetragon's events, and the agent_init that says who
// sends them, to UDP destinations.
//
// It is one pipeline with three doors: [UDPExporter.Send] for Go structs,
// [UDPExporter.SendWire] and [UDPExporter.SendBatch] for protobuf bytes, and
// [UDPExporter.SendJSON] for lines of Tetragon's JSON log. A UDPExporter
// satisfies tetragon.FineGuidanceSensors_GetEventsServer, so that a build of
// Tetragon can hand it to its own event server.
//
// # The worker is a role
//
// Transcoding, packing and sending are done by whoever holds the worker role.
// While nothing waits, that is the caller of Send itself: no goroutine is woken
// for an event. As soon as an event has to wait, because another caller holds
// the role or a destination takes nothing, the caller only copies it into a
// queue bounded in bytes, and the goroutine of [UDPExporter.Run] takes the role
// and empties the queue. No caller ever waits for a destination. What must stay true of
// all this stands in docs/exporter.md.
//
// # The end
//
// A source that ends by itself calls [UDPExporter.Finish], which returns when all that
// was taken was sent. After a signal the context of Run ends, which gives what is
// queued [Config.DrainTimeout].
//
// # The account
//
// Each event that comes in is counted once as seen, and then, for each stream,
// exactly once as excluded, dropped (with its reason), sent or queued. Intake
// counts under the lock; the holder of the role counts for itself and publishes
// its figures when it takes the lock anyway, at a hand-over. So
// [UDPExporter.Account] closes at any moment, also in the middle of a burst.
package exporter
