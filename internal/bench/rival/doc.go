// Package rival holds what tetracast export is measured against, each as a process
// of its own that does the same work:
//
//   - Typed is what everybody writes first: grpc-go's typed client, protojson, a
//     Write for each event.
//   - Relay is one goroutine that only reads the stream and writes each message as it
//     came: less than that nobody can do who hands on single events.
//   - Floor receives as Relay does, compresses groups of events once and sends them
//     the cheapest way that the kernel has: less than that nobody can do who sends
//     compressed frames.
//
// A rival writes how many events it has seen to a file on SIGUSR1, as export
// writes its account.
package rival
