"""The core: records, facts, decisions, waits, queues and the clock.

Every table of an organization begins its keys with org_id, is referenced by (org_id, id) and
is under FORCE row-level security. Roles are made by `migrations.roles`, before any version.
"""

from migrations.script import run

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE clock (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  base_real timestamptz NOT NULL DEFAULT clock_timestamp(),
  base_business timestamptz NOT NULL DEFAULT clock_timestamp(),
  scale double precision NOT NULL CHECK (scale BETWEEN 1 AND 21600),
  shift interval NOT NULL DEFAULT '0' CHECK (shift >= '0'),
  test boolean NOT NULL,
  CHECK (test OR shift = '0')
);
COMMENT ON TABLE clock IS 'One row, written when the database is made: business time runs from base_business at `scale`; only a test database may shift it.';

CREATE FUNCTION business_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL RESTRICTED
  RETURN (SELECT base_business + (clock_timestamp() - base_real) * scale + shift FROM clock);

CREATE FUNCTION app_org() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  RETURN nullif(current_setting('app.org', true), '')::uuid;

CREATE TABLE organizations (
  id uuid PRIMARY KEY,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,99}$'),
  calendar jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(calendar) = 'object'),
  settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
  subscription_plan text NOT NULL DEFAULT 'free' CHECK (subscription_plan IN ('free','starter','growth','enterprise')),
  created_at timestamptz NOT NULL
);
COMMENT ON COLUMN organizations.calendar IS 'zone, workdays, holidays: domain.due.Calendar';

CREATE TABLE users (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  email text NOT NULL CHECK (email = lower(email)),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  role text NOT NULL CHECK (role IN ('admin','manager','rep','readonly')),
  manager_id uuid,
  avatar_url text,
  is_active boolean NOT NULL DEFAULT true,
  last_active_at timestamptz,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, manager_id) REFERENCES users,
  CHECK (manager_id <> id)
);
CREATE UNIQUE INDEX users_email ON users (org_id, email);

CREATE TABLE api_keys (
  org_id uuid NOT NULL,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  role text NOT NULL CHECK (role IN ('admin','manager','rep','readonly')),
  hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
  created_at timestamptz NOT NULL,
  revoked_at timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, user_id) REFERENCES users
);

CREATE TABLE companies (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  domain text CHECK (domain = lower(domain)),
  industry text,
  size text,
  location text,
  annual_revenue_cents bigint CHECK (annual_revenue_cents >= 0),
  owner_id uuid,
  external_id text,
  custom_fields jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(custom_fields) = 'object'),
  revision integer NOT NULL CHECK (revision >= 1),
  created_by uuid,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, owner_id) REFERENCES users
);
CREATE UNIQUE INDEX companies_external_id ON companies (org_id, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX companies_name ON companies (org_id, lower(name));

CREATE TABLE contacts (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  email text CHECK (email = lower(btrim(email)) AND email LIKE '_%@_%._%' AND length(email) <= 320),
  first_name text CHECK (length(first_name) <= 255),
  last_name text CHECK (length(last_name) <= 255),
  phone text CHECK (length(phone) <= 50),
  title text CHECK (length(title) <= 255),
  company_id uuid,
  owner_id uuid,
  lead_score integer NOT NULL DEFAULT 0 CHECK (lead_score BETWEEN 0 AND 100),
  lead_status text NOT NULL DEFAULT 'new' CHECK (lead_status IN ('new','contacted','qualified','unqualified')),
  lead_source text NOT NULL DEFAULT 'organic' CHECK (lead_source IN ('organic','paid','referral','partner','import')),
  tags text[] NOT NULL DEFAULT '{}' CHECK (array_position(tags, NULL) IS NULL AND cardinality(tags) <= 100),
  time_zone text,
  external_id text,
  custom_fields jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(custom_fields) = 'object'),
  metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
  is_active boolean NOT NULL DEFAULT true,
  revision integer NOT NULL CHECK (revision >= 1),
  created_by uuid,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, company_id) REFERENCES companies,
  FOREIGN KEY (org_id, owner_id) REFERENCES users
);
CREATE UNIQUE INDEX contacts_email ON contacts (org_id, lower(email)) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX contacts_external_id ON contacts (org_id, external_id) WHERE external_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX contacts_score ON contacts (org_id, lead_score DESC) WHERE is_active;
CREATE INDEX contacts_tags ON contacts USING gin (tags);
CREATE INDEX contacts_custom_fields ON contacts USING gin (custom_fields jsonb_path_ops);

CREATE TABLE pipelines (
  org_id uuid NOT NULL REFERENCES organizations,
  key text NOT NULL CHECK (key ~ '^[a-z][a-z0-9_]{0,39}$'),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  PRIMARY KEY (org_id, key)
);

CREATE TABLE stages (
  org_id uuid NOT NULL,
  pipeline text NOT NULL,
  key text NOT NULL CHECK (key ~ '^[a-z][a-z0-9_]{0,39}$'),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  position integer NOT NULL,
  probability integer NOT NULL CHECK (probability BETWEEN 0 AND 100),
  kind text NOT NULL CHECK (kind IN ('open','won','lost')),
  PRIMARY KEY (org_id, pipeline, key),
  FOREIGN KEY (org_id, pipeline) REFERENCES pipelines,
  UNIQUE (org_id, pipeline, position) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE deals (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  title text NOT NULL CHECK (length(title) BETWEEN 1 AND 255),
  value_cents bigint NOT NULL DEFAULT 0 CHECK (value_cents >= 0),
  currency text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  pipeline text NOT NULL DEFAULT 'default',
  stage text NOT NULL,
  probability integer NOT NULL CHECK (probability BETWEEN 0 AND 100),
  outcome text CHECK (outcome IN ('won','lost','abandoned')),
  lost_reason text CHECK (length(lost_reason) <= 500),
  expected_close_date date,
  actual_close_date date,
  won_at timestamptz,
  lost_at timestamptz,
  contact_id uuid,
  company_id uuid,
  owner_id uuid,
  external_id text,
  custom_fields jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(custom_fields) = 'object'),
  revision integer NOT NULL CHECK (revision >= 1),
  created_by uuid,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, pipeline, stage) REFERENCES stages,
  FOREIGN KEY (org_id, contact_id) REFERENCES contacts,
  FOREIGN KEY (org_id, company_id) REFERENCES companies,
  FOREIGN KEY (org_id, owner_id) REFERENCES users,
  CHECK ((outcome = 'won') IS NOT DISTINCT FROM (won_at IS NOT NULL) OR outcome IS NULL AND won_at IS NULL),
  CHECK ((outcome IN ('lost','abandoned')) IS NOT DISTINCT FROM (lost_at IS NOT NULL) OR outcome IS NULL AND lost_at IS NULL)
);
CREATE INDEX deals_stage ON deals (org_id, pipeline, stage) WHERE deleted_at IS NULL;
CREATE INDEX deals_close ON deals (org_id, expected_close_date) WHERE deleted_at IS NULL;
CREATE INDEX deals_contact ON deals (org_id, contact_id);
CREATE INDEX deals_custom_fields ON deals USING gin (custom_fields jsonb_path_ops);
CREATE UNIQUE INDEX deals_external_id ON deals (org_id, external_id) WHERE external_id IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE activities (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  type text NOT NULL CHECK (type IN ('email','call','meeting','note','task')),
  subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
  body text NOT NULL DEFAULT '' CHECK (length(body) <= 20000),
  direction text CHECK (direction IN ('inbound','outbound')),
  duration_seconds integer CHECK (duration_seconds >= 0),
  occurred_at timestamptz NOT NULL,
  due_at timestamptz,
  priority text NOT NULL DEFAULT 'normal' CHECK (priority IN ('low','normal','high')),
  assignee_id uuid,
  completed_at timestamptz,
  completed_by uuid,
  contact_id uuid,
  company_id uuid,
  deal_id uuid,
  execution_id uuid,
  custom_fields jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(custom_fields) = 'object'),
  metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
  search tsvector GENERATED ALWAYS AS (to_tsvector('simple', subject || ' ' || body)) STORED,
  revision integer NOT NULL CHECK (revision >= 1),
  created_by uuid,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, assignee_id) REFERENCES users,
  FOREIGN KEY (org_id, contact_id) REFERENCES contacts,
  FOREIGN KEY (org_id, company_id) REFERENCES companies,
  FOREIGN KEY (org_id, deal_id) REFERENCES deals,
  CHECK (type = 'task' OR (due_at IS NULL AND completed_at IS NULL AND assignee_id IS NULL))
);
CREATE INDEX activities_timeline ON activities (org_id, contact_id, occurred_at DESC, id DESC);
CREATE INDEX activities_deal ON activities (org_id, deal_id, occurred_at DESC, id DESC);
CREATE INDEX activities_type ON activities (org_id, type, occurred_at DESC);
CREATE INDEX activities_open_tasks ON activities (org_id, assignee_id, due_at) WHERE type = 'task' AND completed_at IS NULL;
CREATE INDEX activities_search ON activities USING gin (search);
CREATE INDEX activities_custom_fields ON activities USING gin (custom_fields jsonb_path_ops);

CREATE TABLE events (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  type text NOT NULL,
  subject_kind text NOT NULL,
  subject_id uuid NOT NULL,
  number integer NOT NULL CHECK (number >= 1),
  at timestamptz NOT NULL,
  before jsonb NOT NULL,
  after jsonb NOT NULL,
  actor_kind text NOT NULL CHECK (actor_kind IN ('user','rule','source','system')),
  actor_id uuid,
  chain uuid[] NOT NULL DEFAULT '{}' CHECK (cardinality(chain) <= 20),
  execution_id uuid,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, subject_kind, subject_id, number)
);

CREATE TABLE outbox (
  org_id uuid NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  event_id uuid NOT NULL,
  attempts smallint NOT NULL DEFAULT 0,
  error text,
  failed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, event_id) REFERENCES events
);

CREATE TABLE wakes (
  org_id uuid NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  kind text NOT NULL CHECK (kind IN ('run','reminder')),
  target_id uuid NOT NULL,
  error text,
  failed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (org_id, id)
);

CREATE TABLE definitions (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('rule')),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  status text NOT NULL CHECK (status IN ('draft','active','paused','archived')),
  revision integer NOT NULL CHECK (revision >= 1),
  created_by uuid,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX definitions_name ON definitions (org_id, kind, lower(name)) WHERE status <> 'archived';

CREATE TABLE versions (
  org_id uuid NOT NULL,
  id uuid NOT NULL,
  definition_id uuid NOT NULL,
  number integer NOT NULL CHECK (number >= 1),
  document jsonb NOT NULL,
  created_by uuid,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, definition_id, number),
  UNIQUE (org_id, definition_id, id),
  FOREIGN KEY (org_id, definition_id) REFERENCES definitions
);

CREATE TABLE activations (
  org_id uuid NOT NULL,
  id uuid NOT NULL,
  definition_id uuid NOT NULL,
  version_id uuid NOT NULL,
  since timestamptz NOT NULL,
  until timestamptz,
  activated_by uuid,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, definition_id, version_id) REFERENCES versions (org_id, definition_id, id),
  CHECK (until >= since)
);
CREATE UNIQUE INDEX activations_one_open ON activations (org_id, definition_id) WHERE until IS NULL;

CREATE TABLE executions (
  org_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('run')),
  definition_id uuid NOT NULL,
  version_id uuid NOT NULL,
  event_id uuid NOT NULL,
  contact_id uuid,
  company_id uuid,
  deal_id uuid,
  status text NOT NULL CHECK (status IN ('open','stuck','ended')),
  exit_reason text CHECK (exit_reason IN ('completed','exited','stopped')),
  exit_note text CHECK (length(exit_note) <= 500),
  step text,
  anchor timestamptz NOT NULL,
  due_at timestamptz,
  waits jsonb,
  saw jsonb,
  chain uuid[] NOT NULL DEFAULT '{}',
  steps_taken integer NOT NULL DEFAULT 0,
  stuck_reason text,
  stuck_detail text,
  stuck_owner_id uuid,
  started_at timestamptz NOT NULL,
  ended_at timestamptz,
  sweeps smallint NOT NULL DEFAULT 0,
  sweep_after timestamptz,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, definition_id, event_id),
  FOREIGN KEY (org_id, definition_id, version_id) REFERENCES versions (org_id, definition_id, id),
  FOREIGN KEY (org_id, event_id) REFERENCES events,
  FOREIGN KEY (org_id, contact_id) REFERENCES contacts,
  FOREIGN KEY (org_id, company_id) REFERENCES companies,
  FOREIGN KEY (org_id, deal_id) REFERENCES deals,
  FOREIGN KEY (org_id, stuck_owner_id) REFERENCES users,
  CHECK ((status = 'open') = (due_at IS NOT NULL)),
  CHECK ((status = 'stuck') = (stuck_reason IS NOT NULL)),
  CHECK ((status = 'ended') = (exit_reason IS NOT NULL) AND (status = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX executions_overdue ON executions (due_at) WHERE status = 'open';
CREATE INDEX executions_list ON executions (org_id, definition_id, status, id);
CREATE INDEX executions_deal ON executions (org_id, deal_id);
CREATE INDEX executions_contact ON executions (org_id, contact_id);

CREATE TABLE effects (
  org_id uuid NOT NULL,
  execution_id uuid NOT NULL,
  step text NOT NULL,
  visit integer NOT NULL CHECK (visit >= 1),
  number integer NOT NULL CHECK (number >= 1),
  action text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('done','waited','then','else','exited')),
  saw jsonb NOT NULL,
  made_kind text,
  made_id uuid,
  at timestamptz NOT NULL,
  PRIMARY KEY (org_id, execution_id, step, visit),
  UNIQUE (org_id, execution_id, number),
  FOREIGN KEY (org_id, execution_id) REFERENCES executions,
  CHECK ((made_kind IS NULL) = (made_id IS NULL))
);

CREATE TABLE refusals (
  org_id uuid NOT NULL,
  id uuid NOT NULL,
  definition_id uuid NOT NULL,
  version_id uuid NOT NULL,
  event_id uuid NOT NULL,
  reason text NOT NULL CHECK (reason IN ('conditions_not_met','own_consequence','chain_too_deep','not_active_then')),
  saw jsonb,
  at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, definition_id, event_id),
  FOREIGN KEY (org_id, definition_id, version_id) REFERENCES versions (org_id, definition_id, id),
  FOREIGN KEY (org_id, event_id) REFERENCES events
);

ALTER TABLE activities ADD FOREIGN KEY (org_id, execution_id) REFERENCES executions;
ALTER TABLE activities ADD FOREIGN KEY (org_id, completed_by) REFERENCES users;
CREATE INDEX activities_execution ON activities (org_id, execution_id) WHERE execution_id IS NOT NULL;

CREATE TABLE reminders (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  owner_id uuid NOT NULL,
  title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
  contact_id uuid,
  company_id uuid,
  deal_id uuid,
  activity_id uuid,
  execution_id uuid,
  status text NOT NULL CHECK (status IN ('scheduled','fired','escalated','done','cancelled')),
  due_at timestamptz,
  escalate_after jsonb,
  fired_at timestamptz,
  escalated_at timestamptz,
  closed_at timestamptz,
  snoozes integer NOT NULL DEFAULT 0,
  created_by uuid,
  created_at timestamptz NOT NULL,
  sweeps smallint NOT NULL DEFAULT 0,
  sweep_after timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, owner_id) REFERENCES users,
  FOREIGN KEY (org_id, contact_id) REFERENCES contacts,
  FOREIGN KEY (org_id, company_id) REFERENCES companies,
  FOREIGN KEY (org_id, deal_id) REFERENCES deals,
  FOREIGN KEY (org_id, activity_id) REFERENCES activities,
  FOREIGN KEY (org_id, execution_id) REFERENCES executions,
  CHECK (status <> 'scheduled' OR due_at IS NOT NULL),
  CHECK (status NOT IN ('escalated','done','cancelled') OR due_at IS NULL)
);
COMMENT ON COLUMN reminders.due_at IS 'When the reminder next acts by itself: fires while scheduled, escalates while fired; null when it will not';
CREATE INDEX reminders_overdue ON reminders (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX reminders_owner ON reminders (org_id, owner_id, status, due_at);
CREATE INDEX reminders_deal ON reminders (org_id, deal_id) WHERE due_at IS NOT NULL;
CREATE INDEX reminders_activity ON reminders (org_id, activity_id) WHERE due_at IS NOT NULL;

CREATE TABLE notifications (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  reason text NOT NULL CHECK (reason IN ('rule','reminder','escalation')),
  title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
  contact_id uuid,
  company_id uuid,
  deal_id uuid,
  activity_id uuid,
  reminder_id uuid,
  occurrence integer,
  execution_id uuid,
  created_at timestamptz NOT NULL,
  read_at timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, user_id) REFERENCES users,
  FOREIGN KEY (org_id, contact_id) REFERENCES contacts,
  FOREIGN KEY (org_id, company_id) REFERENCES companies,
  FOREIGN KEY (org_id, deal_id) REFERENCES deals,
  FOREIGN KEY (org_id, activity_id) REFERENCES activities,
  FOREIGN KEY (org_id, reminder_id) REFERENCES reminders,
  FOREIGN KEY (org_id, execution_id) REFERENCES executions,
  CHECK ((reminder_id IS NULL) = (occurrence IS NULL))
);
CREATE INDEX notifications_user ON notifications (org_id, user_id, id DESC);
CREATE UNIQUE INDEX notifications_once ON notifications (org_id, reminder_id, reason, occurrence) WHERE reminder_id IS NOT NULL;

CREATE TABLE sources (
  org_id uuid NOT NULL REFERENCES organizations,
  id uuid NOT NULL UNIQUE,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  sealed_secret bytea NOT NULL,
  created_by uuid,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz,
  PRIMARY KEY (org_id, id)
);

CREATE TABLE inbox (
  org_id uuid NOT NULL,
  source_id uuid NOT NULL,
  message_id text NOT NULL CHECK (length(message_id) BETWEEN 1 AND 255),
  body bytea NOT NULL,
  status integer NOT NULL,
  answer jsonb NOT NULL,
  received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (org_id, source_id, message_id),
  FOREIGN KEY (org_id, source_id) REFERENCES sources
);
CREATE INDEX inbox_age ON inbox (org_id, received_at);

CREATE TABLE idempotency_keys (
  org_id uuid NOT NULL REFERENCES organizations,
  caller uuid NOT NULL,
  route text NOT NULL,
  key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  body_hash bytea NOT NULL,
  status integer,
  answer jsonb,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (org_id, caller, route, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (org_id, created_at);
"""

_TENANT_TABLES = (
    "users", "api_keys", "companies", "contacts", "pipelines", "stages", "deals", "activities",
    "events", "outbox", "wakes", "definitions", "versions", "activations", "executions", "effects",
    "refusals", "reminders", "notifications", "sources", "inbox", "idempotency_keys",
)  # fmt: skip

_APP_GRANTS = """
GRANT USAGE ON SCHEMA public TO drumbeat_app, drumbeat_relay;
GRANT SELECT ON clock TO drumbeat_app, drumbeat_relay;
GRANT SELECT, INSERT, UPDATE (calendar, settings, name) ON organizations TO drumbeat_app;
GRANT SELECT, INSERT ON users, api_keys, companies, contacts, pipelines, stages, deals, activities,
  events, outbox, wakes, definitions, versions, activations, executions, effects, refusals,
  reminders, notifications, sources, inbox, idempotency_keys TO drumbeat_app;
GRANT UPDATE ON users, api_keys, companies, contacts, pipelines, stages, deals, activities, outbox,
  wakes, definitions, executions, reminders, notifications, sources, idempotency_keys TO drumbeat_app;
GRANT UPDATE (until) ON activations TO drumbeat_app;
GRANT UPDATE (status, answer) ON inbox TO drumbeat_app;
GRANT DELETE ON outbox, wakes, inbox, idempotency_keys, stages, pipelines TO drumbeat_app;
"""

# What crosses organizations: ids for the relay, and what must be known before the organization is.
_CROSSINGS = """
CREATE POLICY relay_ids ON organizations FOR SELECT TO drumbeat_relay USING (true);
CREATE POLICY relay_ids ON outbox FOR SELECT TO drumbeat_relay USING (true);
CREATE POLICY relay_ids ON wakes FOR SELECT TO drumbeat_relay USING (true);
CREATE POLICY relay_ids ON executions FOR SELECT TO drumbeat_relay USING (true);
CREATE POLICY relay_ids ON reminders FOR SELECT TO drumbeat_relay USING (true);
GRANT SELECT (id) ON organizations TO drumbeat_relay;
GRANT SELECT (org_id, id, failed_at, created_at) ON outbox TO drumbeat_relay;
GRANT SELECT (org_id, id, kind, target_id, failed_at, created_at) ON wakes TO drumbeat_relay;
GRANT SELECT (org_id, id, status, due_at, sweep_after) ON executions TO drumbeat_relay;
GRANT SELECT (org_id, id, status, due_at, sweep_after) ON reminders TO drumbeat_relay;

CREATE POLICY resolve ON api_keys FOR SELECT TO drumbeat_owner USING (true);
CREATE POLICY resolve ON users FOR SELECT TO drumbeat_owner USING (true);
CREATE POLICY resolve ON sources FOR SELECT TO drumbeat_owner USING (true);

CREATE FUNCTION resolve_api_key(wanted bytea)
  RETURNS TABLE (org_id uuid, key_id uuid, user_id uuid, role text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  -- The lesser of the key's role and the user's, so that who is demoted takes the keys along.
  SELECT k.org_id, k.id, k.user_id,
    (ARRAY['readonly', 'rep', 'manager', 'admin'])[least(
      array_position(ARRAY['readonly', 'rep', 'manager', 'admin'], k.role),
      array_position(ARRAY['readonly', 'rep', 'manager', 'admin'], u.role))]
  FROM public.api_keys k
  JOIN public.users u ON u.org_id = k.org_id AND u.id = k.user_id
  WHERE k.hash = wanted AND k.revoked_at IS NULL AND u.is_active;
END;

CREATE FUNCTION resolve_source(wanted uuid)
  RETURNS TABLE (org_id uuid, sealed_secret bytea, at timestamptz)
  LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT s.org_id, s.sealed_secret, clock_timestamp() FROM public.sources s
  WHERE s.id = wanted AND s.revoked_at IS NULL;
END;
REVOKE ALL ON FUNCTION resolve_api_key, resolve_source FROM PUBLIC;
GRANT EXECUTE ON FUNCTION resolve_api_key, resolve_source TO drumbeat_app;

CREATE FUNCTION advance_clock(by interval) RETURNS timestamptz
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE public.clock SET shift = shift + by WHERE test AND by >= interval '0';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'only the clock of a test database moves, and only forward';
  END IF;
  RETURN public.business_now();
END $$;
REVOKE ALL ON FUNCTION advance_clock FROM PUBLIC;
GRANT EXECUTE ON FUNCTION advance_clock TO drumbeat_app;
"""

# A hint that saves the poll's wait; one per transaction, since equal notices are folded.
_HINTS = """
CREATE FUNCTION hint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify(TG_ARGV[0], '');
  RETURN NULL;
END $$;
CREATE TRIGGER hint AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION hint('drumbeat_outbox');
CREATE TRIGGER hint AFTER INSERT ON wakes FOR EACH STATEMENT EXECUTE FUNCTION hint('drumbeat_wakes');
"""


def upgrade() -> None:
    run("SET ROLE drumbeat_owner", _TABLES)
    run("ALTER TABLE organizations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    run("CREATE POLICY tenant ON organizations TO drumbeat_app USING (id = app_org())")
    for table in _TENANT_TABLES:
        run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        run(f"CREATE POLICY tenant ON {table} TO drumbeat_app USING (org_id = app_org())")
    run(_APP_GRANTS, _CROSSINGS, _HINTS, "RESET ROLE")


def downgrade() -> None:
    run("DROP FUNCTION resolve_api_key, resolve_source, advance_clock")
    for table in (*reversed(_TENANT_TABLES), "organizations"):
        run(f"DROP TABLE {table} CASCADE")
    run("DROP FUNCTION hint, app_org, business_now CASCADE", "DROP TABLE clock")
