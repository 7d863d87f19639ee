package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faulty stands where the kernel stands. It takes at most perCall messages a
// call, remembers every datagram it took, and fails with errno, so many times,
// on a message that begins with the datagram whose text is bad.
type faulty struct {
	kernel
	perCall int
	bad     string
	errno   unix.Errno
	times   int
	taken   []string
	onlyGSO bool // only messages of several segments fail
}

func (f *faulty) sendmmsg(_ int, msgs []mmsghdr, _ int) (n int, errno unix.Errno) {
	for i := range msgs {
		if i == f.perCall {
			return i, 0
		}
		payloads := segmentsOf(&msgs[i])
		if payloads[0] == f.bad && f.times > 0 && (!f.onlyGSO || len(payloads) > 1) {
			if i > 0 {
				return i, 0 // the kernel eats the error of a message behind the first
			}
			f.times--
			return 0, f.errno
		}
		f.taken = append(f.taken, payloads...)
	}
	return len(msgs), 0
}

// segmentsOf returns the datagrams that the kernel would make of a message.
func segmentsOf(m *mmsghdr) (payloads []string) {
	var all []byte
	for i := range int(m.hdr.Iovlen) {
		all = append(all, iovecAt(m.hdr.Iov, i)...)
	}
	if m.hdr.Control == nil {
		return []string{string(all)}
	}
	size := segmentSize(m)
	for chunk := range chunks(all, size) {
		payloads = append(payloads, string(chunk))
	}
	return payloads
}

func chunks(all []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(all) > 0 {
			n := min(size, len(all))
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// TestNoSendmmsg: where the system call is forbidden, datagrams go one by one.
func TestNoSendmmsg(t *testing.T) {
	l, err := Listen("127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := dial(l.LocalAddr(), Options{GSO: On}, forbidden{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	datagrams := numbered(100)
	if sent, err := c.Send(datagrams); sent != 100 || err != nil {
		t.Fatal(sent, err)
	}
	receiveAll(t, l, datagrams)
}

type forbidden struct{ kernel }

func (forbidden) sendmmsg(int, []mmsghdr, int) (int, unix.Errno) { return 0, unix.ENOSYS }

// TestNoDescriptors: a process that has none left gets an error that says so,
// and nothing is leaked.
func TestNoDescriptors(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, err := Dial(netip.MustParseAddrPort("127.0.0.1:9"), Options{})
	if restoreErr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); restoreErr != nil {
		t.Fatal(restoreErr)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("without descriptors: %v", err)
	}
}

func dialFaulty(t testing.TB, f *faulty, options Options) *Conn {
	t.Helper()
	if f.perCall == 0 {
		f.perCall = sendMessages
	}
	l, err := Listen("127.0.0.1:0", ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c, err := dial(l.LocalAddr(), options, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// wantTaken asserts that the kernel took each datagram from the front once, in
// order, and as many as Send says.
func wantTaken(t testing.TB, what string, f *faulty, datagrams [][]byte, sent int) {
	t.Helper()
	if len(f.taken) != sent {
		t.Errorf("%s: the kernel took %d, Send says %d", what, len(f.taken), sent)
		return
	}
	for i, payload := range f.taken {
		if payload != string(datagrams[i]) {
			t.Fatalf("%s: datagram %d is %.20q, want %.20q: one was skipped or sent twice", what, i, payload, datagrams[i])
		}
	}
}

// TestErrorsOfTheKernel: each error is told with its class, at the datagram
// that it befell, with nothing behind it offered, nothing skipped and nothing
// sent twice; short counts are normal.
func TestErrorsOfTheKernel(t *testing.T) {
	const bad = 7
	var datagrams [][]byte
	for i := range 100 {
		datagrams = append(datagrams, []byte(fmt.Sprint(i)))
	}
	f := func(errno unix.Errno, times int, class error) {
		t.Helper()
		for perCall := 1; perCall <= sendMessages; perCall++ {
			kernel := &faulty{perCall: perCall, bad: fmt.Sprint(bad), errno: errno, times: times}
			c := dialFaulty(t, kernel, Options{GSO: Off})
			sent, err := c.Send(datagrams)
			what := fmt.Sprintf("%v, %d times, %d messages a call", errno, times, perCall)
			if class == nil && (sent != len(datagrams) || err != nil) {
				t.Errorf("%s: sent %d, %v", what, sent, err)
			}
			if class != nil && (sent != bad || !errors.Is(err, class) || !errors.Is(err, errno)) {
				t.Errorf("%s: sent %d, %v; want %d and %v", what, sent, err, bad, class)
			}
			wantTaken(t, what, kernel, datagrams, sent)
		}
	}
	f(unix.EAGAIN, 1, ErrWouldBlock)
	f(unix.ENOBUFS, 1, ErrNoBuffers)
	f(unix.EMSGSIZE, 1, ErrTooLarge)
	f(unix.ENETUNREACH, 1, ErrUnreachable)
	f(unix.EHOSTUNREACH, 1, ErrUnreachable)
	f(unix.ENETDOWN, 1, ErrLinkDown)
	f(unix.ECONNREFUSED, maxNews, nil)
	f(unix.ECONNREFUSED, maxNews+1, ErrWouldBlock)
	f(unix.EPROTO, maxNews, nil)
	f(unix.EPERM, 1, nil)
	f(unix.EPERM, 2, ErrNotPermitted)
	f(unix.EINTR, 3, nil)
	f(unix.EIO, 1, unix.EIO)
}

// sized returns datagrams of these sizes, each with a text of its own.
func sized(sizes ...int) (datagrams [][]byte) {
	for i, size := range sizes {
		d := bytes.Repeat([]byte{byte('a' + i%26)}, size)
		copy(d, fmt.Sprint(i))
		datagrams = append(datagrams, d)
	}
	return datagrams
}

// TestSegments: runs of one size, the last shorter, become one message; nothing
// else does; and what the kernel cuts out of it are the datagrams.
func TestSegments(t *testing.T) {
	f := func(want int, sizes ...int) {
		t.Helper()
		kernel := &faulty{}
		c := dialFaulty(t, kernel, Options{GSO: On})
		datagrams := sized(sizes...)
		messages, used, _ := c.plan(datagrams)
		if messages != want || used != len(datagrams) {
			t.Errorf("%v: %d messages of %d datagrams, want %d of %d", sizes, messages, used, want, len(datagrams))
		}
		sent, err := c.Send(datagrams)
		if err != nil {
			t.Errorf("%v: %v", sizes, err)
		}
		wantTaken(t, fmt.Sprint(sizes), kernel, datagrams, sent)
	}
	f(1, 100)
	f(1, 100, 100, 100)
	f(1, 100, 100, 40)
	f(2, 100, 40, 40)
	f(2, 40, 100, 100)
	f(3, 100, 100, 0, 100)
	f(2, 60000, 60000)
	f(1, 32000, 32000, 1000)
	f(2, 32000, 32000, 1508)
	many := make([]int, 150)
	for i := range many {
		many[i] = 200
	}
	f(3, many...) // 64, 64 and 22
}

// TestGSOFallsBack: a device or a kernel that cannot segment, or a path that is
// too narrow, costs no datagram, and the socket learns.
func TestGSOFallsBack(t *testing.T) {
	datagrams := sized(500, 500, 500, 500, 500, 300)
	f := func(errno unix.Errno, off bool) {
		t.Helper()
		kernel := &faulty{bad: string(datagrams[0]), errno: errno, times: 1, onlyGSO: true}
		c := dialFaulty(t, kernel, Options{GSO: On})
		sent, err := c.Send(datagrams)
		if sent != len(datagrams) || err != nil {
			t.Errorf("%v: sent %d, %v", errno, sent, err)
		}
		wantTaken(t, errno.Error(), kernel, datagrams, sent)
		if s := c.Stats(); s.GSOFallbacks != 1 || s.GSO == off {
			t.Errorf("%v: stats %+v", errno, s)
		}
	}
	f(unix.EIO, true)
	f(unix.EINVAL, true)
	f(unix.EMSGSIZE, false) // only this size is too large
}

// TestGSORests: when the device's queue is full, the same bytes are offered again
// without GSO, at once and for ten minutes, over a new socket too; and only what then
// does not pass is told.
func TestGSORests(t *testing.T) {
	datagrams := sized(500, 500, 500, 100, 100)
	kernel := &faulty{bad: string(datagrams[0]), errno: unix.ENOBUFS, times: 1, onlyGSO: true}
	c := dialFaulty(t, kernel, Options{GSO: On})
	sent, err := c.Send(datagrams)
	if sent != len(datagrams) || err != nil {
		t.Errorf("sent %d, %v", sent, err)
	}
	wantTaken(t, "a full queue", kernel, datagrams, sent)
	if s := c.Stats(); s.GSO || s.GSOFallbacks != 1 {
		t.Errorf("stats %+v", s)
	}
	now := time.Now()
	if err := c.Rotate(); err != nil {
		t.Fatal(err)
	}
	if c.MaxPayload(now.Add(gsoRest - time.Minute)); c.Stats().GSO {
		t.Error("GSO is back before its time")
	}
	if c.MaxPayload(now.Add(gsoRest + time.Minute)); !c.Stats().GSO {
		t.Error("GSO is not back after its time")
	}
	kernel.errno, kernel.times, kernel.onlyGSO = unix.ENOBUFS, 2, false
	if sent, err := c.Send(datagrams); sent != 0 || !errors.Is(err, ErrNoBuffers) {
		t.Errorf("a queue that stays full: sent %d, %v", sent, err)
	}
}

// TestQueueKind: the name of a discipline out of the kernel's message, and nothing
// out of a broken one.
func TestQueueKind(t *testing.T) {
	f := func(want, attrs string) {
		t.Helper()
		if got := queueKind([]byte(strings.Repeat("\x00", sizeofTcmsg) + attrs)); got != want {
			t.Errorf("%q: %q, want %q", attrs, got, want)
		}
	}
	f("tbf", "\x08\x00\x01\x00tbf\x00")
	f("tbf", "\x05\x00\x02\x00x\x00\x00\x00\x08\x00\x01\x00tbf\x00")
	f("htb", "\x08\x00\x01\x00htb\x00\x08\x00\x01\x00tbf\x00")
	f("", "\x09\x00\x01\x00tbf\x00")
	f("", "\x03\x00\x01\x00")
	f("", "\x08\x00")
	f("", "")
	if got := queueKind([]byte("short")); got != "" {
		t.Errorf("a short message: %q", got)
	}
}

// TestGSOOverTheWire: the kernel's own segmentation gives back the datagrams.
func TestGSOOverTheWire(t *testing.T) {
	l, err := Listen("127.0.0.1:0", ListenOptions{ReceiveBufferBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := Dial(l.LocalAddr(), Options{GSO: On})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if !c.Stats().GSO {
		t.Skip("SKIPPED, NOT TESTED: this kernel has no UDP_SEGMENT")
	}
	var sizes []int
	for i := range 1000 {
		sizes = append(sizes, 1232-i%7/6*(i%900))
	}
	datagrams := sized(sizes...)
	for rest := datagrams; len(rest) > 0; rest = rest[min(100, len(rest)):] {
		part := rest[:min(100, len(rest))]
		if sent, err := c.Send(part); sent != len(part) || err != nil {
			t.Fatal(sent, err)
		}
		receiveAll(t, l, part)
	}
	if s := c.Stats(); s.GSOSegments < 500 || s.Calls > 60 {
		t.Errorf("stats %+v", s)
	}
}

func TestMangles(t *testing.T) {
	f := func(release string, want bool) {
		t.Helper()
		if got := mangles(release); got != want {
			t.Errorf("%s: %v, want %v", release, got, want)
		}
	}
	f("6.18.44", false)
	f("6.17.0-41-generic", false)
	f("7.0.0", true)
	f("7.0.12-rt", true)
	f("7.1.4", true)
	f("7.1.5-200.fc45.x86_64", false)
	f("7.2.0", false)
	f("7.1", true)
	f("", false)
}

// TestPace: over a second, no more than the rate and one burst goes, and no
// less.
func TestPace(t *testing.T) {
	f := func(bytesPerSecond, datagramsPerSecond, want int) {
		t.Helper()
		now := time.Unix(0, 0)
		kernel := &faulty{}
		c := dialFaulty(t, kernel, Options{GSO: Off, BytesPerSecond: bytesPerSecond, DatagramsPerSecond: datagramsPerSecond})
		c.pace.now = func() time.Time { return now }
		c.pace.last = now
		datagrams := sized(make([]int, 100)...)
		for i := range datagrams {
			datagrams[i] = make([]byte, 1000)
		}
		total, waits := 0, 0
		for now.Before(time.Unix(1, 0)) {
			sent, err := c.Send(datagrams)
			total += sent
			if err == nil {
				continue
			}
			var sendErr *SendError
			if !errors.As(err, &sendErr) || !errors.Is(err, ErrPaced) || sendErr.After <= 0 {
				t.Fatal(err)
			}
			waits++
			now = now.Add(sendErr.After)
		}
		if total < want*95/100 || total > want*103/100+1 {
			t.Errorf("%d B/s, %d datagrams/s: %d went in a second, want %d", bytesPerSecond, datagramsPerSecond, total, want)
		}
		if waits > 1100 {
			t.Errorf("%d waits in a second", waits)
		}
	}
	f(1_000_000, 0, 1000)
	f(0, 2000, 2000)
	f(1_000_000, 300, 300)
	f(500, 0, 1) // slower than a datagram a second
}
