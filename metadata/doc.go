// Package metadata makes the agent_init event, by which an agent says who it
// is: the first datagram of every stream, repeated at an interval and whenever
// one of its facts changes.
//
// # Made once, sent often
//
// An agent_init holds nothing that changes from one export to the next. So a
// [Record] is rendered once, and every export sends the same bytes: no
// hostname call, no marshalling, no allocation. @timestamp is the time the
// record was made, hence (hostname, pid, @timestamp) names one start of one
// agent, and a receiver may drop repeats by comparing bytes. A new record means
// a changed fact.
//
// [Cache] holds the current record of one destination. If a record cannot be
// made, the cache makes a plain event for that one export, counts it, and tries
// again at the next.
//
// # Kept for the next process
//
// [Leave] puts into a [Store] what Tetragon said of itself, and [Recall] brings it up
// to date for the process after this one, which so announces itself before Tetragon
// answers. [MappedStore] is such a store in a mapped file, [MemoryStore] one in memory;
// between instances records go by their digest ([RecordKey]) and agents by the id of
// their stream ([StreamKey]).
package metadata
