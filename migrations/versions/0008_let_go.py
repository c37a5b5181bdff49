"""What has ended long ago is let go as a whole: executions with all they did, letters, reminders, events."""

from migrations.script import run

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_LONG_AGO = "(SELECT business_now()) - interval '400 days'"

# Whatever the retention is set to, and whatever mistake is made in it: what is younger cannot be deleted.
_GUARDS = {
    "events": f"at < {_LONG_AGO}",
    "executions": f"kind = 'run' AND status = 'ended' AND ended_at < {_LONG_AGO}",
    "effects": f"at < {_LONG_AGO}",
    "pauses": f"execution_id IS NOT NULL AND since < {_LONG_AGO}",
    "intents": f"status NOT IN ('pending','held','claimed','uncertain') AND updated_at < {_LONG_AGO}",
    "attempts": f"claimed_at < {_LONG_AGO}",
    "letters": f"status IN ('read','settled') AND read_at < {_LONG_AGO}",
    "reminders": f"due_at IS NULL AND greatest(closed_at, escalated_at, fired_at) < {_LONG_AGO}",
}

_RETENTION = """
ALTER TABLE executions ADD COLUMN let_go_at timestamptz,
  ADD CONSTRAINT executions_let_go_check CHECK (let_go_at IS NULL OR status = 'ended');
COMMENT ON COLUMN executions.let_go_at IS 'Since when an enrollment''s steps and messages are not kept any more';
CREATE INDEX executions_ended ON executions (org_id, ended_at) WHERE status = 'ended' AND let_go_at IS NULL;
CREATE INDEX letters_raw ON letters (org_id, read_at) WHERE length(raw) > 0;
CREATE INDEX letters_read ON letters (org_id, read_at) WHERE read_at IS NOT NULL;
CREATE INDEX letters_intent ON letters (org_id, intent_id) WHERE intent_id IS NOT NULL;
CREATE INDEX reminders_over ON reminders (org_id, created_at) WHERE due_at IS NULL;
CREATE INDEX reminders_execution ON reminders (org_id, execution_id) WHERE execution_id IS NOT NULL;
CREATE INDEX notifications_execution ON notifications (org_id, execution_id) WHERE execution_id IS NOT NULL;
CREATE INDEX notifications_age ON notifications (org_id, created_at);
"""

# Found by their event alone, too; and written where the last was.
_BY_EVENT = """
DROP INDEX executions_of_event;
CREATE UNIQUE INDEX executions_of_event ON executions (org_id, event_id, definition_id) WHERE event_id IS NOT NULL;
"""
_BY_RULE = """
DROP INDEX executions_of_event;
CREATE UNIQUE INDEX executions_of_event ON executions (org_id, definition_id, event_id) WHERE event_id IS NOT NULL;
"""

# An execution's last message is one of its own, and whoever deletes both need not read all the others for it.
_OWN_MESSAGE = """
ALTER TABLE intents ADD CONSTRAINT intents_of_execution UNIQUE (org_id, execution_id, id);
ALTER TABLE executions DROP CONSTRAINT executions_org_id_message_id_fkey;
ALTER TABLE executions ADD CONSTRAINT executions_org_id_message_id_fkey
  FOREIGN KEY (org_id, id, message_id) REFERENCES intents (org_id, execution_id, id);
"""
_ANY_MESSAGE = """
ALTER TABLE executions DROP CONSTRAINT executions_org_id_message_id_fkey;
ALTER TABLE intents DROP CONSTRAINT intents_of_execution;
ALTER TABLE executions ADD CONSTRAINT executions_org_id_message_id_fkey
  FOREIGN KEY (org_id, message_id) REFERENCES intents;
"""


def _guard_refusals(since: str) -> str:
    return (
        "DROP POLICY history ON refusals; CREATE POLICY history ON refusals AS RESTRICTIVE FOR DELETE"
        f" TO drumbeat_app USING (at < {since} - interval '365 days')"
    )


# All at once and in the order in which the product locks their rows, or each might wait for the other.
_ALONE = """
LOCK TABLE letters, reminders, executions, intents, attempts, effects, pauses, events, refusals, notifications
"""


def upgrade() -> None:
    run(
        "SET ROLE drumbeat_owner",
        _ALONE,
        _RETENTION,
        _BY_EVENT,
        _OWN_MESSAGE,
        _guard_refusals("(SELECT business_now())"),
    )
    for table, old in _GUARDS.items():
        run(
            f"GRANT DELETE ON {table} TO drumbeat_app",
            f"CREATE POLICY history ON {table} AS RESTRICTIVE FOR DELETE TO drumbeat_app USING ({old})",
        )
    run("RESET ROLE")


def downgrade() -> None:
    run("SET ROLE drumbeat_owner", _ALONE)
    for table in _GUARDS:
        run(f"DROP POLICY history ON {table}", f"REVOKE DELETE ON {table} FROM drumbeat_app")
    run(
        _guard_refusals("clock_timestamp()"),
        _ANY_MESSAGE,
        _BY_RULE,
        "ALTER TABLE executions DROP COLUMN let_go_at",
        "DROP INDEX letters_raw, letters_read, letters_intent, reminders_over, reminders_execution,"
        " notifications_execution, notifications_age",
        "RESET ROLE",
    )
