"""Restored from a backup: the stretch of time of which the rows do not know what left."""

from migrations.script import run

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RESTORED = """
ALTER TABLE organizations
  ADD COLUMN restored_since timestamptz,
  ADD COLUMN restored_until timestamptz,
  ADD CHECK ((restored_since IS NULL) = (restored_until IS NULL)),
  ADD CHECK (restored_since <= restored_until);
COMMENT ON COLUMN organizations.restored_until IS 'Business time of the latest repair after a restored backup: what was planned until then may have left';
GRANT UPDATE (restored_since, restored_until) ON organizations TO drumbeat_app;
"""


def upgrade() -> None:
    run("SET ROLE drumbeat_owner", _RESTORED, "RESET ROLE")


def downgrade() -> None:
    run("ALTER TABLE organizations DROP COLUMN restored_since, DROP COLUMN restored_until")
