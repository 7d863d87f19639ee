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
// # What an error means
//
// A connected socket reports an earlier datagram's fate on a later call: an ICMP
// error that came in is kept as the socket's pending error, and the next send returns
// it without looking at its own datagram (sock_error, in sock_alloc_send_pskb,
// net/core/sock.c). sendmmsg reports an error only for its first message; for a later
// one it returns a shorter count and forgets the error (net/socket.c, __sys_sendmmsg,
// Linux 6.18). So a short count is normal, and sending goes on behind it.
//
// With IP_RECVERR each ICMP error also lies in the error queue, with its origin; what
// the kernel itself finds too long lies there as local. After an error [Conn] empties
// the queue, which takes the pending error too, and so knows whose error it was:
//
//	error of a send        means for the datagram at hand          for earlier ones
//	EAGAIN                 not taken; waits for the send buffer     nothing
//	ENOBUFS, ENOMEM        not taken, or no part of it that could   nothing
//	                       be used; waits for the device's queue
//	ECONNREFUSED, EPROTO,  nothing: it is offered again at once     ICMP said that one did
//	ENOPROTOOPT,                                                    not get there; counted
//	EHOSTDOWN, ENONET                                               by class in Answers
//	ENETUNREACH,           with an ICMP entry in the queue: as      likewise
//	EHOSTUNREACH           above. Without: no route; waits
//	EMSGSIZE               with an ICMP entry and no local one: as  likewise; the path MTU
//	                       above. Else: too long for the path       is learnt
//	EPERM, EACCES          a packet filter, a full connection       EACCES with an ICMPv6
//	                       table or a prohibited route of this      entry: as above
//	                       host; once more, then lost
//	ENETDOWN               the device is down; waits                nothing
//	EINVAL, EIO            of a GSO message: again without GSO      nothing
//	others                 lost                                     EOPNOTSUPP with an ICMP
//	                                                                entry: as above
//
// What ICMP answered is no part of an account: whoever sees a datagram can forge an
// answer, and routers limit how many they send.
//
// Without IP_RECVERR a full queue of the network device is a success for the
// sender; with it the call fails with ENOBUFS. A GSO message is one to most queues,
// but some cut it up and take a part in silence; see queueCuts. A datagram that IP
// cuts into fragments is refused when one of them is.
package udp
