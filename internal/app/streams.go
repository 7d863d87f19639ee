package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/pflag"
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
	Level  string // debug, info, warn or error
	Format string // text or json
}

func (c *LogConfig) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Level, "log-level", "info", "least level to log: debug, info, warn or error")
	flags.StringVar(&c.Format, "log-format", "text", "form of the log: text or json")
}

// logger writes to the error stream.
func (s Streams) logger(c LogConfig) (*slog.Logger, error) {
	var level slog.Level
	if c.Level != "" {
		if err := level.UnmarshalText([]byte(c.Level)); err != nil {
			return nil, Usage(fmt.Errorf("app: --log-level %q, want debug, info, warn or error", c.Level), "leave it out for info")
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(s.Err, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(s.Err, options)), nil
	}
	return nil, Usage(fmt.Errorf("app: --log-format %q, want text or json", c.Format), "leave it out for text")
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
