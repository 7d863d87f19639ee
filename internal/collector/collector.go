package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tetracast/datagram"
	"tetracast/internal/sink"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/metadata"
	"tetracast/transcode"
)

// The defaults of [Config].
const (
	DefaultReceiveBufferBytes = 32 << 20
	DefaultQueueBytes         = 64 << 20
	DefaultFlushInterval      = 100 * time.Millisecond
	DefaultDrainTimeout       = 900 * time.Millisecond
)

// The values of [Config.Other].
const (
	OtherDrop = "drop"
	OtherPass = "pass"
)

// logInterval is the least time between two lines about the same trouble.
const logInterval = time.Minute

// Config says what a collector does. Only Listen and Sink must be set.
type Config struct {
	// Listen is the UDP address, host:port. Port 0 takes a free one.
	Listen string
	// Format is the format of the datagrams: json, ndjson, gelf, syslog, frame, or
	// auto, which tells each datagram's format from its first bytes. Empty: auto.
	Format string
	// Other says what becomes of messages that are no events of Tetragon:
	// OtherDrop counts them as undecodable, OtherPass passes them on. Empty:
	// OtherDrop.
	Other string
	// NewTranscoder makes the transcoder for events that come as protobuf, one for
	// each socket. Nil: only events as JSON can be read, others are written as
	// they came, in base64.
	NewTranscoder func() (*transcode.Transcoder, error)
	// Keys that frames are sealed with. With one, what is not sealed is refused,
	// but for other formats than frames from AllowSources.
	Keys []*datagram.Key
	// Dictionaries for compressed frames, beside the built-in ones.
	Dictionaries []*datagram.Dictionary
	// AllowSources are the addresses that may send. Nil: all.
	AllowSources []netip.Prefix
	// Directory shares with other collectors who sends which stream. Run runs it.
	// Nil: none.
	Directory *metadata.Directory
	// Sink takes the lines. Run closes it.
	Sink sink.Sink
	// Sockets is how many sockets share the address, each with a goroutine of its
	// own; the kernel spreads the senders over them. 0: one.
	Sockets int
	// Inherited are sockets that this process was given, by systemd or by its
	// predecessor; they take the place of Listen and Sockets.
	Inherited []*os.File
	// GRO is whether datagrams are taken joined where the kernel can.
	GRO udp.Switch
	// ReceiveBufferBytes is each socket's receive buffer asked for. 0:
	// DefaultReceiveBufferBytes.
	ReceiveBufferBytes int
	// QueueBytes bounds the lines between the socket and the sink. 0:
	// DefaultQueueBytes.
	QueueBytes int
	// FlushInterval is how long a line waits for others to share its write. 0:
	// DefaultFlushInterval.
	FlushInterval time.Duration
	// ExitIdle ends Run when no datagram came for so long after the last one.
	// It first waits for the first one. 0: never.
	ExitIdle time.Duration
	// SilentAfter is how long nothing comes of an agent until the output says so, as
	// agent_silent; agent_back follows. 0: it never does.
	SilentAfter time.Duration
	// Expected are the names of hosts that are missed even if nothing ever came of
	// them, or their agent ended in order.
	Expected []string
	// MaxStreams bounds the streams with numbers that are known, MaxAddresses the addresses
	// that send formats without, and MaxNewStreams those of either that have yet to prove
	// themselves. 0: 8192, 8192 and 1024.
	MaxStreams, MaxAddresses, MaxNewStreams int
	// Measure gets samples of how long things take. Nil: none are taken.
	Measure *Measure
	// StateFile keeps what is known of the senders, and the totals, for the process
	// after this one. Empty: nothing is kept.
	StateFile string
	// DrainTimeout bounds the time from the end of the context to the return of
	// Run. 0: DefaultDrainTimeout.
	DrainTimeout time.Duration
	// Log takes changes of state, and junk at most once a minute. nil: none.
	Log *slog.Logger
}

// withDefaults checks the configuration and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if c.Sink == nil {
		return c, errors.New("collector: no sink")
	}
	c.Format = cmp.Or(c.Format, "auto")
	if _, ok := formats[c.Format]; !ok {
		return c, fmt.Errorf("collector: unknown format %q, want one of %s", c.Format, formatNames())
	}
	if c.Other = cmp.Or(c.Other, OtherDrop); c.Other != OtherDrop && c.Other != OtherPass {
		return c, fmt.Errorf("collector: other messages %q, want %s or %s", c.Other, OtherDrop, OtherPass)
	}
	if c.Sockets < 0 || c.QueueBytes < 0 || c.ReceiveBufferBytes < 0 || c.FlushInterval < 0 || c.ExitIdle < 0 || c.DrainTimeout < 0 || c.SilentAfter < 0 {
		return c, errors.New("collector: a size, number or duration is negative")
	}
	if c.MaxStreams < 0 || c.MaxAddresses < 0 || c.MaxNewStreams < 0 {
		return c, errors.New("collector: a limit on streams is negative")
	}
	c.MaxStreams, c.MaxAddresses, c.MaxNewStreams = cmp.Or(c.MaxStreams, maxStreams), cmp.Or(c.MaxAddresses, maxSources), cmp.Or(c.MaxNewStreams, maxProbation)
	c.Sockets = max(c.Sockets, 1)
	c.ReceiveBufferBytes = cmp.Or(c.ReceiveBufferBytes, DefaultReceiveBufferBytes)
	c.QueueBytes = cmp.Or(c.QueueBytes, DefaultQueueBytes)
	c.FlushInterval = cmp.Or(c.FlushInterval, DefaultFlushInterval)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, DefaultDrainTimeout)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Collector receives datagrams and hands their events to a sink. Make one with
// [New]; [Collector.Run] once. Account and Addr are safe for concurrent use.
type Collector struct {
	config  Config
	in      receivers
	intakes []*intake // one for each receiver
	takes   takes
	keys    atomic.Pointer[[]*datagram.Key] // that frames may be sealed with

	saidUnknown atomic.Bool // an event of an unknown kind is in the log

	pieces *datagram.Budget // of all intakes

	wake  chan struct{} // tells the writer that a block is due, or a first line came
	heard *heard

	mu      sync.Mutex // guards what follows
	account ledger.Collector
	agents  *agents
	silence silence
	// undecodable is the account's, by format; reordered counts datagrams.
	undecodable undecodable
	reordered   uint64
	queue       queue
	closed      bool // nothing more is put into the queue
	abandoned   bool // the writer was given up; the account is final
	// socketDropped is the socket's last figure, once received is over.
	received      bool
	socketDropped uint64
	// socketDroppedBefore is that of the processes before this one.
	socketDroppedBefore uint64
}

// New binds the socket. It starts no goroutine; datagrams wait in the socket's
// buffer until [Collector.Run], which is what frees the socket again.
func New(config Config) (*Collector, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	in, err := listen(config)
	if err != nil {
		return nil, err
	}
	c := newCollector(config, in...)
	for _, i := range c.intakes {
		if config.NewTranscoder == nil {
			break
		}
		if i.transcoder, err = config.NewTranscoder(); err != nil {
			_ = c.in.close()
			return nil, fmt.Errorf("collector: %w", err)
		}
	}
	c.loadState()
	return c, nil
}

// newCollector takes a configuration with its defaults filled in.
func newCollector(config Config, in ...receiver) *Collector {
	c := &Collector{
		config:  config,
		in:      in,
		takes:   formats[config.Format],
		wake:    make(chan struct{}, 1),
		pieces:  datagram.NewBudget(maxPieces),
		heard:   newHeard(config.ExitIdle),
		account: ledger.Collector{Side: "collector"},
		agents:  newAgents(config.MaxStreams, config.MaxNewStreams, config.MaxAddresses),
		silence: newSilence(config),
		queue:   queue{limit: config.QueueBytes},
	}
	c.keys.Store(&config.Keys)
	for range in {
		c.intakes = append(c.intakes, newIntake(c))
	}
	return c
}

// SetKeys makes the keys those that frames may be sealed with from the next datagrams
// on. Whether frames are sealed at all is settled at the start.
func (c *Collector) SetKeys(keys []*datagram.Key) error {
	if (len(keys) == 0) != (len(c.config.Keys) == 0) {
		return fmt.Errorf("collector: %d keys in the place of %d: whether frames are sealed is settled at the start", len(keys), len(c.config.Keys))
	}
	c.keys.Store(&keys)
	return nil
}

// Addr returns the address that the socket is bound to.
func (c *Collector) Addr() netip.AddrPort { return c.in.addr() }

// Account returns the account as it is at this moment. The memory is the
// caller's.
func (c *Collector) Account() ledger.Collector {
	c.mu.Lock()
	account := c.account
	account.Queued = c.queue.events()
	account.Agents = c.agents.account()
	received := c.received
	account.Observed.SocketDropped = c.socketDropped
	c.mu.Unlock()
	if !received {
		account.Observed.SocketDropped = c.in.dropped()
	}
	account.Observed.SocketDropped += c.socketDroppedBefore
	_ = account.Close() // the verdict is in account.Closes
	return account
}

// Alive returns when the lock that intake and writer share was free once: soon, unless
// one of them hangs with it.
func (c *Collector) Alive() {
	c.mu.Lock()
	defer c.mu.Unlock()
}

// Run receives until ctx ends, or nothing came for Config.ExitIdle. It then
// takes what the socket still holds, writes the queue out, and closes sink and
// socket, all within Config.DrainTimeout; events that are queued when that is
// over are dropped under [ledger.Shutdown].
//
// The error is nil after such an end, and otherwise says why the socket or the
// closing of the sink failed. A sink whose writes fail does not end Run.
// Every goroutine that Run started has ended when it returns, with one
// exception: a write of the sink that still blocks after DrainTimeout is given
// up, its lines count as dropped, and the sink is not closed.
func (c *Collector) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	if c.config.ExitIdle > 0 {
		wg.Go(func() {
			if c.heard.awaitIdle(ctx) {
				stop()
			}
		})
	}
	if c.config.StateFile != "" {
		// From here on a kill leaves something unknown, and the file must say so.
		if err := c.saveAtStart(); err != nil {
			c.config.Log.Error("The state is not saved: after a kill more will be unknown", "cause", err)
		}
		wg.Go(func() { c.keep(ctx) })
	}
	if c.config.Directory != nil {
		c.askRestored()
		wg.Go(func() { c.config.Directory.Run(ctx, c.found) })
	}
	if c.config.SilentAfter > 0 {
		wg.Go(func() { c.keepLooking(ctx) })
	}
	interrupted := make(chan time.Time, 1)
	unhook := context.AfterFunc(ctx, func() {
		now := time.Now()
		c.in.interrupt()
		interrupted <- now
	})
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()

	err := c.in.each(c.receive)
	end := time.Now()
	if !unhook() { // ctx ended: that is when the time to stop began
		end = <-interrupted
	}
	end = end.Add(c.config.DrainTimeout)
	if err == nil {
		// Under a flood the socket is never empty: most of the time is the sink's.
		_ = c.in.each(func(socket int) error { c.drainSocket(socket, end.Add(-c.config.DrainTimeout*2/3)); return nil })
	}
	c.endReceiving()
	err = errors.Join(err, c.in.close())
	stop()
	wg.Wait()
	err = errors.Join(err, c.finish(written, end))
	return errors.Join(err, c.saveAtEnd())
}

// finish waits for the writer until the end, and closes the sink.
func (c *Collector) finish(written <-chan struct{}, end time.Time) error {
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	select {
	case <-written:
		return c.config.Sink.Close()
	case <-timer.C:
	}
	c.mu.Lock()
	lost := c.queue.events()
	c.account.Dropped[ledger.Shutdown] += lost
	c.queue = queue{}
	c.abandoned = true
	c.mu.Unlock()
	c.config.Log.Warn("The sink was too slow to take the queue before the end",
		"events_dropped", lost, "drain_timeout", c.config.DrainTimeout)
	select {
	case <-written: // it ended in this moment
		return c.config.Sink.Close()
	default:
		return nil
	}
}
