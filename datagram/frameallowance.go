package datagram

// What a frame's bytes may grow to at the receiver (docs/frame.md, Limits). Whoever
// can reach it pays in bytes for what is made of them; what compresses better than
// that is padded by its sender. Recorded events grow 20 to 110 times.
const (
	growFree    = 2 << 10 // bytes of events, whatever the frame's length
	growRatio   = 96      // and as many for each byte of body and padding
	recordFree  = 2 << 10 // the same of agent_init and agent_stats, which cost more to read
	recordRatio = 16
	maxRecord   = 64 << 10

	freeItems    = 16 // events, whatever the frame's length
	bytesPerItem = 2  // and one for as many bytes of body and padding
)

// allowance returns how many bytes so many bytes of body and padding may hold after
// decompression.
func allowance(kind Kind, bytes int) int {
	if kind == KindEvent {
		return min(growFree+growRatio*bytes, maxExpanded)
	}
	return min(recordFree+recordRatio*bytes, maxRecord)
}

// itemAllowance returns how many events they may be.
func itemAllowance(bytes int) int { return min(freeItems+bytes/bytesPerItem, maxItems) }

// leastSize returns the least bytes of body and padding for so many bytes after
// decompression, in so many items.
func leastSize(kind Kind, expanded, items int) int {
	free, ratio := recordFree, recordRatio
	if kind == KindEvent {
		free, ratio = growFree, growRatio
	}
	return max((expanded-free+ratio-1)/ratio, (items-freeItems)*bytesPerItem, 0)
}
