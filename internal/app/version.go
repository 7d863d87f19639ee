package app

import (
	"fmt"
	"runtime/debug"
)

// Version writes what the binary was built from.
func Version(streams Streams) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		_, err := fmt.Fprintln(streams.Out, "tetracast, built without build information")
		return err
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	_, err := fmt.Fprintf(streams.Out, "tetracast %s, commit %s, %s, %s/%s\n", info.Main.Version,
		orUnknown(settings["vcs.revision"]), info.GoVersion, settings["GOOS"], settings["GOARCH"])
	return err
}

func orUnknown(text string) string {
	if text == "" {
		return "unknown"
	}
	return text
}
