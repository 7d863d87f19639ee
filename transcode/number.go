package transcode

import (
	"math"
	"math/bits"
	"strconv"
)

// pairs holds the two digits of 0 to 99.
var pairs = func() (table [100][2]byte) {
	for i := range table {
		table[i] = [2]byte{byte('0' + i/10), byte('0' + i%10)}
	}
	return table
}()

var powersOf10 = func() (table [20]uint64) {
	for i, p := 0, uint64(1); i < len(table); i, p = i+1, p*10 {
		table[i] = p
	}
	return table
}()

// putUint writes x in decimal at b[n:], which has room for 20 bytes, and
// returns where it ends.
func putUint(b []byte, n int, x uint64) int {
	if x < 10 {
		b[n] = byte('0' + x)
		return n + 1
	}
	// 1233/4096 is log10(2) nearly enough to be one too low at most.
	digits := bits.Len64(x) * 1233 >> 12
	if x >= powersOf10[digits] {
		digits++
	}
	i := n + digits
	for x >= 100 {
		i -= 2
		b[i], b[i+1] = pairs[x%100][0], pairs[x%100][1]
		x /= 100
	}
	if x >= 10 {
		b[n], b[n+1] = pairs[x][0], pairs[x][1]
	} else {
		b[n] = byte('0' + x)
	}
	return n + digits
}

// putInt writes x in decimal at b[n:], which has room for 20 bytes.
func putInt(b []byte, n int, x int64) int {
	if x < 0 {
		b[n] = '-'
		return putUint(b, n+1, -uint64(x))
	}
	return putUint(b, n, uint64(x))
}

// putFixed writes x at b[n:] with leading zeros; digits is even.
func putFixed(b []byte, n int, x uint64, digits int) int {
	for i := n + digits - 2; i >= n; i -= 2 {
		b[i], b[i+1] = pairs[x%100][0], pairs[x%100][1]
		x /= 100
	}
	return n + digits
}

// putFloat writes x as protojson does, which is encoding/json's way: plain
// digits from 1e-6 to below 1e21, else an exponent without a leading zero, and
// names for what JSON has no number for.
func putFloat(b []byte, n int, x float64, size int) int {
	switch {
	case math.IsNaN(x):
		return n + copy(b[n:], `"NaN"`)
	case math.IsInf(x, 1):
		return n + copy(b[n:], `"Infinity"`)
	case math.IsInf(x, -1):
		return n + copy(b[n:], `"-Infinity"`)
	}
	format := byte('f')
	if abs := math.Abs(x); abs != 0 {
		if size == 64 && (abs < 1e-6 || abs >= 1e21) || size == 32 && (float32(abs) < 1e-6 || float32(abs) >= 1e21) {
			format = 'e'
		}
	}
	end := n + len(strconv.AppendFloat(b[n:n], x, format, -1, size))
	if format == 'e' && end-n >= 4 && b[end-4] == 'e' && b[end-3] == '-' && b[end-2] == '0' {
		b[end-2] = b[end-1]
		end--
	}
	return end
}

// Ranges of google/protobuf/timestamp.proto and duration.proto.
const (
	minTimestamp = -62135596800
	maxTimestamp = 253402300799
	maxDuration  = 315576000000
	maxNanos     = 999999999
)

const daySeconds = 24 * 60 * 60

// timestamp writes the time in RFC 3339 form with quotes, at the headroom.
func (t *Transcoder) timestamp(n int, seconds int64, nanos int32) int {
	if seconds < minTimestamp || seconds > maxTimestamp || nanos < 0 || nanos > maxNanos {
		return t.fail(faultRange)
	}
	c := &t.clocks[seconds&int64(len(t.clocks)-1)]
	if c.second != seconds || c.text.bytes[0] == 0 {
		c.set(seconds)
	}
	storeBlock(t.buf, n, &c.text)
	i := putNanos(t.buf, n+clockSize, uint32(nanos))
	t.buf[i], t.buf[i+1] = 'Z', '"'
	return i + 2
}

// clock is a rendered second: the times of an event are a few, and come again.
type clock struct {
	second int64
	text   block // `"YYYY-MM-DDThh:mm:ss`, empty in a clock not used yet
}

const clockSize = len(`"YYYY-MM-DDThh:mm:ss`)

// set renders a second since 1970-01-01.
//
// The calendar is that of Howard Hinnant's civil_from_days,
// https://howardhinnant.github.io/date_algorithms.html; the range of a
// Timestamp makes the days since 0000-03-01 positive.
func (c *clock) set(seconds int64) {
	c.second = seconds
	day, second := seconds/daySeconds, seconds%daySeconds
	if second < 0 {
		day, second = day-1, second+daySeconds
	}
	z := uint64(day + 719468)
	era := z / 146097
	doe := z % 146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	month := mp + 3
	year := yoe + era*400
	if month > 12 {
		month, year = month-12, year+1
	}
	b := c.text.bytes[:]
	copy(b, `"YYYY-MM-DDThh:mm:ss`)
	putFixed(b, 1, year, 4)
	putFixed(b, 6, month, 2)
	putFixed(b, 9, doy-(153*mp+2)/5+1, 2)
	putFixed(b, 12, uint64(second/3600), 2)
	putFixed(b, 15, uint64(second/60%60), 2)
	putFixed(b, 18, uint64(second%60), 2)
}

// putNanos writes a fraction of a second with its point in 3, 6 or 9 digits,
// and nothing for 0.
func putNanos(b []byte, n int, nanos uint32) int {
	if nanos == 0 {
		return n
	}
	high, low := nanos/10000, nanos%10000 // so that no division waits for another
	b[n], b[n+1] = '.', byte('0'+high/10000)
	d, e, f, g := &pairs[high/100%100], &pairs[high%100], &pairs[low/100], &pairs[low%100]
	b[n+2], b[n+3], b[n+4], b[n+5] = d[0], d[1], e[0], e[1]
	b[n+6], b[n+7], b[n+8], b[n+9] = f[0], f[1], g[0], g[1]
	switch {
	case nanos%1000000 == 0:
		return n + 4
	case nanos%1000 == 0:
		return n + 7
	}
	return n + 10
}

// duration writes the duration in seconds with quotes, at the headroom.
func (t *Transcoder) duration(n int, seconds int64, nanos int32) int {
	if seconds < -maxDuration || seconds > maxDuration || nanos < -maxNanos || nanos > maxNanos ||
		seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0 {
		return t.fail(faultRange)
	}
	b := t.buf
	b[n] = '"'
	n++
	if seconds < 0 || nanos < 0 {
		b[n] = '-'
		n++
		seconds, nanos = -seconds, -nanos
	}
	n = putNanos(b, putUint(b, n, uint64(seconds)), uint32(nanos))
	b[n], b[n+1] = 's', '"'
	return n + 2
}
