package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// MetadataOptions says what bench metadata does.
type MetadataOptions struct {
	Rounds  int  // of every row
	Exports int  // of a round; with Only, all of them
	JSON    bool // write the report as JSON
	// Valgrind counts instructions by valgrind, which takes minutes, where the
	// machine has no counter for them.
	Valgrind bool
	Page     string // file to write the report to as a page; empty: none

	// Only is one row, as block/row, to run and measure nothing: what strace,
	// valgrind and profilers are pointed at. Empty: the whole benchmark.
	Only        string
	Goroutines  int    // of Only
	HeapProfile string // file for the allocations of Only, each of them; empty: none

	// Program is a tetracast, which is run as a child to count system calls and
	// instructions and to time its start. Empty: that is left out, and said so.
	Program string
	// ExportHas says whether Program's export has the flag. Nil: it has none that
	// is asked for.
	ExportHas func(flag string) bool
}

// ErrNoRow is the error for a row that bench metadata does not have.
var ErrNoRow = errors.New("bench: no such row")

// The blocks of the benchmark: what an export is made of, without its send and
// with it.
const (
	creation = "creation"
	export   = "export"
)

// MetadataReport is what bench metadata measured.
type MetadataReport struct {
	Machine        Machine         `json:"machine"`
	Rounds         int             `json:"rounds"`
	Exports        int             `json:"exports"` // of a round
	CyclesBy       string          `json:"cycles_by"`
	InstructionsBy string          `json:"instructions_by"` // or why there are none
	CallsBy        string          `json:"system_calls_by"` // or why there are none
	Blocks         []MetadataBlock `json:"blocks"`
	Start          []StartRow      `json:"start"`
	Shares         []Share         `json:"shares"`
	Goals          []Goal          `json:"goals"`
}

// MetadataBlock is the rows that were measured against each other.
type MetadataBlock struct {
	Name       string        `json:"name"` // creation or export
	Goroutines int           `json:"goroutines"`
	Rows       []MetadataRow `json:"rows"`
}

// MetadataRow is what one way to export costs, each figure for one export.
type MetadataRow struct {
	Key      string  `json:"key"`
	Name     string  `json:"name"`
	MedianNS float64 `json:"median_ns"` // by the clock on the wall: of all goroutines, what passes between two exports
	SpreadNS float64 `json:"spread_ns"` // between the quartiles
	CPUNS    float64 `json:"cpu_ns"`    // of the process, user and system, the garbage collector too
	Bytes    float64 `json:"bytes"`     // of heap
	Allocs   float64 `json:"allocations"`

	Collections        uint64  `json:"gc_cycles"` // in all rounds
	Switches           uint64  `json:"context_switches"`
	GCPerMillion       float64 `json:"gc_cycles_per_million"`
	SwitchesPerMillion float64 `json:"context_switches_per_million"`

	Cycles       *float64 `json:"cycles,omitempty"`       // nil: not counted
	Instructions *float64 `json:"instructions,omitempty"` // of user space; nil: not counted
	// OwnInstructions leaves out those of Go's runtime, which the noise is in.
	OwnInstructions *float64           `json:"own_instructions,omitempty"` // nil: not told apart
	Calls           map[string]float64 `json:"system_calls,omitempty"`     // by name; nil: not counted
	Datagrams       float64            `json:"datagrams"`
}

// row returns a block's row, which is there.
func (b *MetadataBlock) row(key string) *MetadataRow {
	for i := range b.Rows {
		if b.Rows[i].Key == key {
			return &b.Rows[i]
		}
	}
	panic("bench: BUG: no row " + key)
}

// manyGoroutines is how many export at the same time in the second half of the
// blocks.
const manyGoroutines = 64

// Metadata measures the ways to export agent_init, and writes the report.
func Metadata(ctx context.Context, w io.Writer, options MetadataOptions) error {
	if options.Only != "" {
		return metadataOnly(ctx, w, options)
	}
	report, err := measureMetadata(ctx, options)
	if err != nil {
		return err
	}
	if options.Page != "" {
		page, err := metadataPage(report)
		if err != nil {
			return err
		}
		if err := os.WriteFile(options.Page, page, 0o644); err != nil {
			return fmt.Errorf("bench: writing the page: %w", err)
		}
	}
	if options.JSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return report.writeText(w)
}

func measureMetadata(ctx context.Context, options MetadataOptions) (*MetadataReport, error) {
	report := &MetadataReport{Machine: thisMachine(), Rounds: options.Rounds, Exports: options.Exports}
	count := newCounting(report)
	for _, name := range []string{creation, export} {
		for _, goroutines := range []int{1, manyGoroutines} {
			block, err := measureBlock(ctx, name, goroutines, options, count)
			if err != nil {
				return nil, err
			}
			report.Blocks = append(report.Blocks, block)
		}
	}
	children := children{program: options.Program}
	if count.tracer == nil {
		if err := children.countCalls(ctx, report); err != nil {
			return nil, err
		}
	}
	if options.Valgrind && !count.hardware {
		if err := children.countInstructions(ctx, report); err != nil {
			return nil, err
		}
	}
	if options.Program != "" {
		var err error
		if report.Start, err = measureStart(ctx, options); err != nil {
			return nil, err
		}
	}
	report.Shares, report.Goals = report.shares(), report.goals()
	return report, nil
}
