"""The pytest plugin's fixture ``in_state``, as the tests of an application use it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULE = """
    import asyncio
    import pytest, sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session
    from statekit import Guarded, StatekitError, TransitionTable

    class Base(DeclarativeBase): ...

    class Message(Guarded, Base):
        __tablename__ = "message"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str] = mapped_column(default="READY")
        __transitions__ = {"status": TransitionTable("READY → PROMOTED → COMPLETED", initial="READY")}
"""

SYNC = """
    @pytest.fixture
    def session():
        engine = sa.create_engine("sqlite://")
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            yield session

    def test_it(session, in_state):
        message = in_state(Message(), "COMPLETED")
        assert message in session
        assert message.status == "COMPLETED"
        assert in_state(message, "READY", Message.status).status == "READY"
        with pytest.raises(StatekitError, match="no guarded attribute called 'id'"):
            in_state(message, "READY", Message.id)
"""

SCOPED = SYNC.replace("yield session", "yield scoped_session(lambda: session)")

ASYNC = """
    @pytest.fixture
    def session():
        return AsyncSession(create_async_engine("sqlite+aiosqlite://"))

    def test_it(session, in_state):
        async def body():
            await (await session.connection()).run_sync(Base.metadata.create_all)
            message = await in_state(Message(), "COMPLETED")
            assert message.status == "COMPLETED"
            await session.close()
            await session.bind.dispose()
        asyncio.run(body())
"""


def run_pytest(tmp_path: Path, text: str, *options: str) -> str:
    (tmp_path / "test_message.py").write_text(textwrap.dedent(MODULE) + textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("text", [SYNC, SCOPED, ASYNC], ids=["sync", "scoped", "async"])
def test_the_fixture_puts_an_object_into_a_state_of_the_session(tmp_path: Path, text: str) -> None:
    assert "1 passed" in run_pytest(tmp_path, text, "-p", "statekit.testing.plugin")


def test_the_fixture_needs_one_called_session(tmp_path: Path) -> None:
    text = "\n    def test_it(in_state): ..."
    assert "fixture 'session' not found" in run_pytest(tmp_path, text, "-p", "statekit.testing.plugin")


def test_pytest_finds_the_plugin_where_statekit_is_installed() -> None:
    found = entry_points(group="pytest11", name="statekit")
    if not found:
        pytest.skip("statekit is not installed here")
    assert found["statekit"].load().__name__ == "statekit.testing.plugin"


def test_the_plugin_loads_neither_sqlalchemy_nor_hypothesis() -> None:
    code = "import sys, statekit.testing.plugin; assert not {'sqlalchemy', 'hypothesis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
