package filetail

// mark says: when so many events have reached their end, all before this position has.
type mark struct {
	taken uint64
	file  *file
	at    position
	last  bool // the file is done
}

// marks are those that were not reached yet, in order. Beyond maxMarks every other one
// is left out, so that a position is only passed later.
type marks struct {
	list []mark
	next int // the first that was not reached
}

const maxMarks = 4096

func (m *marks) empty() bool { return m.next == len(m.list) }

func (m *marks) add(next mark) {
	if n := len(m.list); n > m.next && !m.list[n-1].last && m.list[n-1].file == next.file && m.list[n-1].taken == next.taken {
		m.list[n-1] = next // nothing was taken in between
		return
	}
	if len(m.list) >= maxMarks {
		m.thin()
	}
	m.list = append(m.list, next)
}

// thin makes room: for what was reached, and if that is little by leaving out others.
func (m *marks) thin() {
	m.list = m.list[:copy(m.list, m.list[m.next:])]
	m.next = 0
	if len(m.list) < maxMarks/2 {
		return
	}
	kept := m.list[:0]
	for i, one := range m.list {
		if one.last || i%2 == 1 || i == len(m.list)-1 {
			kept = append(kept, one)
		}
	}
	clear(m.list[len(kept):])
	m.list = kept
}

// reach moves the files' positions up to what has reached its end, and says whether any
// moved.
func (m *marks) reach(settled uint64) (moved bool) {
	for ; m.next < len(m.list) && m.list[m.next].taken <= settled; m.next++ {
		one := &m.list[m.next]
		one.file.settle, one.file.closed = one.at, one.last && one.file.done
		one.file = nil
		moved = true
	}
	if m.empty() {
		m.list, m.next = m.list[:0], 0
	}
	return moved
}
