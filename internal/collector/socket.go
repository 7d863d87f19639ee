package collector

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// socket is a receiver on one UDP socket.
type socket struct {
	conn   *net.UDPConn
	inode  uint64
	buffer []byte
	one    [1]packet
}

// listen binds the socket and sizes its buffer.
func listen(config Config) (receiver, error) {
	address, err := net.ResolveUDPAddr("udp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("collector: listening on %q: %w", config.Listen, err)
	}
	conn, err := net.ListenUDP("udp", address)
	if err != nil {
		return nil, fmt.Errorf("collector: listening on %q: %w", config.Listen, err)
	}
	s := &socket{conn: conn, buffer: make([]byte, math.MaxUint16)}
	effective, err := s.setReceiveBuffer(config.ReceiveBufferBytes)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("collector: listening on %q: sizing the receive buffer: %w", config.Listen, err)
	}
	config.Log.Info("Listening", "address", s.addr(), "receive_buffer_bytes", effective)
	if effective < config.ReceiveBufferBytes {
		config.Log.Warn("The kernel limits the receive buffer: bursts will be lost sooner",
			"receive_buffer_bytes", effective, "asked_bytes", config.ReceiveBufferBytes,
			"hint", fmt.Sprintf("sysctl -w net.core.rmem_max=%d", config.ReceiveBufferBytes))
	}
	return s, nil
}

// setReceiveBuffer asks for a receive buffer, and returns what the kernel
// gives: with CAP_NET_ADMIN what was asked, else at most net.core.rmem_max
// (socket(7)).
func (s *socket) setReceiveBuffer(bytes int) (effective int, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		const rcvBufForce = 0x21 // SO_RCVBUFFORCE, include/uapi/asm-generic/socket.h
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, rcvBufForce, bytes) != nil {
			optErr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes)
		}
		effective, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		var stat syscall.Stat_t
		optErr = errors.Join(optErr, err, syscall.Fstat(int(fd), &stat))
		s.inode = stat.Ino
	})
	// The kernel doubles the value for its own overhead.
	return effective / 2, errors.Join(err, optErr)
}

func (s *socket) receive() ([]packet, error) {
	n, _, flags, source, err := s.conn.ReadMsgUDPAddrPort(s.buffer, nil)
	if err != nil {
		return nil, err
	}
	s.one[0] = packet{
		payload:   s.buffer[:n],
		source:    netip.AddrPortFrom(source.Addr().Unmap(), source.Port()),
		truncated: flags&syscall.MSG_TRUNC != 0,
	}
	return s.one[:], nil
}

func (s *socket) setDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

func (s *socket) interrupt() { _ = s.conn.SetReadDeadline(time.Now()) }

// dropped reads the kernel's count of what this socket had no room for, the
// last column of /proc/net/udp (net/ipv4/udp.c, udp4_format_sock).
func (s *socket) dropped() uint64 {
	inode := strconv.AppendUint(nil, s.inode, 10)
	for _, file := range []string{"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(table) {
			columns := bytes.Fields(line)
			if len(columns) > 12 && bytes.Equal(columns[9], inode) {
				n, _ := strconv.ParseUint(string(columns[len(columns)-1]), 10, 64)
				return n
			}
		}
	}
	return 0
}

func (s *socket) addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (s *socket) close() error { return s.conn.Close() }
