package udp

import "testing"

func TestPool(t *testing.T) {
	p := Pool{MaxBytes: 100 << 10}
	var held [][]byte
	for _, n := range []int{0, 1, 512, 513, 1400, 65507, 65536, 65537} {
		b := p.Get(n)
		if len(b) != 0 || cap(b) < n {
			t.Errorf("Get(%d): %d of %d bytes", n, len(b), cap(b))
		}
		held = append(held, b)
	}
	if s := p.Stats(); s.Misses != 8 || s.Hits != 0 || s.Bytes != 0 {
		t.Errorf("a cold pool: %+v", s)
	}
	for _, b := range held {
		p.Put(b)
	}
	// 3 x 512, 1024, 2048 and one of two 65536 are within the bound; 65537 is
	// larger than a datagram.
	if s := p.Stats(); s.Bytes != 3*512+1024+2048+65536 || s.Dropped != 2 {
		t.Errorf("after giving back: %+v", s)
	}
	if b := p.Get(700); cap(b) != 1024 || p.Stats().Hits != 1 {
		t.Errorf("a warm class gave %d bytes, %+v", cap(b), p.Stats())
	}
	p.Put(make([]byte, 0, 700)) // not one of ours
	if s := p.Stats(); s.Dropped != 3 {
		t.Errorf("a foreign buffer was kept: %+v", s)
	}
	if n := testing.AllocsPerRun(100, func() { p.Put(p.Get(400)) }); n != 0 {
		t.Errorf("a warm pool allocates %v times", n)
	}
}
