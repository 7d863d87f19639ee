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
package metadata
