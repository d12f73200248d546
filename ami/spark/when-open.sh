#!/usr/bin/env bash
# when-open.sh ADDRESS PORT SECONDS COMMAND...: runs COMMAND once something listens at PORT of ADDRESS, or after SECONDS.
# A worker that is there before its master asks again only ten seconds later.
set -euo pipefail

address=$1 port=$2 end=$((SECONDS + $3))
shift 3
until timeout 2 bash -c ">/dev/tcp/$address/$port" 2>/dev/null || [ "$SECONDS" -ge "$end" ]; do
    sleep 0.2
done
exec "$@"
