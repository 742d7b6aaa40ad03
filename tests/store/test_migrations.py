"""The schema: as it was released, as the code has it, and as Alembic makes it."""

from __future__ import annotations

import shutil
from argparse import Namespace
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from turnlog.store import migrate, schema

from .files import behind, opened

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = Path(__file__).with_name("schema.sql")


def schema_of(path: Path) -> str:
    """What SQLite itself holds of a schema."""
    with behind(path) as connection:
        rows = connection.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name"
        ).fetchall()
    return "".join(f"{row[0]};\n" for row in rows)


def config(path: Path) -> Config:
    """What `alembic -x db=PATH` gives to env.py."""
    found = Config(ROOT / "alembic.ini", stdout=StringIO())
    found.cmd_opts = Namespace(x=[f"db={path}"])
    return found


def test_the_schema_is_the_one_that_was_released(path: Path) -> None:
    migrate(path)
    assert schema_of(path) == GOLDEN.read_text(encoding="utf-8")


def test_alembic_makes_the_same_schema_and_finds_no_difference(path: Path) -> None:
    command.upgrade(config(path), "head")
    command.check(config(path))
    assert schema_of(path) == GOLDEN.read_text(encoding="utf-8")
    assert migrate(path) == (schema.REVISION, schema.REVISION)
    command.downgrade(config(path), "base")
    assert "events" not in schema_of(path)


def test_the_code_knows_the_newest_revision(path: Path) -> None:
    scripts = ScriptDirectory.from_config(config(path))
    assert scripts.get_current_head() == schema.REVISION
    script = scripts.get_revision(schema.REVISION)
    assert script.module.APPLICATION_ID == schema.APPLICATION_ID


def test_without_x_the_address_of_the_file_counts(path: Path) -> None:
    here = config(path)
    here.cmd_opts = None
    here.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    command.upgrade(here, "head")
    assert schema_of(path) == GOLDEN.read_text(encoding="utf-8")


def test_the_sql_can_be_read_before_it_is_run(path: Path) -> None:
    here, output = config(path), StringIO()
    here.output_buffer = output
    command.upgrade(here, "head", sql=True)
    assert "CREATE TABLE events" in output.getvalue()
    assert not path.exists()


def test_a_migration_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(ROOT / "migrations" / "turnlog_migrations", scripts)
    (scripts / "versions" / "0002_wrong.py").write_text(WRONG, encoding="utf-8")
    here = config(path)
    here.set_main_option("script_location", str(scripts))
    with pytest.raises(ZeroDivisionError):
        command.upgrade(here, "head")
    assert schema_of(path) == ""


WRONG = """
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade():
    op.execute("CREATE TABLE half (a)")
    raise ZeroDivisionError
"""


def test_events_are_never_migrated_by_a_machine(path: Path, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(ROOT / "migrations" / "turnlog_migrations", scripts)
    here = config(path)
    here.set_main_option("script_location", str(scripts))
    command.upgrade(here, "head")
    command.revision(here, "nothing", autogenerate=True, rev_id="0002")
    with behind(path) as connection:
        connection.execute("ALTER TABLE events ADD COLUMN more TEXT")
        connection.execute("UPDATE alembic_version SET version_num = '0002'")
    with pytest.raises(ValueError, match="by hand"):
        command.revision(here, "drop", autogenerate=True, rev_id="0003")


async def test_a_database_of_alembics_is_opened(path: Path) -> None:
    command.upgrade(config(path), "head")
    await (await opened(path)).close()
