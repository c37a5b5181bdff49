"""Contacts are found by their address through an index.

Under row-level security none is used by a function that might tell what it sees, which PostgreSQL takes
`lower` for; and addresses are kept in small letters anyway.
"""

from migrations.script import run

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(
        "SET ROLE drumbeat_owner",
        "DROP INDEX contacts_email",
        "CREATE UNIQUE INDEX contacts_email ON contacts (org_id, email) WHERE deleted_at IS NULL",
        "CREATE INDEX contacts_email_of_deleted ON contacts (org_id, email) WHERE deleted_at IS NOT NULL",
        "RESET ROLE",
    )


def downgrade() -> None:
    run(
        "SET ROLE drumbeat_owner",
        "DROP INDEX contacts_email_of_deleted",
        "DROP INDEX contacts_email",
        "CREATE UNIQUE INDEX contacts_email ON contacts (org_id, lower(email)) WHERE deleted_at IS NULL",
        "RESET ROLE",
    )
