
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
