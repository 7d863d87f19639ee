package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// Streams are the standard streams of a command. Out carries data only.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// LogConfig says how to log. Its zero value logs from level info on, as text.
type LogConfig struct {
	Level  slog.Level
	Format string // text or json
}

// logger writes to the error stream.
func (s Streams) logger(c LogConfig) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: c.Level}
	switch c.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(s.Err, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(s.Err, options)), nil
	}
	return nil, Usage(fmt.Errorf("app: log format %q, want text or json", c.Format), "")
}

// isTerminal says whether w is a terminal, where colours help a person.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
