package rival

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The numbers of HTTP/2 that the floor needs (RFC 9113, section 4.1 and 6).
const (
	frameHeaderBytes  = 9
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	flagAck           = 1
	maxWindow         = 1<<31 - 1
	messagePrefix     = 5 // of gRPC: compressed or not, length
	readBytes         = 1 << 20
	defaultConnWindow = 65535
)

// stream is GetEvents over HTTP/2, read in the cheapest way: it trusts the server,
// and does of the protocol only what goes without errors. It is a yardstick, not a
// client.
type stream struct {
	conn     net.Conn
	framer   *http2.Framer
	consumed uint32 // bytes of DATA since the last window update
}

func subscribe(ctx context.Context, server string) (*stream, error) {
	path, isUnix := strings.CutPrefix(server, "unix://")
	if !isUnix {
		return nil, fmt.Errorf("rival: server %q, want unix:///path", server)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, framer: http2.NewFramer(conn, nil)}
	context.AfterFunc(ctx, s.close)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", tetragon.FineGuidanceSensors_GetEvents_FullMethodName}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return nil, err
		}
	}
	for _, write := range []func() error{
		func() error {
			return s.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1})
		},
		func() error { return s.framer.WriteWindowUpdate(0, maxWindow-defaultConnWindow) },
		func() error {
			return s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
		},
		func() error { return s.framer.WriteData(1, true, make([]byte, messagePrefix)) }, // the empty request
	} {
		if err := write(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stream) close() { _ = s.conn.Close() }

// read hands on the messages of each read of the socket. The slices are lent.
func (s *stream) read(take func(batch [][]byte) error) error {
	buffer := make([]byte, readBytes)
	var from, to int   // of the bytes that are not parsed yet
	var message []byte // whose rest is to come
	var batch [][]byte
	for {
		if from > 0 {
			copy(buffer, buffer[from:to])
			from, to = 0, to-from
		}
		if to == len(buffer) {
			buffer = append(buffer, make([]byte, len(buffer))...)
		}
		n, err := s.conn.Read(buffer[to:])
		if err != nil {
			return err
		}
		to += n
		batch = batch[:0]
		for to-from >= frameHeaderBytes {
			header := buffer[from : from+frameHeaderBytes]
			length := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
			if to-from < frameHeaderBytes+length {
				break
			}
			payload := buffer[from+frameHeaderBytes : from+frameHeaderBytes+length]
			from += frameHeaderBytes + length
			if header[3] != frameData {
				if err := s.other(header, payload); err != nil {
					return err
				}
				continue
			}
			if batch, message, err = messages(batch, message, payload); err != nil {
				return err
			}
			if s.consumed += uint32(length); s.consumed > maxWindow/2 {
				if err := s.update(); err != nil {
					return err
				}
			}
		}
		if err := take(batch); err != nil {
			return err
		}
	}
}

// messages appends the whole messages of a DATA frame to batch, behind begun, the
// beginning of one.
func messages(batch [][]byte, begun, payload []byte) (_ [][]byte, rest []byte, err error) {
	if len(begun) > 0 {
		begun = append(begun, payload...)
		payload = begun
	}
	for len(payload) >= messagePrefix {
		length := int(binary.BigEndian.Uint32(payload[1:]))
		if payload[0] != 0 || length > maxMessageBytes {
			return nil, nil, fmt.Errorf("rival: a message with flag %d of %d bytes", payload[0], length)
		}
		if len(payload) < messagePrefix+length {
			break
		}
		batch = append(batch, payload[messagePrefix:messagePrefix+length])
		payload = payload[messagePrefix+length:]
	}
	return batch, append([]byte(nil), payload...), nil
}

func (s *stream) other(header, payload []byte) error {
	switch kind, flags := header[3], header[4]; {
	case kind == frameSettings && flags&flagAck == 0:
		return s.framer.WriteSettingsAck()
	case kind == framePing && flags&flagAck == 0 && len(payload) == 8:
		return s.framer.WritePing(true, [8]byte(payload))
	case kind == frameHeaders && flags&1 != 0, kind == frameReset, kind == frameGoAway:
		return errEnd
	}
	return nil
}

// update opens both windows again.
func (s *stream) update() error {
	consumed := s.consumed
	s.consumed = 0
	for _, id := range []uint32{0, 1} {
		if err := s.framer.WriteWindowUpdate(id, consumed); err != nil {
			return err
		}
	}
	return nil
}
