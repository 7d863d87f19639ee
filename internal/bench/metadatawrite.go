package bench

import (
	"bytes"
	"cmp"
	_ "embed" // for the page
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
)

// table is a table of the report, as text or as Markdown.
type table struct {
	head []string
	rows [][]string
}

func (b *MetadataBlock) title() string {
	title := "creation, without the send"
	if b.Name == export {
		title = "creation and export"
	}
	return title + ", " + goroutinesText(b.Goroutines)
}

func goroutinesText(n int) string {
	if n == 1 {
		return "one goroutine"
	}
	return fmt.Sprintf("%d goroutines", n)
}

// table returns the block's figures, each of one export unless it says million.
func (b *MetadataBlock) table() table {
	t := table{head: []string{"row", "ns", "spread", "CPU ns", "B", "allocs", "GC a million", "cycles", "instructions", "switches a million"}}
	if b.Name == export {
		t.head = append(t.head, "datagrams")
	}
	t.head = append(t.head, "system calls")
	for _, r := range b.Rows {
		row := []string{r.Name, fmt.Sprintf("%.1f", r.MedianNS), fmt.Sprintf("%.1f", r.SpreadNS), fmt.Sprintf("%.1f", r.CPUNS),
			fmt.Sprintf("%.0f", r.Bytes), fmt.Sprintf("%.2f", r.Allocs), fmt.Sprintf("%.0f", r.GCPerMillion),
			optional(r.Cycles), optional(r.Instructions), fmt.Sprintf("%.0f", r.SwitchesPerMillion)}
		if b.Name == export {
			row = append(row, fmt.Sprintf("%.3f", r.Datagrams))
		}
		t.rows = append(t.rows, append(row, callsText(r.Calls)))
	}
	return t
}

func optional(figure *float64) string {
	if figure == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", *figure)
}

// callsText names the system calls of an export, the most frequent first.
func callsText(calls map[string]float64) string {
	if calls == nil {
		return notCounted
	}
	names := slices.SortedFunc(maps.Keys(calls), func(a, b string) int {
		return cmp.Or(cmp.Compare(calls[b], calls[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, name := range names {
		if calls[name] >= seldom {
			parts = append(parts, fmt.Sprintf("%s %.3g", name, calls[name]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// sharesTable returns what the ideas save in a block.
func (r *MetadataReport) sharesTable(block *MetadataBlock) table {
	t := table{head: []string{"saved by", "claimed before"}}
	for _, f := range claimFigures {
		t.head = append(t.head, f.name)
	}
	for _, s := range r.Shares {
		if s.Block != block.Name || s.Goroutines != block.Goroutines {
			continue
		}
		row := []string{s.Name, s.Claimed}
		for _, saving := range s.Saved {
			row = append(row, saving.text())
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (r *MetadataReport) startTable() table {
	t := table{head: []string{"start", "ms", "spread", "least", "runs", "what"}}
	for _, s := range r.Start {
		row := []string{s.Name, "-", "-", "-", "0", s.Note}
		if s.Runs > 0 {
			row = []string{s.Name, fmt.Sprintf("%.1f", s.MedianMS), fmt.Sprintf("%.1f", s.SpreadMS), fmt.Sprintf("%.1f", s.LeastMS), fmt.Sprint(s.Runs), s.Note}
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (r *MetadataReport) goalsTable() table {
	t := table{head: []string{"block", "goal", "want", "got", ""}}
	for _, g := range r.Goals {
		t.rows = append(t.rows, []string{g.Block + ", " + goroutinesText(g.Goroutines), g.What, g.Want, g.Got, g.verdict()})
	}
	return t
}

func (t table) writeText(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		fmt.Fprintf(out, "  %s\n", strings.Join(row, "\t"))
	}
	fmt.Fprintln(out)
	return out.Flush()
}

func (t table) markdown() string {
	var out strings.Builder
	row := func(cells []string) { fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | ")) }
	row(t.head)
	out.WriteString(strings.Repeat("|---", len(t.head)) + "|\n")
	for _, r := range t.rows {
		row(r)
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// writeText writes the report for a person.
func (r *MetadataReport) writeText(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d processors, load %s, Linux %s, %s %s, %s; %d rounds of %d exports; each figure is of one export\n", m.CPU, m.Processors, m.Load, m.Kernel, m.Go, m.Arch, m.Date, r.Rounds, r.Exports)
	fmt.Fprintf(w, "cycles by %s\ninstructions by %s\nsystem calls by %s\n\n", r.CyclesBy, r.InstructionsBy, r.CallsBy)
	for b := range r.Blocks {
		block := &r.Blocks[b]
		fmt.Fprintln(w, block.title())
		if err := block.table().writeText(w); err != nil {
			return err
		}
		if err := r.sharesTable(block).writeText(w); err != nil {
			return err
		}
	}
	if len(r.Start) > 0 {
		fmt.Fprintln(w, "from the start of a process to the first agent_init on the wire")
		if err := r.startTable().writeText(w); err != nil {
			return err
		}
	}
	fmt.Fprintln(w, "goals")
	return r.goalsTable().writeText(w)
}

//go:embed metadatapage.md
var metadataPageText string

// page is the report as the page has it.
type page struct {
	*MetadataReport
	Pages            []pageBlock
	Before, After    pageRow // of creation and export
	Starts, GoalList string
}

type pageBlock struct{ Title, Table, Shares string }

type pageRow struct{ *MetadataRow }

func (r pageRow) US() float64        { return r.MedianNS / 1e3 }
func (r pageRow) CyclesText() string { return optional(r.Cycles) }

func (r pageRow) HostnameText() string {
	n, why := r.calls(hostnameCall)
	return cmp.Or(why, fmt.Sprintf("%.3g an export", n))
}

// Less is what After is less than Before.
func (p page) Less(figure string) string {
	return savingOf(figure, p.Before.MetadataRow, p.After.MetadataRow).text()
}

// metadataPage returns the report as a page of the documentation.
func metadataPage(r *MetadataReport) ([]byte, error) {
	text, err := template.New("page").Parse(metadataPageText)
	if err != nil {
		return nil, fmt.Errorf("bench: the page: %w", err)
	}
	fill := page{MetadataReport: r, Starts: r.startTable().markdown(), GoalList: r.goalsTable().markdown()}
	for b := range r.Blocks {
		block := &r.Blocks[b]
		title := block.title()
		fill.Pages = append(fill.Pages, pageBlock{strings.ToUpper(title[:1]) + title[1:], block.table().markdown(), r.sharesTable(block).markdown()})
		if block.Name == export && block.Goroutines == 1 {
			fill.Before, fill.After = pageRow{block.row(oldWay)}, pageRow{block.row(byExporter)}
		}
	}
	var out bytes.Buffer
	if err := text.Execute(&out, fill); err != nil {
		return nil, fmt.Errorf("bench: the page: %w", err)
	}
	return out.Bytes(), nil
}
