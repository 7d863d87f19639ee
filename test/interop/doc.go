// Package interop sends the built-in recording to collectors of other projects,
// and lets them send to ours. It is a module of its own, so that what it needs is
// no dependency of tetracast.
//
// The peers are programs that peers.sh installs into one folder, which the
// environment names in TETRACAST_PEERS. A peer that is not there is skipped, or
// with TETRACAST_REQUIRE_PEERS set to a list of names, such as "rsyslog", a
// failure. Each peer runs with its configuration from examples/, with another port
// and other files in it, on loopback, and is stopped by its process id.
package interop
