
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
