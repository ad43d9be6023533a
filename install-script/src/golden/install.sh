#!/bin/sh
# Loopback agent installer for Linux. Run as root, or as somebody with sudo or doas.
#
#   LOOPBACK_TOKEN=...        the agent token; or
#   LOOPBACK_TOKEN_FILE=...   a file that holds it (- for standard input)
#
# The token is never taken from the command line, where every user of this host
# could read it. Options: see usage() or --help.
#
# Nothing but functions stands above the last line, and the last line is a
# braced group: a download that is cut anywhere runs nothing at all.
#
# shellcheck disable=SC2317 # some functions are called by name, from each_file and traps

# loopback-installer: 1.2.3 stable
settings() {
  LB_URL='https://gateway.example:8443'
  LB_HOST='gateway.example'
  LB_SCRIPT='/v1/agent/install.sh'
  LB_CHANNEL='stable'
  LB_VERSION='1.2.3'
  LB_VERBOSE='false'
  LB_PIN='sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
  LB_X86_64_NAME='loopback-agent-linux-x86_64'
  LB_X86_64_SHA256='e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
  LB_X86_64_SIZE='3141592'
  LB_AARCH64_NAME='loopback-agent-linux-aarch64'
  LB_AARCH64_SHA256='e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
  LB_AARCH64_SIZE='2718281'
  LB_RELEASE_KEYS='loopback-release-1:0f1e2d3c4b5a6978:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
  LB_CA_PEM='-----BEGIN CERTIFICATE-----
MIIBszCCAVmgAwIBAgIUZm9yIHRoZSBpbnN0YWxsZXIncyB0ZXN0czAKBggqhkjO
PQQDAjAVMRMwEQYDVQQDDApsb29wYmFjayBjYTAgFw0=
-----END CERTIFICATE-----'
}

usage() {
  cat <<'USAGE'
Loopback agent installer

  --dry-run      check this host and say what would be done; change nothing
  --verbose      say more
  --version V    refuse to install any version but V
  --channel C    refuse to install from any channel but C
  --bundle DIR   take the agent and its manifest from DIR, not from the network
  --no-start     install and enable, start at the next boot (golden images)
  --no-service   install the files only (hosts without systemd)
  --uninstall    leave the gateway and remove everything
  --keep-logs    with --uninstall: keep /var/log/loopback-agent
  --help         this text

  LOOPBACK_TOKEN or LOOPBACK_TOKEN_FILE carries the agent token (- is standard input).

exit status
  0  done, and the gateway has seen this host (or nothing was to be done)
  1  not done; this host is as it was before
  2  the command line or the token is wrong
  3  installed and enrolled, but the gateway has not confirmed the link yet
USAGE
}

say() { printf '%s\n' "$*"; }

detail() {
  if [ "$VERBOSE" = true ]; then printf '  %s\n' "$*"; fi
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

misuse() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Where things are. LOOPBACK_INSTALL_ROOT prefixes every path that is written or
# read, for images that are mounted somewhere and for tests; paths inside
# written files stay as the host itself will see them.
layout() {
  ROOT=${LOOPBACK_INSTALL_ROOT:-}
  ROOT=${ROOT%/}
  case $ROOT in
    '') ;;
    [!/]* | *[!A-Za-z0-9/._-]*) misuse 'LOOPBACK_INSTALL_ROOT must be an absolute path of A-Z a-z 0-9 / . _ -' ;;
  esac
  BIN_DIR=/usr/local/bin
  BIN=$BIN_DIR/loopback-agent
  CONF=/etc/loopback-agent
  STATE=/var/lib/loopback-agent
  LOGS=/var/log/loopback-agent
  RUNTIME=/run/loopback-agent
  SERVICE=loopback-agent.service
  SLICE=loopback.slice
  UNIT=/etc/systemd/system/$SERVICE
  LOCK=$ROOT/run/loopback-agent-install.lock
  RELEASE_URL=$LB_URL/v1/agent/releases/$LB_CHANNEL/$LB_VERSION
}

options() {
  DRY_RUN=false VERBOSE=false UNINSTALL=false KEEP_LOGS=false
  START=true SERVICE_WANTED=true BUNDLE='' HANDOFF=''
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) DRY_RUN=true ;;
      --verbose) VERBOSE=true ;;
      --uninstall) UNINSTALL=true ;;
      --keep-logs) KEEP_LOGS=true ;;
      --no-start) START=false ;;
      --no-service) SERVICE_WANTED=false START=false ;;
      --version | --channel | --bundle | --handoff)
        [ $# -ge 2 ] || misuse "$1 needs a value"
        option_value "$1" "$2"
        shift
        ;;
      --help)
        usage
        exit 0
        ;;
      --token* | lbt_*)
        misuse 'the token does not belong on the command line: every user here can read it there. Revoke it, make a new one, and pass that by LOOPBACK_TOKEN or LOOPBACK_TOKEN_FILE'
        ;;
      *) misuse "unknown option $1 (see --help)" ;;
    esac
    shift
  done
}

option_value() {
  case $1 in
    --version)
      [ "$2" = "$LB_VERSION" ] || misuse "this script installs version $LB_VERSION, not $2: ask the operator for the script of that version"
      ;;
    --channel)
      [ "$2" = "$LB_CHANNEL" ] || misuse "this script installs from channel $LB_CHANNEL; get the other with $LB_URL$LB_SCRIPT?channel=$2"
      ;;
    --bundle)
      [ -d "$2" ] || misuse "--bundle $2: no such folder"
      BUNDLE=$2
      ;;
    --handoff) HANDOFF=$2 ;;
  esac
}

# The token goes from the environment or a file straight into a shell variable
# and leaves the environment, so that nothing started from here inherits it.
# printf is part of the shell: the token never becomes a process's argument.
read_token() {
  TOKEN=
  if [ -n "${LOOPBACK_TOKEN:-}" ]; then
    TOKEN=$LOOPBACK_TOKEN
  elif [ -n "$HANDOFF" ] && [ -f "$HANDOFF/token" ]; then
    TOKEN=$(cat "$HANDOFF/token")
    rm -f "$HANDOFF/token"
  elif [ "${LOOPBACK_TOKEN_FILE:-}" = - ]; then
    TOKEN=$(cat)
    [ -n "$TOKEN" ] || misuse 'LOOPBACK_TOKEN_FILE is -, but standard input is empty'
  elif [ -n "${LOOPBACK_TOKEN_FILE:-}" ]; then
    [ -r "$LOOPBACK_TOKEN_FILE" ] || misuse "LOOPBACK_TOKEN_FILE: cannot read $LOOPBACK_TOKEN_FILE"
    TOKEN=$(cat "$LOOPBACK_TOKEN_FILE")
    [ -n "$TOKEN" ] || misuse "LOOPBACK_TOKEN_FILE: $LOOPBACK_TOKEN_FILE is empty"
  fi
  unset LOOPBACK_TOKEN
  case $TOKEN in
    '') ;;
    lbk_*) misuse 'this is an API key of a person or service, not an agent token (those begin with lbt_)' ;;
    *[!a-z0-9_]*) misuse 'the agent token has characters that no token has: was it copied whole?' ;;
    lbt_*)
      if [ ${#TOKEN} -lt 32 ] || [ ${#TOKEN} -gt 256 ]; then
        misuse 'the agent token is too short or too long: was it copied whole?'
      fi
      ;;
    *) misuse 'this is not an agent token (those begin with lbt_)' ;;
  esac
}

# Identity on the host: a key pair with a certificate, made when it joined.
identity_exists() { [ -s "$ROOT$STATE/identity.json" ]; }

# A second installer at the same time (cloud-init and Ansible, say) is told so.
# mkdir is the one atomic test that every system has.
take_lock() {
  (umask 022 && mkdir -p "$ROOT/run")
  if ! mkdir "$LOCK" 2>/dev/null; then
    LOCK_PID=$(cat "$LOCK/pid" 2>/dev/null || :)
    if [ -n "$LOCK_PID" ] && kill -0 "$LOCK_PID" 2>/dev/null; then
      die "another installation is running (process $LOCK_PID): wait for it"
    fi
    rm -rf "$LOCK"
    mkdir "$LOCK" 2>/dev/null || die "another installation is running: wait for it"
  fi
  LOCKED=true
  printf '%s\n' $$ >"$LOCK/pid"
}

# Every way out comes through here: what was half done is undone, and nothing
# temporary stays.
finish() {
  FINISH_STATUS=$?
  trap - EXIT
  trap '' HUP INT TERM
  set +e
  if [ "$CHANGING" = true ]; then roll_back; fi
  if [ -n "$STAGE" ]; then rm -rf "$STAGE"; fi
  if [ -n "$WORK" ]; then rm -rf "$WORK"; fi
  if [ "$LOCKED" = true ]; then rm -rf "$LOCK"; fi
  exit "$FINISH_STATUS"
}

guard_exit() {
  CHANGING=false LOCKED=false STAGE='' WORK=''
  trap finish EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/loopback-install.XXXXXX")
  printf '%s\n' "$LB_CA_PEM" >"$WORK/ca.pem"
  printf '%s\n' "$LB_RELEASE_KEYS" >"$WORK/release.pub"
}

# Runs this script again as root. Its text may have come through a pipe, so it
# is fetched again from the same pinned gateway. What sudo would drop from the
# environment (token, proxies) travels as files in a private folder: on sudo's
# command line everybody could read it.
become_root() {
  if [ -n "$ROOT" ] || [ "$DRY_RUN" = true ] || [ "$(id -u)" = 0 ]; then return 0; fi
  if command -v sudo >/dev/null 2>&1; then
    BECOME=sudo
  elif command -v doas >/dev/null 2>&1; then
    BECOME=doas
  else
    die 'this must be run as root, and neither sudo nor doas is here'
  fi
  mkdir "$WORK/handoff"
  if [ -f "$0" ] && head -n 2 "$0" 2>/dev/null | grep -q 'Loopback agent installer'; then
    cat "$0" >"$WORK/install.sh"
  else
    SELF_URL="$LB_URL$LB_SCRIPT?channel=$LB_CHANNEL"
    if [ "$LB_VERBOSE" = true ]; then SELF_URL="$SELF_URL&verbose=true"; fi
    fetch "$SELF_URL" "$WORK/install.sh" 1048576 || die "fetch this script again to run it with $BECOME: $FETCH_ERROR"
  fi
  if [ -n "$TOKEN" ]; then printf '%s\n' "$TOKEN" >"$WORK/handoff/token"; fi
  if [ -n "$HTTPS_PROXY_SEEN" ]; then printf '%s\n' "$HTTPS_PROXY_SEEN" >"$WORK/handoff/https_proxy"; fi
  if [ -n "$NO_PROXY_SEEN" ]; then printf '%s\n' "$NO_PROXY_SEEN" >"$WORK/handoff/no_proxy"; fi
  say "not root: going on with $BECOME"
  BECOME_STATUS=0
  "$BECOME" sh "$WORK/install.sh" --handoff "$WORK/handoff" "$@" || BECOME_STATUS=$?
  exit "$BECOME_STATUS"
}

sha256() {
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum <"$1" | cut -d ' ' -f 1
  else
    openssl dgst -sha256 <"$1" | sed 's/^.* //'
  fi
}

# within SECONDS COMMAND...: nothing that is asked may hang the installation.
within() {
  if command -v timeout >/dev/null 2>&1; then timeout "$@"; return; fi
  shift
  "$@"
}

same_file() { [ -f "$1" ] && [ -f "$2" ] && [ "$(sha256 "$1")" = "$(sha256 "$2")" ]; }

# Proxies come from the usual variables; curl and wget read them themselves, the
# agent gets them by its own environment file (see write_files).
find_proxy() {
  HTTPS_PROXY_SEEN=${https_proxy:-${HTTPS_PROXY:-${all_proxy:-${ALL_PROXY:-}}}}
  NO_PROXY_SEEN=${no_proxy:-${NO_PROXY:-}}
  if [ -n "$HANDOFF" ]; then
    if [ -f "$HANDOFF/https_proxy" ]; then HTTPS_PROXY_SEEN=$(cat "$HANDOFF/https_proxy"); fi
    if [ -f "$HANDOFF/no_proxy" ]; then NO_PROXY_SEEN=$(cat "$HANDOFF/no_proxy"); fi
  fi
  if [ -n "$HTTPS_PROXY_SEEN" ]; then
    https_proxy=$HTTPS_PROXY_SEEN
    export https_proxy
  fi
  if [ -n "$NO_PROXY_SEEN" ]; then
    no_proxy=$NO_PROXY_SEEN
    export no_proxy
  fi
}

# A proxy without the password in it, for printing.
mask_proxy() {
  case $1 in
    *://*@*) printf '%s' "${1%%://*}://***@${1##*@}" ;;
    *@*) printf '%s' "***@${1##*@}" ;;
    *) printf '%s' "$1" ;;
  esac
}

pick_downloader() {
  DOWNLOADER=none WGET_PINS=false
  if command -v curl >/dev/null 2>&1; then
    DOWNLOADER=curl
  elif command -v wget >/dev/null 2>&1; then
    WGET_HELP=$(wget --help 2>&1 || :)
    case $WGET_HELP in
      *--no-config*) DOWNLOADER=wget ;;
      *) DOWNLOADER=plain-wget ;;
    esac
    case $WGET_HELP in
      *--pinnedpubkey*) WGET_PINS=true ;;
    esac
  fi
}

# fetch URL FILE MAX_BYTES: fills FILE, leaves the reply's headers in
# $WORK/headers and, when it did not work, the reason in FETCH_ERROR.
fetch() {
  FETCH_STATUS=0 FETCH_ERROR=''
  : >"$WORK/headers"
  case $DOWNLOADER in
    curl) fetch_curl "$@" 2>"$WORK/fetch.err" || FETCH_STATUS=$? ;;
    wget) fetch_wget "$@" 2>"$WORK/headers" || FETCH_STATUS=$? ;;
    # The small wget of busybox cannot check certificates. That is enough here:
    # what is fetched is public and is checked by digest and signature. Its own
    # -T makes version 1.35 (Debian 12) crash.
    plain-wget) within 600 wget -S -O "$2" "$1" 2>"$WORK/headers" || FETCH_STATUS=$? ;;
    *)
      FETCH_ERROR='neither curl nor wget is here: install one of them'
      return 1
      ;;
  esac
  if [ "$FETCH_STATUS" = 0 ]; then return 0; fi
  rm -f "$2"
  fetch_reason
  return 1
}

# -q comes first and keeps a .curlrc from changing anything. Redirects are not
# followed: the gateway sends none, somebody else's would only lead astray.
#
# With a pin, --insecure switches off the check of name, chain and dates, and
# --pinnedpubkey insists on the very key of the gateway, which is stricter than
# all three: curl aborts with 90 before the request when the key is another one.
# That works behind any certificate (own authority, public one, expired one).
# Without a pin the gateway's authority, carried in this script, must have issued
# the certificate.
fetch_curl() {
  FETCH_URL=$1 FETCH_FILE=$2 FETCH_MAX=$3
  set -- -q -fsS --connect-timeout 15 --max-time 600 --retry 2 --max-filesize "$FETCH_MAX" \
    -o "$FETCH_FILE" -D "$WORK/headers"
  case $LB_URL in
    https:*)
      set -- "$@" --proto '=https' --tlsv1.2
      if [ -n "$LB_PIN" ]; then
        set -- "$@" --insecure --pinnedpubkey "$LB_PIN"
      else
        set -- "$@" --cacert "$WORK/ca.pem"
      fi
      ;;
  esac
  curl "$@" "$FETCH_URL"
}

# The same for GNU wget. One that is too old to pin checks the certificate
# against the gateway's authority instead.
fetch_wget() {
  FETCH_URL=$1 FETCH_FILE=$2
  set -- --no-config -nv -S --tries=3 --timeout=60 --max-redirect=0 -O "$FETCH_FILE"
  case $LB_URL in
    https:*)
      if [ -n "$LB_PIN" ] && [ "$WGET_PINS" = true ]; then
        set -- "$@" --no-check-certificate --pinnedpubkey="$LB_PIN"
      else
        set -- "$@" --ca-certificate="$WORK/ca.pem"
      fi
      ;;
  esac
  wget "$@" "$FETCH_URL"
}

# Says what went wrong and what to do about it.
fetch_reason() {
  case $DOWNLOADER:$FETCH_STATUS in
    curl:5) FETCH_ERROR='the name of the proxy is not known: check https_proxy' ;;
    curl:6) FETCH_ERROR="the name $LB_HOST is not known here: check DNS" ;;
    curl:7) FETCH_ERROR="$LB_HOST does not accept connections: check firewalls and the address" ;;
    curl:22) FETCH_ERROR="the gateway refused: $(tail -n 1 "$WORK/fetch.err"). It may serve another release by now: get this script again" ;;
    curl:28) FETCH_ERROR="$LB_HOST did not answer in time: check firewalls and proxies" ;;
    curl:60) FETCH_ERROR='the certificate is not from the authority of this gateway: somebody is in between, or the script is old' ;;
    curl:90) FETCH_ERROR='the gateway has another key than the pinned one: somebody is in between (a TLS-inspecting proxy?), or the script is old' ;;
    curl:*) FETCH_ERROR="$(tail -n 1 "$WORK/fetch.err") (curl $FETCH_STATUS)" ;;
    *) FETCH_ERROR="$(grep -v '^ ' "$WORK/headers" | tail -n 2 | tr '\n' ' ')(wget $FETCH_STATUS)" ;;
  esac
}

# obtain NAME FILE MAX_BYTES: a piece of the release, from the bundle or the gateway.
obtain() {
  if [ -n "$BUNDLE" ]; then
    [ -f "$BUNDLE/$1" ] || die "the bundle $BUNDLE has no $1"
    cp "$BUNDLE/$1" "$2"
  else
    fetch "$RELEASE_URL/$1" "$2" "$3" || die "fetch $1: $FETCH_ERROR"
  fi
}

# One line for each thing that has ever stopped an installation. Changes nothing.
preflight() {
  FAILED=0
  check_system
  check_tools
  check_root
  check_service_manager
  check_disk
  check_proxy
  check_dns
  check_https
  check_udp
  check_token
}

row() {
  printf '%-4s  %-8s  %s\n' "$1" "$2" "$3"
  if [ "$1" = fail ]; then FAILED=$((FAILED + 1)); fi
}

# The agent is one static binary: the C library and its age do not matter.
check_system() {
  ARCH=$(uname -m)
  case $ARCH in
    x86_64 | amd64)
      ARCH=x86_64 FILE_NAME=$LB_X86_64_NAME FILE_SIZE=$LB_X86_64_SIZE FILE_SHA256=$LB_X86_64_SHA256
      ;;
    aarch64 | arm64)
      ARCH=aarch64 FILE_NAME=$LB_AARCH64_NAME FILE_SIZE=$LB_AARCH64_SIZE FILE_SHA256=$LB_AARCH64_SHA256
      ;;
    *) FILE_NAME='' FILE_SIZE=0 FILE_SHA256='' ;;
  esac
  if [ "$(uname -s)" != Linux ]; then
    row fail system "$(uname -s) is not supported, only Linux"
  elif [ -z "$FILE_NAME" ]; then
    row fail system "there is no agent for $ARCH in release $LB_VERSION, only for x86_64 and aarch64 at most"
  else
    row ok system "Linux on $ARCH"
  fi
}

check_tools() {
  if [ "$DOWNLOADER" = none ] && [ -z "$BUNDLE" ]; then
    row fail tools 'neither curl nor wget is here: install one of them, or use --bundle'
  elif ! command -v sha256sum >/dev/null 2>&1 && ! command -v openssl >/dev/null 2>&1; then
    row fail tools 'neither sha256sum nor openssl is here: one of them must check the download'
  else
    row ok tools "download with $DOWNLOADER"
  fi
}

check_root() {
  if [ -n "$ROOT" ]; then
    row ok root "installing into $ROOT"
  elif [ "$(id -u)" = 0 ]; then
    row ok root 'running as root'
  else
    row warn root 'not root: the installation itself will use sudo or doas'
  fi
}

check_service_manager() {
  if [ "$SERVICE_WANTED" = false ]; then
    row ok systemd 'not used: start the agent yourself'
  elif ! command -v systemctl >/dev/null 2>&1; then
    row fail systemd "not here: run with --no-service and start '$BIN run' from your own init"
  elif [ ! -d "$ROOT/run/systemd/system" ] && [ "$START" = true ]; then
    row fail systemd 'installed but not running: use --no-start in an image build, else --no-service'
  else
    row ok systemd 'here'
  fi
}

nearest_dir() {
  NEAREST=$ROOT$1
  while [ ! -d "$NEAREST" ]; do
    NEAREST=${NEAREST%/*}
    NEAREST=${NEAREST:-/}
  done
}

# Room for the new binary beside the old one and a copy, and for state and logs.
check_disk() {
  NEED_KB=$((FILE_SIZE * 3 / 1024 + 16384))
  for CHECK_DIR in $BIN_DIR $STATE; do
    nearest_dir "$CHECK_DIR"
    FREE_KB=$(df -Pk "$NEAREST" 2>/dev/null | awk 'NR == 2 { print $4 }' || :)
    MOUNTED=,$(mount_options "$NEAREST"),
    case $FREE_KB in
      '' | *[!0-9]*) FREE_KB=$NEED_KB ;;
    esac
    if [ "$FREE_KB" -lt "$NEED_KB" ]; then
      row fail disk "$CHECK_DIR: $((FREE_KB / 1024)) MiB free, $((NEED_KB / 1024)) MiB needed"
      continue
    fi
    case $CHECK_DIR$MOUNTED in
      *,ro,*) row fail disk "$CHECK_DIR is on a read-only file system: remount it, or build the agent into the image (LOOPBACK_INSTALL_ROOT, --no-start)" ;;
      "$BIN_DIR"*,noexec,*) row fail disk "$CHECK_DIR is mounted noexec: nothing can run from there; remount it with exec" ;;
      *) row ok disk "$CHECK_DIR: at least $((NEED_KB / 1024)) MiB free, writable" ;;
    esac
  done
}

# Options of the mount that holds a folder; empty where it cannot be known.
mount_options() {
  MOUNT_DIR=$(cd -P "$1" 2>/dev/null && pwd) || MOUNT_DIR=
  awk -v dir="$MOUNT_DIR/" '
    { at = $2; gsub(/\\040/, " ", at); if (at != "/") at = at "/"
      if (index(dir, at) == 1 && length(at) >= best) { best = length(at); options = $4 } }
    END { print options }' /proc/mounts 2>/dev/null || :
}

check_proxy() {
  PROXY_STORABLE=true
  case $HTTPS_PROXY_SEEN$NO_PROXY_SEEN in
    '')
      row ok proxy 'none set'
      return 0
      ;;
    *[!A-Za-z0-9:/@._~%,*+=-]*)
      PROXY_STORABLE=false
      row warn proxy "has characters that are not written for the agent: percent-encode them, or set HTTPS_PROXY in $CONF/environment yourself"
      return 0
      ;;
  esac
  row ok proxy "$(mask_proxy "${HTTPS_PROXY_SEEN:-only no_proxy}"), also for the agent where UDP does not pass"
}

check_dns() {
  case $LB_HOST in
    *:*) DNS_NEEDED=false ;;
    *[!0-9.]*) DNS_NEEDED=true ;;
    *) DNS_NEEDED=false ;;
  esac
  if [ "$DNS_NEEDED" = false ]; then
    row ok dns "not needed for $LB_HOST"
  elif ! command -v getent >/dev/null 2>&1; then
    row ok dns 'checked with https'
  elif getent hosts "$LB_HOST" >/dev/null 2>&1; then
    row ok dns "$LB_HOST is known"
  elif [ -n "$HTTPS_PROXY_SEEN" ]; then
    row warn dns "$LB_HOST is not known here; the proxy may know it, UDP will not work"
  else
    row "$NETWORK_FAIL" dns "$LB_HOST is not known here: check /etc/resolv.conf and the name"
  fi
}

check_https() {
  if fetch "$RELEASE_URL/manifest.json" "$WORK/reached.json" 1048576; then
    if [ "$DOWNLOADER" = plain-wget ]; then
      row warn https "$LB_URL answers; this wget cannot check certificates, digests are checked"
    else
      row ok https "$LB_URL answers and is the expected one"
    fi
    check_clock
  else
    row "$NETWORK_FAIL" https "$FETCH_ERROR"
  fi
}

# Certificates and releases have dates, so a clock that is far off breaks the
# link in ways that look like something else.
check_clock() {
  CLOCK_TEXT=$(sed -n 's/^[ ]*[Dd][Aa][Tt][Ee]: *//p' "$WORK/headers" | tail -n 1 | tr -d '\r')
  CLOCK_HERE=$(date +%s)
  if ! http_epoch "$CLOCK_TEXT"; then
    row ok clock 'the gateway told no time'
    return 0
  fi
  CLOCK_SKEW=$((CLOCK_HERE - EPOCH))
  if [ "${CLOCK_SKEW#-}" -gt 300 ]; then
    row warn clock "$(date -u '+%a, %d %b %Y %H:%M:%S GMT') here, $CLOCK_TEXT at the gateway: set the clock (chrony, systemd-timesyncd), or joining may fail"
  else
    row ok clock "within 5 minutes of the gateway"
  fi
}

# Seconds since 1970 of "Sun, 06 Nov 1994 08:49:37 GMT", into EPOCH. Arithmetic
# because `date -d` does not read this everywhere; leading zeros are cut because
# the shell would take 08 for octal.
http_epoch() {
  case $1 in
    *[!A-Za-z0-9,:\ ]*) return 1 ;;
  esac
  # shellcheck disable=SC2086 # six words are wanted, and no pattern can be among them
  set -- $1
  [ $# -eq 6 ] || return 1
  case $2/$4/$5 in
    [0-9][0-9]/[0-9][0-9][0-9][0-9]/[0-9][0-9]:[0-9][0-9]:[0-9][0-9]) ;;
    *) return 1 ;;
  esac
  EPOCH_YEAR=$4
  # March is 0: the leap day falls on the end of the year.
  case $3 in
    Mar) EPOCH_MONTH=0 ;; Apr) EPOCH_MONTH=1 ;; May) EPOCH_MONTH=2 ;; Jun) EPOCH_MONTH=3 ;;
    Jul) EPOCH_MONTH=4 ;; Aug) EPOCH_MONTH=5 ;; Sep) EPOCH_MONTH=6 ;; Oct) EPOCH_MONTH=7 ;;
    Nov) EPOCH_MONTH=8 ;; Dec) EPOCH_MONTH=9 ;;
    Jan) EPOCH_MONTH=10 EPOCH_YEAR=$(($4 - 1)) ;;
    Feb) EPOCH_MONTH=11 EPOCH_YEAR=$(($4 - 1)) ;;
    *) return 1 ;;
  esac
  EPOCH=$((EPOCH_YEAR * 365 + EPOCH_YEAR / 4 - EPOCH_YEAR / 100 + EPOCH_YEAR / 400))
  EPOCH=$((EPOCH + (EPOCH_MONTH * 153 + 2) / 5 + ${2#0} - 719469))
  EPOCH_REST=${5#*:}
  EPOCH_HOUR=${5%%:*}
  EPOCH_MINUTE=${EPOCH_REST%%:*}
  EPOCH_SECOND=${EPOCH_REST#*:}
  EPOCH=$((EPOCH * 86400 + ${EPOCH_HOUR#0} * 3600 + ${EPOCH_MINUTE#0} * 60 + ${EPOCH_SECOND#0}))
}

# Only an agent can speak the link's protocol; without one the question is
# answered by the wait at the end. A failure is not fatal: the link then goes
# over the HTTPS port.
check_udp() {
  if [ ! -x "$ROOT$BIN" ] || [ ! -f "$ROOT$CONF/agent.toml" ]; then
    row ok udp 'checked when the agent starts'
  elif "$ROOT$BIN" doctor --rung udp >"$WORK/udp.out" 2>&1; then
    row ok udp 'the gateway answers'
  else
    row warn udp 'no answer over UDP: the link will use the HTTPS port; open the UDP port of the gateway for a better one'
  fi
}

check_token() {
  if identity_exists; then
    row ok token 'not needed: this host has its identity'
  elif [ -n "$TOKEN" ]; then
    row ok token 'given'
  elif [ -s "$ROOT$CONF/token" ]; then
    row ok token "in $CONF/token"
  elif [ "$START" = false ]; then
    row ok token "none yet: put one into $CONF/token (mode 600) before the first start"
  else
    row fail token 'none: set LOOPBACK_TOKEN or LOOPBACK_TOKEN_FILE'
  fi
}

# What this host has and what it lacks decide what is done:
#
#   nothing installed        install
#   another binary           upgrade (or back to this version, if the operator serves an older one)
#   the same, files differ   repair
#   the same, not linked     repair
#   the same and linked      nothing
survey() {
  write_files
  PRESENT=false OLD_RUNS=false OLD_VERSION='' HAD_STATE=false WAS_ACTIVE=false
  if [ -e "$ROOT$STATE" ]; then HAD_STATE=true; fi
  if [ -e "$ROOT$BIN" ] || [ -e "$ROOT$UNIT" ] || [ -e "$ROOT$CONF/agent.toml" ]; then PRESENT=true; fi
  if [ -x "$ROOT$BIN" ] && OLD_VERSION=$(within 30 "$ROOT$BIN" --version 2>/dev/null); then
    OLD_RUNS=true
    OLD_VERSION=${OLD_VERSION#* }
    OLD_VERSION=${OLD_VERSION%% *}
  fi
  if [ "$START" = true ] && systemctl is-active --quiet "$SERVICE" 2>/dev/null; then WAS_ACTIVE=true; fi

  SAME_BIN=false
  if [ -f "$ROOT$BIN" ] && [ "$(sha256 "$ROOT$BIN")" = "$FILE_SHA256" ]; then SAME_BIN=true; fi

  if [ "$PRESENT" = false ]; then
    ACTION=install
  elif [ "$OLD_RUNS" = true ] && [ "$SAME_BIN" = false ] && [ "$OLD_VERSION" != "$LB_VERSION" ]; then
    ACTION=upgrade
  elif [ "$SAME_BIN" = false ] || ! files_are_current; then
    ACTION=repair
  elif [ "$START" = false ]; then
    ACTION=nothing
  elif [ "$WAS_ACTIVE" = true ] && "$ROOT$BIN" status --wait 5 >"$WORK/status.out" 2>&1; then
    ACTION=nothing
  else
    ACTION=repair
  fi
}

# The files as they should be, made aside first: the survey compares them, the
# installation copies them. No value needs quoting: the gateway lets none
# through that would.
write_files() {
  {
    printf '# Written by the Loopback installer, and again at each installation.\n'
    printf 'gateway = "%s"\n' "$LB_URL"
    printf 'state_dir = "%s"\n' "$STATE"
    printf 'token_file = "%s"\n' "$CONF/token"
    printf 'ca_file = "%s"\n' "$CONF/ca.pem"
    printf 'channel = "%s"\n' "$LB_CHANNEL"
    printf 'verbose = %s\n' "$LB_VERBOSE"
    if [ -n "$LB_PIN" ]; then printf 'https_pin = "%s"\n' "$LB_PIN"; fi
  } >"$WORK/agent.toml"
  unit_text >"$WORK/unit"
  # systemd hands services none of the environment of whoever installed them.
  if [ "$PROXY_STORABLE" = true ] && [ -n "$HTTPS_PROXY_SEEN$NO_PROXY_SEEN" ]; then
    {
      if [ -n "$HTTPS_PROXY_SEEN" ]; then printf 'HTTPS_PROXY=%s\n' "$HTTPS_PROXY_SEEN"; fi
      if [ -n "$NO_PROXY_SEEN" ]; then printf 'NO_PROXY=%s\n' "$NO_PROXY_SEEN"; fi
    } >"$WORK/environment"
  fi
}

# name, place and mode of every file but the binary and the token.
each_file() {
  "$1" agent.toml "$CONF/agent.toml" 600 || return 1
  "$1" ca.pem "$CONF/ca.pem" 644 || return 1
  "$1" release.pub "$CONF/release.pub" 644 || return 1
  if [ -f "$WORK/environment" ]; then "$1" environment "$CONF/environment" 600 || return 1; fi
  if [ "$SERVICE_WANTED" = true ]; then "$1" unit "$UNIT" 644 || return 1; fi
}

file_is_current() { same_file "$WORK/$1" "$ROOT$2"; }
files_are_current() { each_file file_is_current; }

install_agent() {
  stage_binary
  verify_staged
  back_up
  CHANGING=true
  (umask 022 && mkdir -p "$ROOT$CONF")
  chmod 700 "$ROOT$CONF"
  each_file put_file
  put_token
  # One rename: whoever starts the agent gets the old one or the new one, whole.
  if [ "$SAME_BIN" = false ]; then mv -f "$STAGE/agent" "$ROOT$BIN"; fi
  relabel
  start_service
  confirm
  CHANGING=false
}

# The download lies in a hidden folder beside its final place: a rename is atomic
# only within one file system, and /tmp may be noexec.
stage_binary() {
  (umask 022 && mkdir -p "$ROOT$BIN_DIR")
  rm -rf "$ROOT$BIN_DIR"/.loopback-agent.??????
  STAGE=$(mktemp -d "$ROOT$BIN_DIR/.loopback-agent.XXXXXX")
  if [ "$SAME_BIN" = true ]; then return 0; fi
  say "$ACTION: fetching agent $LB_VERSION for $ARCH"
  obtain manifest.json "$WORK/manifest.json" 1048576
  obtain manifest.json.sig "$WORK/manifest.json.sig" 4096
  obtain "$FILE_NAME" "$STAGE/agent" "$FILE_SIZE"
  STAGED_SIZE=$(($(wc -c <"$STAGE/agent")))
  [ "$STAGED_SIZE" = "$FILE_SIZE" ] || die "$FILE_NAME has $STAGED_SIZE bytes, not $FILE_SIZE: the download was cut or changed; nothing was installed"
  STAGED_SHA256=$(sha256 "$STAGE/agent")
  [ "$STAGED_SHA256" = "$FILE_SHA256" ] || die "$FILE_NAME has digest $STAGED_SHA256, not $FILE_SHA256: it was changed; nothing was installed"
  detail "size and digest are right"
  chmod 755 "$STAGE/agent"
}

# Who checks the signature? On a host that has an agent: that agent, with the keys
# it was installed with, so that a gateway that was taken over cannot slip it
# anything its release keys did not sign. On a new host nobody else is here who
# knows ed25519 (openssl may be missing or old), so the new binary, whose digest
# this script has just checked, checks its own release: that catches mistakes
# of whoever publishes. The same on a host whose agent is to be repaired. Against a bad gateway it proves nothing, and nothing
# could: this script itself came from there.
verify_staged() {
  if [ "$SAME_BIN" = true ]; then return 0; fi
  VERIFIER=$STAGE/agent
  if [ "$ACTION" = upgrade ]; then VERIFIER=$ROOT$BIN; fi
  VERIFY_KEYS=$WORK/release.pub
  if [ -s "$ROOT$CONF/release.pub" ]; then VERIFY_KEYS=$ROOT$CONF/release.pub; fi
  if ! within 30 "$STAGE/agent" --version >"$WORK/version.out" 2>&1; then
    die "the agent does not run here: $(tail -n 1 "$WORK/version.out"); nothing was installed"
  fi
  if ! within 30 "$VERIFIER" verify-release --manifest "$WORK/manifest.json" --signature "$WORK/manifest.json.sig" \
    --key-file "$VERIFY_KEYS" --file "$STAGE/agent" >"$WORK/verify.out" 2>&1; then
    cat "$WORK/verify.out" >&2
    die 'the signature of the release does not hold; nothing was installed'
  fi
  detail "signature is right, checked by ${VERIFIER#"$ROOT"}"
}

back_up() {
  if [ -f "$ROOT$BIN" ]; then cp -p "$ROOT$BIN" "$STAGE/old-agent"; fi
  each_file back_up_file
}

back_up_file() {
  if [ -f "$ROOT$2" ]; then cp -p "$ROOT$2" "$STAGE/old-$1"; fi
}

# Joined by && because each_file calls it where the shell ignores `set -e`.
put_file() {
  (umask 022 && mkdir -p "$ROOT${2%/*}") &&
    cp "$WORK/$1" "$ROOT$2.new" &&
    chmod "$3" "$ROOT$2.new" &&
    mv -f "$ROOT$2.new" "$ROOT$2"
}

# The agent deletes the token as soon as it has joined.
put_token() {
  TOKEN_WRITTEN=false
  if [ -z "$TOKEN" ]; then return 0; fi
  if identity_exists; then
    say 'the token is not used: this host has its identity already (to join anew: --uninstall first)'
    return 0
  fi
  TOKEN_WRITTEN=true
  printf '%s\n' "$TOKEN" >"$ROOT$CONF/token.new"
  chmod 600 "$ROOT$CONF/token.new"
  mv -f "$ROOT$CONF/token.new" "$ROOT$CONF/token"
}

# Files made in /tmp and moved keep the label of /tmp, and an enforcing SELinux
# then keeps systemd from starting them.
relabel() {
  if command -v restorecon >/dev/null 2>&1; then
    restorecon -RF "$ROOT$BIN" "$ROOT$CONF" "$ROOT$UNIT" >/dev/null 2>&1 || :
  fi
}

start_service() {
  if [ "$SERVICE_WANTED" = false ]; then return 0; fi
  if [ "$START" = true ]; then
    service_do daemon-reload
    service_do enable "$SERVICE"
    service_do reset-failed "$SERVICE" || :
    service_do restart "$SERVICE" || explain_failure
  elif [ -n "$ROOT" ]; then
    service_do --root="$ROOT" enable "$SERVICE"
  else
    service_do enable "$SERVICE"
  fi
}

service_do() {
  systemctl "$@" >>"$WORK/systemctl.out" 2>&1 || {
    if [ "$1" != reset-failed ]; then cat "$WORK/systemctl.out" >&2; fi
    return 1
  }
}

# Installed is not joined. Only the gateway's word counts.
confirm() {
  if [ "$START" = false ]; then return 0; fi
  say 'started; waiting until the gateway has seen this host'
  "$ROOT$BIN" status --wait 30 >"$WORK/status.out" 2>&1 || explain_failure
}

# Prints what the agent itself knows. An enrolled host is left as it is: taking
# the identity away again would cost a use of the token and help nobody, the
# agent goes on trying. An upgrade goes back to what ran before.
explain_failure() {
  {
    say 'the gateway has not seen this host. What the agent says:'
    within 30 "$ROOT$BIN" doctor 2>&1 || :
    if command -v journalctl >/dev/null 2>&1; then
      say 'its last log lines:'
      journalctl -u "$SERVICE" -n 15 --no-pager -o cat 2>/dev/null || :
    fi
  } >&2
  if [ "$ACTION" != upgrade ] && identity_exists; then
    CHANGING=false
    printf 'error: %s\n' 'installed and enrolled, but not linked: the agent goes on trying. See loopback-agent doctor' >&2
    exit 3
  fi
  die 'the agent could not join'
}

# Runs from finish with errors ignored: each step is tried whatever the others did.
roll_back() {
  if [ "$START" = true ] && [ "$SERVICE_WANTED" = true ] && [ ! -f "$STAGE/old-unit" ]; then
    systemctl disable --now "$SERVICE" >/dev/null 2>&1
    systemctl stop "$SLICE" >/dev/null 2>&1
  fi
  each_file restore_file
  if [ -f "$STAGE/old-agent" ]; then mv -f "$STAGE/old-agent" "$ROOT$BIN"; else rm -f "$ROOT$BIN"; fi
  if [ "${TOKEN_WRITTEN:-false}" = true ]; then rm -f "$ROOT$CONF/token" "$ROOT$CONF/token.new"; fi
  rmdir "$ROOT$CONF" 2>/dev/null
  if [ "$HAD_STATE" = false ]; then rm -rf "$ROOT$STATE"; fi
  relabel
  if [ "$START" = true ] && [ "$SERVICE_WANTED" = true ]; then
    systemctl daemon-reload >/dev/null 2>&1
    systemctl reset-failed "$SERVICE" >/dev/null 2>&1
    if [ "$WAS_ACTIVE" = true ]; then
      systemctl restart "$SERVICE" >/dev/null 2>&1
    else
      systemctl stop "$SERVICE" >/dev/null 2>&1
    fi
  fi
  say 'put back: this host is as it was before' >&2
}

restore_file() {
  rm -f "$ROOT$2.new"
  if [ ! -f "$STAGE/old-$1" ]; then
    rm -f "$ROOT$2"
  elif ! same_file "$STAGE/old-$1" "$ROOT$2"; then
    mv -f "$STAGE/old-$1" "$ROOT$2"
  fi
  return 0 # what could not be restored must not stop the walk over the others
}

unit_text() {
  cat <<'UNIT'
# Loopback agent. Written by the installer, and again at each installation: put
# changes into a drop-in (systemctl edit loopback-agent).
#
# The agent is sandboxed although it acts for root: everything it runs for
# operators (commands, shells, updates of itself) is started by systemd on its
# request, as transient units that inherit nothing from here. A hole in the
# agent's parsers is then not yet a hole in the host's files, and a tight memory
# limit here does not limit anybody's work.

[Unit]
Description=Loopback agent
Wants=network-online.target
After=network-online.target
# Never give up: an agent that stays down is a host lost. RestartSec keeps a
# crash loop cheap.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/local/bin/loopback-agent run --config /etc/loopback-agent/agent.toml
EnvironmentFile=-/etc/loopback-agent/environment
# In a container the sandbox below hides the container's boot id behind the kernel's.
Environment=LOOPBACK_BOOT_ID=%b
Restart=always
RestartSec=5s
TimeoutStartSec=60s
TimeoutStopSec=30s
WatchdogSec=60s
# TERM goes to the agent alone, so that it can say goodbye and stop its helpers
# in its own order; whatever is left in its group after that is killed. What it
# runs for operators lives in units of its own and survives both a restart and
# a stop. KillMode=process would leave the agent's own helpers behind.
KillMode=mixed

# Last to be killed when memory runs out, but never the reason for it: it needs
# some 20 MiB.
OOMScoreAdjust=-500
Slice=loopback.slice
MemoryHigh=192M
MemoryMax=256M
TasksMax=256
CPUQuota=100%
LimitNOFILE=8192
LimitCORE=0

StateDirectory=loopback-agent
StateDirectoryMode=0700
RuntimeDirectory=loopback-agent
RuntimeDirectoryMode=0700
# The agent deletes the token there when it has joined.
ReadWritePaths=-/etc/loopback-agent
UMask=0077

# Everything below narrows what the process itself can do.
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
KeyringMode=private
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# Read facts in files of any owner, configure the network.
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER CAP_NET_ADMIN

[Install]
WantedBy=multi-user.target
UNIT
}

# Leaves no file, unit, process or user behind (the agent has no user of its own),
# and tells the gateway when it can be told.
uninstall() {
  ANYTHING=false
  for LEFT in "$BIN" "$UNIT" "$UNIT.d" "$CONF" "$STATE" "$RUNTIME"; do
    if [ -e "$ROOT$LEFT" ]; then ANYTHING=true; fi
  done
  if [ -e "$ROOT$LOGS" ] && [ "$KEEP_LOGS" = false ]; then ANYTHING=true; fi
  if [ "$ANYTHING" = false ]; then
    say 'nothing is installed'
    return 0
  fi
  if [ "$DRY_RUN" = true ]; then
    say "would deregister, stop the service and remove $BIN, $UNIT, $CONF, $STATE, $RUNTIME"
    return 0
  fi
  take_lock
  deregister
  if command -v systemctl >/dev/null 2>&1; then
    systemctl disable --now "$SERVICE" >/dev/null 2>&1 || :
    # And with it whatever the agent had systemd run for operators.
    systemctl stop "$SLICE" >/dev/null 2>&1 || :
  fi
  rm -rf "$ROOT$UNIT" "$ROOT$UNIT.d" "$ROOT$BIN" "$ROOT$CONF" "$ROOT$STATE" "$ROOT$RUNTIME"
  rm -f "$ROOT/etc/systemd/system/multi-user.target.wants/$SERVICE"
  rm -rf "$ROOT$BIN_DIR"/.loopback-agent.??????
  if [ "$KEEP_LOGS" = false ]; then rm -rf "$ROOT$LOGS"; fi
  if command -v systemctl >/dev/null 2>&1; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    systemctl reset-failed "$SERVICE" >/dev/null 2>&1 || :
  fi
  say 'removed'
}

# A host that never joined has nobody to tell. The gateway may be gone for ever:
# that must not keep anybody from cleaning up.
deregister() {
  if ! identity_exists; then return 0; fi
  if [ -x "$ROOT$BIN" ] && within 30 "$ROOT$BIN" deregister >"$WORK/deregister.out" 2>&1; then
    say 'the gateway has retired this host'
    return 0
  fi
  if [ -s "$WORK/deregister.out" ]; then detail "$(tail -n 1 "$WORK/deregister.out")"; fi
  say 'the gateway could not be told: there this host will show as unreachable, as an orphan, until somebody retires it'
}

main() {
  set -eu
  umask 077
  LC_ALL=C
  # systemctl and restorecon hide from cron and the like; everything else is in the usual places.
  PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
  export LC_ALL PATH
  settings
  layout
  options "$@"
  read_token
  guard_exit
  find_proxy
  pick_downloader
  become_root "$@"
  if [ "$UNINSTALL" = true ]; then
    uninstall
    return 0
  fi

  # An image built from a bundle needs no network until its first boot.
  NETWORK_FAIL=fail
  if [ -n "$BUNDLE" ] && [ "$START" = false ]; then NETWORK_FAIL=warn; fi
  preflight
  if [ "$FAILED" -gt 0 ]; then die "nothing was changed; see the lines marked fail above"; fi
  if [ "$DRY_RUN" = false ]; then take_lock; fi
  survey
  if [ "$DRY_RUN" = true ]; then
    say "would do: $ACTION${OLD_VERSION:+ (here: $OLD_VERSION)}, version $LB_VERSION from channel $LB_CHANNEL"
    return 0
  fi
  if [ "$ACTION" = nothing ]; then
    say "already installed, nothing to do (version $LB_VERSION)"
    return 0
  fi
  install_agent
  if [ "$START" = true ]; then
    say "done: version $LB_VERSION, and the gateway has seen this host"
  elif [ "$SERVICE_WANTED" = true ]; then
    say "done: version $LB_VERSION, starts at the next boot"
  else
    say "done: version $LB_VERSION, not started; start (or restart) it with: $BIN run --config $CONF/agent.toml"
  fi
}

{ main "$@"; exit; }
