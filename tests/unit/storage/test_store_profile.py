"""Profiles of the AWS tools give what the environment does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup.errors import StoreMisconfigured
from asyncbackup.storage.store_profile import read_profile

CREDENTIALS = """
[default]
aws_access_key_id = one
aws_secret_access_key = secret-of-one
[backups]
aws_access_key_id = two
aws_secret_access_key = secret-of-two
aws_session_token = token-of-two
"""

CONFIG = """
[default]
region = eu-west-1
[profile backups]
region = eu-north-1
endpoint_url = https://store.example
s3 =
    addressing_style = path
[profile elsewhere]
sso_session = office
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(CREDENTIALS)
    (folder / "config").write_text(CONFIG)
    return {"HOME": str(tmp_path)}


def test_the_default_profile_is_read_if_none_is_named(home: dict[str, str]) -> None:
    assert read_profile(home) == {
        "access_key_id": "one",
        "secret_access_key": "secret-of-one",
        "region": "eu-west-1",
    }


def test_the_named_profile_is_read(home: dict[str, str]) -> None:
    assert read_profile(home | {"AWS_PROFILE": "backups"}) == {
        "access_key_id": "two",
        "secret_access_key": "secret-of-two",
        "session_token": "token-of-two",
        "region": "eu-north-1",
        "endpoint": "https://store.example",
    }


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"])
def test_keys_of_the_environment_go_before_those_of_a_profile(home: dict[str, str], name: str) -> None:
    assert read_profile(home | {name: "given"}) == {"region": "eu-west-1"}


def test_region_and_endpoint_of_the_environment_go_before_those_of_a_profile(home: dict[str, str]) -> None:
    given = {"AWS_PROFILE": "backups", "AWS_REGION": "x", "AWS_ENDPOINT_URL": "y"}
    assert read_profile(home | given).keys() == {"access_key_id", "secret_access_key", "session_token"}


def test_the_environment_says_where_the_files_are(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("[default]\naws_access_key_id=three\naws_secret_access_key=s\n")
    found = read_profile(home | {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "other")})
    assert found["access_key_id"] == "three"


def test_no_files_say_nothing(tmp_path: Path) -> None:
    assert read_profile({"HOME": str(tmp_path)}) == {}


def test_a_profile_that_is_nowhere_is_an_error(home: dict[str, str]) -> None:
    with pytest.raises(StoreMisconfigured, match="the profile 'nobody' that AWS_PROFILE names is in no file"):
        read_profile(home | {"AWS_PROFILE": "nobody"})


def test_a_profile_whose_keys_another_program_gives_is_an_error(home: dict[str, str]) -> None:
    with pytest.raises(StoreMisconfigured, match="the keys of the profile 'elsewhere' are in no file"):
        read_profile(home | {"AWS_PROFILE": "elsewhere"})


def test_a_file_that_is_no_profile_is_an_error_that_shows_nothing_of_it(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".aws" / "credentials").write_text("aws_secret_access_key secret-of-one\n")
    with pytest.raises(StoreMisconfigured) as caught:
        read_profile(home)
    assert "secret-of-one" not in str(caught.value)
    assert caught.value.__suppress_context__
