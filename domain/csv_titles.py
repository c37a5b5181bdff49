"""What the titles of columns mean in the exports of other systems, HubSpot's first.

A field lists its titles best first and takes one column. No two fields of a table share a
title, so a column serves one field at most; the rest are for the caller to report.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

Titles = Mapping[str, tuple[str, ...]]

_COMPANY: Final = (
    "Company Name",
    "Associated Company (Primary)",
    "Primary Associated Company",
    "Associated Company",
    "Company",
    "Account Name",
    "Account",
    "Organization",
    "Organisation",
    "Organization - Name",
    "Nombre de la empresa",
)

CONTACT_TITLES: Final[Titles] = {
    "email": (
        "Email",
        "Email Address",
        "E-mail Address",
        "Mail",
        "Person - Email",
        "Work Email",
        "Email - Work",
        "Person - Email - Work",
        "Correo",
        "Correo electrónico",
    ),
    "external_id": (
        "Record ID",
        "Contact ID",
        "Record ID - Contact",
        "hs_object_id",
        "External ID",
        "Person - ID",
        "ID",
        "ID de registro",
    ),
    "first_name": ("First Name", "Given Name", "Forename", "Person - First name", "Nombre"),
    "last_name": (
        "Last Name",
        "Surname",
        "Family Name",
        "Person - Last name",
        "Apellidos",
        "Apellido",
    ),
    "full_name": ("Full Name", "Name", "Contact Name", "Person - Name"),
    "phone": (
        "Phone Number",
        "Phone",
        "Telephone",
        "Business Phone",
        "Person - Phone",
        "Mobile Phone Number",
        "Mobile Phone",
        "Mobile",
        "Número de teléfono",
        "Teléfono",
    ),
    "job_title": ("Job Title", "Title", "Position", "Role", "Person - Job title", "Cargo"),
    "company_name": (*_COMPANY, "Person - Organization"),
    "owner_name": (
        "Contact owner",
        "Owner",
        "Owner Name",
        "Lead Owner",
        "Person - Owner",
        "Propietario del contacto",
    ),
    "lead_status": ("Lead Status", "hs_lead_status", "Status", "Estado del lead"),
    "lead_source": (
        "Original Traffic Source",
        "Original Source",
        "hs_analytics_source",
        "Lead Source",
        "Source",
    ),
    "city": ("City", "Mailing City", "Town", "Ciudad"),
    "country": ("Country/Region", "Country", "Mailing Country", "País"),
}

DEAL_TITLES: Final[Titles] = {
    "name": (
        "Deal Name",
        "dealname",
        "Opportunity Name",
        "Deal - Title",
        "Deal",
        "Name",
        "Title",
    ),
    "external_id": (
        "Record ID",
        "Deal ID",
        "Record ID - Deal",
        "hs_object_id",
        "Opportunity ID",
        "External ID",
        "Deal - ID",
        "ID",
    ),
    "amount": ("Amount", "Deal Amount", "Value", "Deal Value", "Deal - Value"),
    "currency": ("Currency", "Deal Currency", "deal_currency_code", "Deal - Currency"),
    "pipeline_label": ("Pipeline", "Deal - Pipeline"),
    "stage_label": ("Deal Stage", "dealstage", "Stage", "Stage Name", "Deal - Stage"),
    "contact_email": (
        "Contact Email",
        "Associated Contact Email",
        "Primary Contact Email",
        "Person - Email",
        "Email",
        "Email Address",
    ),
    "contact_external_ids": (
        "Associated Contact IDs",
        "Associated Contact ID",
        "Contact IDs",
        "Contact ID",
    ),
    "company_name": (*_COMPANY, "Deal - Organization"),
    "owner_name": ("Deal owner", "Owner", "Owner Name", "Opportunity Owner", "Deal - Owner"),
    "close_date": (
        "Close Date",
        "Closing Date",
        "Expected Close Date",
        "Deal - Expected close date",
    ),
}


def fold(title: str) -> str:
    """Return what two spellings of one title share: `* E-Mail_Address` is `emailaddress`."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", title).casefold())


def columns_of(header: Sequence[str], titles: Titles) -> dict[str, int]:
    """Return which column serves each field that has one; of equal titles the first column."""
    positions: dict[str, int] = {}
    for position, title in enumerate(header):
        positions.setdefault(fold(title), position)
    columns: dict[str, int] = {}
    for field, names in titles.items():
        present = (key for key in map(fold, names) if key in positions)
        if best := next(present, None):
            columns[field] = positions[best]
    return columns
