"""Reads what the profiles of the AWS tools say of S3: keys, region and endpoint. What the environment says goes before.

Only keys that stand in the files are read. Programs that give keys, and single sign-on, are not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser, Error, SectionProxy
from pathlib import Path
from typing import Final

from asyncbackup.errors import StoreMisconfigured

_DEFAULT: Final = "default"

_HAS_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")
_HAS_REGION: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_HAS_ENDPOINT: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

_KEYS: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_ELSEWHERE: Final = ("credential_process", "sso_session", "sso_start_url", "role_arn", "source_profile")


def read_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the options of the profile that ``environment`` names, by default ``default``. Blocks.

    Raises StoreMisconfigured if a profile is named that is not there, or whose keys are elsewhere.
    """
    name = environment.get("AWS_PROFILE", "")
    home = Path(environment.get("HOME") or "/")
    credentials = _read(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials")
    config = _read(environment.get("AWS_CONFIG_FILE") or home / ".aws/config")
    profile = name or _DEFAULT
    in_config = f"profile {profile}" if profile != _DEFAULT else profile
    values = {**_section(config, in_config), **_section(credentials, profile)}
    if name and not values:
        raise StoreMisconfigured(f"the profile '{name}' that AWS_PROFILE names is in no file of the AWS tools")
    found: dict[str, str] = {}
    if not _has(environment, _HAS_KEYS):
        found = {option: values[key] for key, option in _KEYS.items() if key in values}
        if name and not found and any(key in values for key in _ELSEWHERE):
            raise StoreMisconfigured(
                f"the keys of the profile '{name}' are in no file, so that another program gives them"
            )
    if "region" in values and not _has(environment, _HAS_REGION):
        found["region"] = values["region"]
    if "endpoint_url" in values and not _has(environment, _HAS_ENDPOINT):
        found["endpoint"] = values["endpoint_url"]
    return found


def _has(environment: Mapping[str, str], names: tuple[str, ...]) -> bool:
    return any(environment.get(name) for name in names)


def _read(path: str | Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None, default_section="")
    try:
        parser.read(path)
    except (Error, UnicodeDecodeError):
        # The parser's message would show lines of the file.
        raise StoreMisconfigured(f"{path} cannot be read as a file of the AWS tools") from None
    return parser


def _section(parser: ConfigParser, name: str) -> SectionProxy | dict[str, str]:
    return parser[name] if parser.has_section(name) else {}
