
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
