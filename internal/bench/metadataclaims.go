package bench

import (
	"cmp"
	"fmt"
	"slices"
)

// Share is what one idea alone, or all of them, save of the old way.
type Share struct {
	Block      string   `json:"block"`
	Goroutines int      `json:"goroutines"`
	Key        string   `json:"key"`
	Name       string   `json:"name"`
	Claimed    string   `json:"claimed"` // for an earlier implementation
	Saved      []Saving `json:"saved"`
}

// Saving is a share of one figure.
type Saving struct {
	Figure  string   `json:"figure"`
	Percent *float64 `json:"percent"` // negative: it costs more; nil: Why
	Why     string   `json:"why,omitempty"`
}

// text is the saving as tables write it.
func (s Saving) text() string {
	if s.Percent == nil {
		return s.Why
	}
	if text := fmt.Sprintf("%.0f %%", *s.Percent); text != "-0 %" {
		return text
	}
	return "0 %"
}

// claims are the shares that were claimed for an earlier implementation.
var claims = []struct{ key, name, claimed string }{
	{constants, "constants", "CPU 10-20 %"},
	{hostnameOnce, "hostname once", "CPU 15-25 %, hostname calls 99 %"},
	{cachedBytes, "cached bytes", "CPU 60-80 %, memory 40-60 %"},
	{allOfThem, "all", "time 60 %, memory 54 %, cycles 60 %"},
}

// leastEvents is how many rare events the old way must have had in all rounds
// for a share of them to mean anything.
const leastEvents = 30

// claimFigures are what a share is taken of. why says why there is none.
var claimFigures = []struct {
	name string
	of   func(row *MetadataRow) (value float64, why string)
}{
	{"time", func(r *MetadataRow) (float64, string) { return r.MedianNS, "" }},
	{"CPU", func(r *MetadataRow) (float64, string) { return r.CPUNS, "" }},
	{"memory", func(r *MetadataRow) (float64, string) { return r.Bytes, "" }},
	{"allocations", func(r *MetadataRow) (float64, string) { return r.Allocs, "" }},
	{"GC cycles", func(r *MetadataRow) (float64, string) { return r.GCPerMillion, fewer(r.Collections) }},
	{"cycles", func(r *MetadataRow) (float64, string) { return known(r.Cycles) }},
	{"instructions", func(r *MetadataRow) (float64, string) { return known(r.Instructions) }},
	{"context switches", func(r *MetadataRow) (float64, string) { return r.SwitchesPerMillion, fewer(r.Switches) }},
	{"system calls", func(r *MetadataRow) (float64, string) { return r.calls("") }},
	{"hostname calls", func(r *MetadataRow) (float64, string) { return r.calls(hostnameCall) }},
}

// hostnameCall is the system call of os.Hostname on Linux.
const hostnameCall = "uname"

// sendCalls are those that can send a datagram.
var sendCalls = []string{"sendmmsg", "sendmsg", "sendto", "write", "writev"}

// runtimeCalls are those by which Go's runtime watches and wakes its threads and
// manages its memory. They come with time, whatever the program does, and come
// often under a tracer that makes a system call slow; so they are shown, and not
// taken for the export's.
var runtimeCalls = []string{"nanosleep", "futex", "epoll_pwait", "sched_yield", "getpid", "tgkill", "rt_sigreturn", "rt_sigprocmask", "sigaltstack", "gettid", "madvise", "clone", "clone3"}

func fewer(events uint64) string {
	if events < leastEvents {
		return "too few"
	}
	return ""
}

func known(figure *float64) (float64, string) {
	if figure == nil {
		return 0, notCounted
	}
	return *figure, ""
}

const notCounted = "not counted"

// seldom is the number of system calls an export below which the runtime made
// them, on its own account.
const seldom = 0.01

// calls returns the system calls of the name, or all but the runtime's, an
// export.
func (r *MetadataRow) calls(name string) (sum float64, why string) {
	if r.Calls == nil {
		return 0, notCounted
	}
	if name != "" {
		return r.Calls[name], ""
	}
	for name, n := range r.Calls {
		if n >= seldom && !slices.Contains(runtimeCalls, name) {
			sum += n
		}
	}
	return sum, ""
}

// shares sets the ideas beside the old way.
func (r *MetadataReport) shares() (shares []Share) {
	for b := range r.Blocks {
		block := &r.Blocks[b]
		for _, c := range claims {
			share := Share{Block: block.Name, Goroutines: block.Goroutines, Key: c.key, Name: c.name, Claimed: c.claimed}
			for _, f := range claimFigures {
				share.Saved = append(share.Saved, savingOf(f.name, block.row(oldWay), block.row(c.key)))
			}
			shares = append(shares, share)
		}
	}
	return shares
}

// Goal is what the product has set itself.
type Goal struct {
	Block      string `json:"block"`
	Goroutines int    `json:"goroutines"`
	What       string `json:"what"`
	Want       string `json:"want"`
	Got        string `json:"got"`
	Met        *bool  `json:"met"` // nil: not counted
}

// verdict is Met as tables write it.
func (g Goal) verdict() string {
	switch {
	case g.Met == nil:
		return notCounted
	case *g.Met:
		return "met"
	}
	return "NOT MET"
}

const (
	leastSaved     = 95    // percent, of creation
	mostAbove      = 300   // instructions above the bare send
	noneAtAll      = 0.05  // allocations: an export that makes any makes one; goroutines that wait for a lock now and then cost the runtime one
	noBytes        = 8     // of those
	oneCallAtLeast = 0.999 // of counts by difference, and
	oneCallAtMost  = 1.001
)

// goals holds the report to what was aimed at.
func (r *MetadataReport) goals() (goals []Goal) {
	for b := range r.Blocks {
		block := &r.Blocks[b]
		add := func(what, want, got string, met bool, why string) {
			goal := Goal{Block: block.Name, Goroutines: block.Goroutines, What: what, Want: want, Got: got}
			if why == "" {
				goal.Met = &met
			} else {
				goal.Got = "-"
			}
			goals = append(goals, goal)
		}
		all := block.row(allOfThem)
		if block.Name == creation {
			for _, name := range []string{"time", "instructions", "memory", "allocations", "hostname calls"} {
				saving, saved := savingOf(name, block.row(oldWay), all), 0.0
				if saving.Percent != nil {
					saved = *saving.Percent
				}
				add(name, fmt.Sprintf("%d %% less", leastSaved), fmt.Sprintf("%.1f %% less", saved), saved >= leastSaved, saving.Why)
			}
			continue
		}
		for _, row := range []*MetadataRow{all, block.row(byExporter)} {
			ours, why := known(cmp.Or(row.OwnInstructions, row.Instructions))
			bare, _ := known(cmp.Or(block.row(bareSend).OwnInstructions, block.row(bareSend).Instructions))
			add("instructions, "+row.Key, fmt.Sprintf("the bare send + %d", mostAbove), fmt.Sprintf("the bare send %+.0f", ours-bare), ours <= bare+mostAbove, why)
			add("memory, "+row.Key, "0 B", fmt.Sprintf("%.0f B", row.Bytes), row.Bytes < noBytes, "")
			add("allocations, "+row.Key, "0", fmt.Sprintf("%.2f", row.Allocs), row.Allocs < noneAtAll, "")
			calls, why := row.calls("")
			want, met := "exactly 1", calls >= oneCallAtLeast && calls <= oneCallAtMost
			if row.Key == byExporter && block.Goroutines > 1 { // calls that meet share a datagram
				want, met = "at most 1", calls <= oneCallAtMost
			}
			add("system calls, "+row.Key, want, fmt.Sprintf("%.3f", calls), met, why)
		}
	}
	return goals
}

// savingOf returns what a row saves of a figure of another.
func savingOf(figure string, before, after *MetadataRow) Saving {
	saving := Saving{Figure: figure}
	for _, f := range claimFigures {
		if f.name != figure {
			continue
		}
		was, why := f.of(before)
		is, _ := f.of(after)
		if why == "" && was == 0 {
			why = "none before"
		}
		if saving.Why = why; why == "" {
			percent := 100 * (1 - is/was)
			saving.Percent = &percent
		}
		return saving
	}
	panic("bench: BUG: no figure " + figure)
}
