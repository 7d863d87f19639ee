package exporter

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
)

// Destination is where a stream goes.
type Destination struct {
	// Address is HOST or HOST:PORT. A name that does not resolve is tried again
	// until it does; meanwhile events wait in the queue.
	Address string
	// Preset names a receiver, whose format, port and limits are taken where
	// Format, the address or MaxDatagram leave them open. Empty: none.
	Preset string
	// Format is the format of the datagrams, one of Formats. Empty: json.
	Format string
	// MaxDatagram is the most bytes of payload a datagram may have. An event that
	// needs more is sent in several, in gelf and frame, or in a shorter form that
	// says what it lacks. Zero: 65,507; in frame and gelf 1,232, which no path
	// cuts into IP fragments, and on loopback 65,507.
	MaxDatagram int
	// MaxShared is the most bytes of payload where several events share a datagram,
	// in ndjson. Zero: MaxDatagram, or if that is zero too 1,232, and on loopback
	// 65,507.
	MaxShared int
	// NoFragments bounds MaxDatagram, a preset's too, to 1,232 in every format, and
	// on loopback to 65,507, so that no path cuts a datagram into IP fragments.
	NoFragments bool
	// JSONSequence adds the event's place in the stream as the last member of each
	// event in json and ndjson.
	JSONSequence bool
	// GELF and Syslog say more about those formats. Stream and MaxDatagram are
	// filled in; so are the host's name and the process id, where empty. GELF.MaxField
	// is datagram.MaxLuceneField where it is 0, and no bound where it is negative.
	GELF   datagram.GELFConfig
	Syslog datagram.SyslogConfig
	// LocalTime writes the time of RFC 3164 in the zone of this host, where Syslog.Zone
	// names none.
	LocalTime bool
	// QueueBytes bounds the datagrams that wait for this destination alone, while
	// it does not take them and others do. Zero: DefaultDestinationQueueBytes.
	QueueBytes int
	// DropOldest makes room in that queue by dropping what waited longest. Without
	// it the newest is dropped.
	DropOldest bool
	// RouteMTU makes frames as long as the route to the destination takes, up to
	// MaxDatagram, if that is given.
	RouteMTU bool
	// Compression, Dictionary and Key are those of frames. FrameJSON sends events
	// in frames as JSON instead of protobuf.
	Compression datagram.Compression
	Dictionary  *datagram.Dictionary
	Key         *datagram.Key
	FrameJSON   bool
	// MetadataCompression is that of agent_init: none, or in gelf gzip or zlib, in
	// frame s2 or zstd. Empty: that of the events.
	MetadataCompression string
	// UDPBufferSize is the send buffer to ask the kernel for, in bytes. Zero:
	// DefaultUDPBufferSize.
	UDPBufferSize int
	// GSO is auto, on or off: whether runs of frames of one size go to the kernel
	// as one message. Other formats never do. Empty: auto, which is off where the
	// kernel or a device's queue is known to lose datagrams by it.
	GSO string
	// ZeroCopy is auto, on or off: whether the kernel reads large messages from
	// our memory instead of copying them. Empty: auto, which is off, because it
	// was not measured to pay.
	ZeroCopy string
	// RotateSourcePort opens a new socket so often, so that a fleet's streams
	// spread over the receiver's sockets anew, and a connection table on the way that
	// leads to a receiver that is gone does so no longer. Zero: only after trouble, an
	// ICMP answer or an error of this host.
	RotateSourcePort time.Duration
	// MaxBytesPerSecond and MaxDatagramsPerSecond bound the rate; events beyond
	// it wait in the queue. Zero: no bound.
	MaxBytesPerSecond, MaxDatagramsPerSecond int
}

// Formats are the formats that a destination may have.
var Formats = []string{"json", "ndjson", "gelf", "syslog", "frame"}

func (d Destination) withDefaults() (Destination, error) {
	port := DefaultPort
	if d.Preset != "" {
		p, ok := LookupPreset(d.Preset)
		if !ok {
			return d, fmt.Errorf("exporter: destination %q: unknown preset %q, want one of %s", d.Address, d.Preset, strings.Join(PresetNames(), ", "))
		}
		p.fill(&d)
		port = p.Port
	}
	setDefault(&d.Format, "json")
	if !slices.Contains(Formats, d.Format) {
		return d, fmt.Errorf("exporter: destination %q: unknown format %q, want %s", d.Address, d.Format, strings.Join(Formats, " or "))
	}
	if err := d.checkMetadataCompression(); err != nil {
		return d, err
	}
	if d.MaxDatagram < 0 || d.MaxDatagram > datagram.MaxPayload {
		return d, fmt.Errorf("exporter: destination %q: datagrams of %d bytes, want 1 to %d", d.Address, d.MaxDatagram, datagram.MaxPayload)
	}
	for _, s := range []string{d.GSO, d.ZeroCopy} {
		if _, ok := switches[s]; !ok {
			return d, fmt.Errorf("exporter: destination %q: offload %q, want auto, on or off", d.Address, s)
		}
	}
	if d.MaxBytesPerSecond < 0 || d.MaxDatagramsPerSecond < 0 {
		return d, fmt.Errorf("exporter: destination %q: %d bytes and %d datagrams a second, want positive numbers", d.Address, d.MaxBytesPerSecond, d.MaxDatagramsPerSecond)
	}
	if d.MaxShared < 0 || d.QueueBytes < 0 {
		return d, fmt.Errorf("exporter: destination %q: shared datagrams of %d bytes and a queue of %d, want positive numbers", d.Address, d.MaxShared, d.QueueBytes)
	}
	if d.UDPBufferSize < 0 {
		return d, fmt.Errorf("exporter: destination %q: send buffer of %d bytes, want a positive number", d.Address, d.UDPBufferSize)
	}
	setDefault(&d.UDPBufferSize, DefaultUDPBufferSize)
	host, given, err := splitHostPort(d.Address, port)
	if err != nil {
		return d, err
	}
	d.Address = net.JoinHostPort(host, strconv.Itoa(int(given)))
	setDefault(&d.QueueBytes, DefaultDestinationQueueBytes)
	d.setLimits()
	return d, nil
}

// checkMetadataCompression refuses what a receiver of the format could not undo.
func (d *Destination) checkMetadataCompression() (err error) {
	switch {
	case d.MetadataCompression == "":
	case d.Format == "gelf":
		_, err = datagram.ParseGELFCompression(d.MetadataCompression)
	case d.Format == "frame":
		_, err = datagram.ParseCompression(d.MetadataCompression)
	case d.MetadataCompression != "none":
		err = fmt.Errorf("%q, but no receiver of %s undoes a compression; those of gelf undo gzip and zlib, those of frame s2 and zstd", d.MetadataCompression, d.Format)
	}
	if err != nil {
		return fmt.Errorf("exporter: destination %q: metadata compression: %w", d.Address, err)
	}
	return nil
}

// splitHostPort reads HOST, HOST:PORT, [IPV6]:PORT and a bare IPv6 address.
func splitHostPort(address string, defaultPort int) (host string, port uint16, err error) {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.String(), uint16(defaultPort), nil
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		// No port, or no address at all: let the second look decide.
		if host, text, err = net.SplitHostPort(address + ":" + strconv.Itoa(defaultPort)); err != nil {
			return "", 0, fmt.Errorf("exporter: destination %q: want host:port: %w", address, err)
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if host == "" || err != nil || n == 0 {
		return "", 0, fmt.Errorf("exporter: destination %q: want host:port with a port from 1 to 65535", address)
	}
	return host, uint16(n), nil
}

var switches = map[string]udp.Switch{"": udp.Auto, "auto": udp.Auto, "on": udp.On, "off": udp.Off}

// ParseDestination reads [FORMAT://]HOST[:PORT][?OPTION=VALUE&...], or the same
// with a preset's name in the place of the format. What the text does not say is
// as in base, then as the preset has it, then the default. The options have the
// names of [Options].
func ParseDestination(text string, base Destination) (Destination, error) {
	d := base
	address := text
	if name, rest, ok := strings.Cut(text, "://"); ok {
		address = rest
		if _, isPreset := LookupPreset(name); isPreset {
			d.Preset = name
		} else {
			d.Format = name
		}
	}
	address, query, _ := strings.Cut(address, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return d, fmt.Errorf("exporter: destination %q: %w", text, err)
	}
	for name, all := range values {
		set, ok := options[name]
		if !ok {
			return d, fmt.Errorf("exporter: destination %q: unknown option %q, want one of %s", text, name, strings.Join(Options(), ", "))
		}
		if err := set(&d, all[len(all)-1]); err != nil {
			return d, fmt.Errorf("exporter: destination %q: option %s: %w", text, name, err)
		}
	}
	d.Address = address
	return d.withDefaults()
}

// Options are the names of what a destination's text can say after a question
// mark, sorted.
func Options() []string { return slices.Sorted(maps.Keys(options)) }

var options = map[string]func(d *Destination, value string) error{
	"preset":                   func(d *Destination, v string) error { d.Preset = v; return nil },
	"max-datagram":             number(func(d *Destination) *int { return &d.MaxDatagram }),
	"destination-queue-bytes":  number(func(d *Destination) *int { return &d.QueueBytes }),
	"udp-buffer-size":          number(func(d *Destination) *int { return &d.UDPBufferSize }),
	"max-bytes-per-second":     number(func(d *Destination) *int { return &d.MaxBytesPerSecond }),
	"max-datagrams-per-second": number(func(d *Destination) *int { return &d.MaxDatagramsPerSecond }),
	"drop-oldest":              truth(func(d *Destination) *bool { return &d.DropOldest }),
	"json-sequence":            truth(func(d *Destination) *bool { return &d.JSONSequence }),
	"gelf-full-message":        truth(func(d *Destination) *bool { return &d.GELF.FullMessage }),
	"gelf-one-labels":          truth(func(d *Destination) *bool { return &d.GELF.OneLabels }),
	"gelf-max-field":           number(func(d *Destination) *int { return &d.GELF.MaxField }),
	"gelf-fields":              parsed(func(d *Destination) *datagram.GELFFields { return &d.GELF.Fields }, datagram.ParseGELFFields),
	"gelf-compression":         parsed(func(d *Destination) *datagram.GELFCompression { return &d.GELF.Compression }, datagram.ParseGELFCompression),
	"metadata-compression":     func(d *Destination, v string) error { d.MetadataCompression = v; return nil },
	"compression":              parsed(func(d *Destination) *datagram.Compression { return &d.Compression }, datagram.ParseCompression),
	"syslog-rfc3164":           truth(func(d *Destination) *bool { return &d.Syslog.RFC3164 }),
	"syslog-local-time":        truth(func(d *Destination) *bool { return &d.LocalTime }),
	"syslog-bom":               truth(func(d *Destination) *bool { return &d.Syslog.BOM }),
	"syslog-app-name":          func(d *Destination, v string) error { d.Syslog.AppName = v; return nil },
}

// parsed makes an option of a field and the function that reads its text.
func parsed[T any](field func(*Destination) *T, parse func(string) (T, error)) func(*Destination, string) error {
	return func(d *Destination, text string) error {
		value, err := parse(text)
		if err == nil {
			*field(d) = value
		}
		return err
	}
}

func number(field func(*Destination) *int) func(*Destination, string) error {
	return parsed(field, strconv.Atoi)
}

func truth(field func(*Destination) *bool) func(*Destination, string) error {
	return parsed(field, strconv.ParseBool)
}
