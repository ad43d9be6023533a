
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
