package sink

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
)

// maxTornBytes is longer than any event: what is longer is not of this program.
const maxTornBytes = 16 << 20

// takeEnd takes over the end of a file that another process wrote: its size, and
// the line that it may have left unfinished. Nobody counted that one as written.
// Of an event only the beginning is there, or after a loss of power zeros; that is
// cut off. A line that is an event but for its newline, or is none, is completed.
func (f *File) takeEnd(lines *Lines) (size int64, err error) {
	if lines.file == nil {
		return 0, nil
	}
	info, err := lines.file.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	size = info.Size()
	in, err := os.Open(lines.file.Name())
	if err != nil {
		return 0, err
	}
	defer in.Close()
	start, err := lastLine(in, size)
	if err != nil || start == size {
		return size, err
	}
	half, err := isHalf(io.NewSectionReader(in, start, size-start))
	if err != nil {
		return 0, err
	}
	lines.torn = true
	if half {
		lines.over = size - start
		f.config.Log.Warn("The output file ends in the middle of a line, which is cut off", "path", lines.file.Name(), "bytes", lines.over)
	}
	// A disk that is full now may have room for the newline at the next write,
	// which asks for the size anew.
	_ = lines.mend()
	return size, nil
}

// lastLine returns where the bytes behind the last newline begin.
func lastLine(in io.ReaderAt, size int64) (start int64, err error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		part := buf[:min(end, int64(len(buf)))]
		end -= int64(len(part))
		if _, err := in.ReadAt(part, end); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return end + int64(i) + 1, nil
		}
	}
	return 0, nil
}

// isHalf says that the text is the beginning of an event, or zeros.
func isHalf(text *io.SectionReader) (bool, error) {
	var first [1]byte
	if _, err := text.ReadAt(first[:], 0); err != nil {
		return false, err
	}
	if first[0] != '{' {
		return first[0] == 0, nil
	}
	if text.Size() > maxTornBytes {
		return false, nil
	}
	whole, err := io.ReadAll(text)
	return !json.Valid(whole), err
}
