package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// writePackage writes a package of that format, deb or rpm, as nfpm.yaml has it.
func (r *release) writePackage(out, format string) (err error) {
	variables := map[string]string{"ARCH": r.arch, "VERSION": r.version, "BINARY": r.path, "AGENT": r.agent, "SBOM": r.sbom()}
	config, err := nfpm.ParseFileWithEnvMapping("nfpm.yaml", func(name string) string { return variables[name] })
	if err != nil {
		return err
	}
	info, err := config.Get(format)
	if err != nil {
		return err
	}
	info = nfpm.WithDefaults(info)
	info.MTime = r.time
	// Else the files would have the time at which they were checked out.
	for _, content := range info.Contents {
		content.FileInfo.MTime = r.time
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(out, packager.ConventionalFileName(info)))
	if err != nil {
		return err
	}
	if err := packager.Package(info, file); err != nil {
		return fmt.Errorf("writing %s: %w", file.Name(), err)
	}
	return file.Close()
}
