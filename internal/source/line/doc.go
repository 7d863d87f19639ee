// Package line finds the events in lines of text: in Tetragon's export file, in the
// log that a container's runtime made of them, and on standard input.
//
// A [Splitter] cuts text that comes in pieces into lines, and an [Unwrapper] takes the
// events out of the lines. What they hold in memory is bounded, whatever the text
// is: it is a log of what hostile processes call themselves.
//
// # What a line may be
//
//	{"process_exec":{...},...}                               Tetragon's own
//	2026-03-15T00:06:32.475152409Z stdout F {...}            CRI: containerd, CRI-O
//	{"log":"{...}\n","stream":"stdout","time":"..."}         docker's json-file
//	[pod/tetragon-x/export-stdout] {...}                     anything before the event
//
// Parts, which a runtime makes of a long line, are joined. Of a line that was cut by a
// crash and has a whole event behind it, the whole one is kept. Text in an event
// cannot pass for an event: a quotation mark in a JSON string is always escaped, so
// the beginning of an event is found nowhere but where one begins.
package line
