package framer

import (
	"errors"

	"golang.org/x/net/http2"
)

// other takes a frame that is not part of the messages. Writes to out do not
// fail.
func (c *Client) other(frame []byte) error {
	c.control.Reset(frame)
	f, err := c.frames.ReadFrame()
	if err != nil {
		return c.unreadable(err)
	}
	settings, isSettings := f.(*http2.SettingsFrame)
	if !c.settled && (!isSettings || settings.IsAck()) {
		return c.violation(http2.ErrCodeProtocol, "the first frame is %v, not SETTINGS", f.Header().Type)
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() { // an answer to ours has done its work by coming
			_ = c.frames.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.HeadersFrame:
		if f.StreamID != streamID {
			return c.violation(http2.ErrCodeProtocol, "HEADERS on stream %d", f.StreamID)
		}
		c.block, c.blockSize, c.last = c.block[:0], 0, f.StreamEnded()
		return c.headerBlock(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame: // the Framer saw that it belongs here
		return c.headerBlock(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.RSTStreamFrame:
		if f.StreamID != streamID {
			return c.violation(http2.ErrCodeProtocol, "RST_STREAM on stream %d", f.StreamID)
		}
		return c.over(c.reset(f.ErrCode))
	case *http2.GoAwayFrame:
		return c.goodbye(f)
	case *http2.DataFrame:
		return c.violation(http2.ErrCodeProtocol, "DATA on stream %d where there may be none", f.StreamID)
	case *http2.PushPromiseFrame:
		return c.violation(http2.ErrCodeProtocol, "PUSH_PROMISE, which was switched off")
	}
	return nil // unknown frames and priorities are to be ignored
}

// unreadable is the end that a malformed frame makes.
func (c *Client) unreadable(err error) error {
	code := http2.ErrCodeProtocol
	var ofConnection http2.ConnectionError
	var ofStream http2.StreamError
	switch {
	case errors.As(err, &ofConnection):
		code = http2.ErrCode(ofConnection)
	case errors.As(err, &ofStream):
		code = ofStream.Code
	}
	if detail := c.frames.ErrorDetail(); detail != nil {
		err = detail
	}
	return c.violation(code, "%v", err)
}

// settings takes the server's SETTINGS and acknowledges them.
//
// SETTINGS_HEADER_TABLE_SIZE bounds the encoder of headers; the only headers of
// the call went out before it could come, which the server has to allow for
// until it has the acknowledgement.
func (c *Client) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil // ours only loosen what holds without them
	}
	c.settled = true
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			c.streamWindow += int64(s.Val) - c.initialWindow // may become negative: section 6.9.2
			c.initialWindow = int64(s.Val)
			if c.streamWindow > maxWindow {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
		case http2.SettingMaxFrameSize:
			c.sendFrame = int(s.Val)
		}
		return nil
	})
	if err != nil {
		return c.unreadable(err)
	}
	_ = c.frames.WriteSettingsAck()
	c.sendRequest()
	return nil
}

func (c *Client) windowUpdate(f *http2.WindowUpdateFrame) error {
	window := &c.connWindow
	switch f.StreamID {
	case 0:
	case streamID:
		window = &c.streamWindow
	default:
		return c.violation(http2.ErrCodeProtocol, "WINDOW_UPDATE on stream %d", f.StreamID)
	}
	if *window += int64(f.Increment); *window > maxWindow {
		return c.violation(http2.ErrCodeFlowControl, "a window of %d bytes", *window)
	}
	c.sendRequest()
	return nil
}

// goodbye takes a GOAWAY. The call goes on if the server still works on it.
func (c *Client) goodbye(f *http2.GoAwayFrame) error {
	c.debug = string(f.DebugData()[:min(len(f.DebugData()), 256)])
	frame := *f
	c.goAway = &frame
	if f.LastStreamID < streamID {
		return c.over(c.leftAlone())
	}
	return nil
}

// writePreface writes all that a client can say without having heard anything.
func (c *Client) writePreface() {
	_, _ = c.out.WriteString(http2.ClientPreface)
	_ = c.frames.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: windowBytes},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderBytes})
	_ = c.frames.WriteWindowUpdate(0, windowBytes-65535)
	c.writeHeaders()
	c.sendRequest()
}

// sendRequest sends as much of the request as the server takes now.
func (c *Client) sendRequest() {
	for len(c.request) > 0 {
		n := int(min(int64(len(c.request)), int64(c.sendFrame), c.streamWindow, c.connWindow))
		if n <= 0 {
			return
		}
		_ = c.frames.WriteData(streamID, n == len(c.request), c.request[:n])
		c.request = c.request[n:]
		c.streamWindow -= int64(n)
		c.connWindow -= int64(n)
	}
}
