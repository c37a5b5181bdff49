"""What comes back for a mail: the raw letters of people, answering machines and mail servers.

Each is made from the mail it answers alone, so the same mail always gets the same bytes.
"""

from email.message import EmailMessage
from email.policy import SMTP
from typing import Literal

_CRLF = "\r\n"


By = Literal["token", "references", "sender"]
"""What an answer can be known by: the address it goes to, the mail it refers to, or whom it is from alone."""


def reply(original: EmailMessage, words: str, by: By) -> bytes:
    """A person answers; mail programs differ in what they keep of the mail answered."""
    letter = _about(original, "reply", by)
    letter["Subject"] = f"Re: {original['Subject']}"
    quoted = "\n".join(f"> {line}" for line in _text(original).splitlines())
    letter.set_content(f"{words}\n\nOn {original['Date']}, {original['From']} wrote:\n{quoted}\n")
    return letter.as_bytes()


def out_of_office(original: EmailMessage, by: By) -> bytes:
    """An answering machine says that its owner is away (RFC 3834)."""
    letter = _about(original, "away", by)
    letter["Subject"] = f"Automatic reply: {original['Subject']}"
    letter["Auto-Submitted"] = "auto-replied"
    letter["X-Auto-Response-Suppress"] = "All"
    letter.set_content("Thank you for your mail. I am out of the office and will read it when I am back.\n")
    return letter.as_bytes()


def encrypted(original: EmailMessage) -> bytes:
    """A person answers by S/MIME, which nobody here has the key to."""
    letter = _about(original, "sealed", "references")
    letter["Subject"] = f"Re: {original['Subject']}"
    letter.set_content(
        b"0\x80\x06\x09*\x86H\x86\xf7\x0d\x01\x07\x03 what only its reader can read",
        maintype="application",
        subtype="pkcs7-mime",
        filename="smime.p7m",
        params={"smime-type": "enveloped-data"},
    )
    return letter.as_bytes()


def bounce(original: EmailMessage) -> bytes:
    """A mail server reports that there is no such mailbox (RFC 3464), with the headers of the mail it had."""
    address = str(original["To"])
    domain = address.partition("@")[2]
    boundary = f"=_{_key(original)}"
    headers = [f"{name}: {original[name]}" for name in ("From", "To", "Subject", "Message-ID")]
    parts = (
        ("text/plain; charset=utf-8", ["Your message could not be delivered. The address does not exist."]),
        (
            "message/delivery-status",
            [
                f"Reporting-MTA: dns; mx.{domain}",
                "",
                f"Final-Recipient: rfc822; {address}",
                "Action: failed",
                "Status: 5.1.1",
                "Diagnostic-Code: smtp; 550 5.1.1 The email account that you tried to reach does not exist",
            ],
        ),
        ("text/rfc822-headers", headers),
    )
    lines = [
        "Return-Path: <>",
        f"From: Mail Delivery Subsystem <MAILER-DAEMON@mx.{domain}>",
        f"To: {_sender(original)}",
        f"Date: {original['Date']}",
        f"Message-ID: <bounce.{_key(original)}@mx.{domain}>",
        "Subject: Delivery Status Notification (Failure)",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "",
    ]
    for kind, body in parts:
        lines += [f"--{boundary}", f"Content-Type: {kind}", "", *body, ""]
    return _CRLF.join([*lines, f"--{boundary}--", ""]).encode("utf-8", "surrogateescape")


def _about(original: EmailMessage, kind: str, by: By) -> EmailMessage:
    letter = EmailMessage(policy=SMTP)
    letter["From"] = str(original["To"])
    letter["To"] = str(original["Reply-To"]) if by == "token" else _sender(original)
    letter["Date"] = str(original["Date"])
    letter["Message-ID"] = f"<{kind}.{_key(original)}@{str(original['To']).partition('@')[2]}>"
    if by != "sender":
        letter["In-Reply-To"] = str(original["Message-ID"])
        letter["References"] = f"{original['References'] or ''} {original['Message-ID']}".strip()
    return letter


def _sender(original: EmailMessage) -> str:
    return str(original["From"].addresses[0].addr_spec)


def _key(original: EmailMessage) -> str:
    return str(original["Message-ID"]).strip("<>").partition("@")[0]


def _text(original: EmailMessage) -> str:
    part = original.get_body(("plain",))
    return str(part.get_content()) if part is not None else ""
