package metadata

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Origin is where the facts of a record come from. While it is the same, they are
// too: the host was not started since, and Tetragon neither.
type Origin struct {
	BootID string `json:"boot_id"`
	Kernel string `json:"kernel"`
	// Tetragon's info file, which it writes at its start.
	InfoInode    uint64 `json:"info_inode"`
	InfoModified int64  `json:"info_modified"` // nanoseconds since 1970
	InfoPID      int    `json:"info_pid"`      // that it names; 0: none, as before 1.7
	// Server is the address of Tetragon that was asked for; empty: none was.
	Server string `json:"server,omitempty"`
}

// bootVariable holds the boot id where /proc does not: the unit sets it to systemd's %b.
const bootVariable = "TETRACAST_BOOT_ID"

// HostOrigin returns what the host says of itself. The info file is the caller's to
// read.
func HostOrigin() (Origin, error) { return hostOrigin("/proc/sys/kernel/random/boot_id") } // random(4)

// hostOrigin reads the boot id from a file, or, where that cannot be read, from the
// environment. It is in the file's form in either case, with hyphens.
func hostOrigin(file string) (o Origin, err error) {
	text, err := os.ReadFile(file)
	o.BootID = strings.TrimSpace(string(text))
	if given := os.Getenv(bootVariable); err != nil && given != "" {
		o.BootID, err = withHyphens(given), nil
	}
	if err != nil {
		return o, fmt.Errorf("metadata: reading the boot id, which %s does not tell either: %w", bootVariable, err)
	}
	if !bootID.MatchString(o.BootID) {
		return o, fmt.Errorf("metadata: boot id %q, want 32 hexadecimal digits", o.BootID)
	}
	if o.Kernel, err = readKernel(); err != nil {
		return o, err
	}
	return o, nil
}

var bootID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// withHyphens puts them into an id of 32 digits.
func withHyphens(id string) string {
	if len(id) != 32 {
		return id
	}
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// StaleError says that a record was left, but is not to be used.
type StaleError struct{ Reason Reason }

func (e *StaleError) Error() string {
	return "metadata: the record left is stale: " + e.Reason.String()
}

// left is a record as it is left for the next process. A reader of entries reads it
// too.
type left struct {
	Key         string          `json:"key"`
	ClusterName string          `json:"cluster_name,omitempty"`
	Origin      Origin          `json:"origin"`
	Record      json.RawMessage `json:"record"`
}

// agentKey is the key of what an agent on this host says to one destination. Two
// agents that say something else to it do not get into each other's way.
func agentKey(f *Facts, o *Origin) (string, error) {
	f = &Facts{Hostname: f.Hostname, UDPDestination: f.UDPDestination, UDPBufferSize: f.UDPBufferSize, Labels: f.Labels}
	text, err := json.Marshal(struct {
		Facts  *Facts
		Server string
	}{f, o.Server})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return fmt.Sprintf("agent.%x", sum[:8]), nil
}

// Leave puts a record into a store for the next process on this host, which finds it
// with [Recall]. The cluster's name goes with it.
func Leave(ctx context.Context, s Store, f Facts, o Origin, render Renderer, clusterName string) error {
	r, err := NewRecord(f, render)
	if err != nil {
		return err
	}
	key, err := agentKey(&f, &o)
	if err != nil {
		return err
	}
	var value bytes.Buffer
	encoder := json.NewEncoder(&value)
	encoder.SetEscapeHTML(false) // the record's bytes stay as they are
	if err := encoder.Encode(left{Key: key, ClusterName: tidy(clusterName), Origin: o, Record: r.JSON()}); err != nil {
		return fmt.Errorf("metadata: leaving the record: %w", err)
	}
	return s.Put(ctx, key, value.Bytes())
}

// Recalled is what a process before this one knew.
type Recalled struct {
	Record      *Record // with the time, process id and start of this one
	ClusterName string
}

// Recall looks in a store for the record that a process before this one left for the
// destination of f, and brings it up to date: time, process id and start are those of f, and
// so is all that this process knows itself. From f's point of view only what
// Tetragon said is missing.
//
// The record that a [MappedStore] has stays in the mapping: see [Record.Parts].
//
// A [StaleError] says that what was left is not true any more, or is not what this
// process would write; ErrNotFound that nothing was left; any other error that the
// store is away or broken.
func Recall(ctx context.Context, s Store, f Facts, o Origin, render Renderer) (r Recalled, err error) {
	key, err := agentKey(&f, &o)
	if err != nil {
		return r, err
	}
	var value []byte
	var loan *Loan
	if mapped, ok := s.(*MappedStore); ok {
		if loan, err = mapped.Lend(key); err == nil {
			if value, ok = loan.copy(); !ok {
				loan.Damaged()
				err = &StaleError{Damaged}
			}
		}
	} else {
		value, err = s.Get(ctx, key)
	}
	if err != nil {
		return r, err
	}
	stale := func(why Reason) (Recalled, error) { return Recalled{}, &StaleError{why} }
	text, err := ReadEntry(key, value)
	if err != nil {
		return stale(Damaged)
	}
	var was left
	var event MetadataEvent
	if json.Unmarshal(value, &was) != nil || json.Unmarshal(text, &event) != nil {
		return stale(Damaged)
	}
	switch {
	case was.Origin.BootID != o.BootID:
		return stale(OtherBoot)
	case was.Origin.Kernel != o.Kernel:
		return stale(OtherKernel)
	case was.Origin != o:
		return stale(OtherTetragon)
	}
	now, pid, started := f.Time, f.PID, f.Started
	f.TetragonVersion, f.BuildCommit, f.BuildDate = event.TetragonVersion, event.BuildCommit, event.BuildDate
	f.PID = event.PID
	if f.Time, err = time.Parse(time.RFC3339Nano, event.Timestamp); err != nil {
		return stale(Damaged)
	}
	if f.Started = (time.Time{}); event.StartedAt != "" {
		if f.Started, err = time.Parse(time.RFC3339Nano, event.StartedAt); err != nil {
			return stale(Damaged)
		}
	}
	// Whatever the store returned, what is sent is what this process would have made.
	if same, err := NewRecord(f, render); err != nil || !bytes.Equal(same.JSON(), text) {
		return stale(OtherFacts)
	}
	if f.Time, f.PID, f.Started = now, pid, started; now.IsZero() {
		f.Time = time.Now()
	}
	if r.Record, err = NewRecord(f, render); err != nil {
		return r, err
	}
	if loan != nil {
		r.Record = r.Record.lend(loan, bytes.Index(value, text), &event)
	}
	r.ClusterName = was.ClusterName
	return r, nil
}

// lent is the place of a record's bytes in a mapping.
type lent struct {
	loan  *Loan
	parts [][]byte
	spare *Record // the same in memory
}

// lend returns the record with its constant bytes in the mapping, where the record
// that it continues begins at the given place of the value; or the record itself, if
// it is not laid out as ToJSON does it.
func (r *Record) lend(loan *Loan, at int, was *MetadataEvent) *Record {
	const begin, pid, started = `{"@timestamp":"`, `,"pid":`, `,"started_at":"`
	line, digits := r.line, strconv.Itoa(r.event.PID)
	pidAt := bytes.Index(line, []byte(pid)) + len(pid) // a quote in a string is escaped, so this is the member
	if at < 0 || !bytes.HasPrefix(line, []byte(begin+r.event.Timestamp+`"`)) || !bytes.HasPrefix(line[pidAt:], []byte(digits+",")) {
		return r
	}
	if (r.event.StartedAt == "") != (was.StartedAt == "") {
		return r
	}
	end := len(line) - len("\n") // of what is the same
	if r.event.StartedAt != "" {
		end = bytes.LastIndex(line, []byte(started)) + len(started) // the last member
	}
	middle := pidAt - len(begin) - len(r.event.Timestamp)
	tail := end - pidAt - len(digits)
	rest := loan.slot.value[at+len(begin)+len(was.Timestamp):]
	afterPID := rest[middle+len(strconv.Itoa(was.PID)):]
	return &Record{event: r.event, digest: r.digest, made: r.made, bad: r.bad, lent: &lent{
		loan:  loan,
		parts: [][]byte{[]byte(begin + r.event.Timestamp), rest[:middle], []byte(digits), afterPID[:tail], line[end:]},
		spare: r,
	}}
}

// Lent says whether the record's bytes are in a mapping.
func (r *Record) Lent() bool { return r.lent != nil }

// Parts returns the line of a record that is lent, in the parts that it is in:
// constant ones in the mapping, time, process id and start in memory. They may be handed to
// a system call and not be read otherwise, and only while somebody keeps the record.
func (r *Record) Parts() [][]byte { return r.lent.parts }

// Intact says whether the file of a record that is lent is still as it was. Ask
// before each use. It takes 0.1 us; who writes into the file between it and the use
// is not seen.
func (r *Record) Intact() bool { return r.lent.loan.Intact() }

// Damaged sets the file of a record that is lent aside.
func (r *Record) Damaged() { r.lent.loan.Damaged() }

// InMemory returns the record with the same bytes in memory.
func (r *Record) InMemory() *Record {
	if r.lent != nil {
		return r.lent.spare
	}
	return r
}

// Len returns the length of Line.
func (r *Record) Len() int { return len(r.InMemory().line) }
