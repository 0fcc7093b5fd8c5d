#!/bin/sh
# Refuses source files over 800 lines; names those over 500.
set -eu

git ls-files -co --exclude-standard '*.rs' | while read -r file; do
    [ -f "$file" ] || continue
    lines=$(wc -l <"$file")
    [ "$lines" -le 500 ] || echo "$lines $file"
done | sort -rn | awk '
    $1 > 800 { print "too long (" $1 " lines, 800 at most): " $2; bad = 1; next }
    { print "long (" $1 " lines, aim for 500): " $2 }
    END { exit bad }'
