#!/usr/bin/env bash
# decommission.sh ADDRESS SECONDS [PROC]: Spark's worker at ADDRESS, this node's, takes no more work and hands on what it
# has; afterwards none of its executors runs, or SECONDS have passed. Says how many executors are left.
#
# The workers of a training look for run/sparknet/notice between steps (sparknet/notice.py), as where EC2 takes a node back.
# Spark takes SIGPWR for that where spark.decommission.enabled is true; without it the signal would end the worker at once.
# https://spark.apache.org/docs/latest/configuration.html (spark.decommission.enabled)
set -euo pipefail

address=$1 end=$((SECONDS + $2)) proc=${3:-/proc}
conf=${SPARKNET_ROOT:-}/opt/sparknet/conf/spark-defaults.conf
grep -Eq '^spark.decommission.enabled +true' "$conf" || exit 0

words_of() { tr '\0' ' ' <"$proc/$1/cmdline" 2>/dev/null || true; }

# asks the kernel itself: a bare image has no pgrep, and the processes of all hosts of one machine may be visible
find_all() { # CLASS WORDS: the processes of that class of Spark which have WORDS on their command line
    local folder id words
    for folder in "$proc"/[0-9]*; do
        id=${folder##*/}
        words=$(words_of "$id")
        case $words in *" $1 "*"$2"*) echo "$id" ;; esac
    done
}

executors() { find_all org.apache.spark.executor.CoarseGrainedExecutorBackend "--hostname $address "; }

for worker in $(find_all org.apache.spark.deploy.worker.Worker "--host $address "); do
    kill -PWR "$worker" 2>/dev/null || sudo kill -PWR "$worker"
done
notice=${SPARKNET_ROOT:-}/run/sparknet/notice
time=$(date -u +%Y-%m-%dT%H:%M:%SZ) # they leave at once: it is not EC2 that waits for nobody
sudo mkdir -p "${notice%/*}"
printf '{"action": "terminate", "time": "%s", "seconds": 0}\n' "$time" | sudo tee "$notice.new" >/dev/null
sudo mv "$notice.new" "$notice"
while left=$(executors | grep -c . || true) && [ "$left" -gt 0 ] && [ "$SECONDS" -lt "$end" ]; do
    sleep 0.5
done
printf '%s\n' "$left"
