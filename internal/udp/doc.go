// Package udp holds the batching sockets: everything that is known about UDP on
// Linux is known here.
//
// [Conn] sends: one connected socket to one address, many datagrams a system
// call (sendmmsg), never waiting for anything. What the kernel did not take is
// told with its class, so that the caller, who keeps the account, decides
// between waiting and counting a loss.
//
// [Listener] receives: many datagrams a system call (recvmmsg), into buffers
// that a [Batch] owns.
//
// # What the kernel means
//
// A connected socket reports an earlier datagram's fate on a later call. A
// send that fails with ECONNREFUSED tells that the datagram before it met a
// closed port; the failed one was not sent, so it is tried once more at once.
// sendmmsg reports such an error only for its first datagram; for a later one
// it returns a shorter count and forgets the error (net/socket.c,
// __sys_sendmmsg, Linux 6.18). So a short count is normal, and sending goes on
// behind it.
//
// Without IP_RECVERR a full queue of the network device is a success for the
// sender; with it the call fails with ENOBUFS. So it is switched on, and the
// error queue, into which it also puts ICMP errors, is emptied.
package udp
