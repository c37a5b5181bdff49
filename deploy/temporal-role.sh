#!/bin/sh
# Run once by the PostgreSQL image when its volume is new: Temporal's role owns Temporal's databases, nothing else.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$TEMPORAL_POSTGRES_PASSWORD" --username "$POSTGRES_USER" <<'SQL'
CREATE ROLE temporal LOGIN CREATEDB PASSWORD :'password';
SQL
