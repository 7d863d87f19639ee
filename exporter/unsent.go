package exporter

import "tetracast/ledger"

// unsent knows the numbers of a stream's events that were neither sent nor refused.
// They are in the order of their numbers: what waits, what the batch at hand holds,
// what the packer keeps. So only what was refused from among them has to be noted.
type unsent struct {
	next    uint64         // the first of them, or the number that the next event gets
	refused []ledger.Range // behind next; each is followed by one that is not
}

// at returns the number of the n-th of them, from 1.
func (u *unsent) at(n uint64) uint64 {
	number := u.next + n - 1
	for _, r := range u.refused {
		if r.First > number {
			break
		}
		number += r.Count()
	}
	return number
}

// upTo returns how many of them have a number up to that one.
func (u *unsent) upTo(number uint64) uint64 {
	if number < u.next {
		return 0
	}
	n := number - u.next + 1
	for _, r := range u.refused {
		if r.First > number {
			break
		}
		n -= min(r.Last, number) - r.First + 1
	}
	return n
}

// pass notes that the first n of them were sent or refused.
func (u *unsent) pass(n uint64) {
	if n == 0 {
		return
	}
	u.next = u.at(n + 1)
	gone := 0
	for gone < len(u.refused) && u.refused[gone].First < u.next {
		gone++
	}
	u.refused = u.refused[gone:]
}

// refuse notes that n of them were refused, behind the first ones, which were not.
// Nothing behind those n was refused before.
func (u *unsent) refuse(first, n uint64) {
	switch start := u.at(first + 1); {
	case n == 0:
	case first == 0:
		u.pass(n)
	case len(u.refused) > 0 && u.refused[len(u.refused)-1].Last+1 == start:
		u.refused[len(u.refused)-1].Last += n
	default:
		u.refused = append(u.refused, ledger.Range{First: start, Last: start + n - 1})
	}
}
