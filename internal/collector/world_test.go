package collector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"

	"tetracast/datagram"
	"tetracast/ledger"
	"tetracast/transcode"
)

// world is a collector with everything around it that can go wrong: agents of all
// formats, a network that loses, repeats and reorders, strangers who forge, a sink that
// fails, restarts, kills. Only the collector's pure parts run, in virtual time. What
// happens is chosen by the bytes of a fuzzer; what truly happened the world knows.
type world struct {
	t      *testing.T
	choose func(below int) int

	config    Config
	key       *datagram.Key
	c         *Collector
	out       *memory
	saved     []byte // the state at the last save
	hostile   [][]byte
	senders   []*sender
	read      int // lines of out that were checked
	delivered map[string]int
	kills     int
	failing   bool // the sink
	flooded   bool // somebody filled what is bounded for all
}

// sender is one stream of an agent, and what came of it.
type sender struct {
	w       *world
	id      uint64
	format  string
	source  netip.AddrPort
	frame   *datagram.Frame
	packer  datagram.Packer
	reader  *datagram.FrameReader // of the world's own, to see what a datagram holds
	sealed  bool
	counts  bool // its events carry numbers
	number  uint64
	flights []flight

	announced uint64            // the highest number that came
	arrived   map[uint64]bool   // events whose datagrams came, all pieces of them
	unsaved   map[uint64]bool   // of them, since the last save
	pieces    map[uint64]pieces // of events in pieces
	seen      map[int]bool      // flights that came, by their number
	fresh     map[int]bool      // of them, since the last save
	next      int               // number of the next flight
	ended     bool
	touched   bool // somebody forged in its name
	killed    bool // the collector was, since it began
	gone      bool // it was evicted, or may have been
	again     bool // a datagram of it came twice
}

type pieces struct {
	since time.Time
	have  map[int]bool
}

// flight is a datagram on its way.
type flight struct {
	number       int
	data         []byte
	first, count uint64
	last         uint64 // that its sender had numbered
	piece, total int
}

var fuzzKey = datagram.NewKey([datagram.KeyBytes]byte{1, 2, 3})

var worldFormats = []string{"frame", "frame zstd", "frame json", "json", "json sequence", "ndjson sequence", "gelf", "gelf zlib", "syslog"}

func newWorld(t *testing.T, choose func(int) int) *world {
	w := &world{t: t, choose: choose, delivered: map[string]int{}}
	w.config = Config{Other: []string{OtherDrop, OtherPass}[choose(2)]}
	switch choose(3) {
	case 0:
		w.key = fuzzKey
		w.config.Keys = []*datagram.Key{w.key}
	case 1:
		w.key = fuzzKey
		w.config.Keys = []*datagram.Key{w.key}
		w.config.AllowSources = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	}
	w.config.QueueBytes = []int{64 << 20, 4 << 10}[min(choose(8), 1)^1]
	w.start(nil)
	for range 2 + choose(3) {
		w.newSender()
	}
	return w
}

// start starts a collector, which goes on from a state.
func (w *world) start(saved []byte) {
	w.out = &memory{}
	config := w.config
	config.Sink = w.out
	config, err := config.withDefaults()
	if err != nil {
		w.t.Fatal(err)
	}
	w.c = newCollector(config, newFakeSocket(), newFakeSocket())
	if w.choose(4) == 0 {
		w.c.agents = newAgents(3, 2, 3)
	}
	for _, in := range w.c.intakes {
		in.transcoder = fuzzProgram(w.t)
	}
	w.read = 0
	if saved == nil {
		return
	}
	var s state
	if err := json.Unmarshal(saved, &s); err != nil {
		w.t.Fatalf("%s: %v", saved, err)
	}
	w.c.restore(&s, time.Now())
}

// save keeps what is known, as the collector does when the sink has taken all.
func (w *world) save(clean bool) {
	w.drain()
	s := w.c.snapshot()
	s.Clean = clean
	var err error
	if w.saved, err = json.Marshal(s); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range w.senders {
		clear(s.unsaved)
		clear(s.fresh)
	}
}

// restart ends the collector in order.
func (w *world) restart() {
	w.save(true)
	w.forgetPieces()
	w.start(w.saved)
}

// kill ends it at once.
func (w *world) kill() {
	w.kills++
	if w.saved == nil {
		w.save(false) // as every process does at its start
	}
	var s state
	if err := json.Unmarshal(w.saved, &s); err != nil {
		w.t.Fatal(err)
	}
	s.Clean = false
	w.saved, _ = json.Marshal(&s)
	w.forgetPieces()
	for _, s := range w.senders {
		s.killed = true
		for n := range s.fresh { // the next process has not seen them
			delete(s.seen, n)
		}
		clear(s.fresh)
	}
	w.start(w.saved)
}

func (w *world) forgetPieces() {
	for _, s := range w.senders {
		clear(s.pieces)
	}
}

func (w *world) newSender() {
	if len(w.senders) > 12 {
		return
	}
	n := len(w.senders)
	s := &sender{w: w, id: uint64(0xabcd_0000 + n), format: worldFormats[w.choose(len(worldFormats))],
		source:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 4000),
		arrived: map[uint64]bool{}, unsaved: map[uint64]bool{}, pieces: map[uint64]pieces{}, seen: map[int]bool{}, fresh: map[int]bool{}, counts: true}
	var err error
	switch s.format {
	case "json":
		s.packer, s.counts = datagram.NewJSON(datagram.JSONConfig{}), false
	case "json sequence":
		s.packer = datagram.NewJSON(datagram.JSONConfig{Sequence: true, Stream: s.id})
	case "ndjson sequence":
		s.packer = datagram.NewNDJSON(datagram.JSONConfig{Sequence: true, Stream: s.id, MaxShared: 600})
	case "gelf", "gelf zlib":
		config := datagram.GELFConfig{Stream: s.id, Host: "node", MaxDatagram: datagram.MinGELFDatagram}
		if s.format == "gelf zlib" {
			config.Compression = datagram.GELFZlib
		}
		s.packer, err = datagram.NewGELF(config)
	case "syslog":
		s.packer = datagram.NewSyslog(datagram.SyslogConfig{Stream: s.id})
	default:
		config := datagram.FrameConfig{Stream: s.id, MaxDatagram: 300 + w.choose(900), Compression: datagram.CompressionS2, Pad: w.choose(2) == 0}
		if s.format == "frame zstd" {
			config.Compression = datagram.CompressionZstd
		}
		config.JSON = s.format == "frame json"
		if s.sealed = w.key != nil && w.choose(4) > 0; s.sealed {
			config.Key = w.key
		}
		var keys []*datagram.Key
		if s.sealed {
			keys = append(keys, w.key)
		}
		s.reader = datagram.NewFrameReader(datagram.FrameReaderConfig{Keys: keys})
		s.frame, err = datagram.NewFrame(config)
		s.packer = s.frame
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.senders = append(w.senders, s)
}

// pack sends events on their way, some of them long.
func (s *sender) pack(events int, long bool) {
	if s.ended {
		return
	}
	var b datagram.Batch
	first := s.number + 1
	for range events {
		s.number++
		name := fmt.Sprintf("s%x-%d", s.id, s.number)
		if long {
			name += string(bytes.Repeat([]byte{'x', byte('a' + s.number%26)}, 200+s.w.choose(900)))
		}
		line := fmt.Appendf(nil, `{"node_name":"%s"}`+"\n", name)
		e := datagram.Event{Number: s.number, Line: line}
		if s.frame != nil && !bytes.Contains([]byte(s.format), []byte("json")) {
			e.Wire = fuzzNode(name)
		}
		if err := s.packer.Pack(&b, &e); err != nil {
			s.w.t.Fatal(err)
		}
		if s.frame == nil && s.format != "ndjson sequence" {
			s.launch(&b, s.number, 1, s.number)
		}
	}
	s.packer.Flush(&b)
	s.launch(&b, first, uint64(events), s.number)
}

// launch takes the datagrams of a batch, which together hold these events.
func (s *sender) launch(b *datagram.Batch, first, count, last uint64) {
	for i, d := range b.Datagrams {
		f := flight{number: s.next, data: bytes.Clone(d), first: first, count: count, last: last, piece: i, total: len(b.Datagrams)}
		s.next++
		switch {
		case s.frame != nil:
			var h datagram.Header
			if _, err := s.reader.Open(d, &h); err != nil {
				s.w.t.Fatal(err)
			}
			f.first, f.count, f.last = h.First, uint64(h.Count), h.Last()
			f.piece, f.total = h.Fragment.Index, max(h.Fragment.Total, 1)
		case s.format == "ndjson sequence" && count > 0:
			f.count = uint64(bytes.Count(d, []byte("\n")))
			f.first, f.piece, f.total = first, 0, 1
			first += f.count
			f.last = first - 1
		}
		s.flights = append(s.flights, f)
	}
	b.Reset()
}

// say sends who it is, or what it counted.
func (s *sender) say(stats, goodbye bool) {
	if s.ended {
		return
	}
	host := fmt.Sprintf("node-%x", s.id&3)
	line := fmt.Appendf(nil, `{"@timestamp":"2026-01-01T00:00:%02dZ","event":"agent_init","hostname":"%s","pid":%d}`+"\n", s.w.choose(3), host, s.id)
	if stats {
		a := ledger.AgentStats{Event: ledger.EventAgentStats, Stream: string(datagram.AppendStreamID(nil, s.id)), Hostname: host, Seen: s.number, LastNumber: s.number, Sent: s.number, Goodbye: goodbye}
		line = append(a.AppendJSON(nil), '\n')
	}
	var b datagram.Batch
	switch {
	case s.frame != nil && stats:
		s.frame.PackStats(&b, line, goodbye)
	case s.frame != nil:
		s.frame.PackRecord(&b, line)
	default:
		s.packer.(interface {
			PackRecord(*datagram.Batch, []byte)
		}).PackRecord(&b, line)
	}
	last := uint64(0)
	if stats {
		last = s.number
	}
	s.launch(&b, 1, 0, last)
	s.ended = goodbye
}

// deliver has one of a sender's datagrams arrive; twice, if it stays on its way.
func (w *world) deliver(s *sender, i int, stays bool) {
	f := s.flights[i]
	if !stays {
		s.flights = slices.Delete(s.flights, i, i+1)
	}
	w.take(s.source, f.data)
	if w.key != nil && !s.sealed && (s.frame != nil || w.config.AllowSources == nil) {
		return // it is refused
	}
	if s.seen[f.number] {
		s.again = true
		if !s.counts {
			return
		}
	}
	s.seen[f.number], s.fresh[f.number] = true, true
	whole := f.total == 1
	if !whole {
		key := f.first<<20 | uint64(f.total)<<1 | min(f.count, 1)
		p, ok := s.pieces[key]
		if !ok || time.Since(p.since) > 5*time.Second {
			p = pieces{time.Now(), map[int]bool{}}
			s.pieces[key] = p
		}
		p.have[f.piece] = true
		if whole = len(p.have) == f.total; whole {
			delete(s.pieces, key)
		}
	}
	if whole || s.frame != nil && f.count == 0 {
		s.announced = max(s.announced, f.last)
	}
	if whole {
		for n := f.first; n < f.first+f.count; n++ {
			s.arrived[n], s.unsaved[n] = true, true
		}
	}
}

// take gives a datagram to the collector, and holds what it makes of it to its bounds.
func (w *world) take(source netip.AddrPort, d []byte) {
	before := w.c.queue.bytes
	in := w.c.intakes[int(source.Port())%len(w.c.intakes)]
	in.take([]packet{{Payload: bytes.Clone(d), Source: source}})
	if made := w.c.queue.bytes - before; made > len(d)*mostOutput+freeOutput+maxHeldBytes {
		w.t.Fatalf("%d bytes of output of %d", made, len(d))
	}
}

// forge sends what a stranger makes up, or makes of what he saw.
func (w *world) forge() {
	s := w.senders[w.choose(len(w.senders))]
	number := func() uint64 {
		return []uint64{0, 1, 2, s.number, s.number + 1, 70_000, 1<<48 - 1, 1 << 48, 1 << 62, 1<<63 + 7, 1<<64 - 9, 1<<64 - 1}[w.choose(12)]
	}
	name := []string{"(unknown)", "(evicted)", "", "a\x1b[2Jb", "in all 0", string(bytes.Repeat([]byte("long"), 100)), "\xff\xfe", "node-1"}[w.choose(8)]
	quoted, _ := json.Marshal(name)
	id := string(datagram.AppendStreamID(nil, s.id))
	source := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(w.choose(6))}), uint16(w.choose(4)))
	if w.choose(6) == 0 {
		source = s.source
		s.touched = s.touched || !s.sealed
	}
	var d []byte
	switch w.choose(9) {
	case 0: // a datagram that was seen, changed
		if len(s.flights) == 0 {
			return
		}
		d = bytes.Clone(s.flights[w.choose(len(s.flights))].data)
		d[w.choose(len(d))] ^= 1 << w.choose(8)
		s.touched = s.touched || !s.sealed
	case 1:
		s.touched = s.touched || !s.sealed
		d = forgery{stream: s.id, datagram: number(), first: number(), count: number(), excluded: number(), refused: number(), ahead: number(),
			flags: byte(w.choose(32)), content: byte(1+w.choose(3)) | byte(w.choose(3))<<4, body: items([]byte("{}"), nil)[:w.choose(4)], padding: w.choose(100)}.bytes()
	case 2:
		s.touched = s.touched || !s.sealed
		d = fmt.Appendf(nil, []string{numberedForms["json"], numberedForms["syslog"], numberedForms["gelf"]}[w.choose(3)], number())
		d = bytes.ReplaceAll(d, []byte("00000000000000aa"), []byte(id))
	case 3:
		s.touched = s.touched || !s.sealed
		d = fmt.Appendf(nil, `{"@timestamp":"2026-01-01T00:00:00Z","event":"agent_stats","stream":"%s","hostname":%s,"started_at":"2026-01-01T00:00:00Z","seen":%d,"dropped":{%s:%d},`+
			`"last_number":%d,"goodbye":%v,"tetracast":{"stream":"%s"}}`, id, quoted, number(), quoted, number(), number(), w.choose(2) == 0, id)
		if w.choose(3) == 0 { // of another one's stream
			s.touched = s.touched || !s.sealed
			d = bytes.Replace(d, []byte(`"goodbye"`), fmt.Appendf(nil, `"reported_by":"%s","goodbye"`, id), 1)
		}
		for _, o := range w.senders {
			o.touched = o.touched || !o.sealed // it may be about a host's other streams
		}
	case 4:
		d = fmt.Appendf(nil, `{"@timestamp":"2026-01-01T00:00:%02dZ","event":"agent_init","hostname":%s,"pid":1,"tetracast":{"stream":"%016x"}}`, w.choose(9), quoted, w.choose(40)+1)
		w.flooded = true
	case 5:
		d = w.hostile[w.choose(len(w.hostile))]
		w.flooded = true
	case 6:
		d = make([]byte, 1+w.choose(40))
		for i := range d {
			d[i] = byte(w.choose(256))
		}
		w.flooded = true
	case 7: // a stream that nobody has
		d = forgery{stream: uint64(w.choose(50)), datagram: uint64(1 + w.choose(9)), first: uint64(1 + w.choose(9)), count: 1, flags: byte(w.choose(2)) << 3, body: items([]byte{0x0a, 0})}.bytes()
		w.flooded = true
	case 8: // sealed with another key
		f, err := datagram.NewFrame(datagram.FrameConfig{Stream: s.id, Key: datagram.NewKey([datagram.KeyBytes]byte{9})})
		if err != nil {
			w.t.Fatal(err)
		}
		var b datagram.Batch
		f.PackStats(&b, []byte(`{"event":"agent_stats"}`), true)
		d = b.Datagrams[0]
		s.touched = s.touched || !s.sealed
	}
	w.take(source, d)
}

// drain has the sink take what waits, or refuse it.
func (w *world) drain() {
	for b := w.c.queue.take(); b != nil; b = w.c.queue.take() {
		lines, _ := w.out.Write(&b.Batch)
		if w.failing {
			lines = w.choose(lines + 1)
		}
		w.c.settle(b, lines)
	}
	for _, line := range w.out.lines[w.read:] {
		w.line(line)
	}
	w.read = len(w.out.lines)
}

// line checks one of the output.
func (w *world) line(line string) {
	text := []byte(line[:len(line)-1])
	if line[len(line)-1] != '\n' || bytes.ContainsAny(text, "\n\r") || !utf8.Valid(text) || !json.Valid(text) {
		w.t.Fatalf("the output has %q", line)
	}
	var event struct {
		Node string `json:"node_name"`
	}
	if json.Unmarshal(text, &event) == nil && event.Node != "" {
		w.delivered[event.Node]++
		for _, s := range w.senders {
			if w.delivered[event.Node] > 1 && s.sealed && !s.killed && !s.gone && w.kills == 0 && bytes.HasPrefix([]byte(event.Node), fmt.Appendf(nil, "s%x-", s.id)) {
				w.t.Fatalf("%s came out twice", event.Node)
			}
		}
	}
}

// check holds the collector to what is true at any moment.
func (w *world) check() {
	a := checked(w.t, w.c)
	agents := w.c.agents
	for _, table := range agents.tables() {
		if table.recent.Len() > table.limit {
			w.t.Fatalf("%d streams, at most %d", table.recent.Len(), table.limit)
		}
	}
	if agents.heldBytes < 0 || agents.heldBytes > maxHeldBytes || len(agents.hosts) > maxStreams+maxProbation+maxSources {
		w.t.Fatalf("%d bytes held, %d hosts", agents.heldBytes, len(agents.hosts))
	}
	streams := map[string]ledger.AgentStream{}
	for _, agent := range a.Agents {
		for _, s := range agent.Streams {
			streams[s.Stream] = s
			if s.Numbers != nil {
				if err := s.Numbers.Check(); err != nil {
					w.t.Fatal(err)
				}
			}
		}
	}
	for _, s := range w.senders {
		s.check(streams)
	}
	if _, err := json.Marshal(a); err != nil {
		w.t.Fatal(err)
	}
	w.c.Stats(true)
}

// check holds the account of a stream to what truly came.
func (s *sender) check(streams map[string]ledger.AgentStream) {
	id := s.source.String()
	if s.counts {
		id = string(datagram.AppendStreamID(nil, s.id))
	}
	got, ok := streams[id]
	if !ok {
		got, ok = streams[string(datagram.AppendStreamID(nil, s.id))] // its agent_stats came
	}
	if !ok {
		s.gone = s.gone || len(s.seen) > 0
		return
	}
	if s.gone || s.touched {
		return // who it is, or what it said, nobody can know
	}
	arrived, lost := uint64(len(s.arrived)), uint64(0)
	for n := uint64(1); n <= s.announced; n++ {
		if !s.arrived[n] || s.unsaved[n] && s.killed {
			lost++
		}
	}
	fail := func(what string, got, want uint64) {
		s.w.t.Fatalf("stream %s (%s, sealed %v, killed %v): %s %d, in truth %d", id, s.format, s.sealed, s.killed, what, got, want)
	}
	if got.Received > arrived && !s.killed && !(s.again && !s.counts) {
		fail("received", got.Received, arrived)
	}
	if got.Announced != nil && *got.Announced > s.number {
		fail("announced", *got.Announced, s.number)
	}
	if got.Missing != nil && *got.Missing > lost {
		if s.counts || !s.again {
			fail("missing", *got.Missing, lost)
		}
	}
	// Fragments share their bounds with everybody who may send.
	exact := s.counts && !s.killed && (s.sealed || !s.w.flooded)
	if exact && (got.Announced == nil || got.Missing == nil || got.Received != arrived || *got.Announced != s.announced || *got.Missing != lost) {
		s.w.t.Fatalf("stream %s (%s, sealed %v): received %d, announced %v, missing %v; in truth %d, %d, %d",
			id, s.format, s.sealed, got.Received, value(got.Announced), value(got.Missing), arrived, s.announced, lost)
	}
}

func value(n *uint64) any {
	if n == nil {
		return nil
	}
	return *n
}

// step does one thing.
func (w *world) step() {
	s := w.senders[w.choose(len(w.senders))]
	switch w.choose(20) {
	case 0, 1, 2:
		s.pack(1+w.choose(20), false)
	case 3:
		s.pack(1, true)
	case 4:
		s.say(false, false)
	case 5:
		s.say(true, false)
	case 6:
		if w.choose(4) == 0 {
			s.say(true, true)
		}
	case 7, 8, 9, 10:
		for len(s.flights) > 0 && w.choose(8) > 0 {
			w.deliver(s, w.choose(min(len(s.flights), 4)), false)
		}
	case 11:
		if len(s.flights) > 0 {
			w.deliver(s, w.choose(len(s.flights)), true)
		}
	case 12:
		if len(s.flights) > 0 {
			s.flights = slices.Delete(s.flights, 0, 1+w.choose(len(s.flights)))
		}
	case 13, 14, 15:
		w.forge()
	case 16:
		w.drain()
	case 17:
		switch w.choose(6) {
		case 0:
			w.restart()
		case 1:
			w.kill()
		case 2:
			w.save(false)
		case 3:
			w.failing = !w.failing
		case 4:
			w.c.look(time.Now())
		}
	case 18:
		time.Sleep([]time.Duration{time.Millisecond, time.Second, 6 * time.Second, 11 * time.Minute}[w.choose(4)])
	case 19:
		w.newSender()
	}
}

// runWorld does what the bytes say.
func runWorld(t *testing.T, in []byte, hostile [][]byte) {
	used := 0
	choose := func(below int) int {
		if below <= 1 || used >= len(in) {
			return 0
		}
		n := int(in[used])
		if used++; below > 256 && used < len(in) {
			n = n<<8 | int(in[used])
			used++
		}
		return n % below
	}
	w := newWorld(t, choose)
	w.hostile = hostile
	for steps := 0; used < len(in) && steps < 200; steps++ {
		w.step()
		if steps%8 == 0 {
			w.check()
		}
	}
	w.failing = false
	w.drain()
	w.check()
	if a := w.c.Account(); a.Queued != 0 {
		t.Fatalf("%d events wait, and nothing does", a.Queued)
	}
}

var fuzzCompiled *transcode.Program

// fuzzProgram returns a transcoder, compiled once.
func fuzzProgram(t testing.TB) *transcode.Transcoder {
	if fuzzCompiled == nil {
		p, err := transcode.Compile(eventDescriptor)
		if err != nil {
			t.Fatal(err)
		}
		fuzzCompiled = p
	}
	return fuzzCompiled.NewTranscoder(transcode.Options{CacheBytes: 256 << 10})
}

// FuzzWorld: after whatever happens, the figures of sealed streams are exact, no figure
// of another one claims more than can be known, the output is valid, and nothing grows
// beyond its bounds.
func FuzzWorld(f *testing.F) {
	debug.SetMemoryLimit(1 << 30)
	var hostile [][]byte
	for _, a := range attacks(f) {
		for i := range 3 {
			hostile = append(hostile, a.at(i))
		}
	}
	for seed := range 24 {
		in := make([]byte, 600)
		x := uint64(seed)*0x9e3779b97f4a7c15 + 1
		for i := range in {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			in[i] = byte(x >> 24)
		}
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) { runWorld(t, in, hostile) })
	})
}

var eventDescriptor = (*tetragon.GetEventsResponse)(nil).ProtoReflect().Descriptor()

// fuzzNode returns an event whose JSON is {"node_name":name}.
func fuzzNode(name string) []byte {
	wire, err := proto.Marshal(&tetragon.GetEventsResponse{NodeName: name})
	if err != nil {
		panic(err)
	}
	return wire
}
