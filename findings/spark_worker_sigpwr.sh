#!/bin/bash
# Spark standalone: SIGPWR decommissions a Worker only where spark.decommission.enabled is true; elsewhere it ends it.
#
# Spark's own decommission-worker.sh sends SIGPWR to the Worker, and nothing there asks for the setting. One expects a
# signal that asks to hand work over to be ignored, or warned about, by a Worker that does not: but it registers no handler
# then, and the signal has its default meaning for a process, which is its end, with all executors and their tasks at once.
# So whoever sends it (an agent that heard of a spot interruption) has to look at the worker's configuration first.
# With pyspark 4.3.0 (Java 17), output:
#   spark.decommission.enabled=false: the worker has ended (status 158)
#   spark.decommission.enabled=true: the worker runs, and its log says "Decommission worker"
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyspark==4.3.0
spark=$("$folder/venv/bin/python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
export SPARK_HOME=$spark SPARK_LOCAL_IP=127.0.0.1 SPARK_WORKER_DIR=$folder/work SPARK_LOCAL_DIRS=$folder/local
class=$spark/bin/spark-class

wait_for() { # FILE WORDS
    for _ in $(seq 240); do
        grep -q "$2" "$1" 2>/dev/null && return
        sleep 0.5
    done
    echo "no '$2' in:" >&2
    cat "$1" >&2
    exit 1
}

"$class" org.apache.spark.deploy.master.Master --host 127.0.0.1 --port 0 --webui-port 0 >"$folder/master" 2>&1 &
wait_for "$folder/master" "Starting Spark master at"
url=$(sed -n 's/.*Starting Spark master at \(spark:[^ ]*\).*/\1/p' "$folder/master")

told() { # true|false: what becomes of a worker with that setting
    local log=$folder/worker-$1 status=0 conf=$folder/conf-$1
    echo "spark.decommission.enabled $1" >"$conf"
    "$class" org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --webui-port 0 --cores 1 --memory 1g \
        --properties-file "$conf" "$url" >"$log" 2>&1 &
    local worker=$!
    wait_for "$log" "Successfully registered with master"
    kill -PWR "$worker"
    sleep 5
    if kill -0 "$worker" 2>/dev/null; then
        wait_for "$log" "Decommission worker"
        echo "spark.decommission.enabled=$1: the worker runs, and its log says \"Decommission worker\""
        kill "$worker"
    else
        wait "$worker" || status=$?
        echo "spark.decommission.enabled=$1: the worker has ended (status $status)"
    fi
}

told false | tee "$folder/said"
told true | tee -a "$folder/said"
grep -q '^spark.decommission.enabled=false: the worker has ended (status 158)$' "$folder/said"
grep -q '^spark.decommission.enabled=true: the worker runs' "$folder/said"
