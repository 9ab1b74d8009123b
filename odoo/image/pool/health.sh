#!/bin/sh
# The container's health check: health.sh web|gevent|cron. -I -S: Python starts in some milliseconds, from nothing but itself.
exec python3 -I -S /etc/platform-pool/health.py "$@"
