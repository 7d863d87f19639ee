package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/metadata"
)

// Defaults of [Config] and [Destination].
const (
	DefaultPort             = 7514             // UDP port of a destination that names none
	DefaultQueueBytes       = 64 << 20         // bytes of events that wait
	DefaultUDPBufferSize    = 65536            // bytes of SO_SNDBUF asked for
	DefaultMetadataInterval = 10 * time.Minute // between two agent_init of a stream
	DefaultDrainTimeout     = 700 * time.Millisecond

	DefaultFlushInterval = 5 * time.Millisecond

	DefaultTranscodeCacheBytes = 4 << 20

	DefaultDestinationQueueBytes = 4 << 20
)

// Config says what an exporter does. The zero value of every field but
// Destinations is usable.
type Config struct {
	// Destinations get all events, each as a stream with its own account. At
	// least one.
	Destinations []Destination

	// Tetragon is what agent_init says of the Tetragon that the events come
	// from. Nil: not known yet; agent_init then waits for SetTetragon or for the
	// first event, whichever comes first.
	Tetragon *Tetragon

	// Host says where agent_init's facts about the host come from.
	Host metadata.Sources
	// RenderMetadata renders agent_init; nil is the event's ToJSON.
	RenderMetadata metadata.Renderer
	// MetadataInterval is the time between two agent_init of a stream, give or
	// take a tenth. Zero: DefaultMetadataInterval. Negative: only at the start
	// and on change.
	MetadataInterval time.Duration

	// StatsInterval is the time between two agent_stats of a stream, give or take
	// a tenth. Zero: 10 s in frames, 60 s in other formats. Negative: none, and no
	// goodbye.
	StatsInterval time.Duration
	// Upstream is asked for what was lost before the exporter, for agent_stats.
	// It is called on the event path and must not wait. Nil: unknown.
	Upstream func() Upstream
	// CountersFile is where the counters are kept for the process after this one,
	// which tells the receivers if this one is killed. Empty: nowhere.
	CountersFile string
	// FlushInterval is the longest that an event waits for others to share its
	// datagram, in formats that pack several. Zero: DefaultFlushInterval.
	FlushInterval time.Duration

	// QueueBytes bounds the events that wait, in bytes. When it is reached the
	// newest event is dropped as queue_full. Zero: DefaultQueueBytes.
	QueueBytes int
	// TranscodeCacheBytes bounds the transcoder's memory of parts it has seen.
	// Zero: DefaultTranscodeCacheBytes. Negative: none.
	TranscodeCacheBytes int

	// DrainTimeout bounds how long Run goes on sending what is queued after its
	// context ended. Zero: DefaultDrainTimeout.
	DrainTimeout time.Duration

	// Self tells the exporter's own events from those of others. Nil excludes
	// nothing; ReadSelf reads it from this process.
	Self *Self

	// Lookup resolves host names. Nil: net.DefaultResolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Logger gets the log. Nil discards it.
	Logger *slog.Logger
}

// Destination is where a stream goes.
type Destination struct {
	// Address is HOST or HOST:PORT. A name that does not resolve is tried again
	// until it does; meanwhile events wait in the queue.
	Address string
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
	// NoFragments makes 1,232 the default of MaxDatagram in every format, so that
	// no path cuts a datagram into IP fragments.
	NoFragments bool
	// JSONSequence adds the event's place in the stream as the last member of each
	// event in json and ndjson.
	JSONSequence bool
	// GELF and Syslog say more about those formats. Stream and MaxDatagram are
	// filled in; so are the host's name and the process id, where empty.
	GELF   datagram.GELFConfig
	Syslog datagram.SyslogConfig
	// QueueBytes bounds the datagrams that wait for this destination alone, while
	// it does not take them and others do. Zero: DefaultDestinationQueueBytes.
	QueueBytes int
	// DropOldest makes room in that queue by dropping what waited longest. Without
	// it the newest is dropped.
	DropOldest bool
	// RouteMTU makes frames as long as the route to the destination takes, up to
	// MaxDatagram.
	RouteMTU bool
	// Compression, Dictionary and Key are those of frames. FrameJSON sends events
	// in frames as JSON instead of protobuf.
	Compression datagram.Compression
	Dictionary  *datagram.Dictionary
	Key         *datagram.Key
	FrameJSON   bool
	// UDPBufferSize is the send buffer to ask the kernel for, in bytes. Zero:
	// DefaultUDPBufferSize.
	UDPBufferSize int
	// GSO is auto, on or off: whether runs of datagrams of one size go to the
	// kernel as one message. Empty: auto.
	GSO string
	// ZeroCopy is auto, on or off: whether the kernel reads large messages from
	// our memory instead of copying them. Empty: auto, which is off, because it
	// was not measured to pay.
	ZeroCopy string
	// RotateSourcePort opens a new socket so often, so that a fleet's streams
	// spread over the receiver's sockets anew. Zero: never.
	RotateSourcePort time.Duration
	// MaxBytesPerSecond and MaxDatagramsPerSecond bound the rate; events beyond
	// it wait in the queue. Zero: no bound.
	MaxBytesPerSecond, MaxDatagramsPerSecond int
}

// Formats are the formats that a destination may have.
var Formats = []string{"json", "ndjson", "gelf", "syslog", "frame"}

// Tetragon is what agent_init says of Tetragon. Empty fields are unknown or
// left out, as metadata.Facts says.
type Tetragon struct {
	Version     string
	BuildCommit string
	BuildDate   string
	ClusterName string // for agent_stats
}

// withDefaults returns the configuration with its zeros filled in, or all that
// is wrong with it.
func (c Config) withDefaults() (Config, error) {
	var faults []error
	if len(c.Destinations) == 0 {
		faults = append(faults, errors.New("exporter: no destination given, want at least one host:port"))
	}
	destinations := make([]Destination, len(c.Destinations))
	for i, d := range c.Destinations {
		full, err := d.withDefaults()
		if err != nil {
			faults = append(faults, err)
		}
		destinations[i] = full
	}
	c.Destinations = destinations
	if c.QueueBytes < 0 {
		faults = append(faults, fmt.Errorf("exporter: queue of %d bytes, want a positive number", c.QueueBytes))
	}
	setDefault(&c.QueueBytes, DefaultQueueBytes)
	setDefault(&c.MetadataInterval, DefaultMetadataInterval)
	setDefault(&c.FlushInterval, DefaultFlushInterval)
	setDefault(&c.DrainTimeout, DefaultDrainTimeout)
	setDefault(&c.TranscodeCacheBytes, DefaultTranscodeCacheBytes)
	if c.Lookup == nil {
		c.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(faults...)
}

func (d Destination) withDefaults() (Destination, error) {
	if d.Format == "" {
		d.Format = "json"
	}
	if !slices.Contains(Formats, d.Format) {
		return d, fmt.Errorf("exporter: destination %q: unknown format %q, want %s", d.Address, d.Format, strings.Join(Formats, " or "))
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
	host, port, err := splitHostPort(d.Address)
	if err != nil {
		return d, err
	}
	d.Address = net.JoinHostPort(host, strconv.Itoa(int(port)))
	setDefault(&d.QueueBytes, DefaultDestinationQueueBytes)
	d.setLimits()
	return d, nil
}

// splitHostPort reads HOST, HOST:PORT, [IPV6]:PORT and a bare IPv6 address.
func splitHostPort(address string) (host string, port uint16, err error) {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.String(), DefaultPort, nil
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		// No port, or no address at all: let the second look decide.
		if host, text, err = net.SplitHostPort(address + ":" + strconv.Itoa(DefaultPort)); err != nil {
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

// ParseDestination reads [FORMAT://]HOST[:PORT]. format is that of a text which
// names none; empty is json.
func ParseDestination(text, format string) (Destination, error) {
	d := Destination{Address: text, Format: format}
	if format, address, ok := strings.Cut(text, "://"); ok {
		d = Destination{Address: address, Format: format}
	}
	return d.withDefaults()
}

// literal returns the address of a destination that needs no name resolved.
func literal(address string) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddrPort(address)
	return addr, err == nil
}

// hostFacts reads what agent_init says of the host: once for the process,
// unless the configuration says where else it comes from.
func (c *Config) hostFacts() metadata.Facts {
	if c.Host.Hostname == nil && c.Host.Kernel == nil && c.Host.PID == nil {
		return metadata.HostFacts()
	}
	return c.Host.Read()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
