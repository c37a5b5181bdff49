#!/bin/sh
# Run before every start of the Temporal server: makes its two databases and brings their schemas up to date.
set -eu
for pair in temporal:temporal temporal_visibility:visibility; do
  database=${pair%%:*} schema=${pair##*:}
  tool="temporal-sql-tool --plugin postgres12_pgx --ep postgres -p 5432 -u temporal --pw $TEMPORAL_POSTGRES_PASSWORD --db $database"
  $tool create-database || echo "$database is there already"
  $tool setup-schema -v 0.0 || echo "$database has a schema already"
  $tool update-schema --schema-name "postgresql/v12/$schema"
done
