package app

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"tetracast/datagram"
)

// NewKey writes a random key for sealed frames to a new file that only its
// owner may read.
func NewKey(path string, streams Streams) (err error) {
	var secret [datagram.KeyBytes]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand, Go 1.24)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return Failed(fmt.Errorf("app: writing the key: %w", err), "a key is never overwritten: give another name, or remove the file if nobody needs its key")
	}
	if err != nil {
		return Failed(fmt.Errorf("app: writing the key: %w", err), "FILE is the key file to make")
	}
	_, err = file.Write(datagram.AppendKey(nil, secret))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("app: writing the key: %w", err), os.Remove(path))
	}
	fmt.Fprintf(streams.Err, "%v is in %s; export and collect take the file with --key-file\n", datagram.NewKey(secret), path)
	return nil
}

// readKeys reads a key file: one key, or two during a rotation.
func readKeys(path string) ([]*datagram.Key, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, Failed(fmt.Errorf("app: reading the keys: %w", err), "tetracast key new FILE makes a key file")
	}
	keys, err := datagram.ParseKeys(text)
	if err != nil {
		return nil, Failed(fmt.Errorf("app: %s: %w", path, err), "tetracast key new FILE makes a key file")
	}
	return keys, nil
}
