package app

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"tetracast/datagram"
	"tetracast/internal/readfile"
)

// NewKey writes a random key for sealed frames to a new file that only its
// owner may read.
func NewKey(path string, streams Streams) error {
	var secret [datagram.KeyBytes]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand, Go 1.24)
	return writeKey(path, datagram.NewKey(secret), streams)
}

// writeKey writes a key to a new file.
func writeKey(path string, key *datagram.Key, streams Streams) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return Failed(fmt.Errorf("app: writing the key: %w", err), "a key is never overwritten: give another name, or remove the file if nobody needs its key")
	}
	if err != nil {
		return Failed(fmt.Errorf("app: writing the key: %w", err), "FILE is the key file to make")
	}
	_, err = file.Write(key.AppendLine(nil))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("app: writing the key: %w", err), os.Remove(path))
	}
	fmt.Fprintf(streams.Err, "%v is in %s; export and collect take the file with --key-file\n", key, path)
	return nil
}

// DeriveKey writes the key of a host, derived from the master key in a file, to a new file
// that only its owner may read.
func DeriveKey(master, host, path string, streams Streams) error {
	keys, err := readKeys(master)
	if err != nil {
		return err
	}
	key, err := keys[0].ForHost(host)
	if err != nil {
		return Usage(fmt.Errorf("app: deriving a key from %s: %w", master, err), "--host is the name of the host as its agent_init states it, NODE_NAME or else its own, and the file is that of a master key")
	}
	return writeKey(path, key, streams)
}

// maxKeyFileBytes is the longest a key file may be, with all its comments.
const maxKeyFileBytes = 64 << 10

// readKeys reads a key file: one key, or two during a rotation.
func readKeys(path string) ([]*datagram.Key, error) {
	text, err := readfile.Secret(path, maxKeyFileBytes)
	if errors.Is(err, readfile.ErrOpenToOthers) {
		return nil, Failed(fmt.Errorf("app: the key is no secret: %w", err), "chmod 600 "+path+"; and if others could read it, make a new key")
	}
	if err != nil {
		return nil, Failed(fmt.Errorf("app: reading the keys: %w", err), "tetracast key new FILE makes a key file")
	}
	keys, err := datagram.ParseKeys(text)
	if err != nil {
		return nil, Failed(fmt.Errorf("app: %s: %w", path, err), "tetracast key new FILE makes a key file")
	}
	return keys, nil
}

// readMasterKeys reads the keys of a collector: none of them may be a host's.
func readMasterKeys(path string) ([]*datagram.Key, error) {
	keys, err := readKeys(path)
	for _, key := range keys {
		if key.Host() != "" {
			return nil, Failed(fmt.Errorf("app: %s: %v can read frames of this host alone", path, key), "a collector takes the master key, from which the hosts' were derived")
		}
	}
	return keys, err
}
