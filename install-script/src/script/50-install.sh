
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
