"""All pairs of an English and a Ukrainian name that the package pycountry carries."""

import base64
import gettext
import hashlib
import json
import struct
from functools import cache
from importlib.metadata import files as installed
from importlib.metadata import version
from pathlib import Path

import pycountry

from steadydescent import verified
from steadydescent.engine.data.fashion_mnist import DataUnavailable
from steadydescent.files import DamagedFile, sha256

LANGUAGE = "uk"
INSTALL = "install the package from PyPI, whole: `pip install --force-reinstall pycountry`"
DATABASES = {  # gettext domain: the names that it translates
    "iso3166-1": pycountry.countries,
    "iso3166-2": pycountry.subdivisions,
    "iso3166-3": pycountry.historic_countries,
    "iso639-3": pycountry.languages,
    "iso639-5": pycountry.language_families,
    "iso15924": pycountry.scripts,
    "iso4217": pycountry.currencies,
}
# "Sami, Northern" is the inverted name
FIELDS = ("name", "official_name", "common_name", "inverted_name")
LONGEST = 20  # characters


@cache
def digest_of_pairs() -> str:
    """SHA-256 of all pairs."""
    return sha256(json.dumps(pairs()).encode())


@cache
def pairs() -> tuple[tuple[str, str], ...]:
    """All pairs (English, Ukrainian) of at most 20 characters a side, sorted, none twice.

    They are as they are written. A name without a translation is left out; one with two (a place
    and its language) is in two pairs. Raises DataUnavailable when the package has no Ukrainian
    catalogues, DamagedFile when its tables are not as they were installed.

    >>> ("Ukraine", "Україна") in pairs()
    True
    """
    check_tables()
    everything = set()
    for domain, records in DATABASES.items():
        translate = _catalogue(domain).gettext  # gives back what it cannot translate
        names = {getattr(record, field, None) for record in records for field in FIELDS}
        translations = {name: translate(name) for name in names if name}
        everything |= {(name, other) for name, other in translations.items() if other != name}
    short = (pair for pair in everything if all(0 < len(name) <= LONGEST for name in pair))
    return tuple(sorted(short))


def check_tables() -> None:
    """Hold the package's tables to the digests that its installation recorded, if any (pip does).

    Another byte would be another data set, with another identity: other runs, and no sign of
    damage. Raises DamagedFile, naming the table.
    """
    for file in installed("pycountry") or ():
        is_table = "databases" in file.parts or file.match(f"locales/{LANGUAGE}/LC_MESSAGES/*.mo")
        if is_table and file.hash is not None and file.hash.mode == "sha256":
            path = Path(str(file.locate()))
            digest = hashlib.sha256(verified.read(path)).digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
                raise DamagedFile(
                    f"{path} is refused: truncated or altered, it has not the SHA-256 "
                    f"that was recorded when pycountry was installed; {INSTALL}."
                )


def _catalogue(domain: str) -> gettext.NullTranslations:
    try:
        return gettext.translation(domain, pycountry.LOCALES_DIR, [LANGUAGE])
    except FileNotFoundError as error:
        raise DataUnavailable(
            f"Names: pycountry {version('pycountry')} has no Ukrainian catalogue {domain} under "
            f"{pycountry.LOCALES_DIR}; {INSTALL}."
        ) from error
    except (OSError, ValueError, struct.error) as error:
        raise DamagedFile(
            f"The catalogue {domain} under {pycountry.LOCALES_DIR} is damaged: {error}; {INSTALL}"
        ) from error
