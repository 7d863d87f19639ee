// Package doctor looks at a host as an exporter would find it, and says what is not as
// it should be and what to do about it: Tetragon and what it lost by its own count, the
// way to each destination, the socket buffers, the folder for state. It subscribes to
// Tetragon's events for a moment, and sends nothing.
package doctor
