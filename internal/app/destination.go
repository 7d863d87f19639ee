package app

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"tetracast/datagram"
	"tetracast/exporter"
)

// DestinationConfig says where to send, and in which form. It applies to all
// destinations, but for what a destination says of itself.
type DestinationConfig struct {
	Addresses        []string // [FORMAT://]HOST[:PORT][?OPTION=VALUE&...]
	Preset           string   // empty: none
	Format           string   // empty: the preset's, or json
	MaxDatagram      string   // bytes, auto or route
	Fragments        string   // allow or never
	JSONSequence     bool
	GELFFields       string // flat or one
	GELFCompression  string // none, gzip or zlib
	GELFFullMessage  bool
	GELFOneLabels    bool
	GELFMaxField     int // bytes; -1: no bound
	Syslog           datagram.SyslogConfig
	SyslogLocalTime  bool
	Frame            FrameConfig
	MetadataSqueeze  string // empty: as the events; none, gzip, zlib, s2 or zstd
	UDPBufferSize    int    // bytes
	GSO              string // auto, on or off
	ZeroCopy         string // auto, on or off
	RotateSourcePort time.Duration
	MaxBytesRate     int // bytes a second; 0: no bound
	MaxDatagramRate  int // datagrams a second; 0: no bound
	QueueBytes       int
	DropOldest       bool
}

// formsHint is what a wrong destination is answered with.
const formsHint = "a destination is [FORMAT://]HOST[:PORT], such as collector.example:7514 or syslog://siem.example:514"

func (c *DestinationConfig) addFlags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&c.Addresses, "udp-destination", nil,
		"where to send, as [FORMAT://]HOST[:PORT][?OPTION=VALUE&...] with port 7514 by default; can be repeated: each gets all events. In the place of the format may stand a preset, and each option overrides the flag of its name for this destination: "+strings.Join(exporter.Options(), ", "))
	flags.StringVar(&c.Preset, "preset", "", "take format, port and size limit from what this receiver reads by default: "+presetNames()+"; a flag given beside it wins")
	flags.StringVar(&c.Format, "format", "", "format of the datagrams: json, ndjson, gelf, syslog, or frame for our own collector; empty: the preset's, or json")
	flags.StringVar(&c.MaxDatagram, "max-datagram", "auto", "the most bytes of payload in a datagram; auto: the preset's, or 1232 for what packs or cuts events (on loopback 65507) and 65507 for a single event; route: frames as long as the route takes")
	flags.StringVar(&c.Fragments, "fragments", "allow", "allow: a long event may leave as one datagram that the path cuts into IP fragments; never: it is made to fit 1232 bytes")
	flags.BoolVar(&c.JSONSequence, "json-sequence", false, "add stream, sequence number and dropped count as the last member of each event in json and ndjson, so that a SIEM finds gaps")
	flags.StringVar(&c.GELFFields, "gelf-fields", "flat", "how an event stands in gelf: flat, a field for each value, or one, as JSON in one field")
	flags.StringVar(&c.GELFCompression, "gelf-compression", "none", "of gelf messages: none, gzip or zlib")
	flags.BoolVar(&c.GELFFullMessage, "gelf-full-message", false, "put the event's JSON into full_message too")
	flags.BoolVar(&c.GELFOneLabels, "gelf-one-labels", false, "write labels and annotations as JSON in one field, instead of a field for each")
	flags.IntVar(&c.GELFMaxField, "gelf-max-field", datagram.MaxLuceneField, "the most bytes of a field in gelf; Elasticsearch, OpenSearch and Graylog refuse messages with longer ones; -1: no bound")
	flags.BoolVar(&c.Syslog.RFC3164, "syslog-rfc3164", false, "write syslog as RFC 3164 has it, for old receivers; it carries no sequence")
	flags.BoolVar(&c.SyslogLocalTime, "syslog-local-time", false, "write the time of RFC 3164, which names no zone, in that of this host instead of UTC")
	flags.BoolVar(&c.Syslog.BOM, "syslog-bom", false, "put a byte order mark before the JSON, which says that it is UTF-8")
	flags.StringVar(&c.Syslog.AppName, "syslog-app-name", "tetracast", "APP-NAME of syslog messages")
	c.Frame.addFlags(flags)
	flags.StringVar(&c.MetadataSqueeze, "metadata-compression", "", "of agent_init, made once a record: none; gzip or zlib in gelf; s2 or zstd in frame; empty: that of the events, --gelf-compression or --compression")
	flags.IntVar(&c.UDPBufferSize, "udp-buffer-size", exporter.DefaultUDPBufferSize, "socket send buffer to ask for (SO_SNDBUF), in bytes")
	flags.StringVar(&c.GSO, "gso", "auto", "segmentation offload for frames of one size: auto, on or off")
	flags.StringVar(&c.ZeroCopy, "zerocopy", "auto", "have the kernel read large messages from our memory: auto, on or off; auto is off, for it was not measured to pay")
	flags.DurationVar(&c.RotateSourcePort, "rotate-source-port", 0, "change the source port so often, as nothing else tells of a stale connection table on the way; 0: only after trouble")
	flags.IntVar(&c.MaxBytesRate, "max-bytes-per-second", 0, "the most bytes of payload a second to each destination; 0: no bound")
	flags.IntVar(&c.MaxDatagramRate, "max-datagrams-per-second", 0, "the most datagrams a second to each destination; 0: no bound")
	flags.IntVar(&c.QueueBytes, "destination-queue-bytes", exporter.DefaultDestinationQueueBytes, "the most bytes of datagrams that wait for one destination while others go on")
	flags.BoolVar(&c.DropOldest, "drop-oldest", false, "when that queue is full drop what waited longest, not what came last")
}

// presetNames lists the presets, and says which are not tested.
func presetNames() string {
	var names []string
	for _, p := range exporter.Presets() {
		name := p.Name
		if !p.Tested {
			name += " (untested)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// destinations returns what the exporter is to be given.
func (c *DestinationConfig) destinations(log *slog.Logger) (all []exporter.Destination, err error) {
	if len(c.Addresses) == 0 {
		return nil, Usage(errors.New("app: no --udp-destination given"), "try: tetracast export --udp-destination 127.0.0.1:7514")
	}
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	for _, text := range c.Addresses {
		d, err := exporter.ParseDestination(text, base)
		if err != nil {
			return nil, Usage(err, formsHint)
		}
		if d.Format == "frame" && d.Key == nil && !isLoopback(d.Address) {
			log.Warn("Frames are not sealed: whoever is on the way can read and forge them", "udp_destination", d.Address, "hint", "tetracast key new FILE makes a key for --key-file on both sides")
		}
		all = append(all, d)
	}
	return all, nil
}

// base is the destination that the flags describe, without an address.
func (c *DestinationConfig) base() (d exporter.Destination, err error) {
	if d, err = c.Frame.load(); err != nil {
		return d, err
	}
	switch c.MaxDatagram {
	case "", "auto":
	case "route":
		d.RouteMTU = true
	default:
		if d.MaxDatagram, err = strconv.Atoi(c.MaxDatagram); err != nil || d.MaxDatagram < 1 {
			return d, Usage(fmt.Errorf("app: --max-datagram %q, want bytes, auto or route", c.MaxDatagram), "1232 fits every path that IPv6 can take; auto is what the format allows")
		}
	}
	switch c.Fragments {
	case "", "allow":
	case "never":
		d.NoFragments = true
	default:
		return d, Usage(fmt.Errorf("app: --fragments %q, want allow or never", c.Fragments), "never makes each event fit a path of any width")
	}
	if c.GELFFields != "" {
		if d.GELF.Fields, err = datagram.ParseGELFFields(c.GELFFields); err != nil {
			return d, Usage(err, "--gelf-fields flat is what Graylog searches best")
		}
	}
	if c.GELFCompression != "" {
		if d.GELF.Compression, err = datagram.ParseGELFCompression(c.GELFCompression); err != nil {
			return d, Usage(err, "--gelf-compression none costs the least")
		}
	}
	d.Preset, d.Format, d.JSONSequence, d.GELF.FullMessage = c.Preset, c.Format, c.JSONSequence, c.GELFFullMessage
	d.GELF.OneLabels, d.GELF.MaxField = c.GELFOneLabels, c.GELFMaxField
	d.Syslog, d.LocalTime = c.Syslog, c.SyslogLocalTime
	d.MetadataCompression = c.MetadataSqueeze
	d.UDPBufferSize, d.GSO, d.ZeroCopy, d.RotateSourcePort = c.UDPBufferSize, c.GSO, c.ZeroCopy, c.RotateSourcePort
	d.MaxBytesPerSecond, d.MaxDatagramsPerSecond = c.MaxBytesRate, c.MaxDatagramRate
	d.QueueBytes, d.DropOldest = c.QueueBytes, c.DropOldest
	return d, nil
}
