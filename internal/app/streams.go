package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

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
	log, _, err := s.levelled(c)
	return log, err
}

// levelled is logger with a level that can be changed.
func (s Streams) levelled(c LogConfig) (*slog.Logger, *slog.LevelVar, error) {
	level := new(slog.LevelVar)
	least, err := parseLevel(c.Level)
	if err != nil {
		return nil, nil, err
	}
	level.Set(least)
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: tidyAttr}
	switch c.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(s.Err, options)), level, nil
	case "json":
		return slog.New(slog.NewJSONHandler(s.Err, options)), level, nil
	}
	return nil, nil, Usage(fmt.Errorf("app: --log-format %q, want text or json", c.Format), "leave it out for text")
}

// maxLogged is how much of what somebody else said a line of the log holds, in bytes.
const maxLogged = 1024

// tidyAttr hides secrets, and cuts what is long: the text of an error may be a server's,
// or hold what a datagram held.
func tidyAttr(_ []string, a slog.Attr) slog.Attr {
	var text string
	switch a.Value.Kind() {
	case slog.KindString:
		text = a.Value.String()
	case slog.KindAny:
		err, ok := a.Value.Any().(error)
		if !ok {
			return a
		}
		text = err.Error()
	default:
		return a
	}
	if len(text) > maxLogged {
		text = fmt.Sprintf("%s... (%d bytes more)", strings.ToValidUTF8(text[:maxLogged], ""), len(text)-maxLogged)
	}
	return slog.String(a.Key, withoutPasswords(text))
}

// parseLevel reads --log-level; empty is info.
func parseLevel(text string) (level slog.Level, err error) {
	if text == "" {
		return slog.LevelInfo, nil
	}
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return 0, Usage(fmt.Errorf("app: --log-level %q, want debug, info, warn or error", text), "leave it out for info")
	}
	return level, nil
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
