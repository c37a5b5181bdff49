"""Sequences and mail: enrollments, mailboxes, messages and their attempts, addresses, letters and holds."""

from migrations.script import run

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CORE = """
ALTER TABLE organizations
  ADD COLUMN postal_address text CHECK (length(postal_address) BETWEEN 1 AND 500),
  ADD COLUMN address_salt bytea NOT NULL
    DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'),
  ADD COLUMN sending_stopped_at timestamptz,
  ADD COLUMN sending_stopped_by uuid,
  ADD COLUMN sending_note text CHECK (length(sending_note) <= 500);
COMMENT ON COLUMN organizations.address_salt IS 'What email addresses are hashed with, so that a suppression outlives the contact';

CREATE FUNCTION hash_address(email text) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
  RETURN sha256((SELECT address_salt FROM organizations WHERE id = app_org()) || convert_to(lower(email), 'UTF8'));

ALTER TABLE events DROP CONSTRAINT events_actor_kind_check;
ALTER TABLE events ADD CONSTRAINT events_actor_kind_check
  CHECK (actor_kind IN ('user','rule','sequence','source','recipient','system'));
ALTER TABLE wakes DROP CONSTRAINT wakes_kind_check;
ALTER TABLE wakes ADD CONSTRAINT wakes_kind_check CHECK (kind IN ('run','enrollment','reminder','mailbox'));
ALTER TABLE definitions DROP CONSTRAINT definitions_kind_check;
ALTER TABLE definitions ADD CONSTRAINT definitions_kind_check CHECK (kind IN ('rule','sequence'));
ALTER TABLE notifications DROP CONSTRAINT notifications_reason_check;
ALTER TABLE notifications ADD CONSTRAINT notifications_reason_check
  CHECK (reason IN ('rule','reminder','escalation','reply','letter','stuck'));
"""

_TABLES = """
CREATE TABLE addresses (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  hash bytea NOT NULL CHECK (length(hash) = 32),
  suppressed text CHECK (suppressed IN ('unsubscribed','complained','bounced','manual')),
  suppressed_at timestamptz,
  revision integer NOT NULL CHECK (revision >= 0),
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, hash),
  CHECK ((suppressed IS NULL) = (suppressed_at IS NULL))
);
COMMENT ON COLUMN addresses.revision IS 'How many events there are of it; the same for intents';
COMMENT ON TABLE addresses IS 'Hashed email addresses; the row every claim and every stop locks first';
CREATE INDEX addresses_suppressed ON addresses (org_id, id) WHERE suppressed IS NOT NULL;

CREATE TABLE templates (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  content jsonb NOT NULL CHECK (jsonb_typeof(content) = 'object'),
  revision integer NOT NULL CHECK (revision >= 1),
  created_by uuid,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX templates_name ON templates (org_id, lower(name)) WHERE deleted_at IS NULL;

CREATE TABLE destinations (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('mailbox')),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  owner_id uuid,
  from_name text NOT NULL CHECK (length(from_name) BETWEEN 1 AND 100),
  from_email text NOT NULL CHECK (from_email = lower(btrim(from_email)) AND from_email LIKE '_%@_%' AND length(from_email) <= 320),
  transport text NOT NULL CHECK (transport IN ('outbox','smtp')),
  host text CHECK (length(host) BETWEEN 1 AND 255),
  port integer CHECK (port BETWEEN 1 AND 65535),
  security text CHECK (security IN ('starttls','tls','none')),
  username text CHECK (length(username) BETWEEN 1 AND 320),
  sealed_password bytea,
  pace jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(pace) = 'object'),
  paused_at timestamptz,
  trouble text,
  trouble_detail text,
  trouble_since timestamptz,
  failures integer NOT NULL DEFAULT 0,
  retry_at timestamptz,
  revision integer NOT NULL CHECK (revision >= 1),
  created_by uuid,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  sweeps smallint NOT NULL DEFAULT 0,
  sweep_after timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, owner_id) REFERENCES users,
  CHECK (transport <> 'smtp' OR (host IS NOT NULL AND port IS NOT NULL AND security IS NOT NULL)),
  CHECK ((trouble IS NULL) = (trouble_since IS NULL))
);
COMMENT ON COLUMN destinations.pace IS 'Caps, spacing and hours: domain.pace.Pace; paced in real time, hours in business time';
COMMENT ON COLUMN destinations.retry_at IS 'Real time before which a mailbox in trouble is not tried again';
CREATE UNIQUE INDEX destinations_name ON destinations (org_id, kind, lower(name)) WHERE deleted_at IS NULL;

ALTER TABLE executions
  ALTER COLUMN event_id DROP NOT NULL,
  ADD COLUMN revision integer NOT NULL DEFAULT 1 CHECK (revision >= 1),
  ADD COLUMN awaits text CHECK (awaits IN ('message','resume')),
  ADD COLUMN held_since timestamptz,
  ADD COLUMN message_id uuid,
  ADD COLUMN destination_id uuid,
  ADD COLUMN started_by_kind text CHECK (started_by_kind IN ('user','rule','sequence')),
  ADD COLUMN started_by_id uuid,
  ADD FOREIGN KEY (org_id, destination_id) REFERENCES destinations,
  DROP CONSTRAINT executions_kind_check,
  DROP CONSTRAINT executions_status_check,
  DROP CONSTRAINT executions_exit_reason_check,
  DROP CONSTRAINT executions_check,
  ADD CONSTRAINT executions_kind_check CHECK (kind IN ('run','enrollment')),
  ADD CONSTRAINT executions_status_check CHECK (status IN ('open','paused','stuck','ended')),
  ADD CONSTRAINT executions_exit_reason_check CHECK (exit_reason IN
    ('completed','exited','stopped','exit_met','replied','unsubscribed','complained','bounced')),
  ADD CONSTRAINT executions_check CHECK ((status = 'open') = (due_at IS NOT NULL OR awaits IS NOT NULL)),
  ADD CONSTRAINT executions_check3 CHECK (due_at IS NULL OR awaits IS NULL),
  ADD CONSTRAINT executions_check4 CHECK (CASE kind WHEN 'run' THEN event_id IS NOT NULL
    ELSE contact_id IS NOT NULL AND started_by_kind IS NOT NULL END);
COMMENT ON COLUMN executions.awaits IS 'The fact an open execution without a due time waits for; whoever records it wakes it';
COMMENT ON COLUMN executions.message_id IS 'Its last message, until the wait that counts from it is over';
COMMENT ON COLUMN executions.held_since IS 'Kept still until letters that may stop it are read; see holds';
CREATE UNIQUE INDEX executions_once ON executions (org_id, definition_id, contact_id)
  WHERE kind = 'enrollment' AND status <> 'ended';
CREATE INDEX executions_awaiting ON executions (org_id, definition_id) WHERE awaits = 'resume';
DROP INDEX executions_overdue;
CREATE INDEX executions_overdue ON executions (due_at) WHERE status = 'open' AND held_since IS NULL;
CREATE INDEX executions_enrolled ON executions (org_id, contact_id) WHERE kind = 'enrollment' AND status <> 'ended';

CREATE TABLE pauses (
  org_id uuid NOT NULL,
  id uuid NOT NULL,
  definition_id uuid,
  execution_id uuid,
  since timestamptz NOT NULL,
  until timestamptz,
  paused_by uuid,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, definition_id) REFERENCES definitions,
  FOREIGN KEY (org_id, execution_id) REFERENCES executions,
  CHECK ((definition_id IS NULL) <> (execution_id IS NULL)),
  CHECK (until >= since)
);
CREATE UNIQUE INDEX pauses_open ON pauses (org_id, definition_id) WHERE until IS NULL;
CREATE INDEX pauses_definition ON pauses (org_id, definition_id, since) WHERE definition_id IS NOT NULL;
CREATE INDEX pauses_execution ON pauses (org_id, execution_id, since) WHERE execution_id IS NOT NULL;

CREATE TABLE intents (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('message')),
  destination_id uuid NOT NULL,
  execution_id uuid NOT NULL,
  step text NOT NULL,
  visit integer NOT NULL CHECK (visit >= 1),
  contact_id uuid NOT NULL,
  address_id uuid NOT NULL,
  status text NOT NULL CHECK (status IN
    ('pending','held','claimed','accepted','uncertain','failed','cancelled','bounced','complained')),
  reason text,
  detail text CHECK (length(detail) <= 500),
  due_at timestamptz NOT NULL,
  not_before timestamptz,
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  refusals integer NOT NULL DEFAULT 0 CHECK (refusals >= 0),
  token uuid,
  deadline timestamptz,
  message_id text CHECK (length(message_id) BETWEEN 5 AND 255),
  rendered jsonb,
  accepted_at timestamptz,
  replied_at timestamptz,
  revision integer NOT NULL CHECK (revision >= 0),
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, execution_id, step, visit),
  FOREIGN KEY (org_id, destination_id) REFERENCES destinations,
  FOREIGN KEY (org_id, execution_id) REFERENCES executions,
  FOREIGN KEY (org_id, contact_id) REFERENCES contacts,
  FOREIGN KEY (org_id, address_id) REFERENCES addresses,
  CHECK (status NOT IN ('claimed','uncertain') OR token IS NOT NULL),
  CHECK ((status = 'claimed') = (deadline IS NOT NULL)),
  CHECK (status <> 'accepted' OR accepted_at IS NOT NULL)
);
COMMENT ON COLUMN intents.due_at IS 'The planned instant, in business time; not_before and deadline are real time';
CREATE INDEX intents_pending ON intents (org_id, destination_id, due_at, id) WHERE status = 'pending';
CREATE INDEX intents_overdue ON intents (due_at) WHERE status = 'pending';
CREATE INDEX intents_claimed ON intents (deadline) WHERE status = 'claimed';
CREATE UNIQUE INDEX intents_message_id ON intents (org_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX intents_contact ON intents (org_id, contact_id, id);
CREATE INDEX intents_list ON intents (org_id, status, id);
ALTER TABLE executions ADD FOREIGN KEY (org_id, message_id) REFERENCES intents;

CREATE TABLE attempts (
  org_id uuid NOT NULL,
  intent_id uuid NOT NULL,
  number integer NOT NULL CHECK (number >= 1),
  destination_id uuid NOT NULL,
  token uuid NOT NULL,
  saw jsonb NOT NULL,
  claimed_at timestamptz NOT NULL,
  claimed_real timestamptz NOT NULL,
  outcome text CHECK (outcome IN ('accepted','refused','uncertain')),
  answer text CHECK (length(answer) <= 500),
  ended_at timestamptz,
  PRIMARY KEY (org_id, intent_id, number),
  FOREIGN KEY (org_id, intent_id) REFERENCES intents,
  FOREIGN KEY (org_id, destination_id) REFERENCES destinations,
  CHECK ((outcome IS NULL) = (ended_at IS NULL))
);
CREATE INDEX attempts_pace ON attempts (org_id, destination_id, claimed_real DESC);

CREATE TABLE letters (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  source_id uuid,
  key bytea NOT NULL CHECK (length(key) = 32),
  raw bytea NOT NULL,
  recipient text CHECK (length(recipient) <= 320),
  from_email text CHECK (length(from_email) <= 320),
  subject text NOT NULL DEFAULT '' CHECK (length(subject) <= 255),
  matched_by text CHECK (matched_by IN ('token','references','sender')),
  intent_id uuid,
  contact_id uuid,
  status text NOT NULL CHECK (status IN ('received','read','unreadable','settled')),
  kind text CHECK (kind IN ('reply','auto_reply','bounce','complaint')),
  text text CHECK (length(text) <= 20000),
  detail text CHECK (length(detail) <= 500),
  received_at timestamptz NOT NULL,
  read_at timestamptz,
  settled_by uuid,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, key),
  FOREIGN KEY (org_id, source_id) REFERENCES sources,
  FOREIGN KEY (org_id, intent_id) REFERENCES intents,
  FOREIGN KEY (org_id, contact_id) REFERENCES contacts,
  FOREIGN KEY (org_id, settled_by) REFERENCES users
);
COMMENT ON TABLE letters IS 'Inbound mail: stored once, before its sender is answered';
CREATE INDEX letters_received ON letters (received_at) WHERE status = 'received';
CREATE INDEX letters_contact ON letters (org_id, contact_id, id);

CREATE TABLE holds (
  org_id uuid NOT NULL,
  letter_id uuid NOT NULL,
  execution_id uuid NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (org_id, execution_id, letter_id),
  FOREIGN KEY (org_id, letter_id) REFERENCES letters,
  FOREIGN KEY (org_id, execution_id) REFERENCES executions
);
CREATE INDEX holds_letter ON holds (org_id, letter_id);
"""

_TENANT_TABLES = ("addresses", "templates", "destinations", "pauses", "intents", "attempts", "letters", "holds")

_GRANTS = """
GRANT UPDATE (postal_address, sending_stopped_at, sending_stopped_by, sending_note) ON organizations TO drumbeat_app;
GRANT SELECT, INSERT, UPDATE ON addresses, templates, destinations, intents, letters TO drumbeat_app;
GRANT SELECT, INSERT, DELETE ON holds TO drumbeat_app;
GRANT SELECT, INSERT, UPDATE (until) ON pauses TO drumbeat_app;
GRANT SELECT, INSERT, UPDATE (outcome, answer, ended_at) ON attempts TO drumbeat_app;

CREATE POLICY relay_ids ON intents FOR SELECT TO drumbeat_relay USING (true);
CREATE POLICY relay_ids ON destinations FOR SELECT TO drumbeat_relay USING (true);
CREATE POLICY relay_ids ON letters FOR SELECT TO drumbeat_relay USING (true);
GRANT SELECT (held_since) ON executions TO drumbeat_relay;
GRANT SELECT (kind) ON executions TO drumbeat_relay;
GRANT SELECT (sending_stopped_at) ON organizations TO drumbeat_relay;
GRANT SELECT (org_id, id, destination_id, status, due_at, not_before, deadline) ON intents TO drumbeat_relay;
GRANT SELECT (org_id, id, paused_at, retry_at, deleted_at, sweep_after) ON destinations TO drumbeat_relay;
GRANT SELECT (org_id, id, status, received_at) ON letters TO drumbeat_relay;

CREATE POLICY resolve ON intents FOR SELECT TO drumbeat_owner USING (true);
CREATE FUNCTION resolve_message(wanted uuid) RETURNS uuid
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT org_id FROM public.intents WHERE id = wanted;
END;
CREATE POLICY resolve ON organizations FOR SELECT TO drumbeat_owner USING (true);
CREATE FUNCTION resolve_organization(wanted text) RETURNS uuid
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT id FROM public.organizations
  WHERE slug = wanted OR (wanted IS NULL AND (SELECT count(*) FROM public.organizations) = 1);
END;
REVOKE ALL ON FUNCTION resolve_message, resolve_organization FROM PUBLIC;
GRANT EXECUTE ON FUNCTION resolve_message, resolve_organization TO drumbeat_app;

CREATE TRIGGER hint AFTER INSERT ON letters FOR EACH STATEMENT EXECUTE FUNCTION hint('drumbeat_letters');
"""


def upgrade() -> None:
    run("SET ROLE drumbeat_owner", _CORE, _TABLES)
    for table in _TENANT_TABLES:
        run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        run(f"CREATE POLICY tenant ON {table} TO drumbeat_app USING (org_id = app_org())")
    run(_GRANTS, "RESET ROLE")


def downgrade() -> None:
    """Sequences, enrollments and mail go; what the first revision knows stays."""
    run(_BACK)


# Not as the owner, whom row-level security binds.
_BACK = """
DROP FUNCTION resolve_message, resolve_organization;
DROP POLICY resolve ON organizations;
REVOKE SELECT (kind, held_since) ON executions FROM drumbeat_relay;
REVOKE SELECT (sending_stopped_at) ON organizations FROM drumbeat_relay;
DROP POLICY relay_ids ON destinations;
ALTER TABLE executions DROP COLUMN message_id, DROP COLUMN destination_id;
DROP TABLE holds, letters, attempts, intents, pauses, destinations, templates, addresses CASCADE;
DELETE FROM wakes WHERE kind IN ('enrollment','mailbox');
DELETE FROM notifications n USING executions x
  WHERE n.execution_id = x.id AND x.kind = 'enrollment' OR n.reason IN ('reply','letter','stuck');
UPDATE reminders r SET execution_id = NULL FROM executions x WHERE r.execution_id = x.id AND x.kind = 'enrollment';
UPDATE activities a SET execution_id = NULL FROM executions x WHERE a.execution_id = x.id AND x.kind = 'enrollment';
DELETE FROM effects e USING executions x WHERE e.execution_id = x.id AND x.kind = 'enrollment';
DELETE FROM executions WHERE kind = 'enrollment';
DELETE FROM activations a USING definitions d WHERE a.definition_id = d.id AND d.kind = 'sequence';
DELETE FROM versions v USING definitions d WHERE v.definition_id = d.id AND d.kind = 'sequence';
DELETE FROM definitions WHERE kind = 'sequence';
UPDATE executions SET status = 'open', awaits = NULL, held_since = NULL, due_at = business_now()
  WHERE status = 'paused' OR awaits IS NOT NULL;
DELETE FROM outbox o USING events e
  WHERE o.event_id = e.id AND e.subject_kind IN ('enrollment','message','address');
DELETE FROM events WHERE subject_kind IN ('enrollment','message','address');
UPDATE events SET actor_kind = 'system' WHERE actor_kind IN ('sequence','recipient');
DROP FUNCTION hash_address;
ALTER TABLE organizations DROP COLUMN postal_address, DROP COLUMN address_salt, DROP COLUMN sending_stopped_at,
  DROP COLUMN sending_stopped_by, DROP COLUMN sending_note;
ALTER TABLE events DROP CONSTRAINT events_actor_kind_check,
  ADD CONSTRAINT events_actor_kind_check CHECK (actor_kind IN ('user','rule','source','system'));
ALTER TABLE wakes DROP CONSTRAINT wakes_kind_check,
  ADD CONSTRAINT wakes_kind_check CHECK (kind IN ('run','reminder'));
ALTER TABLE definitions DROP CONSTRAINT definitions_kind_check,
  ADD CONSTRAINT definitions_kind_check CHECK (kind IN ('rule'));
ALTER TABLE notifications DROP CONSTRAINT notifications_reason_check,
  ADD CONSTRAINT notifications_reason_check CHECK (reason IN ('rule','reminder','escalation'));
DROP INDEX executions_once, executions_awaiting, executions_enrolled, executions_overdue;
ALTER TABLE executions
  DROP CONSTRAINT executions_check, DROP CONSTRAINT executions_check3, DROP CONSTRAINT executions_check4,
  DROP CONSTRAINT executions_kind_check, DROP CONSTRAINT executions_status_check,
  DROP CONSTRAINT executions_exit_reason_check,
  DROP COLUMN revision, DROP COLUMN awaits, DROP COLUMN held_since, DROP COLUMN started_by_kind,
  DROP COLUMN started_by_id,
  ALTER COLUMN event_id SET NOT NULL,
  ADD CONSTRAINT executions_kind_check CHECK (kind IN ('run')),
  ADD CONSTRAINT executions_status_check CHECK (status IN ('open','stuck','ended')),
  ADD CONSTRAINT executions_exit_reason_check CHECK (exit_reason IN ('completed','exited','stopped')),
  ADD CONSTRAINT executions_check CHECK ((status = 'open') = (due_at IS NOT NULL));
CREATE INDEX executions_overdue ON executions (due_at) WHERE status = 'open';
"""
