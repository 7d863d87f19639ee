package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tetracast/exporter"
	"tetracast/internal/source"
	"tetracast/internal/udp"
	"tetracast/ledger"
	"tetracast/metadata"
)

var exported catalogue

// The metrics of export, in the order of an event's life.
var (
	tetragonInfo  = exported.gauge("exporter_tetragon_info", "1; the version of the Tetragon that events come from, as a label.", "version")
	subscribed    = exported.gauge("exporter_subscribed", "Whether a subscription to Tetragon's events is there: 1 or 0.")
	subscriptions = exported.counter("exporter_subscriptions_total", "Subscriptions made; all but the first are reconnects, or changes of the filters.")
	breaks        = exported.counter("exporter_subscription_breaks_total", "Subscriptions that ended while more was wanted; with --source file: files that became shorter, vanished or were damaged before they were read.", "cause")
	blind         = exported.counter("exporter_blind_seconds_total", "Time without a subscription, since the previous run last counted or this one started; what happened in it nobody can count.")
	overlap       = exported.counter("exporter_overlap_events_total", "Events that may have come twice, because a changed filter opened the new subscription before it closed the old.")
	fallbacks     = exported.counter("exporter_grpc_fallbacks_total", "Times that the one gRPC client was given up for the other, for the rest of the process.")
	upstreamLost  = exported.counter("exporter_upstream_lost_events_total", "Events that Tetragon itself lost, as its own metrics tell; listener_overflow_all_clients counts for all its clients, so it is an upper bound.", "stage")

	seen          = exported.counter("exporter_seen_events_total", "Events that the source handed over.")
	excluded      = exported.counter("exporter_excluded_events_total", "Events of the exporter's own sends, left out on purpose.")
	intakeDropped = exported.counter("exporter_intake_dropped_events_total", "Events lost before any destination was to get them.", "reason")
	queueBytes    = exported.gauge("exporter_queue_bytes", "What waits for the destinations, with what it takes to list the events.", "lane")
	queueLimit    = exported.gauge("exporter_queue_limit_bytes", "The bound of both lanes together, --queue-bytes.")
	queueAge      = exported.gauge("exporter_queue_age_seconds", "How long the oldest event of a lane has waited, or one that came shortly before it.", "lane")

	transcodeTime = exported.histogram("exporter_transcode_seconds", "Time to make the JSON of an event; samples, at most 4 a second.")
	memoLooks     = exported.counter("exporter_memo_lookups_total", "Parts of events that were looked for among those transcoded before.")
	memoHits      = exported.counter("exporter_memo_hits_total", "Of them, those found.")
	memoBytes     = exported.counter("exporter_memo_copied_bytes_total", "JSON that was copied from there.")
	repaired      = exported.counter("exporter_repaired_events_total", "Events with invalid UTF-8, sent with U+FFFD in its place.")
	unknownKinds  = exported.counter("exporter_unknown_kinds_events_total", "Events of a kind that this release does not know, as of a newer Tetragon, sent as they came.")
	unknownFields = exported.counter("exporter_unknown_fields_events_total", "Events with fields that this release does not know, as of a newer Tetragon, sent without them.")
	slowEvents    = exported.counter("exporter_protojson_events_total", "Events that protojson had to transcode.")

	destUp       = exported.gauge("exporter_destination_up", "Whether the destination's name is resolved, the kernel takes its datagrams, and no ICMP answer says that they do not arrive: 1 or 0. That any arrive UDP does not tell.", "destination", "format")
	dropped      = exported.counter("exporter_dropped_events_total", "Events lost on the way to a destination.", "destination", "format", "reason")
	sent         = exported.counter("exporter_sent_events_total", "Events that the kernel took.", "destination", "format")
	queued       = exported.gauge("exporter_queued_events", "Events seen and not yet sent, lost or excluded.", "destination", "format")
	outside      = exported.counter("exporter_outside_events_total", "Events that were not for a destination: worked off before it was configured, or after.", "destination", "format")
	truncated    = exported.counter("exporter_truncated_events_total", "Events sent in a shorter form that says what it lacks.", "destination", "format")
	datagrams    = exported.counter("exporter_sent_datagrams_total", "Datagrams that the kernel took, with those that hold no event.", "destination", "format")
	bytesSent    = exported.counter("exporter_sent_bytes_total", "UDP payload of these datagrams.", "destination", "format")
	sizes        = exported.histogram("exporter_datagram_size_bytes", "Size of the datagrams in bytes of UDP payload. 1232 passes every path of IPv6 whole, 1472 Ethernet.", "destination", "format")
	pathMTU      = exported.gauge("exporter_path_mtu_bytes", "The largest IP packet that the path takes whole, as the kernel last told.", "destination", "format")
	overMTU      = exported.counter("exporter_datagrams_over_path_mtu_total", "Datagrams larger than that, which travelled as IP fragments.", "destination", "format")
	wireTime     = exported.histogram("exporter_event_to_wire_seconds", "Time from an event, by Tetragon's clock, until the kernel took its datagram; samples, at most 4 a second.", "destination", "format")
	sendErrors   = exported.counter("exporter_send_errors_total", "Sends that the kernel, or the bound of the rate, did not take at once; what was lost by it stands under dropped.", "destination", "format", "class")
	waitingBytes = exported.gauge("exporter_destination_queue_bytes", "Datagrams that wait for this destination alone.", "destination", "format")

	calls       = exported.counter("exporter_send_calls_total", "System calls that sent, since the socket was opened.", "destination", "format")
	icmpRefused = exported.counter("exporter_icmp_refused_total", "Of exporter_icmp_answers_total, the class port_unreachable; deprecated.", "destination", "format")
	icmpAnswers = exported.counter("exporter_icmp_answers_total", "ICMP messages of hosts and routers about datagrams that were sent, by class. They send few, and anybody can forge them.", "destination", "format", "class")
	retried     = exported.counter("exporter_retried_messages_total", "Messages that were offered to the kernel again, after the error of an earlier one or a refusal of this host.", "destination", "format")
	rebinds     = exported.counter("exporter_socket_rebinds_total", "New sockets because the host had lost the old one's address.", "destination", "format")
	opened      = exported.counter("exporter_sockets_opened_total", "Sockets to the destination: the first, and each other one for another source port or address.", "destination", "format")
	mtuShrinks  = exported.counter("exporter_path_mtu_shrinks_total", "Times that the path MTU became smaller.", "destination", "format")
	gso         = exported.gauge("exporter_gso_enabled", "Whether segmentation offload is in use: 1 or 0.", "destination", "format")
	gsoSegments = exported.counter("exporter_gso_segments_total", "Datagrams that went as segments of a larger message.", "destination", "format")
	gsoGivenUp  = exported.counter("exporter_gso_fallbacks_total", "Times that segmentation offload was given up, for the socket or for a message.", "destination", "format")
	zeroCopy    = exported.gauge("exporter_zerocopy_enabled", "Whether the kernel may read large messages from the exporter's memory: 1 or 0.", "destination", "format")
	zeroCopied  = exported.counter("exporter_zerocopy_messages_total", "Messages that went so.", "destination", "format")
	zeroWaste   = exported.counter("exporter_zerocopy_copied_total", "Of them, those that the kernel copied all the same.", "destination", "format")
	poolGets    = exported.counter("exporter_pool_gets_total", "Buffers for waiting datagrams: found in the pool (hit), or made (miss).", "destination", "format", "result")
	poolDropped = exported.counter("exporter_pool_dropped_total", "Buffers that the pool had no room for.", "destination", "format")
	poolBytes   = exported.gauge("exporter_pool_bytes", "Memory that the pool keeps.", "destination", "format")

	metaHits   = exported.counter("exporter_metadata_hits_total", "Exports of agent_init that reused the record.", "destination", "format")
	metaMisses = exported.counter("exporter_metadata_misses_total", "Exports of agent_init that found none.", "destination", "format")
	metaMade   = exported.counter("exporter_metadata_records_total", "Records made: the first, and one for each change.", "destination", "format")
	metaPlain  = exported.counter("exporter_metadata_fallbacks_total", "Exports that had to make a plain event, because a record could not be made.", "destination", "format")
	metaBad    = exported.counter("exporter_metadata_bad_facts_total", "Facts in records that were missing, too long or not UTF-8.", "destination", "format")
	metaWarm   = exported.counter("exporter_metadata_warm_starts_total", "Records taken over from the process before this one.", "destination", "format")
	metaStore  = exported.counter("exporter_metadata_store_errors_total", "Calls of the store of records that failed.", "destination", "format")
	metaGone   = exported.counter("exporter_metadata_invalidations_total", "Records that were given up, or not taken over.", "destination", "format", "reason")
	metaBytes  = exported.gauge("exporter_metadata_record_bytes", "Size of the record in use.", "destination", "format")
	metaAge    = exported.gauge("exporter_metadata_record_age_seconds", "Time since it was made.", "destination", "format")

	sndbufErrors = exported.counter("exporter_netns_sndbuf_errors_total", "What the network namespace could not send for want of buffers since the exporter began: datagrams, or messages of several, of all its sockets.")
)

// The reasons that have a series from the start, so that a first loss is a growth.
var (
	intakeReasons = []ledger.Reason{ledger.QueueFullProcess, ledger.QueueFullPolicy, ledger.Invalid, ledger.Shutdown}
	streamReasons = []ledger.Reason{ledger.Untranscodable, ledger.Oversize, ledger.DestinationFull, ledger.Refused, ledger.NotPermitted,
		ledger.TooLarge, ledger.NoBuffers, ledger.SendFailed, ledger.Shutdown}
)

// The upper bounds of the buckets of times, in seconds.
var (
	wireBounds      = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	transcodeBounds = []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2}
)

// ExporterState is what a scrape of an exporter shows.
type ExporterState struct {
	Account         ledger.Exporter
	Stats           exporter.Stats
	Subscription    *source.Stats // nil: events do not come from a subscription
	QueueLimitBytes int
}

// Exporter is a prometheus.Collector of an exporter's metrics.
type Exporter struct {
	state     func() ExporterState
	wire      *prometheus.HistogramVec
	transcode *prometheus.HistogramVec
}

// NewExporter returns a Collector that asks for the state at each scrape.
func NewExporter(state func() ExporterState) *Exporter {
	return &Exporter{state: state, wire: seconds(wireTime, wireBounds), transcode: seconds(transcodeTime, transcodeBounds)}
}

// Measure returns what is to be given to the exporter.
func (e *Exporter) Measure() *exporter.Measure {
	transcoded := e.transcode.WithLabelValues()
	return &exporter.Measure{
		Wire: func(address, format string, d time.Duration) {
			e.wire.WithLabelValues(valid([]string{address, format})...).Observe(d.Seconds())
		},
		Transcode: func(d time.Duration) { transcoded.Observe(d.Seconds()) },
	}
}

// Describe is that of prometheus.Collector.
func (e *Exporter) Describe(to chan<- *prometheus.Desc) { exported.describe(to) }

// Collect is that of prometheus.Collector.
func (e *Exporter) Collect(to chan<- prometheus.Metric) {
	state := e.state()
	a, s := &state.Account, &state.Stats
	if s.Tetragon != "" {
		send(to, tetragonInfo, 1, s.Tetragon)
	}
	sendSubscription(to, &state)
	for stage, n := range a.Upstream {
		if n != nil {
			send(to, upstreamLost, *n, stage)
		}
	}
	send(to, seen, a.Seen)
	send(to, excluded, a.Excluded)
	sendDrops(to, intakeDropped, &a.Dropped, intakeReasons)
	for i, l := range s.Lanes {
		send(to, queueBytes, l.Bytes, exporter.Lanes[i])
		send(to, queueAge, l.Age.Seconds(), exporter.Lanes[i])
	}
	send(to, queueLimit, state.QueueLimitBytes)
	e.transcode.Collect(to)
	send(to, memoLooks, s.Memo.Looks)
	send(to, memoHits, s.Memo.Found)
	send(to, memoBytes, s.Memo.Bytes)
	send(to, repaired, s.Repaired)
	send(to, unknownKinds, a.UnknownKinds)
	send(to, unknownFields, s.Unknown)
	send(to, slowEvents, s.Fallbacks)
	for _, d := range destinations(a, s) {
		d.send(to)
	}
	e.wire.Collect(to)
	if n := a.Observed.SndbufErrors; n != nil {
		send(to, sndbufErrors, *n)
	}
}

// sendSubscription sends what became of the source.
func sendSubscription(to sending, state *ExporterState) {
	if n := state.Account.BlindMS; n != nil {
		send(to, blind, float64(*n)/1000)
	}
	s := state.Subscription
	if s == nil {
		send(to, breaks, state.Account.SubscriptionBreaks, "file")
		return
	}
	send(to, subscribed, truth(s.Subscribed))
	send(to, subscriptions, s.Connects)
	send(to, overlap, s.Overlap)
	send(to, fallbacks, s.Fallbacks)
	send(to, breaks, s.Internal, "internal")
	send(to, breaks, s.TooLarge, "too_large")
	send(to, breaks, s.Breaks-s.Internal-s.TooLarge, "other")
}

// sendDrops sends the reasons given, and all others that occurred.
func sendDrops(to sending, m *Metric, drops *ledger.Drops, always []ledger.Reason, labels ...string) {
	shown := *drops
	for _, reason := range always {
		send(to, m, drops[reason], append(labels[:len(labels):len(labels)], reason.String())...)
		shown[reason] = 0
	}
	for reason, n := range shown {
		if n > 0 {
			send(to, m, n, append(labels[:len(labels):len(labels)], ledger.Reason(reason).String())...)
		}
	}
}

// destination is the sum of the streams to one.
type destination struct {
	labels  []string
	account ledger.Stream
	stats   exporter.DestinationStats
	socket  udp.ConnStats
	cache   metadata.CacheStats
}

// destinations sums up the streams that have the same name: two that are configured
// alike, or one that was taken out of the configuration and put back.
func destinations(a *ledger.Exporter, s *exporter.Stats) []*destination {
	var all []*destination
	byName := map[[2]string]*destination{}
	for i := range a.Streams {
		if i >= len(s.Streams) {
			break // it began between the two snapshots
		}
		name := [2]string{s.Streams[i].Address, s.Streams[i].Format}
		d := byName[name]
		if d == nil {
			d = &destination{labels: name[:]}
			byName[name] = d
			all = append(all, d)
		}
		d.add(&a.Streams[i], &s.Streams[i], &s.Sockets[i], &s.Metadata[i])
	}
	return all
}

func (d *destination) send(to sending) {
	a, s, c, m, l := &d.account, &d.stats, &d.socket, &d.cache, d.labels
	with := func(last string) []string { return []string{l[0], l[1], last} }
	send(to, destUp, truth(s.Up), l...)
	sendDrops(to, dropped, &a.Dropped, streamReasons, l...)
	send(to, sent, a.Sent, l...)
	send(to, queued, a.Queued, l...)
	send(to, outside, a.Outside, l...)
	send(to, truncated, a.Truncated, l...)
	send(to, datagrams, a.Datagrams, l...)
	send(to, bytesSent, a.Bytes, l...)
	sendHistogram(to, sizes, exporter.SizeBounds[:], s.Sizes[:], a.Bytes, l...)
	if c.MTU > 0 {
		send(to, pathMTU, c.MTU, l...)
	}
	send(to, overMTU, s.OverMTU, l...)
	for i, n := range s.Errors {
		send(to, sendErrors, n, with(exporter.SendErrors[i])...)
	}
	send(to, waitingBytes, s.QueueBytes, l...)

	send(to, calls, c.Calls, l...)
	send(to, icmpRefused, s.Answers[udp.PortUnreachable], l...)
	for class, n := range s.Answers {
		send(to, icmpAnswers, n, with(udp.AnswerClasses[class])...)
	}
	send(to, retried, c.Retried, l...)
	send(to, rebinds, c.Rebinds, l...)
	send(to, opened, c.Opened, l...)
	send(to, mtuShrinks, c.Shrinks, l...)
	send(to, gso, truth(c.GSO), l...)
	send(to, gsoSegments, c.GSOSegments, l...)
	send(to, gsoGivenUp, c.GSOFallbacks, l...)
	send(to, zeroCopy, truth(c.ZeroCopy), l...)
	send(to, zeroCopied, c.ZeroCopyMessages, l...)
	send(to, zeroWaste, c.ZeroCopyCopied, l...)
	send(to, poolGets, s.Pool.Hits, with("hit")...)
	send(to, poolGets, s.Pool.Misses, with("miss")...)
	send(to, poolDropped, s.Pool.Dropped, l...)
	send(to, poolBytes, s.Pool.Bytes, l...)

	send(to, metaHits, m.Hits, l...)
	send(to, metaMisses, m.Misses, l...)
	send(to, metaMade, m.Made, l...)
	send(to, metaPlain, m.Fallbacks, l...)
	send(to, metaBad, m.BadFacts, l...)
	send(to, metaWarm, m.WarmStarts, l...)
	send(to, metaStore, m.StoreErrors, l...)
	for why, n := range m.Invalidations {
		send(to, metaGone, n, with(metadata.Reason(why).String())...)
	}
	send(to, metaBytes, m.RecordBytes, l...)
	send(to, metaAge, m.RecordAge.Seconds(), l...)
}

// add adds a stream.
func (d *destination) add(a *ledger.Stream, s *exporter.DestinationStats, c *udp.ConnStats, m *metadata.CacheStats) {
	d.account.Add(a)
	d.stats.Add(s)
	d.cache.Add(m)
	addSocket(&d.socket, c)
}

func addSocket(to, c *udp.ConnStats) {
	to.Calls += c.Calls
	to.Retried += c.Retried
	to.Rebinds += c.Rebinds
	to.Opened += c.Opened
	to.Shrinks += c.Shrinks
	to.GSO = to.GSO || c.GSO
	to.GSOSegments += c.GSOSegments
	to.GSOFallbacks += c.GSOFallbacks
	to.ZeroCopy = to.ZeroCopy || c.ZeroCopy
	to.ZeroCopyMessages += c.ZeroCopyMessages
	to.ZeroCopyCopied += c.ZeroCopyCopied
	to.MTU = max(to.MTU, c.MTU)
}
