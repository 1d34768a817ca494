/*
 * Fuzz target for everything in the PAM module that reads bytes of others: the daemon's reply, a person's answers, the
 * group file, an option. `make -C pam_module fuzz` runs it under libFuzzer; with OWN_DRIVER it has a main() of its own
 * that runs the seeds and deterministic mutations of them, for hosts without clang.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdlib.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

static int answer_prompt(pam_handle_t *pamh, int style, char **response, const char *format, ...);
#define pam_prompt answer_prompt
#undef pam_syslog
#define pam_syslog(pamh, ...) ((void)(pamh))
#include "../../pam_module/pam_iam.c"

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}
#define MUST(condition) must(condition, #condition)

static size_t put_field(uint8_t *to, struct bytes field)
{
    put_u32(to, (uint32_t)field.n);
    memcpy(to + 4, field.at, field.n);
    return 4 + field.n;
}

static void try_reply(const uint8_t *data, size_t size)
{
    struct reply reply = {0};
    char text[MAX_TEXT + 1];
    if (!parse_reply(data, size, &reply))
        return;
    MUST(reply.verdict && reply.verdict->code == data[1]);
    uint8_t *again = malloc(size), *p = again;
    *p++ = VERSION;
    *p++ = (uint8_t)reply.verdict->code;
    p = put_u32(p, reply.uid);
    p += put_field(p, reply.user);
    p += put_field(p, reply.text);
    p += put_field(p, reply.handle);
    MUST((size_t)(p - again) == size && memcmp(again, data, size) == 0);
    free(again);
    make_printable(reply.text, text);
    MUST(strlen(text) == (reply.text.n < MAX_TEXT ? reply.text.n : MAX_TEXT));
    for (const char *c = text; *c; c++)
        MUST(*c == '\n' || (*c >= ' ' && *c <= '~'));
    if (is_handle(reply.handle))
        MUST(reply.handle.n <= MAX_HANDLE && !memchr(reply.handle.at, '\n', reply.handle.n));
}

static const size_t answer_lengths[] = {MARKED, CUT, 0, 1, 1000, 1002, 20000, MAX_ANSWERS};

/* What the person of try_person answers: each byte is one answer, and chooses its length. */
static struct bytes person;

static int answer_prompt(pam_handle_t *pamh, int style, char **response, const char *format, ...)
{
    (void)pamh, (void)format;
    MUST(style == PAM_PROMPT_ECHO_OFF);
    if (person.n == 0)
        return PAM_CONV_ERR;
    size_t length = answer_lengths[*person.at % 8];
    *response = malloc(length + 1);
    memset(*response, *person.at & 8 ? '+' : 'a', length);
    (*response)[length] = '\0';
    person.at++, person.n--;
    return PAM_SUCCESS;
}

/* Whatever is answered stays in its place: what lies behind the answers is still empty. */
static void try_person(const uint8_t *data, size_t size)
{
    static struct call c = {.silent = true}; /* once: to empty it for each input would take most of the time */
    static const uint8_t empty[sizeof c.frame];
    struct bytes secret = {0};
    person = (struct bytes){data, size};
    int result = ask_person(&c, &secret);
    MUST(result == PAM_SUCCESS || result == PAM_CONV_ERR || result == PAM_MAXTRIES);
    MUST(result != PAM_SUCCESS || secret.n <= MAX_SECRET);
    MUST(size - person.n <= MAX_PARTS);
    MUST(memcmp(c.frame, empty, sizeof empty) == 0);
}

/* The first bytes choose how long the answers are, the others what they say. */
static void try_answers(const uint8_t *data, size_t size)
{
    size_t lengths[MAX_PARTS], count = 0, total = 0, joined = 0;
    for (size_t i = 0; i < size && count < MAX_PARTS; i++) {
        lengths[count] = answer_lengths[data[i] % 8];
        if (total + lengths[count] > MAX_ANSWERS)
            break;
        total += lengths[count++];
        if (data[i] % 8 > 1)
            break;
    }
    if (count > 0) {
        char *exact = malloc(total ? total : 1);
        for (size_t i = 0; i < total; i++)
            exact[i] = (data[i % size] & 1) ? '+' : 'a';
        bool fits = join_answers(exact, lengths, count, &joined);
        MUST(joined <= total && fits == (joined <= MAX_SECRET));
        MUST(joined == lengths[0] || joined + count > total);
        free(exact);
    }
}

static void try_text(const uint8_t *data, size_t size)
{
    struct options options = {0};
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    if (lists_member(text, "glass", "alice"))
        MUST(strncmp(text, "glass:", 6) == 0 && strstr(text, "alice"));
    if (parse_option(text, &options))
        for (size_t i = 0; i < options.ranges; i++)
            MUST(options.uids[i].min > 0 && options.uids[i].min <= options.uids[i].max
                 && options.uids[i].max < UINT32_MAX);
    MUST(options.ranges <= MAX_RANGES && !is_ours(&options, 0) && !is_ours(&options, UINT32_MAX));
    free(text);
    /* Even if a range could begin at 0, root would not be ours. */
    struct options all = {.uids = {{0, UINT32_MAX}}, .ranges = 1};
    MUST(is_ours(&all, 1) && !is_ours(&all, 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_reply(data, size);
    try_text(data, size);
    /* Answers are large and slow: only for what is neither a text nor a reply. */
    if (size > 0 && data[0] < ' ' && data[0] != VERSION) {
        try_answers(data, size);
        try_person(data, size);
    }
    return 0;
}

#ifdef OWN_DRIVER
/* A copy of exactly its size, so that AddressSanitizer sees one byte read too many. */
static void try_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

int main(int argc, char **argv)
{
    static uint8_t seed[4096], input[4096];
    uint64_t state = 88172645463325252u;
    long runs = argc > 1 ? atol(argv[1]) : 0, done = 0;
    if (argc < 3 || runs < 1)
        return fputs("usage: frame_fuzz RUNS SEED...\n", stderr), 2;
    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return perror(argv[i]), 2;
        size_t size = fread(seed, 1, sizeof seed, file);
        fclose(file);
        try_copy(seed, size);
        for (long run = 0; run < runs / (argc - 2); run++, done++) {
            memcpy(input, seed, size);
            size_t length = size;
            for (int change = 0; change < 4; change++) {
                state ^= state << 13, state ^= state >> 7, state ^= state << 17; /* xorshift64 */
                size_t at = length ? (state >> 8) % length : 0;
                switch (state % 4) {
                case 0: input[at] ^= (uint8_t)(1u << (state >> 40) % 8); break;
                case 1: input[at] = (uint8_t)(state >> 48); break;
                case 2: length = at; break;
                default:
                    if (length < sizeof input)
                        input[length++] = (uint8_t)(state >> 48);
                }
            }
            try_copy(input, length);
        }
    }
    printf("%d seeds and %ld mutations of them\n", argc - 2, done);
    return 0;
}
#endif
