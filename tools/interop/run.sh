#!/usr/bin/env bash
# Builds the checks and the platform, starts a platform of its own beside any other, and runs the
# checks against it. Arguments go to the checks (README.md). Exit code: theirs, or 2 if they did not run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
ready_seconds=300 # the first start may download PostgreSQL
tenant_seconds=15 # until a running server knows a new tenant
stop_seconds=60

fail() {
	echo "interop: $*" >&2
	if [[ -s ${log:-} ]]; then
		echo "--- the end of the server's log" >&2
		tail -n 40 "$log" >&2
	fi
	exit 2
}

stop() { # the server, by its id
	local status=0
	[[ -n ${server:-} ]] || return 0
	kill -TERM "$server" 2>/dev/null || true
	for ((i = 0; i < stop_seconds * 10; i++)); do
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	if kill -0 "$server" 2>/dev/null; then
		echo "interop: the server is still there $stop_seconds s after SIGTERM; killing it" >&2
		kill -KILL "$server" 2>/dev/null || true
	fi
	wait "$server" || status=$?
	server=
	return "$status"
}

cleanup() {
	[[ -z ${checks:-} ]] || kill -TERM "$checks" 2>/dev/null || true
	stop || true
	[[ -z ${dir:-} ]] || rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() { # below the range that the kernel hands out by itself
	local port
	for _ in {1..100}; do
		port=$((RANDOM % 17000 + 15000))
		[[ $port != "${api_port:-}" && $port != "${admin_port:-}" ]] || continue
		if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "$port"
			return
		fi
	done
	fail "no free port"
}

answers() { # STATUS METHOD PATH: whether the API answers so
	local status
	exec 3<>"/dev/tcp/127.0.0.1/$api_port" || return 1
	printf '%s %s HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n' "$2" "$3" >&3
	read -r -t 5 _ status _ <&3 || status=
	exec 3>&-
	[[ $status == "$1" ]]
}

await() { # SECONDS WHAT STATUS METHOD PATH
	local deadline=$((SECONDS + $1)) what=$2
	until answers "${@:3}" 2>/dev/null; do
		kill -0 "$server" 2>/dev/null || fail "the server ended"
		((SECONDS < deadline)) || fail "$what did not come in $1 s"
		sleep 0.2
	done
}

cd "$here"
export CARGO_TARGET_DIR=$here/target
cargo build --locked --quiet || fail "the checks do not build"
cargo test --locked --quiet >/dev/null || fail "the checks' own tests failed: see cargo test"
cd "$root"
go build -o bin/vssctl ./cmd/vssctl || fail "vssctl does not build"

dir=$(mktemp -d /tmp/vss-interop.XXXXXX)
chmod 711 "$dir" # PostgreSQL may run as another user than this script
log=$dir/server.log
api_port=$(free_port)
admin_port=$(free_port)
ops_port=$(free_port)
export VSS_API_LISTEN=127.0.0.1:$api_port VSS_ADMIN_LISTEN=127.0.0.1:$admin_port
export VSS_OPS_LISTEN=127.0.0.1:$ops_port VSS_DATA_DIR=$dir/data
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost
unset DATABASE_URL

bin/vssctl dev >"$log" 2>&1 &
server=$!
await "$ready_seconds" "the server" 200 GET /readyz
bin/vssctl tenant create other --name Other >/dev/null || fail "no second tenant"
bin/vssctl source set demo lnurl --token-life 5m >/dev/null || fail "no tokens of the shortest life"
# Unsigned, it is refused: with 401 as soon as the server knows the tenant.
await "$tenant_seconds" "the second tenant" 401 POST /t/other/vss/getObject

# In the background, so that a signal to this script is heard at once.
"$here/target/debug/interop" \
	--base-url "http://127.0.0.1:$api_port/t/demo/vss" \
	--other-base-url "http://127.0.0.1:$api_port/t/other/vss" \
	--ops-url "http://127.0.0.1:$ops_port" --vssctl bin/vssctl "$@" &
checks=$!
status=0
wait "$checks" || status=$?
checks=

if ((status != 0)); then
	grep '"level":"ERROR"' "$log" | tail -n 20 >&2 || true # what the server blames itself for
fi
kill -0 "$server" 2>/dev/null || fail "the server ended during the checks"
stop || fail "the server ended with an error after SIGTERM"
exit "$status"
