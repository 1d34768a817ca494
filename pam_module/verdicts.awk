# Makes verdicts.h out of verdicts.tsv; fails on a row that does not fit the head, so that no verdict is guessed.
BEGIN { FS = "\t" }
NR == 1 {
    columns = NF
    print "/* Made from verdicts.tsv; edit that file. */"
    print "enum phase {"
    for (i = 3; i <= NF; i++)
        printf "    PHASE_%s = %d,\n", toupper($i), i - 2
    printf "};\n#define PHASES %d\nstatic const char *const phase_names[] = {\"\"", NF - 2
    for (i = 3; i <= NF; i++)
        printf ", \"%s\"", $i
    print "};"
    next
}
NF != columns || $1 !~ /^[1-9][0-9]*$/ || $1 > 255 || $2 !~ /^[a-z]+$/ || ($1 in seen) {
    print "verdicts.tsv:" NR ": not code, name and " columns - 2 " words, or a code twice" > "/dev/stderr"
    failed = 1
    exit 1
}
{
    seen[$1] = 1
    statuses = statuses sprintf("    STATUS_%s = %d,\n", toupper($2), $1)
    rows = rows sprintf("    {%d, \"%s\", {", $1, $2)
    for (i = 3; i <= NF; i++)
        rows = rows sprintf("%s%s", i > 3 ? ", " : "", $i == "-" ? "PAM_AUTHINFO_UNAVAIL" : $i)
    rows = rows "}},\n"
}
END {
    if (failed)
        exit 1
    printf "enum status {\n%s};\n", statuses
    print "struct verdict {\n    int code;\n    const char *name;\n    int pam[PHASES];\n};"
    printf "static const struct verdict verdicts[] = {\n%s};\n", rows
}
