package framer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// session writes what a server says.
type session struct {
	bytes.Buffer
	*http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
}

func newSession() *session {
	s := new(session)
	s.Framer = http2.NewFramer(&s.Buffer, nil)
	s.AllowIllegalWrites = true
	s.encoder = hpack.NewEncoder(&s.block)
	_ = s.WriteSettings()
	return s
}

func (s *session) headers(end bool, fields ...string) *session {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = s.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: s.block.Bytes(), EndHeaders: true, EndStream: end})
	return s
}

func (s *session) answer() *session {
	return s.headers(false, ":status", "200", "content-type", "application/grpc")
}

// messages sends messages of these lengths in frames of at most so many bytes.
func (s *session) messages(frame int, lengths ...int) *session {
	var all []byte
	for _, n := range lengths {
		all = append(binary.BigEndian.AppendUint32(append(all, 0), uint32(n)), bytes.Repeat([]byte{byte(n)}, n)...)
	}
	for piece := range slices.Chunk(all, frame) {
		_ = s.WriteData(streamID, false, piece)
	}
	return s
}

func (s *session) end() *session { return s.headers(true, "grpc-status", "0") }

// tape is a connection on which the server has said everything. A read brings at
// most chunk bytes; 0: as many as fit.
type tape struct {
	net.Conn
	said  []byte
	chunk int
	again int // bytes before the end that come again and again; 0: it ends
	at    int
}

func (t *tape) Read(p []byte) (int, error) {
	if t.at == len(t.said) {
		if t.again == 0 {
			return 0, io.EOF
		}
		t.at -= t.again
	}
	if t.chunk > 0 {
		p = p[:min(len(p), t.chunk)]
	}
	n := copy(p, t.said[t.at:])
	t.at += n
	return n, nil
}

func (*tape) Write(p []byte) (int, error)      { return len(p), nil }
func (*tape) Close() error                     { return nil }
func (*tape) SetDeadline(time.Time) error      { return nil }
func (*tape) SetReadDeadline(time.Time) error  { return nil }
func (*tape) SetWriteDeadline(time.Time) error { return nil }

const testLimit = 1 << 17

// play receives what a tape holds.
func play(said []byte, chunk int) (messages [][]byte, end error) {
	c, err := Open(context.Background(), &tape{said: said, chunk: chunk}, new(tetragon.GetEventsRequest), Config{MaxReceiveBytes: testLimit})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for {
		batch, err := c.Next()
		if err != nil {
			if len(c.buf) > testLimit+2*bufferBytes || c.block != nil && cap(c.block) > 2*maxHeaderBytes {
				end = fmt.Errorf("a buffer of %d bytes, headers of %d", len(c.buf), cap(c.block))
			}
			return messages, errors.Join(end, err)
		}
		if len(batch) == 0 {
			return messages, errors.New("an empty batch")
		}
		for _, m := range batch {
			messages = append(messages, bytes.Clone(m))
		}
	}
}

// FuzzServer gives the client whatever a server may send. However the bytes are
// cut into reads, it makes the same of them; and what it makes is what a plain
// reading of the DATA would.
func FuzzServer(f *testing.F) {
	for _, s := range []*session{
		newSession().answer().messages(16384, 1, 2, 3, 0, 500, 70_000).end(),
		newSession().answer().messages(7, 1, 20, 0, 3),
		newSession().answer().messages(16384, 5).headers(true, "grpc-status", "13", "grpc-message", "a%20b%zz"),
		newSession().headers(true, ":status", "503", "content-type", "text/html"),
		newSession().headers(false, ":status", "103").answer().end(),
		newSession().answer().messages(100, testLimit+1),
	} {
		f.Add(s.Bytes(), uint16(0))
		f.Add(s.Bytes(), uint16(5))
	}
	s := newSession().answer()
	_ = s.WriteDataPadded(streamID, false, []byte{0, 0, 0, 0, 1, 'x'}, make([]byte, 9))
	_ = s.WritePing(false, [8]byte{1})
	_ = s.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20000})
	_ = s.WriteWindowUpdate(0, 1000)
	_ = s.WriteWindowUpdate(streamID, 1000)
	_ = s.WriteGoAway(streamID, http2.ErrCodeNo, []byte("bye"))
	_ = s.WriteRawFrame(0x42, 1, 7, []byte("unknown"))
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: []byte{0x40, 1, 'a'}})
	_ = s.WriteContinuation(streamID, true, []byte{1, 'b'})
	_ = s.WriteRSTStream(streamID, http2.ErrCodeCancel)
	f.Add(s.Bytes(), uint16(1))
	f.Fuzz(func(t *testing.T, said []byte, chunk uint16) {
		whole, wholeEnd := play(said, 0)
		pieces, piecesEnd := play(said, int(chunk)%(1+len(said)))
		if !slices.EqualFunc(whole, pieces, bytes.Equal) || fmt.Sprint(wholeEnd) != fmt.Sprint(piecesEnd) {
			t.Fatalf("read at once: %d messages, %v; in pieces of %d: %d messages, %v", len(whole), wholeEnd, chunk, len(pieces), piecesEnd)
		}
		plain := plainly(said)
		if len(whole) > len(plain) || !slices.EqualFunc(whole, plain[:len(whole)], bytes.Equal) {
			t.Fatalf("%d messages, which are not the first of the %d that the DATA holds", len(whole), len(plain))
		}
	})
}

// plainly reads the messages in all DATA of the stream, as simply as can be.
func plainly(said []byte) (messages [][]byte) {
	var stream []byte
	for len(said) >= 9 {
		n := int(said[0])<<16 | int(said[1])<<8 | int(said[2])
		if 9+n > len(said) {
			break
		}
		if payload := said[9 : 9+n]; said[3] == 0 && binary.BigEndian.Uint32(said[5:])<<1 == streamID<<1 {
			if said[4]&8 != 0 {
				if len(payload) == 0 || int(payload[0]) >= len(payload) {
					break
				}
				payload = payload[1 : len(payload)-int(payload[0])]
			}
			stream = append(stream, payload...)
		}
		said = said[9+n:]
	}
	for len(stream) >= 5 {
		n := int(binary.BigEndian.Uint32(stream[1:]))
		if n > len(stream)-5 {
			break
		}
		messages = append(messages, stream[5:5+n])
		stream = stream[5+n:]
	}
	return messages
}

// TestPlain: over good streams plainly is right, and so is the client, whatever
// the reads.
func TestPlain(t *testing.T) {
	lengths := []int{0, 1, 4, 5, 600, 16384, 3, 100_000, 0, 131_072, 7}
	for _, frame := range []int{1000, 16384} {
		said := newSession().answer().messages(frame, lengths...).end().Bytes()
		for _, chunk := range []int{0, 1, 3, 1000, 40_000} {
			messages, err := play(said, chunk)
			if err.Error() != "EOF" || !slices.EqualFunc(messages, plainly(said), bytes.Equal) || len(messages) != len(lengths) {
				t.Errorf("frames of %d, reads of %d: %d messages, %v", frame, chunk, len(messages), err)
			}
		}
	}
}

// forever opens a call on which the same messages come again and again.
func forever(t testing.TB, chunk int, lengths ...int) *Client {
	t.Helper()
	s := newSession().answer()
	head := s.Len()
	s.messages(16384, lengths...)
	c, err := Open(context.Background(), &tape{said: s.Bytes(), chunk: chunk, again: s.Len() - head}, new(tetragon.GetEventsRequest), Config{MaxReceiveBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestAllocations: none, also where messages take several frames and reads, and
// over several credits.
func TestAllocations(t *testing.T) {
	c := forever(t, 32<<10, 600, 30, 4000, 40_000, 0, 600)
	for range 200 {
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(2000, func() { _, _ = c.Next() }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// TestMemoryReturns after a long message.
func TestMemoryReturns(t *testing.T) {
	c := forever(t, 1000, append([]int{1 << 20}, slices.Repeat([]int{500}, 3*roomyReads)...)...)
	largest := 0
	for range 6 * roomyReads {
		batch, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, len(c.buf))
		if len(c.buf) == bufferBytes && largest > bufferBytes {
			for _, m := range c.batch[len(batch):cap(c.batch)] {
				if m != nil {
					t.Fatal("the batch still holds the large buffer")
				}
			}
			if largest > 3<<20 {
				t.Errorf("%d bytes for a message of 1 MiB", largest)
			}
			return
		}
	}
	t.Errorf("the buffer is still of %d bytes", len(c.buf))
}

// TestAgain: the end is told again and again, with no batch twice.
func TestAgain(t *testing.T) {
	c, err := Open(context.Background(), &tape{said: newSession().answer().messages(100, 1, 2).end().Bytes()}, new(tetragon.GetEventsRequest), Config{MaxReceiveBytes: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if batch, err := c.Next(); len(batch) != 2 || err != nil {
		t.Errorf("%d messages, %v", len(batch), err)
	}
	for range 3 {
		if batch, err := c.Next(); batch != nil || err != io.EOF {
			t.Errorf("after the end: %d messages, %v", len(batch), err)
		}
	}
	if c.Batches() != 1 {
		t.Errorf("%d batches counted", c.Batches())
	}
}

func TestTimeout(t *testing.T) {
	f := func(d time.Duration, want string) {
		t.Helper()
		if got := timeout(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	f(-time.Second, "1m")
	f(1, "1m")
	f(time.Second, "1000m")
	f(99_999_999*time.Millisecond, "99999999m")
	f(100_000*time.Second, "100000S")
	f(1<<63-1, "99999999S")
}

// BenchmarkNext: messages of 600 bytes from memory, so that only the client's own
// work is measured, beside http2.Framer that reads the DATA too, and beside reading
// alone.
func BenchmarkNext(b *testing.B) {
	lengths := slices.Repeat([]int{600}, 500)
	f := func(name string, next func() int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += next()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/message")
		})
	}
	s := newSession().answer()
	head := s.Len()
	for _, n := range lengths {
		s.messages(16384, n)
	}
	said := func() *tape { return &tape{said: s.Bytes(), chunk: 32 << 10, again: s.Len() - head} }
	c, err := Open(context.Background(), said(), new(tetragon.GetEventsRequest), Config{MaxReceiveBytes: 4 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	f("client", func() int {
		batch, err := c.Next()
		if err != nil {
			b.Fatal(err)
		}
		return len(batch)
	})
	framer := http2.NewFramer(io.Discard, bufio.NewReaderSize(said(), bufferBytes))
	framer.SetReuseFrames()
	f("net-framer", func() int {
		frame, err := framer.ReadFrame()
		if err != nil {
			b.Fatal(err)
		}
		if data, ok := frame.(*http2.DataFrame); ok && int(binary.BigEndian.Uint32(data.Data()[1:])) == len(data.Data())-prefixBytes {
			return 1
		}
		return 0
	})
	reading, buf, left := said(), make([]byte, bufferBytes), 0
	f("floor", func() int {
		n, _ := reading.Read(buf)
		left += n
		whole := left / (frameHeaderBytes + prefixBytes + 600)
		left -= whole * (frameHeaderBytes + prefixBytes + 600)
		return whole
	})
}
