package ledger

// MaxNumber is the highest number of an event or a datagram, and the highest
// figure, that anybody is believed: at a million a second it is reached after
// nine years. Whoever sends chooses these numbers, so they have a limit far below
// what 64 bits hold: no difference of two, nor the sum of all that a collector
// keeps, can overflow.
const MaxNumber = 1<<48 - 1

// JumpNumbers is the largest step that one datagram alone can make, in datagrams,
// in events, and in what an agent_stats announces. A larger one waits until a
// second datagram agrees, so that one forged or damaged number neither makes a
// stream deaf for all that follows nor makes events missing that never were.
const JumpNumbers = 65536

// leap says whether n is too far ahead of the newest number to be believed alone.
func leap(newest, n uint64) bool { return n > newest && n-newest > JumpNumbers }

// near says whether two numbers are close enough to be of one stream.
func near(a, b uint64) bool { return max(a, b)-min(a, b) <= JumpNumbers }
