package doctor

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"tetracast/exporter"
	"tetracast/internal/collector"
	"tetracast/internal/printable"
	"tetracast/internal/source"
	"tetracast/internal/source/filetail"
	"tetracast/internal/upstream"
)

// Verdict says how a finding is meant.
type Verdict string

// The verdicts. After a Fault an exporter would not work; a Note is worth a thought.
const (
	Fine  Verdict = "ok"
	Note  Verdict = "note"
	Fault Verdict = "fault"
)

// Finding is one thing that was looked at.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	Subject string  `json:"subject"`
	Found   string  `json:"found"`
	Advice  string  `json:"advice,omitempty"` // empty: nothing is to be done
}

// Config says what to look at.
type Config struct {
	Source       *source.Config // nil: events do not come from a subscription
	Files        []string       // that are followed, as paths or patterns
	Metrics      func() string  // finds Tetragon's metrics; nil: they are not wanted
	Destinations []exporter.Destination
	StateDir     string
	// ControlGroups is the root of the host's control groups; empty: /sys/fs/cgroup.
	ControlGroups string
}

// Examine looks at everything, in the order of an event's life. It returns when ctx
// ends, with faults for what is left.
func Examine(ctx context.Context, config Config) []Finding {
	var all []Finding
	version := ""
	if config.Source != nil {
		found, t := tetragon(ctx, *config.Source)
		all = append(append(all, found...), controlGroups(cmp.Or(config.ControlGroups, "/sys/fs/cgroup"), config.Source.Remedies))
		version = t.Version
	}
	if config.Files != nil {
		all = append(all, files(config.Files))
	}
	all = append(all, losses(ctx, config.Metrics, version)...)
	for _, d := range config.Destinations {
		all = append(all, destination(ctx, d)...)
	}
	return append(all, stateDir(config.StateDir), receiveBuffer("/proc/sys/net/core/rmem_max"))
}

// Healthy says whether no finding is a fault.
func Healthy(all []Finding) bool {
	for _, f := range all {
		if f.Verdict == Fault {
			return false
		}
	}
	return true
}

// Write writes the findings for a person.
func Write(w io.Writer, all []Finding) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range all {
		fmt.Fprintf(out, "%s\t%s\t%s\n", f.Verdict, f.Subject, printable.Line(f.Found))
		if f.Advice != "" {
			fmt.Fprintf(out, "\t\t-> %s\n", printable.Line(f.Advice))
		}
	}
	return out.Flush()
}

// tetragon subscribes as export does, and ends that at once.
func tetragon(ctx context.Context, config source.Config) ([]Finding, source.Tetragon) {
	const subject = "Tetragon"
	t, err := source.Find(ctx, config)
	if err != nil {
		return []Finding{{Fault, subject, err.Error(), "is Tetragon running, and may this user use its socket? --server-address names another place"}}, t
	}
	f := Finding{Fine, subject, fmt.Sprintf("%s at %s (%s); client %s; filters: %s", t.Version, t.Address, t.Why, t.Client, t.FiltersOrigin), ""}
	if t.FiltersUnknown {
		f.Verdict, f.Advice = Note, "all events will come; --tetragon-config-dir names Tetragon's configuration folder, such as /etc/tetragon, in which its filters can be read"
	}
	all := []Finding{f}
	if t.OverTCP() {
		all = append(all, Finding{Note, subject, "events come over TCP: with a tracing policy on tcp_sendmsg or the like each one that Tetragon sends makes another, without end",
			"these are excluded, but keep both busy; a unix socket has no such loop: --server-address unix:///var/run/tetragon/tetragon.sock, where Tetragon serves it (always since 1.8)"})
	}
	if t.Config["disable-process-cache"] == "true" {
		all = append(all, Finding{Note, subject, "it runs with --disable-process-cache: most events have no binary, parent or exec_id",
			"outside of the host's pid namespace the exporter cannot know its own events then: --pid host, or a unix socket and no policy on the network path"})
	}
	return all, t
}

// lookedAtGroups bounds how many control groups are looked at.
const lookedAtGroups = 100_000

// controlGroups looks for names that are not UTF-8, at whose events Tetragon ends every
// subscription.
func controlGroups(root string, remedies bool) Finding {
	const subject = "control groups"
	var bad []string
	looked := 0
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || !entry.IsDir():
			return nil // it went away, or is a file
		case looked == lookedAtGroups:
			return fs.SkipAll
		}
		looked++
		if !utf8.ValidString(entry.Name()) {
			bad = append(bad, strconv.Quote(path))
		}
		return nil
	})
	if len(bad) == 0 {
		return Finding{Fine, subject, "all names are UTF-8", ""}
	}
	f := Finding{Note, subject, fmt.Sprintf("%d names are not UTF-8, such as %s: Tetragon ends the subscription at each event of a process there", len(bad), bad[0]),
		"rename it; after the second break export asks for events without process.docker, parent.docker, ancestors.docker (--remedies)"}
	if !remedies {
		f.Advice = "rename it, or --remedies auto, which then asks for events without process.docker, parent.docker, ancestors.docker"
	}
	return f
}

// files opens what is to be followed.
func files(names []string) Finding {
	const subject = "files"
	found, err := filetail.Check(names)
	switch {
	case err != nil:
		return Finding{Fault, subject, err.Error(), filetail.Advice(err)}
	case len(found) == 1:
		return Finding{Fine, subject, found[0] + " can be read", ""}
	}
	return Finding{Fine, subject, fmt.Sprintf("%d can be read, such as %s", len(found), found[0]), ""}
}

// knobs are what makes the loss at a stage less; docs/upstream.md has more.
var knobs = map[string]string{
	"bpf_missed":                    "Tetragon's --rb-size, or fewer and narrower policies",
	"ring_buffer":                   "Tetragon's --rb-size or --rb-size-total",
	"event_queue":                   "Tetragon's --rb-queue-size",
	"listener_overflow_all_clients": "some client of Tetragon is too slow: give it more CPU, or filter with --allow-list",
}

// losses tells what Tetragon lost since its start.
func losses(ctx context.Context, find func() string, version string) []Finding {
	const subject = "lost in Tetragon"
	if find == nil {
		return []Finding{{Note, subject, "not looked at", "--tetragon-metrics-address auto reads it"}}
	}
	reader := upstream.New(upstream.Config{Find: find, Version: func() string { return version }})
	if err := reader.Look(ctx); err != nil {
		return []Finding{{Note, subject, "unknown: " + err.Error(), "Tetragon tells it with --metrics-server :2112; --tetragon-metrics-address names another place"}}
	}
	var all []Finding
	totals := reader.Totals()
	for _, stage := range upstream.Stages() {
		switch n := totals[stage]; {
		case n == nil:
			all = append(all, Finding{Note, subject, stage + " unknown", "this Tetragon does not count it"})
		case *n > 0:
			all = append(all, Finding{Note, subject, fmt.Sprintf("%s %d since its start", stage, *n), knobs[stage]})
		default:
			all = append(all, Finding{Fine, subject, stage + " 0", ""})
		}
	}
	return all
}

// stateDir tries to write there.
func stateDir(path string) Finding {
	const subject = "state"
	if path == "" {
		return Finding{Note, subject, "no folder", "with --state-dir the next process tells the receivers what a killed one had counted"}
	}
	file, err := os.CreateTemp(path, ".doctor-")
	if err == nil {
		_ = file.Close()
		err = os.Remove(file.Name())
	}
	if err != nil {
		return Finding{Fault, subject, err.Error(), "--state-dir names a folder that this user can read and write"}
	}
	return Finding{Fine, subject, path + " can be written", ""}
}

// receiveBuffer is about a collector on this host, which asks for so much that a burst
// has room.
func receiveBuffer(path string) Finding {
	const subject = "receive buffer"
	text, err := os.ReadFile(path)
	if err != nil {
		return Finding{Note, subject, err.Error(), ""}
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return Finding{Note, subject, fmt.Sprintf("%s says %q", path, text), ""}
	}
	f := Finding{Fine, subject, fmt.Sprintf("net.core.rmem_max is %d bytes", limit), ""}
	if limit < collector.DefaultReceiveBufferBytes {
		f.Verdict = Note
		f.Advice = fmt.Sprintf("for a collector on this host: sysctl -w net.core.rmem_max=%d; not needed with CAP_NET_ADMIN or systemd's socket", collector.DefaultReceiveBufferBytes)
	}
	return f
}
