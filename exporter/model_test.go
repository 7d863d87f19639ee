package exporter

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tetracast/datagram"
	"tetracast/internal/udp"
	"tetracast/ledger"
)

// The model drives an exporter through a program of bytes, in virtual time, over
// sockets whose kernel answers as the program has it: all of internal/udp is inside.
// It counts by itself what those sockets took, reads it with the unpackers, and holds
// the account against that after every step:
//
//   - seen is what was offered, and the account of each stream closes;
//   - what a stream calls sent is what its sockets took, each event once;
//   - at the end nothing is queued, and the goodbyes and the reports on processes that
//     were killed state these figures.
type model struct {
	t       testing.TB
	program []byte
	random  *rand.Rand
	e       *UDPExporter
	stop    context.CancelFunc
	ran     chan error // nil: Run was not called yet
	config  Config
	file    string // of counters
	given   int    // events made
	seen    uint64 // by this process
	steps   int
	past    map[string]pastStream // of processes that were killed, by id

	mu       sync.Mutex // guards the fields below, which the sockets' owner uses
	dice     *rand.Rand
	places   map[string]*place
	streams  map[string]*receipts // of this process, by id
	resolves bool
	verbose  bool
}

// place is where a destination's datagrams go: its kernel, and its path.
type place struct {
	m     *model
	mtu   int
	errno unix.Errno
	rate  int // one call in so many meets errno
	times int // so many calls do, still
	part  int // at most so many messages a call are taken; 0: all
}

// receipts is what the sockets of a stream took, read as its receiver would.
type receipts struct {
	name    string // destination and format
	events  map[string]int
	gelf    *datagram.GELFReader
	frames  *datagram.FrameReader
	format  string
	stats   *ledger.AgentStats // the last
	reports map[string]*ledger.AgentStats
	fault   error
}

// pastStream is what a stream's account said when its process was killed.
type pastStream struct{ seen, sent uint64 }

// kernelWire is the kernel below one socket.
type kernelWire struct {
	*place
	to   *receipts
	df   bool
	gone *bool // the process was killed
}

var modelKey = datagram.NewKey([datagram.KeyBytes]byte{1, 2, 3})

// modelDestinations are those that a program chooses from.
func modelDestinations() []Destination {
	return []Destination{
		{Address: "127.0.0.1:1001", Format: "json"},
		{Address: "127.0.0.1:1002", Format: "frame", MaxDatagram: 1472, GSO: "on"},
		{Address: "127.0.0.1:1003", Format: "ndjson", MaxShared: 1432, QueueBytes: 64 << 10},
		{Address: "127.0.0.1:1004", Format: "gelf", MaxDatagram: 1232},
		{Address: "127.0.0.1:1005", Format: "syslog", MaxDatagram: 8096, QueueBytes: 32 << 10, DropOldest: true},
		{Address: "127.0.0.1:1006", Format: "frame", MaxDatagram: 8972, Compression: datagram.CompressionS2, Key: modelKey, GSO: "off", QueueBytes: 64 << 10, DropOldest: true},
		{Address: "name.example:1007", Format: "json", JSONSequence: true, MaxDatagramsPerSecond: 500},
		{Address: "127.0.0.1:1008", Format: "frame", RouteMTU: true, MaxDatagram: 9000, FrameJSON: true, MaxBytesPerSecond: 1 << 20, GSO: "on"},
		{Address: "127.0.0.1:1009", Format: "gelf", MaxDatagram: 8192, GELF: datagram.GELFConfig{Fields: datagram.GELFOne}, RotateSourcePort: time.Minute},
	}
}

// modelErrnos are the answers of sendmmsg, all that internal/udp tells apart, and some
// that it does not. ENOSYS is not among them: it takes a Conn to another system call.
var modelErrnos = []unix.Errno{unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.ECONNREFUSED, unix.EPERM, unix.EMSGSIZE, unix.ENETUNREACH,
	unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.EADDRNOTAVAIL, unix.ENETDOWN, unix.EINTR, unix.EIO, unix.EINVAL, unix.EPROTO, unix.EOPNOTSUPP,
	unix.ECONNRESET, unix.ENOPROTOOPT, unix.EACCES, unix.EFAULT, unix.ETIMEDOUT}

var modelMTUs = []int{300, 576, 1280, 1300, 1500, 4000, 9000, 65535}

var modelTimes = []time.Duration{time.Microsecond, time.Millisecond, 3 * time.Millisecond, 50 * time.Millisecond, 700 * time.Millisecond,
	3 * time.Second, 30 * time.Second, 11 * time.Minute}

// runModel runs a program.
func runModel(t *testing.T, program []byte) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{t: t, program: program, places: map[string]*place{}, past: map[string]pastStream{}, resolves: true, verbose: os.Getenv("TETRACAST_MODEL") != ""}
		seed := uint64(m.next())<<8 | uint64(m.next())
		m.random, m.dice = rand.New(rand.NewPCG(1, seed)), rand.New(rand.NewPCG(2, seed))
		m.setUp()
		for len(m.program) > 0 && m.steps < 400 && !t.Failed() {
			m.step()
		}
		m.end()
	})
}

func (m *model) next() byte {
	if len(m.program) == 0 {
		return 0
	}
	b := m.program[0]
	m.program = m.program[1:]
	return b
}

func (m *model) setUp() {
	options := m.next()
	m.config = Config{
		StatsInterval:       []time.Duration{-1, time.Second, 0}[options%3],
		FlushInterval:       []time.Duration{0, time.Hour}[options/3%2],
		QueueBytes:          []int{0, 100_000}[options/6%2],
		TranscodeCacheBytes: []int{-1, 64 << 10}[options/12%2],
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if !m.resolves {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1 + byte(m.dice.IntN(2))})}, nil
		},
	}
	if options/24%2 == 1 {
		m.config.Tetragon = &Tetragon{Version: "v1.7.0"}
	}
	if options/48%2 == 1 {
		folder, err := os.MkdirTemp("", "model")
		if err != nil {
			m.t.Fatal(err)
		}
		m.t.Cleanup(func() { _ = os.RemoveAll(folder) })
		m.file = filepath.Join(folder, "counters")
		m.config.CountersFile = m.file
	}
	m.config.Destinations = m.chooseDestinations()
	m.begin()
	if options < 192 {
		m.run()
	}
}

// chooseDestinations reads a set of them, at least one and at most four.
func (m *model) chooseDestinations() (chosen []Destination) {
	all := modelDestinations()
	mask, last := m.next(), int(m.next())
	for i := range all[:8] {
		if mask>>i&1 == 1 && len(chosen) < 3 {
			chosen = append(chosen, all[i])
		}
	}
	if len(chosen) == 0 || last%4 == 0 {
		chosen = append(chosen, all[last/4%len(all)])
	}
	for i, d := range chosen {
		chosen[i], _ = d.withDefaults()
	}
	return chosen
}

// begin starts a process.
func (m *model) begin() {
	m.streams, m.seen = map[string]*receipts{}, 0
	gone := new(bool)
	e, err := newExporter(m.config, func(s *stream, addr netip.AddrPort) (sender, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		to := m.streams[s.idText]
		if to == nil {
			to = &receipts{name: s.Address + " " + s.Format, format: s.Format, events: map[string]int{}, reports: map[string]*ledger.AgentStats{}}
			to.gelf = datagram.NewGELFReader(datagram.GELFLimits{})
			config := datagram.FrameReaderConfig{Fragments: datagram.FragmentLimits{SetsPerStream: 1 << 16, Sets: 1 << 16}}
			if s.Key != nil {
				config.Keys = append(config.Keys, s.Key)
			}
			to.frames = datagram.NewFrameReader(config)
			m.streams[s.idText] = to
		}
		w := &kernelWire{place: m.place(s.Address), to: to, df: s.Format == "frame", gone: gone}
		conn, err := udp.DialFake(addr, s.socketOptions(), w)
		if err != nil {
			return nil, err
		}
		return conn, nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.e, m.ran = e, nil
	m.stop = func() { m.mu.Lock(); *gone = true; m.mu.Unlock() }
}

// run gives Run a goroutine.
func (m *model) run() {
	if m.ran != nil {
		return
	}
	ran, e := make(chan error, 1), m.e
	m.ran = ran
	go func() { ran <- e.Run(context.Background()) }()
}

// place returns the place of an address. Called with the lock.
func (m *model) place(address string) *place {
	p := m.places[address]
	if p == nil {
		p = &place{m: m, mtu: 65535}
		m.places[address] = p
	}
	return p
}

func (w *kernelWire) PathMTU() int { return w.mtu }

func (w *kernelWire) Sendmmsg(messages [][][]byte) (n int, errno unix.Errno) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if *w.gone {
		return len(messages), 0
	}
	limit := len(messages)
	if w.part > 0 {
		limit = min(limit, w.part)
	}
	fails := -1
	if w.times > 0 && w.m.dice.IntN(w.rate) == 0 {
		w.times--
		fails = w.m.dice.IntN(limit)
	}
	for i, message := range messages[:limit] {
		errno := unix.Errno(0)
		if i == fails {
			errno = w.errno
		}
		for _, d := range message {
			if w.df && len(d) > w.mtu-28 || len(d) > datagram.MaxPayload {
				errno = unix.EMSGSIZE
			}
		}
		if errno == 0 {
			for _, d := range message {
				w.to.take(d)
			}
			continue
		}
		if i > 0 {
			return i, 0 // the kernel forgets the error of a later message
		}
		return 0, errno
	}
	return limit, 0
}

var marker = regexp.MustCompile(`ev#\d+#`)

// take reads a datagram that was taken.
func (to *receipts) take(d []byte) {
	event := func(text []byte) { to.events[string(marker.Find(text))]++ }
	payload := func(p *datagram.Payload) {
		switch p.Kind {
		case datagram.KindEvent:
			event(p.JSON)
		case datagram.KindAgentStats:
			to.told(p.JSON)
		}
	}
	var err error
	switch to.format {
	case "json":
		var p datagram.Payload
		p, err = datagram.UnpackJSON(d)
		payload(&p)
	case "ndjson":
		for p, failed := range datagram.UnpackNDJSON(d) {
			payload(&p)
			err = errors.Join(err, failed)
		}
	case "syslog":
		var p datagram.Payload
		p, err = datagram.UnpackSyslog(d)
		payload(&p)
	case "gelf":
		p, whole, failed := to.gelf.Read(bytes.Clone(d), literalPort(1), time.Unix(1, 0))
		if err = failed; whole {
			payload(&p)
		}
	default:
		var h datagram.Header
		body, failed := to.frames.Open(d, &h)
		if err = failed; err == nil {
			err = to.frames.Read(&h, body, time.Unix(1, 0), func(number uint64, text []byte) {
				switch {
				case number > 0:
					event(text)
				case h.Kind == datagram.KindAgentStats:
					to.told(text)
				}
			})
		}
	}
	if err != nil && to.fault == nil {
		to.fault = fmt.Errorf("%s: a datagram of %d bytes, %.60q: %w", to.name, len(d), d, err)
	}
}

// told reads an agent_stats.
func (to *receipts) told(text []byte) {
	stats, err := ledger.ReadAgentStats(text)
	switch {
	case err != nil:
		to.fault = err
	case stats.ReportedBy != "":
		to.reports[stats.Stream] = stats
	default:
		to.stats = stats
	}
}

// makeEvent makes an event of which a receiver can tell that it is this one.
func (m *model) makeEvent(class byte) (wire []byte, event *tetragon.GetEventsResponse) {
	sizes := []int{0, 40, 300, 300, 1100, 1400, 5_000, 70_000}
	size := sizes[class%8]
	if size > 0 {
		size = size/2 + m.random.IntN(size)
	}
	noise := make([]byte, size/2)
	for i := range noise {
		noise[i] = byte(m.random.Uint32()) & (0xff >> (class / 8 % 8)) // more or less compressible
	}
	process := &tetragon.Process{Binary: "/bin/sh", Pid: wrapperspb.UInt32(7), Arguments: hex.EncodeToString(noise)}
	event = &tetragon.GetEventsResponse{NodeName: fmt.Sprintf("ev#%06d#", m.given)}
	if class&64 == 0 {
		event.Event = &tetragon.GetEventsResponse_ProcessExec{ProcessExec: &tetragon.ProcessExec{Process: process}}
	} else {
		event.Event = &tetragon.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tetragon.ProcessKprobe{Process: process, FunctionName: "sys_write"}}
	}
	m.given++
	wire, err := proto.Marshal(event)
	if err != nil {
		m.t.Fatal(err)
	}
	return wire, event
}

func (m *model) batch() (events [][]byte) {
	n, class := 1+int(m.next()%80), m.next()
	if class%8 == 7 {
		n = 1 + n%6
	}
	for range n {
		event, _ := m.makeEvent(class)
		events = append(events, event)
		class += 8
	}
	m.seen += uint64(n)
	return events
}

// step does one thing, and looks whether all is in order.
func (m *model) step() {
	m.steps++
	what := ""
	switch op := m.next(); op % 16 {
	case 0, 1, 2:
		events := m.batch()
		what = fmt.Sprintf("%d events", len(events))
		_ = m.e.SendBatch(events)
	case 3:
		events := m.batch()
		what = fmt.Sprintf("%d events, one by one", len(events))
		for _, event := range events {
			_ = m.e.SendWire(event)
			if op&16 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	case 4:
		_, event := m.makeEvent(m.next())
		m.seen += 2
		what = "a line, and one that is none"
		_ = m.e.SendJSON([]byte(protojson.MarshalOptions{UseProtoNames: true}.Format(event)))
		_ = m.e.SendJSON([]byte(`{"process_exec":`))
	case 5, 6:
		what = m.trouble()
	case 7:
		m.mu.Lock()
		p := m.place(m.anAddress())
		p.mtu = modelMTUs[int(m.next())%len(modelMTUs)]
		what = fmt.Sprintf("path MTU %d", p.mtu)
		m.mu.Unlock()
	case 8:
		m.calm()
		what = "calm"
	case 9, 10:
		d := modelTimes[int(m.next())%len(modelTimes)]
		what = fmt.Sprintf("%v pass", d)
		time.Sleep(d)
	case 11:
		destinations := m.chooseDestinations()
		what = fmt.Sprintf("%d destinations", len(destinations))
		if err := m.e.SetDestinations(destinations); err != nil {
			m.t.Error(err)
		}
		m.config.Destinations = destinations
	case 12:
		what = "agent_init"
		_ = m.e.SendMetadataEvent()
	case 13:
		version := fmt.Sprintf("v1.%d.0", m.next()%4)
		what = "Tetragon " + version
		m.e.SetTetragon(Tetragon{Version: version})
	case 14:
		first, second := m.batch(), m.batch()
		what = "two senders"
		var sending sync.WaitGroup
		sending.Go(func() { _ = m.e.SendBatch(first) })
		sending.Go(func() { _ = m.e.SendBatch(second) })
		sending.Wait()
	case 15:
		if m.file != "" && m.ran != nil {
			what = "a kill"
			m.kill()
		} else {
			what = "Run"
			m.run()
		}
	}
	synctest.Wait()
	m.check(what)
}

func (m *model) anAddress() string {
	d := &m.config.Destinations[int(m.next())%len(m.config.Destinations)]
	return d.Address
}

// trouble gives a place some.
func (m *model) trouble() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.next()
	if b == 255 {
		m.resolves = !m.resolves
		return fmt.Sprintf("names resolve: %v", m.resolves)
	}
	p := m.place(m.anAddress())
	p.errno, p.rate, p.times = modelErrnos[int(b)%len(modelErrnos)], 1+int(m.next()%4), 1<<(m.next()%12)
	p.part = []int{0, 0, 1, 3}[p.times%4]
	return fmt.Sprintf("%v, %d times, one call in %d; %d messages a call", p.errno, p.times, p.rate, p.part)
}

func (m *model) calm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resolves = true
	for _, p := range m.places {
		p.times, p.part = 0, 0
	}
}

// kill ends the process without a word, and begins its successor.
func (m *model) kill() {
	left, err := os.ReadFile(m.file)
	if err != nil {
		m.t.Fatal(err)
	}
	account := m.e.Account()
	for _, s := range account.Streams {
		m.past[s.Stream] = pastStream{seen: account.Seen, sent: s.Sent}
	}
	m.abandonProcess()
	if err := os.WriteFile(m.file, left, 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.begin()
	m.run()
}

// checkReports holds what a process said of those before it against what they had
// counted.
func (m *model) checkReports(to *receipts) {
	for id, report := range to.reports {
		if past, ok := m.past[id]; !ok || report.Seen != past.seen || report.Sent != past.sent {
			m.t.Errorf("step %d: of stream %s, which was killed with %+v, the next process says %+v", m.steps, id, past, report)
		}
	}
}

// abandonProcess ends the process; what its sockets still get nobody counts.
func (m *model) abandonProcess() {
	m.stop()
	_ = m.e.Close()
	if m.ran != nil {
		<-m.ran
	}
}

// check holds the account against what the sockets took.
func (m *model) check(what string) (account ledger.Exporter) {
	account = m.e.Account()
	if m.verbose {
		m.t.Logf("step %d: %s", m.steps, what)
		for _, s := range account.Streams {
			m.t.Logf("    %s sent %d queued %d dropped %s", s.Destination, s.Sent, s.Queued, s.Dropped.String())
		}
	}
	if err := account.Check(); err != nil {
		m.t.Errorf("step %d, %s: %v", m.steps, what, err)
	}
	if account.Seen != m.seen {
		m.t.Errorf("step %d, %s: seen %d of %d", m.steps, what, account.Seen, m.seen)
	}
	stats := m.e.Stats()
	balance := map[string]int{}
	for i := range account.Streams {
		balance[account.Streams[i].Destination+" "+stats.Streams[i].Format] += int(account.Streams[i].Sent)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, to := range m.streams {
		balance[to.name] -= len(to.events)
		for event, times := range to.events {
			if times != 1 {
				m.t.Errorf("step %d, %s: %s took %q %d times", m.steps, what, to.name, event, times)
			}
		}
		m.checkReports(to)
		if to.fault != nil {
			m.t.Errorf("step %d, %s: %v", m.steps, what, to.fault)
		}
	}
	for name, more := range balance {
		if more != 0 {
			m.t.Errorf("step %d, %s: %s says that %d more were sent than its sockets took", m.steps, what, name, more)
		}
	}
	return account
}

// end ends the last process in one of three ways, and looks at what it left.
func (m *model) end() {
	how := m.random.IntN(3)
	if m.ran == nil && how > 0 {
		m.run()
	}
	if how < 2 {
		m.calm()
	}
	finished := how == 1
	if finished {
		ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
		if err := m.e.Finish(ctx); err != nil {
			m.t.Errorf("Finish: %v", err)
		}
		cancel()
	}
	_ = m.e.Close()
	if m.ran != nil {
		<-m.ran
	}
	account, stats := m.check("the end"), m.e.Stats()
	for i := range account.Streams {
		if s := &account.Streams[i]; s.Queued != 0 || finished && !stats.Streams[i].Gone && s.Dropped[ledger.Shutdown] > 0 {
			m.t.Errorf("the end: %s: queued %d, dropped %s", s.Destination, s.Queued, s.Dropped.String())
		}
	}
	if finished && account.Dropped[ledger.Shutdown] > 0 {
		m.t.Errorf("Finish: dropped %s", account.Dropped.String())
	}
	for id, to := range m.streams {
		s := to.stats
		if s == nil || !s.Goodbye {
			continue
		}
		sums := s.Sums()
		if s.Stream != id || s.Sent != uint64(len(to.events)) || s.LastNumber != s.Sent+s.Refused {
			m.t.Errorf("the goodbye of %s, whose sockets took %d: %+v, %+v", to.name, len(to.events), s, sums)
		}
	}
}

// modelProgram makes a program that is likely to get far.
func modelProgram(seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 3))
	program := make([]byte, 60+random.IntN(400))
	for i := range program {
		program[i] = byte(random.Uint32())
	}
	return program
}

// TestModel runs some programs; with TETRACAST_MODEL=SEED one of them, with all
// its steps in the log.
func TestModel(t *testing.T) {
	var only uint64
	if n, _ := fmt.Sscan(os.Getenv("TETRACAST_MODEL"), &only); n == 1 {
		t.Logf("%x", modelProgram(only))
		runModel(t, modelProgram(only))
		return
	}
	programs := uint64(20) // two seconds; FuzzModel makes others
	if testing.Short() {
		programs = 5
	}
	seed := uint64(0)
	defer func() {
		if t.Failed() {
			t.Logf("TETRACAST_MODEL=%d runs this program alone", seed)
		}
	}()
	for ; seed < programs; seed++ {
		runModel(t, modelProgram(seed))
	}
}

// FuzzModel runs programs of any bytes.
func FuzzModel(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(modelProgram(seed))
	}
	f.Fuzz(func(t *testing.T, program []byte) { runModel(t, program) })
}
