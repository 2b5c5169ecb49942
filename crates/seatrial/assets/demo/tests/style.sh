#!/bin/sh
# Style: no tabs, no blanks at the end of a line, no line longer than 100 characters.
set -eu
find "$@" -type f | sort | xargs awk '
    /\t/         { complain("a tab") }
    / $/         { complain("a blank at the end of the line") }
    length > 100 { complain(length " characters in one line, 100 are allowed") }
    function complain(what) { print FILENAME ":" FNR ": " what; bad = 1 }
    END { if (!bad) print NR " lines are tidy"; exit bad }
'
