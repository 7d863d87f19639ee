package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"tetracast/datagram"
	"tetracast/exporter"
	"tetracast/internal/collector"
)

// Reloaded is what the configuration of a running command says now.
type Reloaded[C any] struct {
	Config  C
	Changed []string             // flags whose values are not those in force
	Keep    func(flags []string) // makes the values of these those in force
}

// reloadWait bounds the time that a reload may take to subscribe anew.
const reloadWait = 10 * time.Second

// onReload calls apply on each SIGHUP until ctx ends. apply returns which of the
// changed flags are in force, or an error, and then none of them is.
func onReload[C any](ctx context.Context, reload func() (Reloaded[C], error), supervisor *supervisor, apply func(context.Context, *Reloaded[C]) ([]string, error), log *slog.Logger) {
	if reload == nil {
		return
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGHUP)
	defer signal.Stop(asked)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		}
		supervisor.reloading()
		next, err := reload()
		var applied []string
		if err == nil {
			applied, err = apply(ctx, &next)
		}
		supervisor.ready()
		if err != nil {
			log.Error("The configuration is not reloaded: what was in force stays", "cause", err, "hint", hintOf(err))
			continue
		}
		next.Keep(applied)
		log.Info("The configuration was reloaded", "changed", applied)
		waiting := slices.DeleteFunc(next.Changed, func(name string) bool { return slices.Contains(applied, name) })
		if len(waiting) > 0 {
			log.Warn("These changes wait for a restart", "flags", waiting)
		}
	}
}

// hintOf returns the hint of an error that has one.
func hintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

// flagsOf returns the names of the flags that declare declares.
func flagsOf(declare func(*pflag.FlagSet)) []string {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	declare(flags)
	return flagNames(flags)
}

// filterFlags are those that say which events to ask for.
func filterFlags() []string {
	var c ExportConfig
	return flagsOf(c.addFilterFlags)
}

// reload puts in force what of the next configuration can be without a restart: where
// to send and how, which events to ask for, and what to log. All of it, or nothing.
func (c *ExportConfig) reload(ctx context.Context, next *Reloaded[ExportConfig], out *exporter.UDPExporter, in *input, level *slog.LevelVar, log *slog.Logger) (applied []string, err error) {
	newLevel, err := parseLevel(next.Config.Log.Level)
	if err != nil {
		return nil, err
	}
	destinations, err := next.Config.Destination.destinations(log)
	if err != nil {
		return nil, err
	}
	changed := func(names []string) (both []string) {
		return slices.DeleteFunc(slices.Clone(next.Changed), func(name string) bool { return !slices.Contains(names, name) })
	}
	filters := changed(filterFlags())
	if len(filters) > 0 {
		ctx, cancel := context.WithTimeout(ctx, reloadWait)
		defer cancel()
		if err := in.setFilters(ctx, &next.Config); err != nil {
			return nil, err
		}
	}
	if err := out.SetDestinations(destinations); err != nil {
		if len(filters) > 0 {
			err = errors.Join(err, in.setFilters(ctx, c))
		}
		return nil, Usage(err, formsHint)
	}
	level.Set(newLevel)
	var d DestinationConfig
	c.Destination, c.Log.Level = next.Config.Destination, next.Config.Log.Level
	c.AllowList, c.DenyList, c.FieldFilters, c.Filters, c.Selection = next.Config.AllowList, next.Config.DenyList, next.Config.FieldFilters, next.Config.Filters, next.Config.Selection
	return append(append(filters, changed(flagsOf(d.addFlags))...), changed([]string{"log-level"})...), nil
}

// applyCollect puts in force what of the next configuration a collector can take over
// without a restart: the keys, whose file is read anew, and what to log.
func applyCollect(next *Reloaded[CollectConfig], in *collector.Collector, level *slog.LevelVar) (applied []string, err error) {
	newLevel, err := parseLevel(next.Config.Log.Level)
	if err != nil {
		return nil, err
	}
	var keys []*datagram.Key
	if next.Config.KeyFile != "" {
		if keys, err = readMasterKeys(next.Config.KeyFile); err != nil {
			return nil, err
		}
	}
	if err := in.SetKeys(keys); err != nil {
		return nil, Failed(err, "with a key for the first time, or without one, the collector has to be started anew")
	}
	level.Set(newLevel)
	for _, name := range next.Changed {
		if name == "key-file" || name == "log-level" {
			applied = append(applied, name)
		}
	}
	return applied, nil
}
