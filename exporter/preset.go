package exporter

import "tetracast/datagram"

// Preset is what a receiver takes by default.
type Preset struct {
	Name   string
	Format string
	Port   int // the receiver's own default, or DefaultPort if it has none
	// MaxDatagram is the longest datagram that the receiver reads whole, in bytes.
	// Zero: whatever UDP carries.
	MaxDatagram int
	// Tested: make interop sends to this receiver.
	Tested bool
	// Limit says where MaxDatagram comes from.
	Limit string
}

// presets is the one table of what receivers take; docs/collectors.md shows it.
var presets = []Preset{
	{"filebeat", "json", DefaultPort, 10 << 10, false, "udp input, max_message_size 10KiB: Filebeat 9.2 reference"},
	{"fluent-bit", "json", 5170, 32000, false, "udp input, chunk_size 32 KB: Fluent Bit 4.2 manual"},
	{"fluentd", "json", 5160, 4096, false, "in_udp, message_length_limit 4096: Fluentd 1.x manual"},
	{"graylog", "gelf", 12201, datagram.DefaultFrameDatagram, false, "GELF via UDP takes chunks of 8192 bytes and more (Graylog manual, 2026), but of those a path may lose fragments"},
	{"logstash", "json", DefaultPort, datagram.MaxPayload, false, "udp input plugin 3.3.3, buffer_size 65536: its reference"},
	{"otel", "json", DefaultPort, datagram.MaxPayload, true, "udplog receiver, its buffer of 64 KiB: OpenTelemetry Collector 0.130.0"},
	{"rsyslog", "syslog", 514, 8096, true, "glbl.c, iMaxLine 8096, which the manual rounds to 8k: rsyslog 8.2302.0"},
	{"splunk-sc4s", "syslog", 514, datagram.MaxPayload, false, "syslog-ng inside, log-msg-size 65536: as syslog-ng"},
	{"syslog-ng", "syslog", 514, datagram.MaxPayload, true, "log-msg-size 65536: syslog-ng 3.38.1"},
	{"telegraf", "json", 8094, datagram.MaxPayload, true, "socket_listener, its buffer of 64 KiB: Telegraf 1.37.2"},
	{"tetracast", "frame", DefaultPort, 0, true, "frames fit themselves to the path"},
	{"vector", "json", DefaultPort, datagram.MaxPayload, false, "socket source, max_length 102400: its reference, 2026"},
}

// Presets returns the table, sorted by name.
func Presets() []Preset { return append([]Preset(nil), presets...) }

// PresetNames returns the names, sorted.
func PresetNames() (names []string) {
	for _, p := range presets {
		names = append(names, p.Name)
	}
	return names
}

// LookupPreset returns the preset of that name.
func LookupPreset(name string) (Preset, bool) {
	for _, p := range presets {
		if p.Name == name {
			return p, true
		}
	}
	return Preset{}, false
}

// fill sets what the destination leaves open.
func (p *Preset) fill(d *Destination) {
	setDefault(&d.Format, p.Format)
	setDefault(&d.MaxDatagram, p.MaxDatagram)
}
