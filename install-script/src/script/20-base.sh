
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
