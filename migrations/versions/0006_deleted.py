"""An execution may end because its contact was deleted."""

from migrations.script import run

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BEFORE = "'completed','exited','stopped','exit_met','replied','unsubscribed','complained','bounced'"
_SINCE = f"{_BEFORE},'contact_deleted'"
_REASONS = """
ALTER TABLE executions DROP CONSTRAINT executions_exit_reason_check,
  ADD CONSTRAINT executions_exit_reason_check CHECK (exit_reason IN ({reasons}))
"""
# Contacts stay deleted. Their last event goes, which the code before does not know; nobody counts on from it.
_UNKNOWN_BEFORE = """
UPDATE executions SET exit_reason = 'stopped' WHERE exit_reason = 'contact_deleted';
DELETE FROM events WHERE type = 'contact.deleted'
"""


def upgrade() -> None:
    run("SET ROLE drumbeat_owner", _REASONS.format(reasons=_SINCE), "RESET ROLE")


def downgrade() -> None:
    run(_UNKNOWN_BEFORE, "SET ROLE drumbeat_owner", _REASONS.format(reasons=_BEFORE), "RESET ROLE")
