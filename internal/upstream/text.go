package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// maxLineBytes bounds a line of metrics, with all its labels.
const maxLineBytes = 1 << 20

// parse returns the value of each stage, the sum over its labels, in the order of
// names; nil where it is unknown. The version is Tetragon's; empty: unknown. Of the text format of Prometheus it understands
// what it needs, samples with their name and value: the whole of it would take a
// library, and Tetragon serves 500 KB every ten seconds of which these are a few
// lines.
func parse(in io.Reader, version string) ([]*float64, error) {
	limited := &io.LimitedReader{R: in, N: maxAnswerBytes + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxLineBytes)
	sums := map[string]float64{}
	for lines.Scan() {
		name, rest := splitName(lines.Bytes())
		if !wanted(name) {
			continue
		}
		value, err := sampleValue(rest)
		if err != nil {
			return nil, fmt.Errorf("the sample %.200q: %w", lines.Bytes(), err)
		}
		sums[string(name)] += value
	}
	switch err := lines.Err(); {
	case limited.N <= 0:
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswerBytes)
	case err != nil:
		return nil, err
	}
	return byStage(sums, version)
}

// byStage takes of each stage the first of its names that is there. A counter with
// labels appears when it first counts something: where others of the same release are
// there, one that the release has and that is absent is 0.
func byStage(sums map[string]float64, version string) ([]*float64, error) {
	values := make([]*float64, len(names))
	found, newer, older := false, false, false // newer: the names since v1.2
	for i, n := range names {
		for k, name := range n.metrics {
			sum, ok := sums[name]
			if !ok {
				continue
			}
			if sum >= 0 && sum < 1<<63 { // not so for a NaN
				values[i], found = &sum, true
				newer = newer || k == 0 && len(n.metrics) > 1
				older = older || k == 1
			}
			break
		}
	}
	if !found {
		return nil, errors.New("none of the counters of Tetragon's losses is there")
	}
	for i, n := range names {
		has := newer || older && (n.stage != missed || hasOldMissed(version))
		if values[i] == nil && has && absent(sums, n.metrics) {
			values[i] = new(float64)
		}
	}
	return values, nil
}

// absent says whether none of the metrics is there; one that is but is no count is
// unknown, and not 0.
func absent(sums map[string]float64, metrics []string) bool {
	return !slices.ContainsFunc(metrics, func(name string) bool { _, ok := sums[name]; return ok })
}

// hasOldMissed says whether a release with the older names counts what its programs
// in the kernel miss: v1.1 does, v1.0 does not.
func hasOldMissed(version string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &major, &minor)
	return n == 2 && major == 1 && minor == 1
}

// splitName cuts a sample behind its name. A comment has none.
func splitName(line []byte) (name, rest []byte) {
	line = bytes.TrimLeft(line, " \t")
	if i := bytes.IndexAny(line, "{ \t"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}

func wanted(name []byte) bool {
	for _, n := range names {
		for _, metric := range n.metrics {
			if string(name) == metric {
				return true
			}
		}
	}
	return false
}

var errSample = errors.New("it is cut off, or no number")

// sampleValue reads the value of a sample, behind its labels. A time may follow it.
func sampleValue(rest []byte) (float64, error) {
	if rest = bytes.TrimLeft(rest, " \t"); len(rest) > 0 && rest[0] == '{' {
		end := labelsEnd(rest)
		if end < 0 {
			return 0, errSample
		}
		rest = rest[end:]
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 || len(fields) > 2 {
		return 0, errSample
	}
	value, err := strconv.ParseFloat(string(fields[0]), 64)
	if err != nil {
		return 0, errSample
	}
	return value, nil
}

// labelsEnd returns what is behind the brace that closes the labels, or -1. In
// quotes a brace is text, and what follows a backslash too.
func labelsEnd(text []byte) int {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '}' && !quoted:
			return i + 1
		}
	}
	return -1
}
