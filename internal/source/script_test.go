package source_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// peer is the server's side of a connection. It answers GetVersion as a server
// does, and GetEvents as a script says, which may write any frames.
type peer struct {
	*http2.Framer
	conn    net.Conn
	stream  uint32 // of the call
	request []byte // of GetEvents, as it came
	headers map[string]string
	encoder *hpack.Encoder
	block   bytes.Buffer
	deaf    bool   // to pings
	opened  uint32 // by so much the client's window is opened when a call begins
	// What the client allows.
	window, streamWindow, initialWindow int
}

// script serves GetEvents; when it returns, the connection is closed.
type script func(p *peer)

// scripted serves one script after the other, the last again and again. greeting
// is what the server says first.
func scripted(t *testing.T, greeting script, scripts ...script) (address string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.sock")
	scriptedOn(t, "unix", path, greeting, scripts...)
	return "unix://" + path
}

// scriptedOn does that at an address, and returns where it listens.
func scriptedOn(t *testing.T, network, at string, greeting script, scripts ...script) (address string) {
	t.Helper()
	listener, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	next := inTurn(scripts)
	var serving sync.WaitGroup
	var open sync.Map
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Store(conn, nil)
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				newPeer(conn).serve(greeting, next)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		open.Range(func(conn, _ any) bool { _ = conn.(net.Conn).Close(); return true })
		serving.Wait()
	})
	return listener.Addr().String()
}

// inTurn gives one script after the other, the last again and again.
func inTurn(scripts []script) func() script {
	var calls atomic.Int64
	return func() script { return scripts[min(int(calls.Add(1)), len(scripts))-1] }
}

func newPeer(conn net.Conn) *peer {
	p := &peer{Framer: http2.NewFramer(conn, conn), conn: conn, window: 65535, initialWindow: 65535}
	p.AllowIllegalWrites = true
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.encoder = hpack.NewEncoder(&p.block)
	return p
}

func (p *peer) serve(greeting script, next func() script) {
	if _, err := io.ReadFull(p.conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	greeting(p)
	for {
		f, err := p.read()
		if err != nil {
			return
		}
		if headers, ok := f.(*http2.MetaHeadersFrame); ok {
			p.stream, p.request, p.headers, p.streamWindow = f.Header().StreamID, nil, map[string]string{}, p.initialWindow
			for _, h := range headers.Fields {
				p.headers[h.Name] = h.Value
			}
			if p.opened > 0 {
				_ = p.WriteWindowUpdate(p.stream, p.opened)
			}
		}
		if _, ok := f.(*http2.DataFrame); !ok || !f.Header().Flags.Has(http2.FlagDataEndStream) {
			continue
		}
		switch p.headers[":path"] {
		case tetragon.FineGuidanceSensors_GetEvents_FullMethodName:
			next()(p)
			return
		case tetragon.FineGuidanceSensors_GetVersion_FullMethodName:
			wire, _ := proto.Marshal(&tetragon.GetVersionResponse{Version: "v1.6.0"})
			p.answer()
			p.data(message(wire))
			p.trailers("grpc-status", "0")
		default:
			p.fields(true, ":status", "200", "content-type", "application/grpc", "grpc-status", "12")
		}
	}
}

// read reads a frame and does what every server does with it.
func (p *peer) read() (http2.Frame, error) {
	f, err := p.ReadFrame()
	if err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				p.streamWindow += int(v) - p.initialWindow
				p.initialWindow = int(v)
			}
			_ = p.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() && !p.deaf {
			_ = p.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			p.window += int(f.Increment)
		} else if f.StreamID == p.stream {
			p.streamWindow += int(f.Increment)
		}
	case *http2.DataFrame:
		p.request = append(p.request, f.Data()...)
		if n := uint32(len(f.Data())); n > 0 && !f.StreamEnded() {
			_ = p.WriteWindowUpdate(0, n)
			_ = p.WriteWindowUpdate(p.stream, n)
		}
	}
	return f, nil
}

// await reads until a frame is what is waited for; false: the connection ended.
func (p *peer) await(is func(http2.Frame) bool) bool {
	for {
		f, err := p.read()
		if err != nil {
			return false
		}
		if is(f) {
			return true
		}
	}
}

// encode encodes headers, given as names and values.
func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

func (p *peer) fields(end bool, fields ...string) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream, BlockFragment: p.encode(fields...), EndHeaders: true, EndStream: end})
}

func (p *peer) answer()                     { p.fields(false, ":status", "200", "content-type", "application/grpc") }
func (p *peer) trailers(fields ...string)   { p.fields(true, fields...) }
func (p *peer) raw(b ...byte)               { _, _ = p.conn.Write(b) }
func (p *peer) settings(s ...http2.Setting) { _ = p.WriteSettings(s...) }

// room waits until the client's windows allow for so much DATA.
func (p *peer) room(n int) {
	for p.window < n || p.streamWindow < n {
		if _, err := p.read(); err != nil {
			return
		}
	}
	p.window, p.streamWindow = p.window-n, p.streamWindow-n
}

func (p *peer) data(payload []byte) {
	p.room(len(payload))
	_ = p.WriteData(p.stream, false, payload)
}

func (p *peer) padded(payload []byte, pad int) {
	p.room(len(payload) + 1 + pad)
	_ = p.WriteDataPadded(p.stream, false, payload, make([]byte, pad))
}

// greet is what a correct server says first.
func greet(p *peer) { p.settings() }

// message puts the prefix before a message.
func message(wire []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(wire))), wire...)
}
