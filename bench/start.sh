#!/bin/sh
# Start of the binary. First: the smallest static program at hand.
. "$(dirname "$0")/lib.sh"
measure "${RUNS:-40}" floor '' 'busybox true' mica '' "$mica --version"
