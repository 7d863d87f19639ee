package source

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tetracast/internal/readfile"
)

// Places is where Tetragon is looked for when no address is given. The zero
// value is where Tetragon puts itself.
type Places struct {
	InfoFile string   // tetragon-info.json, which a running Tetragon writes
	Sockets  []string // unix sockets
	TCP      string   // host:port
}

// The places that Tetragon's releases use by default.
const (
	defaultInfoFile = "/var/run/tetragon/tetragon-info.json"
	defaultTCP      = "localhost:54321" // of the binary; of its chart up to 1.6
)

var defaultSockets = []string{"/var/run/tetragon/tetragon.sock", "/var/run/cilium/tetragon/tetragon.sock"}

func (p Places) withDefaults() Places {
	if p.InfoFile == "" {
		p.InfoFile = defaultInfoFile
	}
	if p.Sockets == nil {
		p.Sockets = defaultSockets
	}
	if p.TCP == "" {
		p.TCP = defaultTCP
	}
	return p
}

// candidate is an address at which Tetragon may be.
type candidate struct {
	address string // unix:///path or host:port
	why     string
	err     error // why it cannot be tried; nil: it can
}

// candidates lists the places to try, in their order. It reads the info file
// anew: it may have been left by another version.
func (c *Config) candidates() []candidate {
	if c.ServerAddress != "" {
		return []candidate{{address: c.ServerAddress, why: "given by " + c.ServerAddressFrom}}
	}
	p := c.Places.withDefaults()
	var list []candidate
	named, err := readInfoFile(p.InfoFile)
	switch {
	case err != nil:
		list = append(list, candidate{address: p.InfoFile, err: err})
	case strings.HasPrefix(named, "unix://"):
		list = append(list, candidate{address: named, why: "named in " + p.InfoFile})
	}
	for _, path := range p.Sockets {
		list = append(list, candidate{address: "unix://" + path, why: "default socket"})
	}
	// A Tetragon that is told to serve TCP serves a socket beside it since 1.8, which is
	// better: its sends there are nobody's network traffic, and need no TLS.
	if named != "" && !strings.HasPrefix(named, "unix://") {
		list = append(list, candidate{address: named, why: "named in " + p.InfoFile})
	}
	list = append(list, candidate{address: p.TCP, why: "default address of Tetragon's binary"})
	seen := map[string]bool{}
	unique := list[:0]
	for _, one := range list {
		if !seen[one.address] {
			unique = append(unique, one)
		}
		seen[one.address] = true
	}
	return unique
}

// readInfoFile returns the server_address of tetragon-info.json, or nothing if
// there is no such file.
func readInfoFile(path string) (address string, err error) {
	text, err := readfile.Max(path, maxInfoFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var info struct {
		ServerAddress string `json:"server_address"`
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return "", fmt.Errorf("reading server_address: %w", err)
	}
	if strings.HasPrefix(info.ServerAddress, "/") {
		return "unix://" + info.ServerAddress, nil
	}
	return info.ServerAddress, nil
}

// MetricsAddress returns the metrics_address of tetragon-info.json, as Tetragon
// was told it; empty: it serves none, or there is no such file. An empty path is
// where Tetragon writes it.
func MetricsAddress(path string) string {
	text, err := readfile.Max(cmp.Or(path, defaultInfoFile), maxInfoFile)
	if err != nil {
		return ""
	}
	var info struct {
		MetricsAddress string `json:"metrics_address"`
	}
	_ = json.Unmarshal(text, &info) // a damaged file names none
	return info.MetricsAddress
}

// exportFiles are where Tetragon's releases put the file that they export to.
var exportFiles = []string{
	"/var/log/tetragon/tetragon.log",        // from 1.8 on
	"/var/run/cilium/tetragon/tetragon.log", // before
}

// ExportFiles returns the file that Tetragon exports to: export_fname of
// tetragon-info.json, else where its releases put it, the first that is there; if none is,
// all of them. An empty path is where Tetragon writes its info file.
func ExportFiles(path string) []string {
	text, err := os.ReadFile(cmp.Or(path, defaultInfoFile))
	if err == nil {
		var info struct {
			ExportFile string `json:"export_fname"`
		}
		if json.Unmarshal(text, &info) == nil && filepath.IsAbs(info.ExportFile) {
			return []string{info.ExportFile}
		}
	}
	for _, name := range exportFiles {
		if _, err := os.Stat(name); err == nil {
			return []string{name}
		}
	}
	return exportFiles
}

// InfoIdentity tells one start of Tetragon from another: by the inode of its info file,
// by when it was written, in nanoseconds since 1970, and by the process id in it, 0 if
// it names none. An empty path is where Tetragon writes it.
func InfoIdentity(path string) (inode uint64, modified int64, pid int, err error) {
	file, err := os.Open(cmp.Or(path, defaultInfoFile))
	if err != nil {
		return 0, 0, 0, fmt.Errorf("source: info file: %w", err)
	}
	defer func() { _ = file.Close() }()
	var info struct {
		PID int `json:"pid"`
	}
	stat, err := file.Stat()
	if err == nil {
		err = json.NewDecoder(io.LimitReader(file, maxInfoFile)).Decode(&info)
	}
	if err != nil {
		return 0, 0, 0, fmt.Errorf("source: info file %s: %w", file.Name(), err)
	}
	if s, ok := stat.Sys().(*syscall.Stat_t); ok {
		inode = s.Ino
	}
	return inode, stat.ModTime().UnixNano(), info.PID, nil
}

// maxInfoFile is more than Tetragon's info file has, in bytes.
const maxInfoFile = 64 << 10

// explain adds to the error of a connection what a person can do about it.
func explain(address string, err error) error {
	path, isUnix := strings.CutPrefix(address, "unix://")
	if !isUnix || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	info, statErr := os.Stat(path)
	if statErr != nil {
		return fmt.Errorf("%w; the folder of the socket cannot be entered by this user", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		gid := strconv.FormatUint(uint64(stat.Gid), 10)
		name := gid
		if group, err := user.LookupGroupId(gid); err == nil {
			name = group.Name
		}
		return fmt.Errorf("%w; the socket wants membership in group %s (gid %s)", err, name, gid)
	}
	return err
}
