package source_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tetracast/internal/source"
	"tetracast/internal/source/framer"
)

var bothClients = []source.GRPCClient{source.ClientFramer, source.ClientGRPCGo}

// Messages that scripts send: short, empty, longer than a frame, of each length
// around the prefix's.
var texts = func() (list [][]byte) {
	for _, n := range []int{20, 0, 1, 5, 16384 - 5, 16384, 70_000, 300_000, 3} {
		list = append(list, bytes.Repeat([]byte{byte(n), 'x'}, n)[:n])
	}
	return list
}()

// send writes all messages, each in as few frames as it takes.
func send(p *peer) {
	p.answer()
	for _, text := range texts {
		for piece := range slices.Chunk(message(text), 16384) {
			p.data(piece)
		}
	}
}

func end(p *peer) { p.trailers("grpc-status", "0") }

// outcome is what a client made of a script.
type outcome struct {
	messages [][]byte
	err      error
	stats    source.Stats
}

func (o outcome) code() codes.Code {
	if o.err == nil {
		return codes.OK
	}
	return status.Code(o.err)
}

// receiveOnce lets a client receive a subscription, which has to end by itself.
func receiveOnce(t *testing.T, config source.Config) (o outcome) {
	t.Helper()
	s, err := source.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	o.err = s.Run(ctx, func(batch [][]byte) {
		for _, m := range batch {
			o.messages = append(o.messages, bytes.Clone(m))
		}
	})
	if ctx.Err() != nil {
		t.Error("the subscription did not end")
	}
	o.stats = s.Stats()
	return o
}

// TestStreams: whatever form a correct server gives to the stream, both clients
// get every message, in order, and its end.
func TestStreams(t *testing.T) {
	f := func(name string, greeting, play script, want ...[]byte) {
		t.Helper()
		for _, client := range bothClients {
			o := receiveOnce(t, source.Config{ServerAddress: scripted(t, greeting, play), GRPCClient: client})
			if o.err != nil || !slices.EqualFunc(o.messages, want, bytes.Equal) {
				t.Errorf("%s, %s: %d messages, want %d; %v", name, client, len(o.messages), len(want), o.err)
			}
		}
	}
	whole := func(p *peer) { send(p); end(p) }
	f("plain", greet, whole, texts...)
	for _, size := range []int{1, 2, 3, 7, 100, 16384} {
		want := texts
		if size < 100 {
			want = texts[:4]
		}
		var all []byte
		for _, text := range want {
			all = append(all, message(text)...)
		}
		f(fmt.Sprintf("frames of %d bytes", size), greet, func(p *peer) {
			p.answer()
			for piece := range slices.Chunk(all, size) {
				p.data(piece)
			}
			end(p)
		}, want...)
	}
	f("nothing", greet, func(p *peer) { p.answer(); end(p) })
	f("trailers only", greet, func(p *peer) {
		p.trailers(":status", "200", "content-type", "application/grpc", "grpc-status", "0")
	})
	f("padding, empty frames and priorities", greet, func(p *peer) {
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream, BlockFragment: p.encode(":status", "200", "content-type", "application/grpc+proto"),
			EndHeaders: true, PadLength: 200, Priority: http2.PriorityParam{StreamDep: 0, Weight: 10, Exclusive: true}})
		_ = p.WritePriority(p.stream, http2.PriorityParam{StreamDep: 0, Weight: 7})
		for i, text := range texts {
			for piece := range slices.Chunk(message(text), 16000) {
				p.padded(piece, i*20)
				p.padded(nil, i*20)
			}
		}
		end(p)
	}, texts...)
	f("continuations", greet, func(p *peer) {
		split := func(end bool, block []byte) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream, BlockFragment: block[:1], EndStream: end})
			for i := range block[1:] {
				_ = p.WriteContinuation(p.stream, i == len(block)-2, block[1+i:2+i])
			}
		}
		split(false, p.encode(":status", "200", "content-type", "application/grpc", "x-filler", strings.Repeat("many words ", 50)))
		p.data(message(texts[0]))
		split(true, p.encode("grpc-status", "0", "grpc-message", ""))
	}, texts[0])
	f("a table of headers that changes", greet, func(p *peer) {
		p.encoder.SetMaxDynamicTableSize(0)
		send(p)
		p.encoder.SetMaxDynamicTableSize(4096)
		end(p)
	}, texts...)
	f("frames and settings of the future", func(p *peer) {
		p.settings(http2.Setting{ID: 0x77, Val: 1}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	}, func(p *peer) {
		_ = p.WriteRawFrame(0x77, 0xff, p.stream, make([]byte, 16384))
		_ = p.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1"))
		send(p)
		_ = p.WriteRawFrame(0x78, 0xff, 0, nil)
		end(p)
	}, texts...)
	f("informational answers", greet, func(p *peer) {
		p.fields(false, ":status", "103", "link", "</style.css>")
		p.fields(false, ":status", "100")
		whole(p)
	}, texts...)
	f("a server that goes away when it is done", greet, func(p *peer) {
		_ = p.WriteGoAway(1<<31-1, http2.ErrCodeNo, []byte("graceful_stop"))
		send(p)
		_ = p.WriteGoAway(p.stream, http2.ErrCodeNo, nil)
		end(p)
	}, texts...)
	f("settings and pings in the middle, which are answered", greet, func(p *peer) {
		send(p)
		p.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5})
		data := [8]byte{1, 2, 3}
		_ = p.WritePing(false, data)
		if p.await(func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() }) &&
			p.await(func(f http2.Frame) bool { s, ok := f.(*http2.PingFrame); return ok && s.IsAck() && s.Data == data }) {
			end(p)
		}
	}, texts...)
	// More than both windows hold, by a server that keeps to them.
	const flood = 3000
	block := bytes.Repeat([]byte("0123456789abcdef"), 1024-1)
	f("flow control", greet, func(p *peer) {
		p.answer()
		for range flood {
			p.data(message(block))
		}
		end(p)
	}, slices.Repeat([][]byte{block}, flood)...)
}

// TestRequest: the request arrives whole, also one that is longer than the
// server's windows and frames.
func TestRequest(t *testing.T) {
	filters := source.Filters{}
	for i := range 5000 {
		filters.Allow = append(filters.Allow, &tetragon.Filter{BinaryRegex: []string{fmt.Sprintf("/usr/bin/program-%d", i)}})
	}
	want, err := proto.Marshal(&tetragon.GetEventsRequest{AllowList: filters.Allow})
	if err != nil {
		t.Fatal(err)
	}
	for _, window := range []uint32{0, 500, 100_000, 1<<31 - 1} {
		for _, client := range bothClients {
			came := 0
			address := scripted(t, func(p *peer) {
				p.settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
				if window == 0 {
					p.opened = 2000
				}
			}, func(p *peer) {
				if bytes.Equal(p.request, message(want)) {
					came++
				}
				p.trailers(":status", "200", "content-type", "application/grpc", "grpc-status", "0")
			})
			o := receiveOnce(t, source.Config{ServerAddress: address, GRPCClient: client, Filters: filters})
			if o.err != nil || came != 1 {
				t.Errorf("%s, a window of %d: the request of %d bytes came %d times; %v", client, window, len(want), came, o.err)
			}
		}
	}
}

// TestEndings: how a call can end, and what becomes of the messages before.
// Where the framer sees a fault that may be its own it says so.
func TestEndings(t *testing.T) {
	f := func(name string, play script, code codes.Code, text string, fault bool) {
		t.Helper()
		for _, client := range bothClients {
			o := receiveOnce(t, source.Config{ServerAddress: scripted(t, greet, play), GRPCClient: client, MaxReceiveBytes: 1 << 20})
			if o.code() != code {
				t.Errorf("%s, %s: %v, want %v", name, client, o.err, code)
			}
			if o.err != nil && !strings.Contains(o.err.Error(), text) {
				t.Errorf("%s, %s: %v, want it to contain %q", name, client, o.err, text)
			}
			if got := errors.Is(o.err, framer.ErrProtocol); client == source.ClientFramer && got != fault {
				t.Errorf("%s: %v: a protocol error: %v, want %v", name, o.err, got, fault)
			}
			if n := len(o.messages); n != 0 && !slices.EqualFunc(o.messages, texts, bytes.Equal) {
				t.Errorf("%s, %s: %d messages came before, want all or none of %d", name, client, n, len(texts))
			}
		}
	}
	after := func(play script) script { return func(p *peer) { send(p); play(p) } }
	for code := codes.Code(0); code <= 18; code++ {
		number := fmt.Sprint(uint32(code))
		f("status "+number, after(func(p *peer) {
			p.trailers("grpc-status", number, "grpc-message", "50%25 of %0A %c3%bcn%C3%AFcode %zz %")
		}), code, "50% of \n ünïcode %zz %", false)
		f("status at once "+number, func(p *peer) {
			p.trailers(":status", "200", "content-type", "application/grpc", "grpc-status", number, "grpc-message", "so it is")
		}, code, "so it is", false)
	}
	for code, want := range map[http2.ErrCode]codes.Code{
		http2.ErrCodeNo: codes.Internal, http2.ErrCodeInternal: codes.Internal, http2.ErrCodeCancel: codes.Canceled, http2.ErrCodeRefusedStream: codes.Unavailable, http2.ErrCodeConnect: codes.Internal} {
		f("reset by "+code.String(), after(func(p *peer) { _ = p.WriteRSTStream(p.stream, code) }), want, code.String(), false)
	}
	for code, want := range map[http2.ErrCode]codes.Code{
		http2.ErrCodeProtocol: codes.Internal, http2.ErrCodeFlowControl: codes.ResourceExhausted, http2.ErrCodeSettingsTimeout: codes.Internal, http2.ErrCodeStreamClosed: codes.Internal,
		http2.ErrCodeFrameSize: codes.Internal, http2.ErrCodeCompression: codes.Internal, http2.ErrCodeEnhanceYourCalm: codes.ResourceExhausted,
		http2.ErrCodeInadequateSecurity: codes.PermissionDenied, http2.ErrCodeHTTP11Required: codes.Internal, 0x77: codes.Unknown} {
		f("reset by "+code.String(), after(func(p *peer) { _ = p.WriteRSTStream(p.stream, code) }), want, "", true)
	}
	f("a server that goes away in the middle", after(func(p *peer) { _ = p.WriteGoAway(p.stream, http2.ErrCodeNo, nil) }), codes.Unavailable, "", false)
	f("a server that goes away without us", after(func(p *peer) { _ = p.WriteGoAway(0, http2.ErrCodeNo, []byte("drained")) }), codes.Unavailable, "", false)
	f("a server that goes away because of us", after(func(p *peer) { _ = p.WriteGoAway(p.stream, http2.ErrCodeProtocol, []byte("what is that")) }), codes.Unavailable, "", true)
	f("too many pings", after(func(p *peer) { _ = p.WriteGoAway(p.stream, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings")) }), codes.Unavailable, "", true)
	f("closed", after(func(*peer) {}), codes.Unavailable, "", false)
	f("closed at once", func(*peer) {}, codes.Unavailable, "", false)
	f("closed in a frame header", after(func(p *peer) { p.raw(0, 0, 10, 0) }), codes.Unavailable, "", false)
	f("closed in a frame", after(func(p *peer) { p.raw(0, 0, 10, 0, 0, 0, 0, 0, byte(p.stream), 'x') }), codes.Unavailable, "", false)
	f("closed in a message", after(func(p *peer) { p.data(message(texts[0])[:10]) }), codes.Unavailable, "", false)
	f("ended without trailers", after(func(p *peer) { _ = p.WriteData(p.stream, true, nil) }), codes.Internal, "trailers", false)
	f("ended in a message", after(func(p *peer) { p.data(message(texts[0])[:10]); end(p) }), codes.Internal, "", false)
	f("ended in a prefix", after(func(p *peer) { p.data(message(texts[0])[:3]); end(p) }), codes.Internal, "", false)
	f("no status", after(func(p *peer) { p.trailers("x", "y") }), codes.Unknown, "", false)
	f("a status that is no number", after(func(p *peer) { p.trailers("grpc-status", "seven") }), codes.Unknown, "grpc-status", false)
	f("headers in the middle", after(func(p *peer) { p.fields(false, "x", "y") }), codes.Internal, "middle of", true)
	f("an informational answer at the end", func(p *peer) { p.fields(true, ":status", "103") }, codes.Internal, "103", true)

	for httpStatus, code := range map[string]codes.Code{"200": codes.Unknown, "204": codes.Unknown, "301": codes.Unknown, "400": codes.Internal, "401": codes.Unauthenticated,
		"403": codes.PermissionDenied, "404": codes.Unimplemented, "500": codes.Unknown, "": codes.Internal, "abc": codes.Internal,
		"429": codes.Unavailable, "502": codes.Unavailable, "503": codes.Unavailable, "504": codes.Unavailable} {
		for _, headers := range [][]string{{"content-type", "text/html"}, {"content-type", "application/grpcx"}, {}} {
			if httpStatus != "" {
				headers = append([]string{":status", httpStatus}, headers...)
			}
			f("HTTP status "+httpStatus, func(p *peer) { p.fields(true, headers...) }, code, httpStatus, code != codes.Unavailable)
		}
	}
	f("a page", func(p *peer) {
		p.fields(false, ":status", "404", "content-type", "text/html; charset=utf-8")
		_ = p.WriteData(p.stream, true, []byte("<html>not here</html>"))
	}, codes.Unimplemented, "404", true)

	f("a message too large", after(func(p *peer) { p.data(append([]byte{0, 0, 16, 0, 1}, make([]byte, 1000)...)) }), codes.ResourceExhausted, "1048577", false)
	f("a message of four gigabytes", after(func(p *peer) { p.data([]byte{0, 255, 255, 255, 255}) }), codes.ResourceExhausted, "4294967295", false)
	squeezed := []byte{1, 0, 0, 0, 3, 1, 2, 3}
	f("compressed with nothing", after(func(p *peer) { p.data(squeezed) }), codes.Internal, "compressed", false)
	f("compressed with zip", func(p *peer) {
		p.fields(false, ":status", "200", "content-type", "application/grpc", "grpc-encoding", "zip")
		p.data(squeezed)
	}, codes.Internal, `"zip"`, false)
	f("an unknown flag", after(func(p *peer) { p.data([]byte{7, 0, 0, 0, 1, 0}) }), codes.Internal, "", false)
}

// TestCancelled: the end of the context ends the call, and the server hears of
// it; a deadline is told to the server.
func TestCancelled(t *testing.T) {
	for _, client := range bothClients {
		told := make(chan string, 1)
		address := scripted(t, greet, func(p *peer) {
			send(p)
			p.await(func(f http2.Frame) bool {
				r, ok := f.(*http2.RSTStreamFrame)
				if ok {
					told <- r.ErrCode.String() + p.headers["grpc-timeout"]
				}
				return ok
			})
		})
		s, err := source.New(source.Config{ServerAddress: address, GRPCClient: client, Reconnect: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		n := 0
		err = s.Run(ctx, func(batch [][]byte) {
			if n += len(batch); n >= len(texts) {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) || n != len(texts) {
			t.Errorf("%s: %d messages, %v", client, n, err)
		}
		if got := <-told; !strings.HasPrefix(got, "CANCEL3") { // of 3,600 seconds, in one unit or the other
			t.Errorf("%s: the server heard %q", client, got)
		}
		if stats := s.Stats(); stats.Breaks != 0 || stats.Fallbacks != 0 {
			t.Errorf("%s: stats %+v", client, stats)
		}
	}
}

// faults are the ways in which a server can break the rules of HTTP/2.
func faults() map[string]script {
	after := func(play script) script { return func(p *peer) { send(p); play(p) } }
	frame := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload ...byte) script {
		return after(func(p *peer) { _ = p.WriteRawFrame(kind, flags, stream, payload) })
	}
	settings := func(id http2.SettingID, value uint32) script {
		return after(func(p *peer) { p.settings(http2.Setting{ID: id, Val: value}) })
	}
	return map[string]script{
		"DATA on stream 0":               frame(http2.FrameData, 0, 0, 1),
		"DATA on another stream":         frame(http2.FrameData, 0, 3, 1),
		"DATA in the middle of headers":  after(func(p *peer) { _ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}); p.data(message(nil)) }),
		"padding longer than its frame":  frame(http2.FrameData, http2.FlagDataPadded, 1, 3, 0, 0),
		"padding of an empty frame":      frame(http2.FrameData, http2.FlagDataPadded, 1),
		"a frame too long":               frame(http2.FrameData, 0, 1, make([]byte, 16385)...),
		"HEADERS on another stream":      frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2),
		"HEADERS on stream 0":            frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0),
		"HEADERS that cannot be decoded": frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"HEADERS cut short":              frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, 0x40, 10, 'a'),
		"HEADERS interrupted": after(func(p *peer) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			_ = p.WritePing(false, [8]byte{})
		}),
		"CONTINUATION of nothing": frame(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1),
		"CONTINUATION of another stream": after(func(p *peer) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			_ = p.WriteContinuation(3, true, nil)
		}),
		"CONTINUATION without end":          after(func(p *peer) { endless(p, nil) }),
		"CONTINUATION of more than we take": after(func(p *peer) { endless(p, make([]byte, 16384)) }),
		"a header list too long": after(func(p *peer) {
			p.fields(true, slices.Repeat([]string{"x", strings.Repeat("y", 1000)}, 100)...) // an index each, on the wire
		}),
		"PUSH_PROMISE":              frame(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, 0, 0, 0, 2),
		"RST_STREAM on stream 0":    frame(http2.FrameRSTStream, 0, 0, 0, 0, 0, 0),
		"RST_STREAM on another":     frame(http2.FrameRSTStream, 0, 3, 0, 0, 0, 0),
		"RST_STREAM of three bytes": frame(http2.FrameRSTStream, 0, 1, 0, 0, 0),
		"PING of seven bytes":       frame(http2.FramePing, 0, 0, make([]byte, 7)...),
		"PING on a stream":          frame(http2.FramePing, 0, 1, make([]byte, 8)...),
		"GOAWAY of seven bytes":     frame(http2.FrameGoAway, 0, 0, make([]byte, 7)...),
		"WINDOW_UPDATE by nothing":  frame(http2.FrameWindowUpdate, 0, 1, 0, 0, 0, 0),
		"WINDOW_UPDATE of three":    frame(http2.FrameWindowUpdate, 0, 1, 0, 0, 0),
		"WINDOW_UPDATE over all":    frame(http2.FrameWindowUpdate, 0, 0, 0x7f, 0xff, 0xff, 0xff),
		"WINDOW_UPDATE of another":  frame(http2.FrameWindowUpdate, 0, 5, 0, 0, 0, 1),
		"SETTINGS of five bytes":    frame(http2.FrameSettings, 0, 0, make([]byte, 5)...),
		"SETTINGS on a stream":      frame(http2.FrameSettings, 0, 1, make([]byte, 6)...),
		"an ack with settings":      frame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6)...),
		"a window too large":        settings(http2.SettingInitialWindowSize, 1<<31),
		"frames too small":          settings(http2.SettingMaxFrameSize, 16383),
		"push neither on nor off":   settings(http2.SettingEnablePush, 2),
	}
}

// endless begins headers and goes on with pieces of them until the client closes.
func endless(p *peer, piece []byte) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream})
	for p.WriteContinuation(p.stream, false, piece) == nil {
	}
}

// TestFallBack: after each way in which a server can break HTTP/2, grpc-go
// receives the events, once and for all. The framer alone says what it was.
func TestFallBack(t *testing.T) {
	for name, bad := range faults() {
		o := receiveOnce(t, source.Config{ServerAddress: scripted(t, greet, bad), GRPCClient: source.ClientFramer})
		if !errors.Is(o.err, framer.ErrProtocol) || o.code() != codes.Internal || o.stats.Fallbacks != 0 {
			t.Errorf("%s: the framer ends with %v, stats %+v", name, o.err, o.stats)
		}
		if n := len(o.messages); n != len(texts) {
			t.Errorf("%s: %d messages came before, want %d", name, n, len(texts))
		}
		fallsBack(t, name, scripted(t, greet, bad, good), "met a fault that may be its own")
	}
}

func good(p *peer) { send(p); p.await(func(http2.Frame) bool { return false }) }

// fallsBack lets ClientAuto receive until grpc-go has.
func fallsBack(t *testing.T, name, address, log string) {
	t.Helper()
	var logged bytes.Buffer
	var clients []source.GRPCClient
	s, err := source.New(source.Config{ServerAddress: address, Reconnect: true, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		Connected: func(found source.Tetragon) { clients = append(clients, found.Client) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	came := 0
	_ = s.Run(ctx, func(batch [][]byte) {
		if clients[len(clients)-1] == source.ClientGRPCGo {
			if came += len(batch); came == len(texts) {
				cancel()
			}
		}
	})
	if stats := s.Stats(); came != len(texts) || stats.Fallbacks != 1 || strings.Count(logged.String(), log) != 1 {
		t.Errorf("%s: %d messages came through grpc-go; clients %v, stats %+v, log:\n%s", name, came, clients, stats, &logged)
	}
}

// TestNotHTTP2: a server that greets the framer with something else is asked
// again with grpc-go at once.
func TestNotHTTP2(t *testing.T) {
	for name, greeting := range map[string]func(p *peer){
		"another frame":         func(p *peer) { _ = p.WritePing(false, [8]byte{}) },
		"an ack":                func(p *peer) { _ = p.WriteSettingsAck() },
		"HTTP/1.1":              func(p *peer) { p.raw([]byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")...) },
		"settings out of range": func(p *peer) { p.settings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) },
	} {
		// The second connection is the framer's: grpc-go asked GetVersion on the first.
		var connections atomic.Int64
		fallsBack(t, name, scripted(t, func(p *peer) {
			if connections.Add(1) == 2 {
				greeting(p)
				return
			}
			greet(p)
		}, good), "met a fault that may be its own")
	}
}

// TestNoHeaders: DATA that no headers announced is no answer.
func TestNoHeaders(t *testing.T) {
	early := func(p *peer) { p.data(message(texts[0])) }
	o := receiveOnce(t, source.Config{ServerAddress: scripted(t, greet, early), GRPCClient: source.ClientFramer})
	if !errors.Is(o.err, framer.ErrProtocol) || len(o.messages) > 0 {
		t.Errorf("%d messages, %v", len(o.messages), o.err)
	}
}

// TestClients: what cannot be is refused.
func TestClients(t *testing.T) {
	f := func(config source.Config, want error) {
		t.Helper()
		if _, err := source.New(config); !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", config, err, want)
		}
	}
	f(source.Config{GRPCClient: "curl"}, source.ErrClient)
	f(source.Config{GRPCClient: source.ClientFramer, TLS: func() (*tls.Config, error) { return new(tls.Config), nil }}, source.ErrClient)
	f(source.Config{GRPCClient: source.ClientAuto, TLS: func() (*tls.Config, error) { return new(tls.Config), nil }}, nil)
	f(source.Config{GRPCClient: source.ClientFramer}, nil)
	f(source.Config{}, nil)
}
