"""Hints are given by who has committed, not by what is inserted; what was read is let go; sleepers take less room."""

from migrations.script import run

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_QUEUES = {"outbox": "drumbeat_outbox", "wakes": "drumbeat_wakes", "letters": "drumbeat_letters"}
_FUNCTION = """
CREATE FUNCTION hint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify(TG_ARGV[0], '');
  RETURN NULL;
END $$
"""


_RETENTION = """
GRANT DELETE ON notifications, refusals TO drumbeat_app;
CREATE POLICY history ON refusals AS RESTRICTIVE FOR DELETE TO drumbeat_app
  USING (at < clock_timestamp() - interval '365 days');
CREATE INDEX notifications_read ON notifications (org_id, read_at) WHERE read_at IS NOT NULL;
CREATE INDEX refusals_age ON refusals USING brin (at);
"""

# An enrollment has no event and seldom a deal; whoever is inside is found among a contact's few.
_SLEEPERS = """
ALTER TABLE executions DROP CONSTRAINT executions_org_id_definition_id_event_id_key;
CREATE UNIQUE INDEX executions_of_event ON executions (org_id, definition_id, event_id) WHERE event_id IS NOT NULL;
DROP INDEX executions_deal, executions_enrolled;
CREATE INDEX executions_deal ON executions (org_id, deal_id) WHERE deal_id IS NOT NULL;
"""
_SLEEPERS_BEFORE = """
DROP INDEX executions_of_event, executions_deal;
ALTER TABLE executions ADD UNIQUE (org_id, definition_id, event_id);
CREATE INDEX executions_deal ON executions (org_id, deal_id);
CREATE INDEX executions_enrolled ON executions (org_id, contact_id) WHERE kind = 'enrollment' AND status <> 'ended';
"""


def upgrade() -> None:
    # A commit that brings a notice waits for every other that does.
    run("SET ROLE drumbeat_owner", *(f"DROP TRIGGER hint ON {queue}" for queue in _QUEUES))
    run("DROP FUNCTION hint", _RETENTION, _SLEEPERS, "RESET ROLE")


def downgrade() -> None:
    run("SET ROLE drumbeat_owner", _SLEEPERS_BEFORE, "DROP INDEX notifications_read, refusals_age")
    run("DROP POLICY history ON refusals", "REVOKE DELETE ON notifications, refusals FROM drumbeat_app", _FUNCTION)
    for queue, channel in _QUEUES.items():
        run(f"CREATE TRIGGER hint AFTER INSERT ON {queue} FOR EACH STATEMENT EXECUTE FUNCTION hint('{channel}')")
    run("RESET ROLE")
