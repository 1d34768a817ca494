/*
 * A load of logins: CLIENTS at once, each with a connection of its own per request, until every frame was sent once.
 *
 * load SOCKET FRAMES FIRST COUNT CLIENTS
 *
 * FRAMES is a file of request frames, length words included. Prints seconds, permits, other answers, the median and
 * the 99th percentile of the latencies (connect to end of reply, microseconds) and its own processor time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CLIENTS = 1000, PERMIT = 1, STATUS_AT = 5 };

struct client {
    int fd;
    double began;
    size_t got;
    uint8_t reply[4096];
};

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static const uint8_t **frames;
static size_t next_frame, end_frame;
static int epoll;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Send the next frame on a new connection; false when none is left. */
static int begin(struct client *c)
{
    if (next_frame == end_frame)
        return 0;
    const uint8_t *frame = frames[next_frame++];
    size_t n = 4 + get_u32(frame);
    c->began = now();
    c->got = 0;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    if (send(c->fd, frame, n, MSG_NOSIGNAL) != (ssize_t)n)
        die("send");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0)
        die("epoll_ctl");
    return 1;
}

/* Take what came; true when the reply is whole or the connection ended. */
static int take(struct client *c)
{
    ssize_t n = recv(c->fd, c->reply + c->got, sizeof c->reply - c->got, MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN)
        return 1;
    c->got += n > 0 ? (size_t)n : 0;
    return n == 0 || (c->got >= 4 && c->got >= 4 + get_u32(c->reply));
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void map_frames(const char *path, size_t first, size_t count)
{
    int fd = open(path, O_RDONLY);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        die(path);
    const uint8_t *at = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED)
        die("mmap");
    const uint8_t *end = at + status.st_size;
    frames = calloc(count, sizeof *frames);
    for (size_t i = 0; at < end && end_frame < count; i++, at += 4 + get_u32(at))
        if (i >= first)
            frames[end_frame++] = at;
    if (end_frame != count) {
        fprintf(stderr, "%s holds too few frames\n", path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static struct client clients[MAX_CLIENTS];
    if (argc != 6 || strlen(argv[1]) >= sizeof address.sun_path || atoi(argv[5]) > MAX_CLIENTS) {
        fprintf(stderr, "usage: load SOCKET FRAMES FIRST COUNT CLIENTS\n");
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    map_frames(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
    double *took = calloc(end_frame, sizeof *took);
    epoll = epoll_create1(0);
    size_t done = 0, permits = 0, open_ones = 0;
    double start = now();
    for (int i = 0; i < atoi(argv[5]); i++)
        open_ones += (size_t)begin(&clients[i]);
    while (open_ones > 0) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, 30000);
        if (n <= 0) {
            fprintf(stderr, "no answer for 30 s\n");
            return 1;
        }
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!take(c))
                continue;
            took[done++] = now() - c->began;
            permits += c->got > STATUS_AT && c->reply[STATUS_AT] == PERMIT;
            close(c->fd);
            open_ones -= !begin(c);
        }
    }
    double seconds = now() - start;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(took, done, sizeof *took, compare);
    printf("%.6f %zu %zu %.1f %.1f %.4f\n", seconds, permits, done - permits, took[done / 2] * 1e6,
           took[done * 99 / 100] * 1e6,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return 0;
}
