package udp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Inherited returns the sockets that systemd's socket activation gave to this
// process, and takes their variables from the environment, so that no child
// mistakes them for its own; see sd_listen_fds(3). It returns nothing if there
// are none. The files are the caller's.
func Inherited() ([]*os.File, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("udp: LISTEN_FDS=%q, want a number", count)
	}
	const first = 3 // SD_LISTEN_FDS_START
	var files []*os.File
	for fd := first; fd < first+n; fd++ {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("LISTEN_FD_%d", fd)))
	}
	return files, nil
}

// BoundTo returns the address of an inherited socket.
func BoundTo(file *os.File) (netip.AddrPort, error) {
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("udp: the address of %s: %w", file.Name(), err)
	}
	defer func() { _ = conn.Close() }()
	address, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("udp: the address of %s: a %s socket, want UDP", file.Name(), conn.LocalAddr().Network())
	}
	return address.AddrPort(), nil
}
