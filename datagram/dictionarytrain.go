package datagram

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// DefaultDictionary is the size of a dictionary by default, in bytes: what S2
// can look back on.
const DefaultDictionary = 64 << 10

// How dictionaries are trained. Segments of 256 to 1,024 bytes gave frames of
// the same size within 2 percent, over recordings that were not trained on.
const (
	minTrained   = 1 << 10  // bytes of a dictionary; less is not worth a file
	trainWord    = 8        // bytes that are counted as one thing
	trainSegment = 512      // bytes taken at once
	trainChunk   = 64 << 10 // bytes within which a word counts once
	trainHash    = 20       // bits of a word's hash
	trainLongest = 32 << 10 // bytes of a message; a longer one is all content of its own
	trainGroup   = 10 << 10 // bytes that a frame is compressed from
	trainGroups  = 1000     // that the entropy tables are made for
)

// ErrUntrainable is wrapped by TrainDictionary's error for messages that have
// too little in common.
var ErrUntrainable = errors.New("the messages repeat too little")

// TrainDictionary makes a dictionary of at most size bytes, 1,024 to
// [MaxDictionary], from messages that are like those to come, in the order they
// came. The same messages give the same dictionary. It takes about a second for
// 20 MB.
//
// It looks for what many parts of the recording have in common: what repeats
// within a few kilobytes only, compression finds by itself. The words of eight
// bytes are counted, once for each chunk of the recording; then the recording is
// walked again and again in steps, and from each the segment whose words are
// the most frequent is taken, whose words then count no more. (The method is
// that of COVER: K. Liao, M. Petri, A. Moffat and A. Wirth, Effective
// Construction of Relative Lempel-Ziv Dictionaries, 2016.) What is taken first
// stands at the end, where it is the nearest.
func TrainDictionary(messages [][]byte, size int) ([]byte, error) {
	if size < minTrained || size > MaxDictionary {
		return nil, fmt.Errorf("datagram: dictionary of %d bytes: want %d to %d", size, minTrained, MaxDictionary)
	}
	var all []byte
	for _, m := range messages {
		if len(m) <= trainLongest {
			all = append(binary.AppendUvarint(all, uint64(len(m))), m...)
		}
	}
	content := newTrainer(all).content(size)
	if len(content) < minTrained {
		return nil, fmt.Errorf("datagram: training on %d messages, %d bytes: %w", len(messages), len(all), ErrUntrainable)
	}
	groups := slices.Collect(slices.Chunk(all, trainGroup))
	step := max(1, len(groups)/trainGroups)
	for i := range len(groups) / step {
		groups[i] = groups[i*step]
	}
	dictionary, err := zstd.BuildDict(zstd.BuildDictOptions{
		ID:       1 << 15, // the first that is free for private use; the digest is what names it
		Contents: groups[:len(groups)/step], History: content, Offsets: [3]int{1, 4, 8}, Level: zstd.SpeedDefault,
	})
	if err != nil {
		return nil, fmt.Errorf("datagram: making the entropy tables: %w", err)
	}
	// The tables stand in front; what they take is cut off from the content behind.
	tables := len(dictionary) - len(content)
	return slices.Delete(dictionary, tables, tables+max(0, len(dictionary)-size)), nil
}

// trainer counts the words of a text. Words are known by their hash alone: a
// collision makes a segment look a little better than it is.
type trainer struct {
	text   []byte
	words  int // where they can begin: 0 to words-1
	counts []uint16
	inside []uint16 // how often each word is in the segment that is looked at
}

func newTrainer(text []byte) *trainer {
	t := &trainer{text: text, words: max(0, len(text)-trainWord+1), counts: make([]uint16, 1<<trainHash), inside: make([]uint16, 1<<trainHash)}
	chunkOf := make([]int, 1<<trainHash)
	for i := range t.words {
		w := t.word(i)
		if chunk := i/trainChunk + 1; chunkOf[w] != chunk && t.counts[w] < 1<<16-1 {
			chunkOf[w] = chunk
			t.counts[w]++
		}
	}
	return t
}

// word returns the hash of the word at i. The factor is a prime near the golden
// ratio of 2^64.
func (t *trainer) word(i int) uint32 {
	return uint32(binary.LittleEndian.Uint64(t.text[i:]) * 0xcf1bbcdcb7a56463 >> (64 - trainHash))
}

// content returns the best segments of the text, at most size bytes.
func (t *trainer) content(size int) []byte {
	out := make([]byte, size)
	free := size
	// Four segments from each step, in four walks.
	step := max(4*trainSegment, t.words/max(1, size/trainSegment/4))
	for took := true; took && free > 0; {
		took = false
		for start := 0; start < t.words && free > 0; start += step {
			from, to := t.best(start, min(start+step, t.words))
			if from == to {
				continue
			}
			for i := from; i < to; i++ {
				t.counts[t.word(i)] = 0
			}
			segment := t.text[from : to+trainWord-1]
			segment = segment[max(0, len(segment)-free):]
			free -= copy(out[free-len(segment):], segment)
			took = true
		}
	}
	return out[free:]
}

// best returns where the words of the best segment begin, of those that begin
// in a range; without its ends that nothing else has. from is to if no segment
// is worth its place.
func (t *trainer) best(start, end int) (from, to int) {
	const width = trainSegment - trainWord + 1
	score, best := 0, width // each word more than once
	for i := start; i < end; i++ {
		w := t.word(i)
		if t.inside[w]++; t.inside[w] == 1 {
			score += int(t.counts[w])
		}
		if i-width >= start {
			w = t.word(i - width)
			if t.inside[w]--; t.inside[w] == 0 {
				score -= int(t.counts[w])
			}
		}
		if score > best {
			best, from, to = score, max(start, i-width+1), i+1
		}
	}
	for i := max(start, end-width); i < end; i++ {
		t.inside[t.word(i)] = 0
	}
	for from < to && t.counts[t.word(from)] <= 1 {
		from++
	}
	for from < to && t.counts[t.word(to-1)] <= 1 {
		to--
	}
	return from, to
}
