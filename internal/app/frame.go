package app

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/spf13/pflag"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/readfile"
	"tetracast/metadata"
)

// FrameConfig is what export can be told about frames.
type FrameConfig struct {
	Compression string // none, s2 or zstd
	Dictionary  string // file; empty: the built-in one; none: none
	Payload     string // protobuf or json
	KeyFile     string // empty: frames are not sealed
}

func (c *FrameConfig) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Compression, "compression", "s2", "of frames: none, s2 or zstd")
	flags.StringVar(&c.Dictionary, "dictionary", "", "dictionary file for --compression, which the collector must have too; empty: the built-in one; none: none")
	flags.StringVar(&c.Payload, "frame-payload", "protobuf", "events in frames: protobuf, which the collector turns into JSON, or json")
	flags.StringVar(&c.KeyFile, "key-file", "", "seal frames with the key in this file, as tetracast key new makes it")
}

// load reads the files and returns a destination with what they say.
func (c *FrameConfig) load() (d exporter.Destination, err error) {
	if d.Compression, err = datagram.ParseCompression(c.Compression); err != nil {
		return d, Usage(fmt.Errorf("app: --compression: %w", err), "s2 is the default; zstd takes more time and makes less of it")
	}
	switch c.Payload {
	case "protobuf":
	case "json":
		d.FrameJSON = true
	default:
		return d, Usage(fmt.Errorf("app: --frame-payload %q, want protobuf or json", c.Payload), "with protobuf the agent has the least to do")
	}
	switch c.Dictionary {
	case "":
	case "none":
		d.Dictionary = datagram.NoDictionary
	default:
		if d.Dictionary, err = readDictionary(c.Dictionary); err != nil {
			return d, err
		}
	}
	if c.KeyFile != "" {
		keys, err := readKeys(c.KeyFile)
		if err != nil {
			return d, err
		}
		d.Key = keys[0]
		if named := metadata.HostFacts().Hostname; d.Key.Host() != "" && d.Key.Host() != named {
			return d, Failed(fmt.Errorf("app: --key-file is of the host %q, but this host is called %q: a collector would refuse what it says of itself", d.Key.Host(), named),
				"tetracast key derive --host NAME makes the key of another; NODE_NAME sets what a host is called")
		}
	}
	return d, nil
}

func readDictionary(path string) (*datagram.Dictionary, error) {
	content, err := readfile.Max(path, datagram.MaxDictionary)
	if err != nil {
		return nil, Usage(fmt.Errorf("app: reading the dictionary: %w", err), "--dictionary names a file that tetracast dictionary train made")
	}
	d, err := datagram.NewDictionary(content)
	if err != nil {
		return nil, Usage(fmt.Errorf("app: dictionary %s: %w", path, err), "--dictionary names a file that tetracast dictionary train made")
	}
	return d, nil
}

// isLoopback says whether host:port certainly stays on this host.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
