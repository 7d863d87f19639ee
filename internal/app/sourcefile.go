package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"tetracast/exporter"
	"tetracast/internal/source"
	"tetracast/internal/source/filetail"
	"tetracast/internal/upstream"
	"tetracast/ledger"
)

// stageFiles is null as soon as a file was not read to its end: nobody knows how
// many lines it had.
const stageFiles = "unread_files"

// fileNames returns what to follow: the path, or pattern, or where Tetragon's file is.
func (c *ExportConfig) fileNames(path string) func() []string {
	if path != "" {
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute // the checkpoint holds it
		}
		return func() []string { return []string{path} }
	}
	return func() []string { return source.ExportFiles(c.InfoFile) }
}

// checkFiles refuses what can never be followed.
func checkFiles(names []string) error {
	for _, name := range names {
		if filetail.IsStream(name) {
			return Usage(fmt.Errorf("app: --source file:%s: it is no file, so there is no position to come back to", name), "a pipe is read with --source - <"+name)
		}
		if _, err := filepath.Match(name, ""); err != nil {
			return Usage(fmt.Errorf("app: --source file:%s: %w", name, err), `in quotes, *, ? and [ make a pattern; \\* is the character itself`)
		}
	}
	return nil
}

// openFiles makes the source that follows files. *out is set before it runs.
func (c *ExportConfig) openFiles(log *slog.Logger, out **exporter.UDPExporter, names func() []string) (*input, error) {
	now := names()
	if err := checkFiles(now); err != nil {
		return nil, err
	}
	if c.FailFast {
		if _, err := filetail.Check(now); err != nil {
			return nil, Failed(err, filetail.Advice(err))
		}
	}
	log.Info("Following files", "names", now)
	config := filetail.Config{
		Names:        names,
		Room:         func() int { return c.QueueBytes/2 - (*out).QueuedBytes() },
		Progress:     func() (taken, settled uint64) { return (*out).Progress() },
		MaxLineBytes: source.MaxLineBytes,
		Logger:       log,
	}
	if c.StateDir != "" {
		config.Checkpoint = filepath.Join(c.StateDir, "export.position")
	} else {
		log.Warn("Without --state-dir files are read from their beginnings after each start, and events come twice", "names", now)
	}
	tail, err := filetail.New(config)
	if err != nil {
		return nil, Failed(err, "--state-dir names a folder that can be read and written")
	}
	return &input{Source: tailSource{tail}, give: giveLines, files: tail.Stats,
		save: func() error { return tail.Save(sentAlike((*out).Account())) },
		lost: func(losses *upstream.Reader) exporter.Upstream {
			stats := tail.Stats()
			lost := lineLosses(losses, source.LineStats{TooLong: stats.TooLong, RateLimited: stats.RateLimited})
			lost[stageFiles] = nil
			if stats.Truncations+stats.Missing == 0 {
				lost[stageFiles] = new(uint64)
			}
			return exporter.Upstream{Breaks: stats.Truncations + stats.Missing, BlindTime: stats.Blind, Losses: lost}
		}}, nil
}

// tailSource is a Tail as a Source.
type tailSource struct{ tail *filetail.Tail }

func (s tailSource) Run(ctx context.Context, take source.Take) error { return s.tail.Run(ctx, take) }

// sentAlike says whether what was not sent at the end was not sent to any destination.
func sentAlike(account ledger.Exporter) bool {
	for i := range account.Streams {
		if account.Streams[i].Dropped[ledger.Shutdown] != account.Streams[0].Dropped[ledger.Shutdown] {
			return false
		}
	}
	return true
}

// account is the exporter's, with what the input tells.
func (in *input) account(out *exporter.UDPExporter, losses *upstream.Reader) ledger.Exporter {
	account := exportAccount(out, in.lost(losses))
	if in.subscription != nil {
		account.LeftOut = in.subscription().LeftOut
	}
	if in.files != nil {
		for _, l := range in.files().Lost {
			account.UnreadFiles = append(account.UnreadFiles, ledger.UnreadFile{Path: l.Path, ReadTo: l.Offset, Cause: string(l.Cause), Next: l.Next})
		}
	}
	return account
}

// ready says why the input brings nothing for a reason that somebody has to mend; a
// file that is not there yet is none.
func (in *input) ready() (waits string, err error) {
	if in.files == nil {
		return "", nil
	}
	problem := in.files().Problem
	if errors.Is(problem, filetail.ErrNone) {
		return problem.Error(), nil
	}
	return "", problem
}
