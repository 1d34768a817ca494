/* A module that stands after ours and tells, in the PAM environment, whether the token was left for it. */
#include <stddef.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    const void *first = NULL, *old = NULL;
    (void)flags, (void)argc, (void)argv;
    if (pam_get_item(pamh, PAM_AUTHTOK, &first) != PAM_SUCCESS || pam_get_item(pamh, PAM_OLDAUTHTOK, &old) != PAM_SUCCESS)
        return PAM_SYSTEM_ERR;
    return pam_putenv(pamh, first || old ? "PROBE=a token was left behind" : "PROBE=nothing was left behind");
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void)flags, (void)argc, (void)argv;
    return pam_putenv(pamh, "PROBE_SETCRED=reached");
}
