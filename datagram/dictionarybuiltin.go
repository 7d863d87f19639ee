package datagram

import (
	"embed"
	"io/fs"
	"sync"
)

// dictionaryFiles holds every dictionary that was ever built in, so that a
// collector reads the frames of older agents. The files are named in the order
// of their making; the last is the default.
//
// 1.dict was made by "tetracast dictionary train --pods" of 25,894 recorded
// events of Tetragon v1.7.0.
//
//go:embed dictionary/*.dict
var dictionaryFiles embed.FS

// builtin makes the built-in dictionaries when the first is asked for: the
// memory and the time are not spent where frames are not used.
var builtin = sync.OnceValue(func() (list []*Dictionary) {
	names, _ := fs.Glob(dictionaryFiles, "dictionary/*.dict") // in their order
	for _, name := range names {
		content, err := dictionaryFiles.ReadFile(name)
		if err != nil {
			panic("BUG: datagram: reading what is built in: " + err.Error())
		}
		d, err := NewDictionary(content)
		if err != nil {
			panic("BUG: datagram: " + name + ": " + err.Error())
		}
		list = append(list, d)
	}
	return list
})

// builtinDictionaries returns a new list of the built-in dictionaries.
func builtinDictionaries() []*Dictionary { return append([]*Dictionary(nil), builtin()...) }

// BuiltinDictionary returns the dictionary that is used by default.
func BuiltinDictionary() *Dictionary { return builtin()[len(builtin())-1] }
