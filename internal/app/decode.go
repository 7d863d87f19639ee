package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"tetracast/exporter"
	"tetracast/internal/corpus"
	"tetracast/internal/source"
)

// DecodeConfig is the configuration of the decode command.
type DecodeConfig struct {
	Recording string
}

// AddFlags declares the command's flags.
func (c *DecodeConfig) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Recording, "recording", "", "recording to decode, .binpb, plain or compressed with gzip or zstd; empty: the built-in sample")
}

// Decode writes a recording as JSON lines. What comes before a damage is
// written before the error is returned.
func Decode(ctx context.Context, c DecodeConfig, streams Streams) error {
	var recording *source.Recording
	var err error
	if c.Recording == "" {
		recording, err = source.NewRecording(bytes.NewReader(corpus.Sample()))
	} else {
		recording, err = source.OpenRecording(c.Recording)
	}
	if err != nil {
		return explainRecording(err)
	}
	transcoder, err := exporter.NewTranscoder(exporter.DefaultTranscodeCacheBytes)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(streams.Out, 1<<18)
	var line []byte
	var outErr error
	number := 0
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err = recording.Run(ctx, func(batch [][]byte) {
		for _, message := range batch {
			if ctx.Err() != nil {
				return
			}
			number++
			var transcodeErr error
			if line, _, transcodeErr = transcoder.Append(line[:0], message); transcodeErr != nil {
				outErr = errors.Join(outErr, fmt.Errorf("app: event %d: %w", number, transcodeErr))
				continue
			}
			if _, err := out.Write(append(line, '\n')); err != nil {
				stop() // nobody reads the rest
			}
		}
	})
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(explainRecording(err), outErr, out.Flush())
}
