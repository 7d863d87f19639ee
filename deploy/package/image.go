package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is who the image runs as: no name, no home, no shell.
const user = 65532

// writeImage writes one image of all the architectures as an OCI archive, a
// tar of an image layout (https://github.com/opencontainers/image-spec 1.1).
func writeImage(out string, releases []*release) error {
	first := releases[0]
	tag := strings.ReplaceAll(first.version, "+", "-") // a tag cannot have it
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, r := range releases {
		one, err := image(r)
		if err != nil {
			return fmt.Errorf("the image for %s: %w", r.arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        one,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: r.arch}},
		})
	}
	folder, err := os.MkdirTemp(out, "image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	store, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	named := layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": tag,
		"io.containerd.image.name":          "localhost/tetracast:" + tag, // what ctr and docker load call it
	})
	if err := store.AppendIndex(index, named); err != nil {
		return err
	}
	return archive(filepath.Join(out, "tetracast_"+first.version+"_image.tar"), folder, first.time)
}

// image makes the image of one architecture: one layer with the binaries and a
// folder for their state, and nothing to run beside them.
func image(r *release) (v1.Image, error) {
	content, err := layer(r)
	if err != nil {
		return nil, err
	}
	packed, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	made, err := mutate.Append(base, mutate.Addendum{
		Layer:   packed,
		History: v1.History{Created: v1.Time{Time: r.time}, CreatedBy: "deploy/package"},
	})
	if err != nil {
		return nil, err
	}
	config, err := made.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", r.arch, v1.Time{Time: r.time}
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", user, user),
		Env:        []string{"PATH=/usr/bin"},
		Entrypoint: []string{"/usr/bin/tetracast"},
		WorkingDir: "/",
		Labels: map[string]string{
			"org.opencontainers.image.title":       "tetracast",
			"org.opencontainers.image.description": "Tetragon's events over UDP, every loss counted",
			"org.opencontainers.image.version":     r.version,
			"org.opencontainers.image.revision":    r.revision,
			"org.opencontainers.image.created":     r.time.Format(time.RFC3339),
		},
	}
	return mutate.ConfigFile(made, config)
}

// layer returns the files of the image, as a tar.
func layer(r *release) ([]byte, error) {
	binary, err := os.ReadFile(r.path)
	if err != nil {
		return nil, err
	}
	agent, err := os.ReadFile(r.agent)
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	files := tar.NewWriter(&content)
	contents := map[string][]byte{"usr/bin/tetracast": binary, "usr/bin/tetracast-agent": agent}
	for _, entry := range []tar.Header{
		{Name: "usr/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "usr/bin/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "usr/bin/tetracast", Mode: 0o755, Typeflag: tar.TypeReg},
		{Name: "usr/bin/tetracast-agent", Mode: 0o755, Typeflag: tar.TypeReg},
		{Name: "var/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "var/lib/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "var/lib/tetracast/", Mode: 0o700, Uid: user, Gid: user, Typeflag: tar.TypeDir},
	} {
		entry.ModTime, entry.Format, entry.Size = r.time, tar.FormatPAX, int64(len(contents[entry.Name]))
		if err := files.WriteHeader(&entry); err != nil {
			return nil, err
		}
		if _, err := files.Write(contents[entry.Name]); err != nil {
			return nil, err
		}
	}
	return content.Bytes(), files.Close()
}

// archive writes the folder as a tar whose bytes depend on the contents alone.
func archive(path, folder string, modified time.Time) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	files := tar.NewWriter(file)
	err = filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == folder {
			return err
		}
		relative, err := filepath.Rel(folder, name)
		if err != nil {
			return err
		}
		header := tar.Header{Name: filepath.ToSlash(relative), Mode: 0o644, ModTime: modified, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		if entry.IsDir() {
			header.Name, header.Mode, header.Typeflag = header.Name+"/", 0o755, tar.TypeDir
			return files.WriteHeader(&header)
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		header.Size = int64(len(content))
		if err := files.WriteHeader(&header); err != nil {
			return err
		}
		_, err = files.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	if err := files.Close(); err != nil {
		return err
	}
	return file.Close()
}
