package metrics

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tetracast/internal/collector"
	"tetracast/internal/sink"
	"tetracast/ledger"
)

// MaxAgents is how many hosts have series of their own, at the most. Anybody who may
// send can invent hosts, and a series stays in Prometheus for hours.
const MaxAgents = 4096

// others stands for the hosts beyond that, and unnamed for streams whose agent_init did
// not come. Parentheses are in no hostname.
const (
	others  = "(others)"
	unnamed = "(unknown)"
)

var collected catalogue

// The metrics of collect, in the order of an event's life.
var (
	socketDropped    = collected.counter("collector_socket_dropped_total", "Datagrams, or with GRO joined ones, for which a socket's receive buffer had no room, with those of processes before this one.")
	socketQueue      = collected.gauge("collector_socket_queue_bytes", "What waits in a socket's receive buffer, by the kernel's measure.", "socket")
	socketBuffer     = collected.gauge("collector_socket_buffer_bytes", "The size of a socket's receive buffer, by the same measure.", "socket")
	received         = collected.counter("collector_received_datagrams_total", "Datagrams received.")
	receivedBytes    = collected.counter("collector_received_bytes_total", "UDP payload of these datagrams.")
	undecodableCount = collected.counter("collector_undecodable_datagrams_total", "Datagrams that could not be decoded, by what they seem to be and what is wrong with them; format unknown: counted by a process before this one.", "format", "fault")
	reordered        = collected.counter("collector_reordered_datagrams_total", "Datagrams with a number that came behind a later one.")
	passedOn         = collected.counter("collector_passed_on_total", "Messages that are no events of Tetragon, passed on with --other pass.")
	chunkSets        = collected.counter("collector_chunk_sets_given_up_total", "Messages of GELF of which chunks never came, or for which there was no room.")
	fragmentSets     = collected.counter("collector_fragment_sets_given_up_total", "What frames held in fragments of which some never came, or for which there was no room.")

	announced  = collected.counter("collector_announced_events_total", "Events that the senders numbered, or announced in agent_stats.")
	events     = collected.counter("collector_received_events_total", "Events received, each counted once.")
	missing    = collected.gauge("collector_missing_events", "Events lost on the way, or at another collector: numbered, and neither received nor refused by the sender. One that comes late is taken off.")
	refused    = collected.gauge("collector_refused_events", "Events that were numbered, and that the sender says its kernel did not take.")
	unknownGap = collected.gauge("collector_unknown_events", "Events that may have come shortly before this collector was killed.")
	duplicates = collected.counter("collector_duplicate_events_total", "Events that came again, and were not used.")
	late       = collected.counter("collector_late_events_total", "Events that came so late that nobody knows whether they had come; not used, and still missing.")
	incomplete = collected.counter("collector_incomplete_events_total", "Events of which fragments were lost: part of missing.")

	decodeTime   = collected.histogram("collector_transcode_seconds", "Time to make the JSON of an event of a frame; samples, at most 4 a second and socket.")
	decLooks     = collected.counter("collector_memo_lookups_total", "Parts of events that were looked for among those transcoded before.")
	decHits      = collected.counter("collector_memo_hits_total", "Of them, those found.")
	decRepaired  = collected.counter("collector_repaired_events_total", "Events of frames with invalid UTF-8, written with U+FFFD in its place.")
	decKinds     = collected.counter("collector_unknown_kinds_events_total", "Events of frames of a kind that this release does not know, written with their bytes as tetracast_undecoded.")
	decUnknown   = collected.counter("collector_unknown_fields_events_total", "Events of frames with fields that this release does not know, written without them.")
	decFallbacks = collected.counter("collector_protojson_events_total", "Events of frames that protojson had to transcode.")

	lost       = collected.counter("collector_dropped_events_total", "Events received, and lost before the sink had them.", "reason")
	waiting    = collected.gauge("collector_queued_events", "Events received that wait for the sink.")
	waitBytes  = collected.gauge("collector_queue_bytes", "Lines that wait for the sink.")
	waitLimit  = collected.gauge("collector_queue_limit_bytes", "Their bound, --queue-bytes.")
	delivered  = collected.counter("collector_delivered_events_total", "Events that the sink took.")
	sinkTime   = collected.histogram("collector_sink_write_seconds", "Time of a write of the sink, of up to 256 KiB.")
	rotations  = collected.counter("collector_sink_rotations_total", "Times that the file of --write was rotated.")
	reopens    = collected.counter("collector_sink_reopens_total", "Times that it was opened anew, because it had been renamed or deleted.")
	sinkFailed = collected.counter("collector_sink_failed_tasks_total", "What failed beside the writing, and is tried again: to rotate, reopen, remove or compress.", "task")
	streams    = collected.gauge("collector_streams", "Streams known now.")
	agents     = collected.gauge("collector_agents", "Hosts known now that said who they are.")
	silent     = collected.gauge("collector_silent_agents", "Of them, those silent for longer than --agent-silent-after.")
	expected   = collected.gauge("collector_expected_agents", "Hosts that --expected-agents names.")
	unseen     = collected.gauge("collector_unseen_agents", "Of them, those of which nothing came yet.")
	agentHeard = collected.gauge("collector_agent_heard_timestamp_seconds", "When something new came of the agent last.", "hostname")
	agentGot   = collected.counter("collector_agent_received_events_total", "Events received of the agent's streams that are known now.", "hostname")
	agentLost  = collected.gauge("collector_agent_missing_events", "Of these streams, as collector_missing_events.", "hostname")
	agentShed  = collected.counter("collector_agent_dropped_events_total", "Events that the agent says it lost itself.", "hostname")
	awayTimes  = collected.counter("collector_away_total", "Times that a host had no stream, from the last of one run of its exporter to the first of the next.")
	awayTime   = collected.counter("collector_away_seconds_total", "Time in which it had none; what happened in it nobody counted.")
	agentAway  = collected.counter("collector_agent_away_seconds_total", "Likewise of the agent.", "hostname")
	agentStart = collected.counter("collector_agent_restarts_total", "Restarts of the agent.", "hostname")
)

var (
	collectorReasons = []ledger.Reason{ledger.SinkFull, ledger.SinkFailed, ledger.UnknownDictionary, ledger.Broken, ledger.TooLong, ledger.Shutdown}
	sinkBounds       = []float64{1e-5, 1e-4, 5e-4, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
)

// Collector is a prometheus.Collector of a collector's metrics.
type Collector struct {
	state      func(perAgent bool) collector.Stats
	perAgent   bool
	queueLimit int
	file       func() sink.FileStats
	transcode  *prometheus.HistogramVec
	sink       *prometheus.HistogramVec

	mu sync.Mutex
	// highest are the counts of datagrams too far ahead to be believed, of which a later
	// one may take some back, as a counter must not.
	highest [len(collector.Formats)]uint64
}

// NewCollector returns a Collector that asks for the state at each scrape: with the
// single agents if they are to have series. file may be nil.
func NewCollector(state func(perAgent bool) collector.Stats, queueLimitBytes int, perAgent bool, file func() sink.FileStats) *Collector {
	return &Collector{state: state, perAgent: perAgent, queueLimit: queueLimitBytes, file: file,
		transcode: seconds(decodeTime, transcodeBounds), sink: seconds(sinkTime, sinkBounds)}
}

// Measure returns what is to be given to the collector.
func (c *Collector) Measure() *collector.Measure {
	transcoded, written := c.transcode.WithLabelValues(), c.sink.WithLabelValues()
	return &collector.Measure{
		Sink:      func(d time.Duration) { written.Observe(d.Seconds()) },
		Transcode: func(d time.Duration) { transcoded.Observe(d.Seconds()) },
	}
}

// Describe is that of prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) { collected.describe(to) }

// Collect is that of prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	s := c.state(c.perAgent)
	a := &s.Account
	send(to, socketDropped, a.Observed.SocketDropped)
	for i, socket := range s.Sockets {
		send(to, socketQueue, socket.QueuedBytes, strconv.Itoa(i))
		send(to, socketBuffer, socket.BufferBytes, strconv.Itoa(i))
	}
	send(to, received, a.Datagrams)
	send(to, receivedBytes, a.Bytes)
	c.sendUndecodable(to, &s)
	send(to, reordered, s.Reordered)
	send(to, passedOn, a.PassedOn)
	send(to, chunkSets, a.Observed.ChunkSetsGivenUp)
	send(to, fragmentSets, a.Observed.FragmentSetsGivenUp)

	send(to, announced, s.Announced)
	send(to, events, a.Received)
	send(to, missing, s.Missing)
	send(to, refused, s.Refused)
	send(to, unknownGap, s.Unknown)
	send(to, duplicates, s.Duplicates)
	send(to, late, s.Late)
	send(to, incomplete, s.Incomplete)

	c.transcode.Collect(to)
	send(to, decLooks, s.Memo.Looks)
	send(to, decHits, s.Memo.Found)
	send(to, decRepaired, s.Repaired)
	send(to, decKinds, s.UnknownKinds)
	send(to, decUnknown, s.UnknownFields)
	send(to, decFallbacks, s.Fallbacks)

	sendDrops(to, lost, &a.Dropped, collectorReasons)
	send(to, waiting, a.Queued)
	send(to, waitBytes, s.QueueBytes)
	send(to, waitLimit, c.queueLimit)
	send(to, delivered, a.Delivered)
	c.sink.Collect(to)
	if c.file != nil {
		sendFile(to, c.file())
	}
	send(to, streams, s.Streams)
	send(to, agents, s.Agents)
	send(to, silent, s.Silent)
	send(to, expected, s.Expected)
	send(to, unseen, s.Unseen)
	send(to, awayTimes, s.Away.Times)
	send(to, awayTime, float64(s.Away.MS)/1000)
	sendAgents(to, s.PerAgent)
}

func sendFile(to sending, f sink.FileStats) {
	send(to, rotations, f.Rotations)
	send(to, reopens, f.Reopens)
	send(to, sinkFailed, f.FailedRotations, "rotate")
	send(to, sinkFailed, f.FailedReopens, "reopen")
	send(to, sinkFailed, f.FailedRemovals, "remove")
	send(to, sinkFailed, f.FailedCompressions, "compress")
}

// sendUndecodable sends the faults that occurred, and those that say that somebody
// forges.
func (c *Collector) sendUndecodable(to sending, s *collector.Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := s.Account.Undecodable
	for i, format := range collector.Formats {
		for f, n := range s.Undecodable[i] {
			fault := ledger.Fault(f)
			before[f] -= min(n, before[f])
			if fault == ledger.FaultJump {
				c.highest[i] = max(c.highest[i], n)
				n = c.highest[i]
			}
			if n > 0 || format == "frame" && (fault == ledger.FaultCheck || fault == ledger.FaultUnsealed || fault == ledger.FaultUnknownKey) {
				send(to, undecodableCount, n, format, fault.String())
			}
		}
	}
	for f, n := range before {
		if n > 0 && ledger.Fault(f) != ledger.FaultJump {
			send(to, undecodableCount, n, "unknown", ledger.Fault(f).String())
		}
	}
}

// sendAgents sends the series of single agents, those heard last first. Whoever may send
// chooses its own name, which may be one of ours, or look like another one's once it is
// a label: such agents share a series.
func sendAgents(to sending, all []collector.AgentStats) {
	slices.SortFunc(all, func(a, b collector.AgentStats) int {
		return cmp.Or(b.Heard.Compare(a.Heard), cmp.Compare(a.Hostname, b.Hostname))
	})
	series := make([]collector.AgentStats, 0, min(len(all), MaxAgents)+1)
	at := make(map[string]int, cap(series))
	for i := range all {
		name := label(cmp.Or(all[i].Hostname, unnamed))
		if _, ok := at[name]; !ok && len(series) >= MaxAgents {
			name = others
		}
		k, ok := at[name]
		if !ok {
			k = len(series)
			at[name] = k
			series = append(series, collector.AgentStats{Hostname: name})
		}
		s := &series[k]
		s.Received += all[i].Received
		s.Missing += all[i].Missing
		s.SenderDropped += all[i].SenderDropped
		s.Restarts += all[i].Restarts
		s.Away.Add(all[i].Away)
		if name != others && s.Heard.IsZero() {
			s.Heard = all[i].Heard // the latest one
		}
	}
	for i := range series {
		a := &series[i]
		send(to, agentGot, a.Received, a.Hostname)
		send(to, agentLost, a.Missing, a.Hostname)
		send(to, agentShed, a.SenderDropped, a.Hostname)
		send(to, agentStart, a.Restarts, a.Hostname)
		send(to, agentAway, float64(a.Away.MS)/1000, a.Hostname)
		if !a.Heard.IsZero() {
			send(to, agentHeard, float64(a.Heard.UnixMilli())/1000, a.Hostname)
		}
	}
}
