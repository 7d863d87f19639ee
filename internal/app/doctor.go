package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"tetracast/internal/doctor"
)

// doctorTime bounds the whole examination.
const doctorTime = 20 * time.Second

// Doctor examines this host as export, so configured, would find it.
func Doctor(ctx context.Context, c ExportConfig, asJSON bool, streams Streams) error {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	config := doctor.Config{Metrics: c.findMetrics(), StateDir: c.StateDir}
	if c.Source == "grpc" {
		in, err := c.sourceConfig(log)
		if err != nil {
			return err
		}
		in.Reconnect = false
		config.Source = &in
	}
	if len(c.Destination.Addresses) > 0 {
		out, err := c.exporterConfig(log, nil)
		if err != nil {
			return err
		}
		config.Destinations = out.Destinations
	}
	found := doctor.Examine(ctx, config)
	var err error
	if asJSON {
		encoder := json.NewEncoder(streams.Out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(found)
	} else {
		err = doctor.Write(streams.Out, found)
	}
	if err == nil && !doctor.Healthy(found) {
		return Failed(errors.New("app: not all is well"), "the lines that begin with fault say why")
	}
	return err
}
