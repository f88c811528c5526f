#!/usr/bin/env bash
# usage: install.sh DIR   What the failovers need: Debian's packages, and the newest Patroni in a virtual environment in DIR.
set -euo pipefail
need=()
for package in postgresql-15 patroni etcd-server haproxy python3-etcd python3-venv; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || need+=("$package")
done
if [ ${#need[@]} -gt 0 ]; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends --no-upgrade "${need[@]}"
fi
if [ ! -x "$1/bin/patroni" ]; then
	/usr/bin/python3 -m venv "$1"
	"$1/bin/pip" install --quiet 'patroni[etcd3,psycopg2-binary]' psycopg2-binary
fi
# PostgreSQL refuses to be run by root, so it all runs as the user postgres, who has to get in.
chmod -R go+rX "$1"
