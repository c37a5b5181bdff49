"""The relay sees who awaits the resume of a sequence, and whether it is paused still: those go on in batches."""

from migrations.script import run

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UP = """
GRANT SELECT (definition_id, awaits) ON executions TO drumbeat_relay;
CREATE POLICY relay_ids ON definitions FOR SELECT TO drumbeat_relay USING (true);
GRANT SELECT (org_id, id, status) ON definitions TO drumbeat_relay;
"""
_DOWN = """
REVOKE SELECT (definition_id, awaits) ON executions FROM drumbeat_relay;
REVOKE SELECT (org_id, id, status) ON definitions FROM drumbeat_relay;
DROP POLICY relay_ids ON definitions;
"""
# Nobody would come for them: the code before wakes them in the transaction of the resume. The sweep does.
_LEFT_BEHIND = """
UPDATE executions x SET due_at = business_now(), awaits = NULL FROM definitions d
WHERE x.awaits = 'resume' AND d.org_id = x.org_id AND d.id = x.definition_id AND d.status <> 'paused';
"""


def upgrade() -> None:
    run("SET ROLE drumbeat_owner", _UP, "RESET ROLE")


def downgrade() -> None:
    run("SET ROLE drumbeat_owner", _DOWN, "RESET ROLE", _LEFT_BEHIND)
