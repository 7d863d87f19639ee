package ledger

import (
	"encoding/json"
	"fmt"
	"slices"
)

// appendCounts appends a JSON object with one member for each count that is
// not zero, in the order of names.
func appendCounts(dst []byte, names []string, counts []uint64) []byte {
	dst = append(dst, '{')
	first := true
	for i, n := range counts {
		if n == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = fmt.Appendf(dst, "%q:%d", names[i], n)
	}
	return append(dst, '}')
}

// readCounts reads what appendCounts wrote. A name that this release does not
// know is an error: an account that is only partly understood cannot close.
func readCounts(text []byte, names []string, counts []uint64) error {
	var members map[string]uint64
	if err := json.Unmarshal(text, &members); err != nil {
		return fmt.Errorf("ledger: reading counts: %w", err)
	}
	for name := range members {
		if !slices.Contains(names, name) {
			return fmt.Errorf("ledger: reading counts: unknown name %q", name)
		}
	}
	for i, name := range names {
		counts[i] = members[name]
	}
	return nil
}

// countsText returns "oversize 2, shutdown 1", or "none".
func countsText(names []string, counts []uint64) string {
	var text []byte
	for i, n := range counts {
		if n == 0 {
			continue
		}
		if len(text) > 0 {
			text = append(text, ", "...)
		}
		text = fmt.Appendf(text, "%s %d", names[i], n)
	}
	if len(text) == 0 {
		return "none"
	}
	return string(text)
}

func sum(counts []uint64) uint64 {
	var total uint64
	for _, n := range counts {
		total += n
	}
	return total
}
