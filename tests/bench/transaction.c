/*
 * PAM transactions by turns: service A, service B, A, B, ... for one user, until every token was presented once to A.
 *
 * transaction CONFDIR SERVICE_A SERVICE_B USER TOKENS
 *
 * TOKENS is a file with a token a line. Prints the nanoseconds of each pair, from pam_start_confdir to pam_end, with
 * authenticate and acct_mgmt between, both of which have to succeed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <security/pam_appl.h>

enum { PART = 1000, MAX_TOKEN = 20000 };

struct person {
    const char *token;
    size_t given;
};

/* Answer a prompt as iam-askpass does: 1000 bytes, and a mark while more follows. */
static int converse(int n, const struct pam_message **message, struct pam_response **out, void *data)
{
    struct person *p = data;
    struct pam_response *answers = calloc((size_t)n, sizeof *answers);
    for (int i = 0; i < n; i++) {
        if (message[i]->msg_style != PAM_PROMPT_ECHO_OFF)
            continue;
        size_t left = strlen(p->token) - p->given, take = left > PART ? PART : left;
        char *text = malloc(take + 2);
        memcpy(text, p->token + p->given, take);
        strcpy(text + take, left > PART ? "+" : "");
        p->given += take;
        answers[i].resp = text;
    }
    *out = answers;
    return PAM_SUCCESS;
}

static long transaction(const char *confdir, const char *service, const char *user, const char *token)
{
    struct person person = {token, 0};
    struct pam_conv conv = {converse, &person};
    struct timespec from, to;
    pam_handle_t *pam;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (pam_start_confdir(service, user, &conv, confdir, &pam) != PAM_SUCCESS)
        return -1;
    int status = pam_authenticate(pam, PAM_SILENT);
    if (status == PAM_SUCCESS)
        status = pam_acct_mgmt(pam, PAM_SILENT);
    pam_end(pam, status);
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (status != PAM_SUCCESS)
        fprintf(stderr, "%s: PAM status %d\n", service, status);
    return status == PAM_SUCCESS ? (to.tv_sec - from.tv_sec) * 1000000000L + (to.tv_nsec - from.tv_nsec) : -1;
}

int main(int argc, char **argv)
{
    static char line[MAX_TOKEN + 2];
    FILE *tokens = argc == 6 ? fopen(argv[5], "r") : NULL;
    if (!tokens) {
        fprintf(stderr, "usage: transaction CONFDIR SERVICE_A SERVICE_B USER TOKENS\n");
        return 2;
    }
    while (fgets(line, sizeof line, tokens)) {
        line[strcspn(line, "\n")] = '\0';
        long a = transaction(argv[1], argv[2], argv[4], line), b = transaction(argv[1], argv[3], argv[4], line);
        if (a < 0 || b < 0)
            return 1;
        printf("%ld %ld\n", a, b);
    }
    return 0;
}
