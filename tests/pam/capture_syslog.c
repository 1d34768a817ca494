/* Preloaded: what would go to syslog goes to the file that CAPTURE_SYSLOG names, one line each after its level. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>

void __vsyslog_chk(int priority, int flag, const char *format, va_list arguments)
{
    const char *path = getenv("CAPTURE_SYSLOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    (void)flag;
    if (!file)
        abort();
    fprintf(file, "%d ", LOG_PRI(priority));
    vfprintf(file, format, arguments);
    fputc('\n', file);
    fclose(file);
}

void vsyslog(int priority, const char *format, va_list arguments)
{
    __vsyslog_chk(priority, 0, format, arguments);
}

void __syslog_chk(int priority, int flag, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    __vsyslog_chk(priority, flag, format, arguments);
    va_end(arguments);
}

void syslog(int priority, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    __vsyslog_chk(priority, 0, format, arguments);
    va_end(arguments);
}
