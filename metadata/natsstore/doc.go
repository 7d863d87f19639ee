// Package natsstore is a metadata store that several processes share: a key-value
// bucket of NATS JetStream (NATS ADR-8).
//
// [New] makes a [Store] over servers that somebody else runs, or over a [Server]
// in this process. Such a server listens on no port, unless it has peers: then the
// servers of all of them are one cluster, which keeps the bucket on three of them,
// so that it outlives the death of one.
//
// Nobody should have to wait for such a store. A call fails at once while there is
// no connection, and after two seconds at the latest; [metadata.Directory] tries
// again, and counts.
package natsstore
