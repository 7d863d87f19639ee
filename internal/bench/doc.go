// Package bench measures, and sets what it measures beside rivals and a floor in
// the same run.
//
// Machines are noisy and shared, so a figure alone says little. Every row is run
// in rounds that are interleaved with those of its rivals; what is shown is the
// median, the spread between the quartiles, and the multiple of the row that the
// table names. Time is the processor time of the measuring thread, user and
// system, not the time on the wall.
package bench
