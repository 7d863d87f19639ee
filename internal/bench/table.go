package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// contender is one row of a table while it is measured.
type contender struct {
	name string
	note string // the goal, or what the row is there for
	// round works off some units and returns how many, and the processor time
	// they took.
	round func() (units int, cpu time.Duration, err error)
	// base is the name of the row to give the multiple of; empty: none.
	base string

	perUnit []float64 // nanoseconds, one a round
}

// Row is a measured row of a table.
type Row struct {
	Name     string  `json:"name"`
	Note     string  `json:"note,omitempty"`
	MedianNS float64 `json:"median_ns"`          // processor time of a unit
	SpreadNS float64 `json:"spread_ns"`          // between the quartiles
	Base     string  `json:"base,omitempty"`     // the row that Multiple is of
	Multiple float64 `json:"multiple,omitempty"` // MedianNS by that of Base
}

// Table is a set of rows that were measured in one run.
type Table struct {
	Title string `json:"title"`
	Unit  string `json:"unit"` // what MedianNS is the time of
	Rows  []Row  `json:"rows"`
}

// measure runs the contenders in turn, as often as rounds says.
func measure(ctx context.Context, title, unit string, rounds int, contenders []*contender) (Table, error) {
	for range rounds {
		for _, c := range contenders {
			if ctx.Err() != nil {
				return Table{}, ctx.Err()
			}
			units, cpu, err := c.round()
			if err != nil {
				return Table{}, fmt.Errorf("bench: %s: %w", c.name, err)
			}
			c.perUnit = append(c.perUnit, float64(cpu.Nanoseconds())/float64(units))
		}
	}
	table := Table{Title: title, Unit: unit}
	for _, c := range contenders {
		table.Rows = append(table.Rows, Row{Name: c.name, Note: c.note, Base: c.base,
			MedianNS: quantile(c.perUnit, 0.5), SpreadNS: quantile(c.perUnit, 0.75) - quantile(c.perUnit, 0.25)})
	}
	for i := range table.Rows {
		row := &table.Rows[i]
		base := slices.IndexFunc(table.Rows, func(r Row) bool { return r.Name == row.Base })
		if base >= 0 {
			row.Multiple = row.MedianNS / table.Rows[base].MedianNS
		}
	}
	return table, nil
}

// quantile returns the value below which that share of the values lies.
func quantile[T cmp.Ordered](values []T, share float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// write writes the tables, for a person or as JSON.
func write(w io.Writer, asJSON bool, tables []Table) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(tables)
	}
	for _, t := range tables {
		if _, err := fmt.Fprintf(w, "%s\n", t.Title); err != nil {
			return err
		}
		out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(out, "  row\tns a %s\tspread\tmultiple\tnote\n", t.Unit)
		for _, r := range t.Rows {
			multiple := ""
			if r.Multiple > 0 {
				multiple = fmt.Sprintf("%.2fx %s", r.Multiple, r.Base)
			}
			line := fmt.Sprintf("  %s\t%.0f\t%.0f\t%s\t%s", r.Name, r.MedianNS, r.SpreadNS, multiple, r.Note)
			fmt.Fprintln(out, strings.TrimRight(line, "\t"))
		}
		fmt.Fprintln(out)
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// threadTime runs f on a thread of its own and returns the processor time that
// the thread used.
func threadTime(f func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := threadClock()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := threadClock()
	return after - before, err
}

func threadClock() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0, fmt.Errorf("bench: reading the thread's clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
