// SPDX-License-Identifier: GPL-2.0
/*
 * Stops the agent, process PID, and speaks to the host in its place and over its own connections: takes
 * each vsock socket of it (pidfd_getfd(2)) and writes to it what no agent says.
 *
 *   speak_as_agent PID garbage    bytes that are no frame
 *   speak_as_agent PID flood      well-formed messages about a request that is long over, for ever
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * FromAgent::Grant of no bytes for the connection's first request, which is over: a little-endian length
 * (agent-protocol/src/frame.rs), then the variant, the request and the bytes (message/mod.rs).
 */
static const unsigned char frame[] = {
	16, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};

static int is_connection(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof(peer);

	return !getpeername(fd, (struct sockaddr *)&peer, &size) && peer.ss_family == AF_VSOCK;
}

static int speak(int fd, int for_ever)
{
	static unsigned char bytes[sizeof(frame) * 512];

	for (size_t at = 0; at < sizeof(bytes); at++)
		bytes[at] = for_ever ? frame[at % sizeof(frame)] : 0xa5;
	do {
		for (size_t done = 0; done < sizeof(bytes);) {
			struct pollfd room = { .fd = fd, .events = POLLOUT };
			ssize_t now = write(fd, bytes + done, sizeof(bytes) - done);

			if (now > 0)
				done += now;
			else if (errno != EAGAIN)
				return -1;
			else
				poll(&room, 1, -1);
		}
	} while (for_ever);
	return 0;
}

int main(int argc, char **argv)
{
	int agent, spoken = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: speak_as_agent PID garbage|flood\n");
		return 2;
	}
	agent = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	if (agent < 0) {
		perror("pidfd_open");
		return 1;
	}
	kill(atoi(argv[1]), SIGSTOP);
	for (int number = 0; number < 256; number++) {
		int fd = syscall(SYS_pidfd_getfd, agent, number, 0);

		if (fd < 0)
			continue;
		if (is_connection(fd)) {
			spoken = 1;
			if (speak(fd, !strcmp(argv[2], "flood")))
				perror("write");
		}
		close(fd);
	}
	if (!spoken)
		fprintf(stderr, "process %s has no connection to the host\n", argv[1]);
	return !spoken;
}
