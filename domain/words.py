"""The closed vocabularies of the product; the database holds the same sets as CHECKs.

docs/glossary.md says what each word means. Values are what API, rows and logs carry.
"""

from enum import StrEnum


class Role(StrEnum):
    """What a user or an API key may do; the matrix is `api.auth.PERMISSIONS`."""

    ADMIN = "admin"
    MANAGER = "manager"
    REP = "rep"
    READONLY = "readonly"


class LeadStatus(StrEnum):
    NEW = "new"
    CONTACTED = "contacted"
    QUALIFIED = "qualified"
    UNQUALIFIED = "unqualified"


class LeadSource(StrEnum):
    ORGANIC = "organic"
    PAID = "paid"
    REFERRAL = "referral"
    PARTNER = "partner"
    IMPORT = "import"


class StageKind(StrEnum):
    """A stage's kind decides a deal's outcome; nothing else does."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


class ActivityType(StrEnum):
    EMAIL = "email"
    CALL = "call"
    MEETING = "meeting"
    NOTE = "note"
    TASK = "task"


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Priority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Kind(StrEnum):
    """What an event may be about, and what a reminder or notification may point at."""

    CONTACT = "contact"
    COMPANY = "company"
    DEAL = "deal"
    ACTIVITY = "activity"
    RULE = "rule"
    RUN = "run"
    SEQUENCE = "sequence"
    ENROLLMENT = "enrollment"
    MESSAGE = "message"
    ADDRESS = "address"
    REMINDER = "reminder"
    NOTIFICATION = "notification"


class EventType(StrEnum):
    """Every fact the product records, past tense, `<kind>.<what happened>`."""

    CONTACT_CREATED = "contact.created"
    CONTACT_UPDATED = "contact.updated"
    CONTACT_DELETED = "contact.deleted"
    COMPANY_CREATED = "company.created"
    COMPANY_UPDATED = "company.updated"
    DEAL_CREATED = "deal.created"
    DEAL_UPDATED = "deal.updated"
    DEAL_STAGE_CHANGED = "deal.stage_changed"
    ACTIVITY_LOGGED = "activity.logged"
    ACTIVITY_UPDATED = "activity.updated"
    TASK_CREATED = "task.created"
    TASK_COMPLETED = "task.completed"
    ENROLLMENT_STARTED = "enrollment.started"
    ENROLLMENT_PAUSED = "enrollment.paused"
    ENROLLMENT_RESUMED = "enrollment.resumed"
    ENROLLMENT_ENDED = "enrollment.ended"
    MESSAGE_ACCEPTED = "message.accepted"
    MESSAGE_UNCERTAIN = "message.uncertain"
    MESSAGE_FAILED = "message.failed"
    MESSAGE_BOUNCED = "message.bounced"
    MESSAGE_COMPLAINED = "message.complained"
    MESSAGE_REPLIED = "message.replied"
    ADDRESS_SUPPRESSED = "address.suppressed"
    ADDRESS_RELEASED = "address.released"


class DefinitionStatus(StrEnum):
    """Draft starts nothing. A paused rule starts nothing new; a paused sequence keeps those inside still, too."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    ARCHIVED = "archived"


class ExecutionStatus(StrEnum):
    OPEN = "open"
    PAUSED = "paused"
    STUCK = "stuck"
    ENDED = "ended"


class ExitReason(StrEnum):
    """How an execution ended."""

    COMPLETED = "completed"
    EXITED = "exited"
    STOPPED = "stopped"
    EXIT_MET = "exit_met"
    REPLIED = "replied"
    UNSUBSCRIBED = "unsubscribed"
    COMPLAINED = "complained"
    BOUNCED = "bounced"
    CONTACT_DELETED = "contact_deleted"


class Awaits(StrEnum):
    """The fact that an open execution without a due time waits for; whoever records it wakes it."""

    MESSAGE = "message"
    RESUME = "resume"


class NotEnrolled(StrEnum):
    """Why a contact was not enrolled in a sequence."""

    CONTACT_MISSING = "contact_missing"
    EMAIL_MISSING = "email_missing"
    ADDRESS_SUPPRESSED = "address_suppressed"
    ALREADY_ENROLLED = "already_enrolled"
    ENROLLED_BEFORE = "enrolled_before"
    MAILBOX_MISSING = "mailbox_missing"
    SEQUENCE_NOT_ACTIVE = "sequence_not_active"


class Refusal(StrEnum):
    """Why a rule that listens to an event's kind did not start a run for it."""

    CONDITIONS_NOT_MET = "conditions_not_met"
    OWN_CONSEQUENCE = "own_consequence"
    CHAIN_TOO_DEEP = "chain_too_deep"
    NOT_ACTIVE_THEN = "not_active_then"


class StepOutcome(StrEnum):
    """What became of one visit to one step, kept on its effect row."""

    DONE = "done"
    WAITED = "waited"
    THEN = "then"
    ELSE = "else"
    EXITED = "exited"


class StuckReason(StrEnum):
    """Why an execution needs a person; each is answered by mending the cause and `retry`."""

    RECORD_MISSING = "record_missing"
    NOBODY_TO_ASSIGN = "nobody_to_assign"
    VALUE_REFUSED = "value_refused"
    STAGE_UNKNOWN = "stage_unknown"
    DOCUMENT_UNREADABLE = "document_unreadable"
    EMAIL_MISSING = "email_missing"
    TEMPLATE_MISSING = "template_missing"
    TEMPLATE_BROKEN = "template_broken"
    FIELD_MISSING = "field_missing"
    MAILBOX_MISSING = "mailbox_missing"
    SEQUENCE_MISSING = "sequence_missing"
    MESSAGE_REFUSED = "message_refused"
    MESSAGE_UNCERTAIN = "message_uncertain"
    UNEXPECTED_ERROR = "unexpected_error"


class MessageStatus(StrEnum):
    """How far a message is; `domain.delivery` says what leads from one to another."""

    PENDING = "pending"
    HELD = "held"
    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


class Suppression(StrEnum):
    """Why nothing more is sent to an address."""

    UNSUBSCRIBED = "unsubscribed"
    COMPLAINED = "complained"
    BOUNCED = "bounced"
    MANUAL = "manual"


class LetterStatus(StrEnum):
    """`received` is still to be read; `unreadable` asks a person, whose answer makes it `settled`."""

    RECEIVED = "received"
    READ = "read"
    UNREADABLE = "unreadable"
    SETTLED = "settled"


class ReminderStatus(StrEnum):
    """`fired` waits for its owner until it is done or, if it escalates, escalated."""

    SCHEDULED = "scheduled"
    FIRED = "fired"
    ESCALATED = "escalated"
    DONE = "done"
    CANCELLED = "cancelled"


class Target(StrEnum):
    """What a wake points at; the prefix of its workflow's id."""

    RUN = "run"
    ENROLLMENT = "enrollment"
    REMINDER = "reminder"
    MAILBOX = "mailbox"
