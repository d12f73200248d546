#!/usr/bin/env bash
# Afterwards: /opt/sparknet/java is a Java of at least $OLDEST_JAVA, and /opt/sparknet/spark is the Spark that pyspark
# brought. Nothing comes from an Apache mirror; Java comes from Amazon, and only where there is none.
set -euo pipefail

home=${SPARKNET_ROOT:-}/opt/sparknet
venv=$home/venv

major() { "$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1; }
is_new_enough() { [ -x "$1" ] && [ "$(major "$1")" -ge "$OLDEST_JAVA" ] 2>/dev/null; }

find_java() {
    local candidate
    for candidate in "$home/java/bin/java" "${JAVA_HOME:-/nonexistent}/bin/java" "$(command -v java || true)"; do
        if [ -n "$candidate" ] && is_new_enough "$candidate"; then
            candidate=$(readlink -f "$candidate")
            printf '%s\n' "${candidate%/bin/java}"
            return
        fi
    done
    return 1
}

fetch_java() {
    local archive
    archive=$(mktemp)
    curl --fail --silent --show-error --location --retry 5 --max-time 300 --output "$archive" "$JAVA_URL"
    echo "$JAVA_SHA256  $archive" | sha256sum --check --quiet || {
        echo "$JAVA_URL is not the file that versions.toml has the SHA-256 of" >&2
        rm -f "$archive"
        return 1
    }
    mkdir -p "$home/jdk"
    tar -xzf "$archive" -C "$home/jdk" --strip-components 1
    rm -f "$archive"
    printf '%s\n' "$home/jdk"
}

if ! java=$(find_java); then
    # a process host is this very machine: nothing is installed on it
    [ -z "${SPARKNET_ROOT:-}" ] || {
        echo "Spark needs Java $OLDEST_JAVA or newer, and there is none: install one, or set JAVA_HOME" >&2
        exit 1
    }
    java=$(fetch_java)
fi
[ "$java" = "$home/java" ] || ln -sfn "$java" "$home/java"
spark=$("$venv/bin/python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
ln -sfn "$spark" "$home/spark"

is_new_enough "$home/java/bin/java" || { echo "$home/java is not a Java $OLDEST_JAVA" >&2; exit 1; }
[ -x "$home/spark/bin/spark-class" ] || { echo "$home/spark has no spark-class" >&2; exit 1; }
