/* The rivals in C of bench udp: what the system calls cost without Go.
 *
 *   udp send SIZE SEGMENTS ROUNDS PORT   sendmmsg of 64 messages, or of 4 with SEGMENTS segments each
 *   udp recv ROUNDS                      recvmmsg of 64; for each line on standard input it drains its socket
 *
 * send prints the nanoseconds of processor time of one datagram, once a round.
 * recv prints its port, then for each line the datagrams and the nanoseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what) {
	perror(what);
	exit(1);
}

static int send_rounds(int size, int segments, int rounds, int port) {
	enum { MAX = 64 };
	int messages = segments > 1 ? 4 : 64, fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
	int buffer = 1 << 20;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	char *data = calloc(1, (size_t)size * segments);
	struct mmsghdr msgs[MAX];
	struct iovec iov[MAX];
	char control[MAX][CMSG_SPACE(sizeof(uint16_t))];
	memset(msgs, 0, sizeof msgs);
	for (int i = 0; i < messages; i++) {
		iov[i] = (struct iovec){data, (size_t)size * segments};
		msgs[i].msg_hdr.msg_iov = &iov[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
		if (segments > 1) {
			msgs[i].msg_hdr.msg_control = control[i];
			msgs[i].msg_hdr.msg_controllen = sizeof control[i];
			struct cmsghdr *c = CMSG_FIRSTHDR(&msgs[i].msg_hdr);
			c->cmsg_level = SOL_UDP;
			c->cmsg_type = UDP_SEGMENT;
			c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
			*(uint16_t *)CMSG_DATA(c) = size;
		}
	}
	for (int r = 0; r < rounds; r++) {
		double start = now();
		int sent = 0;
		while (sent < 20000) {
			int n = sendmmsg(fd, msgs, messages, MSG_DONTWAIT);
			if (n < 0 && errno != EAGAIN && errno != ENOBUFS && errno != ECONNREFUSED) die("sendmmsg");
			if (n > 0) sent += n * segments;
		}
		printf("%.1f\n", (now() - start) / sent);
		fflush(stdout);
	}
	return 0;
}

static int recv_rounds(void) {
	enum { MAX = 64, ROOM = 2048 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = 64 << 20;
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof own;
	if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof own) < 0 || getsockname(fd, (struct sockaddr *)&own, &length) < 0) die("bind");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
	printf("%d\n", ntohs(own.sin_port));
	fflush(stdout);
	static char data[MAX][ROOM];
	struct mmsghdr msgs[MAX];
	struct iovec iov[MAX];
	struct sockaddr_in from[MAX];
	char line[16];
	while (fgets(line, sizeof line, stdin)) {
		double start = now();
		int total = 0;
		for (;;) {
			for (int i = 0; i < MAX; i++) {
				iov[i] = (struct iovec){data[i], ROOM};
				msgs[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1, .msg_name = &from[i], .msg_namelen = sizeof from[i]};
			}
			int n = recvmmsg(fd, msgs, MAX, MSG_DONTWAIT, NULL);
			if (n <= 0) break;
			total += n;
		}
		printf("%d %.0f\n", total, now() - start);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv) {
	if (argc == 6 && !strcmp(argv[1], "send"))
		return send_rounds(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
	if (argc >= 2 && !strcmp(argv[1], "recv"))
		return recv_rounds();
	fprintf(stderr, "usage: see the source\n");
	return 2;
}
