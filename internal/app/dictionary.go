package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"tetracast/datagram"
	"tetracast/internal/source"
)

// TrainConfig is the configuration of the dictionary train command.
type TrainConfig struct {
	Recordings []string
	Output     string
	Size       int
	Pods       bool
}

// AddFlags declares the command's flags.
func (c *TrainConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Output, "output", "", "file to write; empty: DIGEST.dict in the working directory")
	flags.IntVar(&c.Size, "size", datagram.DefaultDictionary, "the most bytes of the dictionary; S2 uses the last 65536 of them")
	flags.BoolVar(&c.Pods, "pods", false, "train on invented Kubernetes pods too, for recordings that hold none")
}

// Train makes a dictionary of recordings.
func Train(c TrainConfig, streams Streams) error {
	var messages [][]byte
	for _, path := range c.Recordings {
		some, err := readRecording(path)
		if err != nil {
			return explainRecording(err)
		}
		messages = append(messages, some...)
	}
	if c.Pods {
		inPods, err := withPods(messages)
		if err != nil {
			return err
		}
		messages = append(messages, inPods...)
	}
	content, err := datagram.TrainDictionary(messages, c.Size)
	if errors.Is(err, datagram.ErrUntrainable) {
		return Failed(err, "give a recording with more events, such as of an hour")
	}
	if err != nil {
		return Usage(err, "--size takes the bytes of the dictionary")
	}
	dictionary, err := datagram.NewDictionary(content)
	if err != nil {
		return err
	}
	if c.Output == "" {
		c.Output = fmt.Sprintf("%08x.dict", dictionary.Digest())
	}
	if err := os.WriteFile(c.Output, content, 0o644); err != nil {
		return Failed(fmt.Errorf("app: writing the dictionary: %w", err), "--output names the file to write")
	}
	fmt.Fprintf(streams.Err, "dictionary %08x of %d bytes, trained on %d events, is in %s\n", dictionary.Digest(), len(content), len(messages), c.Output)
	return nil
}

// readRecording returns all events of a recording.
func readRecording(path string) (messages [][]byte, err error) {
	recording, err := source.OpenRecording(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, recording.Close()) }()
	for {
		message, err := recording.Next()
		if errors.Is(err, io.EOF) {
			return messages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		messages = append(messages, bytes.Clone(message))
	}
}
