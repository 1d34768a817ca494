/*
 * pam_iam: asks the login daemon who may come in, and believes of its answer only what it can check by itself.
 *
 * It knows nothing of tokens: it collects what the person typed, sends it as one frame, reads one frame, and turns
 * the status into a PAM return value by the table in verdicts.tsv. Whatever goes wrong between the two ends in
 * PAM_AUTHINFO_UNAVAIL, never in success. The wire and every rule are told in docs/reference/pam_iam.md.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

#include "verdicts.h"

#ifndef GROUP_FILE
#define GROUP_FILE "/etc/group"
#endif
#define DEFAULT_SOCKET "/run/iam-bridge/login.sock"
#define DEFAULT_DAEMON "iam-bridge-login"
#define HANDLE "IAM_BRIDGE_HANDLE"

enum {
    SETCRED = 0, /* no phase of the wire: the daemon is not asked */
    VERSION = 1,
    MAX_FRAME = 65536,
    MAX_RANGES = 16,
    MAX_TIMEOUT_S = 60,
    QUICK_MS = 2000, /* for every phase but auth: key logins wait for it, and so does every session's end */
    CUT = 1023,      /* where OpenSSH's client cuts an answer (readpass.c) */
    MARKED = 1001,   /* 1000 bytes and a '+': what iam-askpass gives when more follows */
    MAX_PARTS = 24,
    MAX_ANSWERS = MAX_PARTS * CUT,
    MAX_SECRET = 20000,
    MAX_TEXT = 1000,
    MAX_HANDLE = 64,
    MAX_USER = 1024,
};

struct bytes {
    const uint8_t *at;
    size_t n;
};

struct reply {
    const struct verdict *verdict;
    uint32_t uid;
    struct bytes user, text, handle;
};

struct options {
    const char *socket, *daemon, *breakglass;
    struct { uid_t min, max; } uids[MAX_RANGES];
    size_t ranges;
    int timeout_ms;
    bool debug;
};

/* One call of a pam_sm_ function, all of it in one piece of memory that run() wipes whole. */
struct call {
    pam_handle_t *pamh;
    struct options options;
    bool silent;
    int64_t budget_ms;        /* what is left of the time that this call may spend on waiting for the daemon */
    char user[MAX_USER + 1];  /* a copy: the application may set PAM_USER while we prompt */
    char answers[MAX_ANSWERS];
    uint8_t frame[4 + MAX_FRAME + 1]; /* first the request, then the reply, and room to see one byte too many */
    struct reply reply;               /* points into frame */
};

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint8_t *put_u32(uint8_t *p, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        *p++ = (uint8_t)(value >> shift);
    return p;
}

static const struct verdict *find_verdict(int code)
{
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
        if (verdicts[i].code == code)
            return &verdicts[i];
    return NULL;
}

/* Read a frame without its length word. False unless every byte of it is accounted for. */
static bool parse_reply(const uint8_t *p, size_t n, struct reply *out)
{
    struct bytes *const fields[] = {&out->user, &out->text, &out->handle};
    if (n < 6 || p[0] != VERSION || !(out->verdict = find_verdict(p[1])))
        return false;
    out->uid = get_u32(p + 2);
    p += 6;
    n -= 6;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (n < 4 || get_u32(p) > n - 4)
            return false;
        fields[i]->n = get_u32(p);
        fields[i]->at = p + 4;
        p += 4 + fields[i]->n;
        n -= 4 + fields[i]->n;
    }
    return n == 0;
}

/* Copy what a terminal and a log can bear: the daemon's text may quote what came from elsewhere. */
static void make_printable(struct bytes from, char to[MAX_TEXT + 1])
{
    size_t n = from.n < MAX_TEXT ? from.n : MAX_TEXT;
    for (size_t i = 0; i < n; i++)
        to[i] = (from.at[i] >= ' ' && from.at[i] <= '~') || from.at[i] == '\n' ? (char)from.at[i] : '?';
    to[n] = '\0';
}

static bool is_handle(struct bytes handle)
{
    for (size_t i = 0; i < handle.n; i++)
        if (handle.at[i] > 'z' || !isalnum(handle.at[i]))
            return false;
    return handle.n > 0 && handle.n <= MAX_HANDLE;
}

/*
 * Join answers in place: answers that are all equal are one (a client that gives the whole token to every prompt);
 * else every answer but the last loses the mark that its length says it has. False if longer than a token may be.
 */
static bool join_answers(char *answers, const size_t *lengths, size_t count, size_t *joined)
{
    bool equal = true;
    for (size_t i = 1, at = lengths[0]; i < count; at += lengths[i++])
        equal = equal && lengths[i] == lengths[0] && memcmp(answers, answers + at, lengths[0]) == 0;
    count = equal ? 1 : count;
    *joined = 0;
    for (size_t i = 0, at = 0; i < count; at += lengths[i++]) {
        bool marked = i + 1 < count && lengths[i] == MARKED && answers[at + MARKED - 1] == '+';
        memmove(answers + *joined, answers + at, lengths[i] - marked);
        *joined += lengths[i] - marked;
    }
    return *joined <= MAX_SECRET;
}

static const char *after(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0 ? text + strlen(start) : NULL;
}

/* One line of group(5), with or without its newline: is it that group, and is the user one of its listed members? */
static bool lists_member(const char *line, const char *group, const char *user)
{
    const char *p = after(line, group);
    if (!p || *p != ':' || !(p = strchr(p + 1, ':')) || !(p = strchr(p + 1, ':')))
        return false;
    do {
        size_t n = strcspn(++p, ",\n");
        if (n > 0 && n == strlen(user) && memcmp(p, user, n) == 0)
            return true;
        p += n;
    } while (*p == ',');
    return false;
}

static bool parse_number(const char **p, uint32_t max, uint32_t *value)
{
    uint64_t n = 0;
    const char *start = *p;
    for (; isdigit((unsigned char)**p) && n <= max; (*p)++)
        n = n * 10 + (uint64_t)(**p - '0');
    *value = (uint32_t)n;
    return *p != start && n <= max;
}

static bool parse_uids(const char *p, struct options *o)
{
    for (;; p++) {
        uint32_t min, max;
        if (o->ranges == MAX_RANGES || !parse_number(&p, UINT32_MAX - 1, &min) || *p++ != '-'
            || !parse_number(&p, UINT32_MAX - 1, &max) || min == 0 || min > max)
            return false;
        o->uids[o->ranges].min = min;
        o->uids[o->ranges++].max = max;
        if (*p != ',')
            return *p == '\0';
    }
}

static bool parse_option(const char *option, struct options *o)
{
    const char *value;
    uint32_t seconds;
    if ((value = after(option, "socket=")))
        return *value == '/' && strlen(o->socket = value) < sizeof ((struct sockaddr_un *)0)->sun_path;
    if ((value = after(option, "uids=")))
        return o->ranges == 0 && parse_uids(value, o);
    if ((value = after(option, "breakglass=")))
        return *(o->breakglass = value) && !strpbrk(value, ":,\n");
    if ((value = after(option, "daemon=")))
        return *(o->daemon = value);
    if ((value = after(option, "timeout=")) && parse_number(&value, MAX_TIMEOUT_S, &seconds)) {
        o->timeout_ms = (int)seconds * 1000;
        return seconds > 0 && !*value;
    }
    return (o->debug = strcmp(option, "debug") == 0);
}

static bool parse_options(pam_handle_t *pamh, int argc, const char **argv, struct options *o)
{
    *o = (struct options){.socket = DEFAULT_SOCKET, .daemon = DEFAULT_DAEMON, .timeout_ms = 5000};
    for (int i = 0; i < argc; i++)
        if (!parse_option(argv[i], o)) {
            pam_syslog(pamh, LOG_ERR, "option \"%s\" is unknown or has a value that cannot be understood: "
                       "every request is refused until it is mended", argv[i]);
            return false;
        }
    return true;
}

static bool is_ours(const struct options *o, uid_t uid)
{
    for (size_t i = 0; uid != 0 && i < o->ranges; i++)
        if (uid >= o->uids[i].min && uid <= o->uids[i].max)
            return true;
    return false;
}

/* An entry that does not fit is taken for none: no account of ours has 16 KiB of home and shell. */
static bool find_uid(const char *user, uid_t *uid)
{
    struct passwd entry, *found = NULL;
    char buffer[16384];
    if (getpwnam_r(user, &entry, buffer, sizeof buffer, &found) != 0 || !found)
        return false;
    *uid = found->pw_uid;
    return true;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool wait_for(int fd, short events, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};
    int ready;
    do {
        int64_t left = deadline - now_ms();
        ready = left > 0 ? poll(&p, 1, (int)left) : 0;
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
}

/* The functions below return NULL, or what is wrong with the daemon in words for the log. */
static const char *const too_slow = "took too long";

static const char *check_peer(int fd, const struct options *o)
{
    const char *end = o->daemon;
    uid_t wanted;
    if ((!parse_number(&end, UINT32_MAX - 1, &wanted) || *end) && !find_uid(o->daemon, &wanted))
        return "cannot be checked: the user that daemon= names does not exist here";
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || size != sizeof peer)
        return "does not say who it is";
    return peer.uid == wanted ? NULL : "does not run as the user that daemon= names";
}

static const char *dial(int fd, const struct options *o, int64_t deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, o->socket, strlen(o->socket) + 1);
    while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        /* unix(7): EAGAIN is a full backlog, and no event of poll(2) tells when there is room again. */
        if (errno != EAGAIN && errno != EINTR)
            return errno == ENOENT || errno == ECONNREFUSED ? "does not run" : "cannot be reached";
        if (now_ms() >= deadline)
            return too_slow;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return check_peer(fd, o);
}

static const char *send_frame(int fd, const uint8_t *frame, size_t n, int64_t deadline)
{
    for (size_t done = 0; done < n;) {
        if (!wait_for(fd, POLLOUT, deadline))
            return too_slow;
        ssize_t sent = send(fd, frame + done, n - done, MSG_NOSIGNAL);
        if (sent >= 0)
            done += (size_t)sent;
        else if (errno != EINTR && errno != EAGAIN)
            return "hung up before it had the request";
    }
    return NULL;
}

static const char *receive_frame(int fd, uint8_t *frame, struct reply *reply, int64_t deadline)
{
    for (size_t got = 0;;) {
        if (!wait_for(fd, POLLIN, deadline))
            return too_slow;
        /* One byte more than a frame may have, so that a longer answer is seen and not cut. */
        ssize_t more = recv(fd, frame + got, 4 + MAX_FRAME + 1 - got, 0);
        if (more < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (more <= 0)
            return "hung up before it had answered";
        got += (size_t)more;
        if (got < 4)
            continue;
        size_t length = get_u32(frame);
        if (length > MAX_FRAME)
            return "announced an answer that is too large";
        if (got > 4 + length)
            return "sent more than one answer";
        if (got == 4 + length)
            return parse_reply(frame + 4, length, reply) ? NULL : "sent an answer that cannot be read";
    }
}

static struct bytes text_bytes(const void *text)
{
    return (struct bytes){text, text ? strlen(text) : 0};
}

static struct bytes item_bytes(struct call *c, int item)
{
    const void *text = NULL;
    return text_bytes(pam_get_item(c->pamh, item, &text) == PAM_SUCCESS ? text : NULL);
}

/* Write the request and its length word; returns how many bytes, or 0 if it fits no frame. */
static size_t make_request(struct call *c, enum phase phase, struct bytes secret)
{
    struct bytes handle = text_bytes(pam_getenv(c->pamh, HANDLE));
    if (!is_handle(handle))
        handle.n = 0;
    const struct bytes fields[] = {text_bytes(c->user), item_bytes(c, PAM_SERVICE), item_bytes(c, PAM_TTY),
                                   item_bytes(c, PAM_RHOST), handle, secret};
    uint8_t *p = c->frame + 4;
    *p++ = VERSION;
    *p++ = (uint8_t)phase;
    p = put_u32(p, (uint32_t)getpid());
    /* The daemon asks NSS nothing: a directory that hangs holds this process, and not everybody's. */
    uid_t uid;
    p = put_u32(p, find_uid(c->user, &uid) ? (uint32_t)uid : UINT32_MAX);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        size_t room = (size_t)(c->frame + 4 + MAX_FRAME - p);
        if (room < 4 || fields[i].n > room - 4)
            return 0;
        p = put_u32(p, (uint32_t)fields[i].n);
        if (fields[i].n > 0)
            memcpy(p, fields[i].at, fields[i].n);
        p += fields[i].n;
    }
    put_u32(c->frame, (uint32_t)(p - c->frame - 4));
    return (size_t)(p - c->frame);
}

static const char *exchange(struct call *c, size_t n, int64_t deadline)
{
    if (n == 0)
        return "cannot be asked: the request fits no frame";
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return "cannot be asked: no socket is to be had";
    const char *wrong = dial(fd, &c->options, deadline);
    if (!wrong)
        wrong = send_frame(fd, c->frame, n, deadline);
    if (!wrong)
        wrong = receive_frame(fd, c->frame, &c->reply, deadline);
    close(fd);
    return wrong;
}

/*
 * A permit holds for one name and one uid: what the daemon meant, what PAM has and what NSS says must be the same. And
 * nobody of ours is left to the modules below, which do not know of their ban.
 */
static const char *check_answer(struct call *c, int result)
{
    const void *user = NULL;
    uid_t uid;
    bool known = find_uid(c->user, &uid), ours = known && is_ours(&c->options, uid);
    if (result == PAM_IGNORE)
        return ours ? "it calls foreign what uids= calls ours" : NULL;
    if (pam_get_item(c->pamh, PAM_USER, &user) != PAM_SUCCESS || !user || strcmp(user, c->user) != 0)
        return "the application changed the user name meanwhile";
    if (c->reply.user.n != strlen(c->user) || memcmp(c->reply.user.at, c->user, c->reply.user.n) != 0)
        return "it names another user";
    if (!known)
        return "the user has no account on this host";
    if (uid != c->reply.uid)
        return "it names another uid than this host's";
    return ours ? NULL : "the uid is 0 or outside uids=";
}

static int ask(struct call *c, enum phase phase, struct bytes secret)
{
    int64_t deadline = now_ms() + c->budget_ms;
    char text[MAX_TEXT + 1];
    c->reply = (struct reply){0};
    const char *wrong = exchange(c, make_request(c, phase, secret), deadline);
    c->budget_ms = deadline - now_ms();
    if (wrong) {
        pam_syslog(c->pamh, LOG_ERR, "login daemon at %s %s", c->options.socket, wrong);
        return PAM_AUTHINFO_UNAVAIL;
    }
    if (c->options.debug)
        pam_syslog(c->pamh, LOG_DEBUG, "%s: %s", phase_names[phase], c->reply.verdict->name);
    int result = c->reply.verdict->pam[phase - 1];
    if ((result == PAM_IGNORE || (result == PAM_SUCCESS && phase != PHASE_WHO)) && (wrong = check_answer(c, result))) {
        pam_syslog(c->pamh, LOG_CRIT, "login daemon gave an answer that is refused: %s", wrong);
        return find_verdict(STATUS_DENY)->pam[phase - 1];
    }
    make_printable(c->reply.text, text);
    if (result != PAM_SUCCESS && result != PAM_IGNORE && *text && !c->silent)
        pam_error(c->pamh, "%s", text);
    return result;
}

/* Ask for the parts of the token. The lengths alone decide on the rounds, so that no name and no content shows. */
static int ask_person(struct call *c, struct bytes *secret)
{
    size_t lengths[MAX_PARTS], count = 0, used = 0, n;
    bool fits = true;
    do {
        char *answer = NULL, part[16] = "";
        if (count > 0)
            snprintf(part, sizeof part, " (part %zu)", count + 1);
        int result = pam_prompt(c->pamh, PAM_PROMPT_ECHO_OFF, &answer, "Access Token%s: ", part);
        n = answer ? strlen(answer) : 0;
        fits = fits && n <= MAX_ANSWERS - used;
        if (fits && n > 0)
            memcpy(c->answers + used, answer, n);
        used += fits ? n : 0;
        lengths[count++] = n;
        if (n > 0)
            explicit_bzero(answer, n);
        free(answer);
        if (result != PAM_SUCCESS || !answer)
            return PAM_CONV_ERR;
    } while ((n == MARKED || n == CUT) && count < MAX_PARTS);
    secret->at = (const uint8_t *)c->answers;
    if (fits && join_answers(c->answers, lengths, count, &secret->n))
        return PAM_SUCCESS;
    pam_syslog(c->pamh, LOG_NOTICE, "a token of more than %d bytes was refused", MAX_SECRET);
    if (!c->silent)
        pam_error(c->pamh, "The access token is longer than %d bytes.", MAX_SECRET);
    return find_verdict(STATUS_DENY)->pam[PHASE_AUTH - 1];
}

static void drop_handle(struct call *c)
{
    if (pam_getenv(c->pamh, HANDLE))
        pam_putenv(c->pamh, HANDLE);
}

static int authenticate(struct call *c)
{
    struct bytes secret = {0};
    drop_handle(c);
    int result = ask(c, PHASE_WHO, secret);
    if (result == PAM_SUCCESS)
        result = ask_person(c, &secret);
    if (result == PAM_SUCCESS)
        result = ask(c, PHASE_AUTH, secret);
    if (result == PAM_SUCCESS && is_handle(c->reply.handle)) {
        char setting[sizeof HANDLE + 1 + MAX_HANDLE];
        snprintf(setting, sizeof setting, HANDLE "=%.*s", (int)c->reply.handle.n, (const char *)c->reply.handle.at);
        result = pam_putenv(c->pamh, setting);
    }
    return result;
}

/* The group file itself is read, no NSS: break-glass is for the hour when the network is what is broken. */
static bool is_breakglass(struct call *c)
{
    const struct options *o = &c->options;
    bool member = false;
    char *line = NULL;
    size_t size = 0;
    uid_t uid;
    FILE *file;
    /* Without uids= nothing tells a local account from one of ours, so there is no exception either. */
    if (!o->breakglass || o->ranges == 0 || !find_uid(c->user, &uid) || is_ours(o, uid)
        || !(file = fopen(GROUP_FILE, "re")))
        return false;
    while (!member && getline(&line, &size, file) >= 0)
        member = lists_member(line, o->breakglass, c->user);
    free(line);
    fclose(file);
    if (member)
        pam_syslog(c->pamh, LOG_ALERT, "break-glass: %s of group %s passes without a verdict of the login daemon",
                   c->user, o->breakglass);
    return member;
}

static int run_phase(struct call *c, int phase)
{
    struct bytes user = item_bytes(c, PAM_USER);
    if (user.n == 0 || user.n > MAX_USER)
        return PAM_USER_UNKNOWN;
    memcpy(c->user, user.at, user.n);
    c->budget_ms = c->options.timeout_ms;
    uid_t uid;
    bool known = find_uid(c->user, &uid);
    if (known && uid == 0) /* never ours, whoever says so: and no daemon that is down keeps the administrator out */
        return PAM_IGNORE;
    /*
     * There are no credentials to set. SUCCESS for our people ends the stack where the auth phase did, in sshd's
     * monitor too, where none ran (login by key, keyboard-interactive); IGNORE leaves others to the rest of it.
     */
    if (phase == SETCRED)
        return known && is_ours(&c->options, uid) ? PAM_SUCCESS : PAM_IGNORE;
    if (phase == PHASE_AUTH)
        return authenticate(c);
    if (c->budget_ms > QUICK_MS)
        c->budget_ms = QUICK_MS;
    int result = ask(c, (enum phase)phase, (struct bytes){0});
    if (phase == PHASE_OPEN_SESSION)
        drop_handle(c);
    return phase == PHASE_ACCOUNT && result == PAM_AUTHINFO_UNAVAIL && is_breakglass(c) ? PAM_IGNORE : result;
}

static int run(pam_handle_t *pamh, int flags, int argc, const char **argv, int phase)
{
    struct call *c = calloc(1, sizeof *c);
    if (!c)
        return PAM_BUF_ERR;
    c->pamh = pamh;
    c->silent = flags & PAM_SILENT;
    int result = parse_options(pamh, argc, argv, &c->options) ? run_phase(c, phase) : PAM_SERVICE_ERR;
    explicit_bzero(c, sizeof *c);
    free(c);
    return result;
}

#define ENTRY(name, phase) \
    int name(pam_handle_t *pamh, int flags, int argc, const char **argv) { return run(pamh, flags, argc, argv, phase); }

ENTRY(pam_sm_authenticate, PHASE_AUTH)
ENTRY(pam_sm_setcred, SETCRED)
ENTRY(pam_sm_acct_mgmt, PHASE_ACCOUNT)
ENTRY(pam_sm_open_session, PHASE_OPEN_SESSION)
ENTRY(pam_sm_close_session, PHASE_CLOSE_SESSION)
