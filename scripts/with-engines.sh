#!/usr/bin/env bash
# Runs a command beside a Kafka broker (KRaft) and a MongoDB (replica set of one) of its own, on free ports and in a folder
# that is removed afterwards. The command finds them in HEADWATER_DEMO_KAFKA and HEADWATER_DEMO_MONGODB.
#   scripts/with-engines.sh target/release/headwater demo
# Both are taken from KAFKA_HOME and MONGOD, or from where scripts/need.sh put them.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/headwater"
jars="${KAFKA_HOME:+$KAFKA_HOME/libs}"
jars="${jars:-$cache/kafka}"
mongod="${MONGOD:-$(command -v mongod || echo "$cache/mongodb/mongod")}"
folder="$(mktemp -d "${TMPDIR:-/tmp}/headwater-engines-XXXXXX")"
started=()

fail() { printf 'with-engines: %s\n' "$*" >&2; exit 1; }

finish() {
  local id
  for id in "${started[@]}"; do kill "$id" 2>/dev/null || true; done
  for id in "${started[@]}"; do wait "$id" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap finish EXIT
# The command gets Ctrl-C and SIGTERM itself, and ends; then everything else does.
trap : INT TERM

python="$cache/python/bin/python"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

wait_for() {
  local port="$1" id="$2" what="$3" log="$4" n
  for n in $(seq 600); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    kill -0 "$id" 2>/dev/null || { tail -n 20 "$log" >&2; fail "$what ended while it was starting"; }
    sleep 0.1
  done
  tail -n 20 "$log" >&2
  fail "$what did not start within a minute"
}

ls "$jars"/kafka_2.13-*.jar >/dev/null 2>&1 || fail "no Kafka in $jars: scripts/need.sh kafka, or set KAFKA_HOME"
[ -x "$mongod" ] || fail "no mongod at $mongod: scripts/need.sh mongodb, or set MONGOD"

kafka="$(free_port)"; controller="$(free_port)"; mongo="$(free_port)"
cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$kafka,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$kafka
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$folder/kafka
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
PROPERTIES
java=(java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*")
echo "Starting Kafka and MongoDB …"
"${java[@]}" kafka.tools.StorageTool format -t aGVhZHdhdGVyLWthZmthMQ -c "$folder/server.properties" \
  >"$folder/format.log" 2>&1 || { cat "$folder/format.log" >&2; fail "Kafka's folder could not be formatted"; }
# In sessions of their own: Ctrl-C is for the command alone.
setsid "${java[@]}" kafka.Kafka "$folder/server.properties" >"$folder/kafka.log" 2>&1 &
started+=("$!")
mkdir "$folder/mongodb"
setsid "$mongod" --dbpath "$folder/mongodb" --port "$mongo" --bind_ip 127.0.0.1 --replSet demo \
  --wiredTigerCacheSizeGB 0.5 --unixSocketPrefix "$folder" >"$folder/mongod.log" 2>&1 &
started+=("$!")
wait_for "$mongo" "${started[1]}" MongoDB "$folder/mongod.log"
"$python" - "$mongo" <<'PYTHON' || fail "MongoDB's replica set could not be made"
import sys, time, pymongo
port = sys.argv[1]
admin = pymongo.MongoClient(f"mongodb://127.0.0.1:{port}/?directConnection=true").admin
admin.command("replSetInitiate", {"_id": "demo", "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]})
while not admin.command("hello")["isWritablePrimary"]:
    time.sleep(0.05)
PYTHON
wait_for "$kafka" "${started[0]}" Kafka "$folder/kafka.log"

export HEADWATER_DEMO_KAFKA="127.0.0.1:$kafka"
export HEADWATER_DEMO_MONGODB="mongodb://127.0.0.1:$mongo/?replicaSet=demo"
status=0
"$@" || status=$?
exit "$status"
