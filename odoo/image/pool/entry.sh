#!/bin/sh
# First process of a pool's container: starts Odoo in one role, hands signals on, reaps orphans, ends as Odoo ends.
#
#   entry.sh web | gevent | cron                  a process of the pool, until it is told to stop
#   entry.sh template DATABASE MODULE,...         fills an empty database for others to be cloned from
#   entry.sh install | upgrade DATABASE MODULE,...   works on the modules of one database, then ends (task.py)
#
# Odoo is a child, not this process itself: the kernel ignores SIGKILL sent to process 1 from inside the container, and
# the health check must be able to end an Odoo that hangs, so that the runtime starts it again.
set -eu

# What Odoo makes in the filestore belongs to a group that the platform's worker is in; it must be able to remove it.
umask 002

control=/etc/platform-pool
state=/tmp/platform-pool
mkdir -p "$state"

# Nothing of libpq's environment may stand in for what the pool's module decides.
unset PGUSER PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE PGHOST PGPORT PGDATABASE PGOPTIONS ODOO_RC || :
export LANG=C.UTF-8 HOME=/tmp PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2
# Websockets whose Origin is not their own host are served as nobody's; cron hears of every change of its schedule; the
# session store is cleaned by the pool's module, since it is shared by all tenants.
export ODOO_BUS_PUBLIC_SAMESITE_WS=1 ODOO_NOTIFY_CRON_CHANGES=1 ODOO_SKIP_GC_SESSIONS=1

role=${1:-}
[ $# -eq 0 ] || shift
case "$role" in
    web)
        set -- odoo server -c "$control/odoo.conf" --max-cron-threads=0 '--db_app_name=odoo-web-{pid}'
        ;;
    gevent)
        set -- odoo gevent -c "$control/odoo.conf" --max-cron-threads=0 '--db_app_name=odoo-gevent-{pid}'
        ;;
    cron)
        # One worker process at least, or Odoo runs cron in threads of one process, where nothing ends a job that hangs.
        set -- odoo server -c "$control/odoo.conf" --no-http --workers=1 --max-cron-threads=2 '--db_app_name=odoo-cron-{pid}'
        ;;
    template | install | upgrade)
        set -- python3 "$control/task.py" "$role" "$@"
        ;;
    *)
        echo "entry.sh: the role must be web, gevent, cron, template, install or upgrade, not '$role'" >&2
        exit 64
        ;;
esac

"$@" &
child=$!
echo "$child" > "$state/main.pid"
trap 'kill -TERM "$child" 2>/dev/null || :' TERM INT QUIT
trap 'kill -HUP "$child" 2>/dev/null || :' HUP

# A signal interrupts `wait`; Odoo then takes its time to finish requests in flight.
while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break
done
exit "$status"
