"""``./dev`` sets up its environment on whatever machine it finds; the Pythons here are scripts that take notes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("cat", "cmp", "cp", "dirname", "mkdir", "mv", "rm", "sh")
VENV = "-m venv --clear .venv"

PYTHON = """#!/bin/sh
case "$2" in
*version_info*) exit {too_old} ;;
*ensurepip*) exit {no_venv} ;;
esac
echo "{name} $*" >> "$NOTES"
case "$*" in
"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
"-m pip"*) {pip} ;;
*) echo "in $PWD with $PYTHONPATH" >> "$NOTES" ;;
esac
"""


@dataclass
class Machine:
    """A project folder with ``./dev`` and its locks, a PATH of few tools, and notes of what ran."""

    folder: Path
    path: Path
    notes: Path

    def python(self, name: str, *, too_old: bool = False, no_venv: bool = False, pip: str = "exit 0") -> Path:
        return self._script(name, PYTHON.format(name=name, too_old=int(too_old), no_venv=int(no_venv), pip=pip))

    def shim(self, name: str) -> None:
        """Put something on PATH that says that there is no such version."""
        self._script(name, "#!/bin/sh\necho no such version >&2; exit 127\n")

    def _script(self, name: str, content: str) -> Path:
        path = self.path / name
        path.write_text(content)
        path.chmod(0o755)
        return path

    def dev(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        self.notes.write_text("")
        return subprocess.run(
            [self.folder / "dev", *arguments],
            cwd=cwd or self.folder,
            env={"PATH": str(self.path), "NOTES": str(self.notes), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def steps(self) -> list[str]:
        return self.notes.read_text().splitlines()

    @property
    def installed(self) -> list[str]:
        """Name the locks that were installed."""
        return [step.split()[-1] for step in self.steps if " -m pip install " in step]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "a folder", tmp_path / "path", tmp_path / "notes")
    made.folder.mkdir()
    made.path.mkdir()
    shutil.copy(ROOT / "dev", made.folder)
    for lock in ROOT.glob("requirements*.lock"):
        shutil.copy(lock, made.folder)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (made.path / tool).symlink_to(found)
    return made


def test_the_newest_python_that_works_is_taken(machine: Machine) -> None:
    machine.shim("python3.14")
    machine.python("python3.13", no_venv=True)
    machine.python("python3.12")
    machine.python("python3.11")

    done = machine.dev("demo")

    assert done.returncode == 0, done.stderr
    assert machine.steps[0] == f"python3.12 {VENV}"


def test_a_plain_python3_is_taken_where_there_is_no_other(machine: Machine) -> None:
    machine.python("python3")

    assert machine.dev("demo").returncode == 0
    assert machine.steps[0] == f"python3 {VENV}"


def test_a_python_can_be_named(machine: Machine, tmp_path: Path) -> None:
    machine.python("python3.12")
    named = machine.python("mine").rename(tmp_path / "a python")

    assert machine.dev("demo", PYTHON=str(named)).returncode == 0
    assert machine.steps[0] == f"mine {VENV}"


def test_without_a_python_it_says_what_to_install(machine: Machine) -> None:
    machine.python("python3", too_old=True)

    done = machine.dev("demo")

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"\./dev: found no Python from 3\.11 on: install one .*apt install.*\n", done.stderr)
    assert not (machine.folder / ".venv").exists()


def test_a_python_that_was_named_wrongly_is_named(machine: Machine) -> None:
    machine.python("python3.12")

    done = machine.dev("demo", PYTHON="/no/such/python")

    assert done.returncode == 2
    assert "at /no/such/python" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_venv_it_says_what_to_install(machine: Machine) -> None:
    machine.python("python3.11", no_venv=True)

    done = machine.dev("test")

    assert done.returncode == 2
    assert done.stderr == (
        "./dev: python3.11 has no venv module: install it (on Debian: apt install python3-venv) and try again\n"
    )


def test_the_demo_installs_only_what_the_program_needs(machine: Machine) -> None:
    machine.python("python3.12")

    machine.dev("demo")
    assert machine.installed == ["requirements.lock"]
    machine.dev("demo")
    assert machine.installed == []
    machine.dev("test")
    assert machine.installed == ["requirements-dev.lock"]
    machine.dev("demo")
    assert machine.installed == []


def test_a_lock_is_installed_as_it_is(machine: Machine) -> None:
    """An old pip takes what a newer release of a dependency wants for unpinned, unless it looks for none."""
    machine.python("python3.12")

    machine.dev("test")

    (step,) = (step for step in machine.steps if " -m pip install " in step)
    assert "--no-deps" in step
    assert "--require-hashes" in step


def test_a_changed_lock_is_installed_anew(machine: Machine) -> None:
    machine.python("python3.12")
    machine.dev("test")

    with (machine.folder / "requirements-dev.lock").open("a") as lock:
        lock.write("# changed\n")
    machine.dev("test")

    assert machine.installed == ["requirements-dev.lock"]


def test_a_failed_installation_shows_its_error_and_is_begun_anew(machine: Machine) -> None:
    machine.python("python3.12", pip="echo no route >&2; exit 1")

    done = machine.dev("test")
    assert done.returncode == 1
    assert done.stderr.endswith("no route\n")
    assert not any("pytest" in step for step in machine.steps)

    machine.python("python3.12")
    done = machine.dev("test", "-x")
    assert done.returncode == 0
    assert machine.steps[0] == f"python3.12 {VENV}"
    assert "python3.12 -m pytest -x" in machine.steps


def test_an_installation_that_was_killed_is_begun_anew(machine: Machine) -> None:
    machine.python("python3.12")
    machine.dev("demo")
    machine.python("python3.12", pip="kill -9 $PPID")
    assert machine.dev("test").returncode == -signal.SIGKILL

    # Also where an earlier lock was complete: what was put over it in part is neither.
    machine.python("python3.12")
    machine.dev("demo")

    assert machine.steps[0] == f"python3.12 {VENV}"
    assert machine.installed == ["requirements.lock"]


def test_an_environment_whose_python_is_gone_is_made_anew(machine: Machine) -> None:
    machine.python("python3.12")
    machine.dev("demo")
    (machine.folder / ".venv/bin/python").unlink()

    machine.dev("demo")

    assert machine.steps[0] == f"python3.12 {VENV}"


def test_the_demo_runs_where_it_was_called(machine: Machine, tmp_path: Path) -> None:
    machine.python("python3.12")

    done = machine.dev("demo", "shown", cwd=tmp_path, CDPATH="/")

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert machine.steps[-2:] == ["python3.12 -m asyncbackup demo shown", f"in {tmp_path} with {machine.folder}"]


@pytest.mark.parametrize(
    ("arguments", "run"),
    [
        (["test", "-k", "a or b"], "-m pytest -k a or b"),
        (["test"], "-m pytest -n auto --dist worksteal"),
        (
            ["test", "--fast", "-x", "tests/unit"],
            "-m pytest -n auto --dist worksteal --one-loop -m not slow and not real -x tests/unit",
        ),
        (["fuzz", "9"], "-m tests.fuzz 9"),
        (["bench"], "-m benchmarks"),
    ],
)
def test_the_others_run_in_the_project(machine: Machine, tmp_path: Path, arguments: list[str], run: str) -> None:
    machine.python("python3.12")

    machine.dev(*arguments, cwd=tmp_path)

    assert machine.steps[-2:] == [f"python3.12 {run}", f"in {machine.folder} with {machine.folder}"]


def test_lint_runs_every_linter(machine: Machine) -> None:
    machine.python("python3.12")

    machine.dev("lint")

    ran = [step.split()[2] for step in machine.steps[2:] if step.startswith("python3.12 -m")]
    assert ran == ["ruff", "ruff", "mypy"]
    assert any("lint_imports_command" in step for step in machine.steps)


@pytest.mark.parametrize(("arguments", "code"), [([], 64), (["tset"], 64), (["--help"], 0)])
def test_its_usage_needs_nothing(machine: Machine, arguments: list[str], code: int) -> None:
    done = machine.dev(*arguments)

    assert done.returncode == code
    assert "usage: ./dev demo" in (done.stderr if code else done.stdout)
    assert machine.steps == []


def pins(lock: str) -> set[tuple[str, str]]:
    """Read what a lock pins: names and versions, each with a hash."""
    text = (ROOT / lock).read_text()
    found = re.findall(r"^([\w.-]+)==(\S+)(?: ; [^\\]+)? \\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^\w", text, re.MULTILINE))
    return set(found)


def test_the_locks_pin_everything_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    program, developer = pins("requirements.lock"), pins("requirements-dev.lock")
    groups = project["dependency-groups"]

    for wanted, lock in (
        (project["project"]["dependencies"], program),
        ([name for group in ("test", "lint", "lock") for name in groups[group]], developer),
    ):
        named = {re.split(r"[\[<>=!~; ]", each)[0].replace(".", "-") for each in wanted}
        assert named <= {name for name, _ in lock}
    assert program <= developer
    assert not {"pytest", "ruff", "mypy", "uv"} & {name for name, _ in program}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_the_locks_name_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()

    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_script_is_executable() -> None:
    assert os.access(ROOT / "dev", os.X_OK)
