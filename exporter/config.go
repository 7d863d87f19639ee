package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

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
	// Labels are added to agent_init, under the rules of metadata.CheckLabels.
	Labels map[string]string
	// MetadataCacheOff makes agent_init anew for each export, facts included.
	MetadataCacheOff bool
	// MetadataStore is where what Tetragon said of itself is left for the process
	// after this one, which announces itself before Tetragon answers; nobody waits
	// for it. MetadataOrigin says what must be as it was for that. If one of them is
	// nil, nothing is left.
	MetadataStore  metadata.Store
	MetadataOrigin func() (metadata.Origin, error)
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
	// Measure gets samples of how long things take. Nil: none are taken.
	Measure *Measure
	// CountersFile is where the counters are kept for the process after this one,
	// which tells the receivers if this one is killed. Empty: nowhere.
	CountersFile string
	// FlushInterval is the longest that an event waits for others to share its
	// datagram, in formats that pack several. Where fewer than 8 batches come in it,
	// none waits. Zero: DefaultFlushInterval.
	FlushInterval time.Duration

	// QueueBytes bounds the events that wait, in bytes. When it is reached the
	// oldest make room: exec and exit first, which get three quarters of it at most.
	// They are dropped as queue_full_process and queue_full_policy. Zero:
	// DefaultQueueBytes.
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
		faults = append(faults, errNoDestination)
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
	if err := metadata.CheckLabels(c.Labels); err != nil {
		faults = append(faults, err)
	}
	setDefault(&c.QueueBytes, DefaultQueueBytes)
	setDefault(&c.MetadataInterval, DefaultMetadataInterval)
	setDefault(&c.FlushInterval, DefaultFlushInterval)
	setDefault(&c.DrainTimeout, DefaultDrainTimeout)
	setDefault(&c.TranscodeCacheBytes, DefaultTranscodeCacheBytes)
	if c.Lookup == nil {
		c.Lookup = lookup
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(faults...)
}

// literal returns the address of a destination that needs no name resolved.
func literal(address string) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddrPort(address)
	return addr, err == nil
}

// hostFacts reads what agent_init says of the host: once for the process,
// unless the configuration says where else it comes from.
func (c *Config) hostFacts() (f metadata.Facts) {
	if c.Host.Hostname == nil && c.Host.Kernel == nil && c.Host.PID == nil && c.Host.More == nil && !c.MetadataCacheOff {
		f = metadata.HostFacts()
	} else {
		f = c.Host.Read()
	}
	f.Labels = metadata.JoinLabels(f.Labels, c.Labels)
	return f
}

// storesMetadata says whether a store is used.
func (c *Config) storesMetadata() bool {
	return c.MetadataStore != nil && c.MetadataOrigin != nil && !c.MetadataCacheOff
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
