package app

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"tetracast/exporter"
	"tetracast/internal/source"
	"tetracast/metadata"
)

// MetadataConfig says how export states who it is.
type MetadataConfig struct {
	Interval  time.Duration // 0: only at the start and on change
	Cache     string        // on or off
	CacheFile string        // auto; empty: none
	Labels    []string      // name=value
}

// labelsVariable holds labels for where flags are hard to give: name=value, with commas
// between them.
const labelsVariable = envPrefix + "METADATA_LABELS"

// cacheFileName is that of the cache file in a folder of ours.
const cacheFileName = "metadata.cache"

func (c *MetadataConfig) addFlags(flags *pflag.FlagSet) {
	flags.DurationVar(&c.Interval, "metadata-interval", exporter.DefaultMetadataInterval, "time between two agent_init, give or take a tenth; 0: only at the start and on change")
	flags.StringVar(&c.Cache, "metadata-cache", "on", "on: agent_init is made once and sent often; off: each export makes it anew, for comparison")
	flags.StringVar(&c.CacheFile, "metadata-cache-file", "auto", "file in which the next process finds what Tetragon said of itself, to announce itself before Tetragon answers; auto: metadata.cache in --state-dir, else in systemd's StateDirectory, else none; empty: none")
	flags.StringArrayVar(&c.Labels, "metadata-label", nil, "name=value, put into agent_init as a member of labels; can be repeated. "+labelsVariable+" has several, with commas between them")
}

// labels returns those of the environment and those of the flags, which win.
func (c *MetadataConfig) labels() (map[string]string, error) {
	var texts []string
	if listed := os.Getenv(labelsVariable); listed != "" {
		texts = strings.Split(listed, ",")
	}
	return metadata.ParseLabels(append(texts, c.Labels...))
}

// cacheFile returns the path of the cache file; empty: there is none.
func (c *MetadataConfig) cacheFile(stateDir string) string {
	if c.CacheFile != "auto" {
		return c.CacheFile
	}
	if stateDir == "" {
		// systemd.exec(5): a list, with colons between the folders.
		stateDir, _, _ = strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	}
	if stateDir == "" {
		return ""
	}
	return filepath.Join(stateDir, cacheFileName)
}

// setMetadata fills in what the exporter is told of agent_init.
func (c *ExportConfig) setMetadata(config *exporter.Config, log *slog.Logger) (err error) {
	m := &c.Metadata
	if config.MetadataInterval = m.Interval; m.Interval <= 0 {
		config.MetadataInterval = -1 // in the library zero means the default
	}
	switch m.Cache {
	case "", "on":
	case "off":
		config.MetadataCacheOff = true
	default:
		return Usage(fmt.Errorf("app: --metadata-cache %q, want on or off", m.Cache), "on is the default; off only shows what it saves")
	}
	if config.Labels, err = m.labels(); err != nil {
		return Usage(fmt.Errorf("app: --metadata-label or %s: %w", labelsVariable, err), "a label is name=value, such as site=fra1")
	}
	path := m.cacheFile(c.StateDir)
	if path == "" || config.MetadataCacheOff || c.Source != "" && c.Source != "grpc" {
		return nil // without a Tetragon that is asked there is nothing to know in advance
	}
	if _, err := metadata.HostOrigin(); err != nil {
		log.Warn("Nothing is kept for the next run, which announces itself only when Tetragon answers", "error", err, "file", path)
		return nil
	}
	log.Debug("What Tetragon says of itself is kept for the next process", "file", path)
	config.MetadataStore = metadata.NewMappedStore(path)
	config.MetadataOrigin = func() (o metadata.Origin, err error) {
		if o, err = metadata.HostOrigin(); err == nil {
			o.InfoInode, o.InfoModified, o.InfoPID, err = source.InfoIdentity(c.InfoFile)
		}
		o.Server = c.ServerAddress
		return o, err
	}
	return nil
}
