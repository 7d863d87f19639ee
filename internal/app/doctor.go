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
	out, err := c.exporterConfig(log, nil)
	if err != nil {
		return err
	}
	config := doctor.Config{Metrics: c.findMetrics(), Destinations: out.Destinations, StateDir: c.StateDir}
	lines, names, err := c.lines()
	if err != nil {
		return err
	}
	if names != nil {
		config.Files = names()
	}
	if !lines {
		in, err := c.sourceConfig(log)
		if err != nil {
			return err
		}
		config.Source = &in
	}
	found := doctor.Examine(ctx, config)
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
