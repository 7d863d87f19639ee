package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tetracast/internal/readfile"
	"tetracast/ledger"
)

// writeAccount writes an account as one JSON object and a newline. A reader
// never sees half of it: the file appears under its name when it is whole.
func writeAccount(path string, account any) error {
	text, err := json.Marshal(account)
	if err != nil {
		return fmt.Errorf("app: writing the account: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("app: writing the account: %w", err)
	}
	_, err = temporary.Write(append(text, '\n'))
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(temporary.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return fmt.Errorf("app: writing the account to %s: %w", path, err)
	}
	return nil
}

// maxAccountBytes is the longest an account may be: that of many thousands of streams that
// lost much.
const maxAccountBytes = 1 << 30

// MergeAccounts unites the accounts that several collectors wrote, and writes the
// whole as JSON to standard output and as text to standard error. One that does
// not close is an error.
func MergeAccounts(files []string, streams Streams) error {
	accounts := make([]ledger.Collector, len(files))
	for i, file := range files {
		text, err := readfile.Max(file, maxAccountBytes)
		if err == nil {
			err = json.Unmarshal(text, &accounts[i])
		}
		if err == nil && accounts[i].Side != "collector" {
			err = fmt.Errorf("its side is %q", accounts[i].Side)
		}
		if err != nil {
			return Failed(fmt.Errorf("app: reading the account %s: %w", file, err), "an account is what collect --account writes")
		}
	}
	whole, err := ledger.Merge(accounts...)
	if err != nil && len(whole.Agents) == 0 {
		return Failed(fmt.Errorf("app: uniting the accounts: %w", err), "are these the accounts of one time, each file once?")
	}
	text, encodeErr := json.Marshal(whole)
	if encodeErr != nil {
		return fmt.Errorf("app: writing the account: %w", encodeErr)
	}
	if _, writeErr := streams.Out.Write(append(text, '\n')); writeErr != nil {
		return fmt.Errorf("app: writing the account: %w", writeErr)
	}
	_, _ = streams.Err.Write(whole.AppendText(nil))
	return err
}

// accountOnSignal writes the account on each SIGUSR1 until ctx ends. An empty
// path ignores the signal, whose default action would end the process.
func accountOnSignal[A any](ctx context.Context, path string, account func() A, log *slog.Logger) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	defer signal.Stop(asked)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		}
		if path == "" {
			log.Info("SIGUSR1 asks for the account, but --account names no file")
			continue
		}
		if err := writeAccount(path, account()); err != nil {
			log.Error("The account could not be written", "cause", err)
		}
	}
}
