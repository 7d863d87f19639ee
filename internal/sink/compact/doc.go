// Package compact is the sink for a person who watches: one line an event, in
// the manner of "tetra getevents -o compact".
//
//	🚀 process edge-node-01 /usr/bin/curl https://example.com
//	🔌 connect default/web-0 /usr/bin/curl tcp 10.0.0.7:55102 -> 192.0.2.80:443
//	💥 exit    default/web-0 /usr/bin/curl https://example.com 0
//
// First what happened, then where (namespace/pod, or else the node), by which
// binary, and with what: the file, the addresses, the arguments. An action other
// than the plain report stands at the end with the policy that took it.
//
// Where tetra shows only the name of a hook, the line also has its arguments.
//
// # Hostile fields
//
// Every text in an event is chosen by the processes it is about. Whatever is not
// printable in Go's sense, such as the escape character, a line break or a
// character that turns the reading direction, is shown as in a Go string, never
// written to the terminal. Long texts are cut.
package compact
