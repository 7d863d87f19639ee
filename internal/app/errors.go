package app

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"tetracast/internal/printable"
)

// The exit codes of the process.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Error is an error with what the person at the command line can do about it.
type Error struct {
	Err  error
	Hint string // one line
	Code int    // the process's exit code
}

// Error returns the text of the error without its hint.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *Error) Unwrap() error { return e.Err }

// Usage marks an error as wrong usage: exit code 2.
func Usage(err error, hint string) error { return &Error{Err: err, Hint: hint, Code: ExitUsage} }

// Failed gives an error a hint: exit code 1.
func Failed(err error, hint string) error { return &Error{Err: err, Hint: hint, Code: ExitFailed} }

// Report writes the error and its hint, a line each, and returns the exit code.
// A nil error writes nothing and is ExitDone.
func Report(w io.Writer, err error) (code int) {
	if err == nil {
		return ExitDone
	}
	fmt.Fprintf(w, "tetracast: %s\n", oneLine(err.Error()))
	var e *Error
	if !errors.As(err, &e) {
		return ExitFailed
	}
	fmt.Fprintf(w, "hint: %s\n", oneLine(e.Hint))
	return e.Code
}

// oneLine joins the lines of joined errors, without what a terminal would act on and
// without secrets.
func oneLine(text string) string {
	return withoutPasswords(printable.Line(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")))
}
