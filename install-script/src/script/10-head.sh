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

