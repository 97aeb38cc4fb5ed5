"""Where the models are: module:Base, and what is said if there is nothing of that name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import INBOX, Project


def listed(project: Project, models: str) -> int:
    """Return for how many columns the command `trigger` prints triggers, after it was successful."""
    result = project.run("trigger", models, "--dialect", "sqlite")
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.count("\n-- ")


def refused(project: Project, models: str) -> str:
    result = project.run("trigger", models)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ").strip()


@pytest.mark.parametrize(
    "name", ["Base", "Base.metadata", "Base.registry", "metadata", "registry", "Message", "holder.of.it"]
)
def test_names_a_base_a_registry_or_a_metadata(project: Project, name: str) -> None:
    more = "metadata = Base.metadata\nregistry = Base.registry\nclass holder:\n    class of:\n        it = Base\n"
    module = project.write(INBOX + more)
    assert listed(project, f"{module}:{name}") == 1


def test_the_module_alone_will_do_if_it_has_only_one(inbox: Project) -> None:
    assert listed(inbox, inbox.models) == 1


def test_several_names_of_one_metadata_are_one(project: Project) -> None:
    assert listed(project, project.write(INBOX + "metadata = Base.metadata\nAlso = Base\n")) == 1


def test_a_module_with_models_and_no_base_will_do(inbox: Project) -> None:
    assert listed(inbox, inbox.write(f"from {inbox.models} import Message\n")) == 1


def test_a_package_in_the_current_folder_is_found(project: Project) -> None:
    (project.folder / "shop_of_test").mkdir()
    project.write(name="shop_of_test/models")
    assert listed(project, "shop_of_test.models:Base") == 1


def test_tables_without_models_will_do(project: Project) -> None:
    module = project.write(
        "import sqlalchemy as sa\nfrom statekit import TransitionTable, guard\n"
        "tables = sa.MetaData()\nmessage = sa.Table('message', tables, sa.Column('status', sa.Text))\n"
        "guard(message.c.status, TransitionTable('A → B'))\n"
    )
    assert listed(project, module) == 1


def test_several_metadata_are_listed_to_choose_from(project: Project) -> None:
    module = project.write(INBOX + "other = sa.MetaData()\n")
    assert refused(project, module) == f"{module} has several to choose from. Allowed: {module}:Base, {module}:other."


def test_a_base_is_named_rather_than_a_model(inbox: Project) -> None:
    module = inbox.models
    other = inbox.write(f"from {module} import Message\nfrom {module} import Base, sa\nother = sa.MetaData()\n")
    assert refused(inbox, other).endswith(f"Allowed: {other}:Base, {other}:other.")


def test_a_module_without_any_says_so(project: Project) -> None:
    module = project.write("x = 1\n")
    assert refused(project, module).startswith(
        f"{module} has none to choose from. The module {module} has no declarative base, registry or MetaData. Write"
    )


def test_a_name_that_is_not_there_lists_those_that_are(inbox: Project) -> None:
    module = inbox.models
    assert refused(inbox, f"{module}:Bse") == f"{module} has no attribute 'Bse'. Allowed: {module}:Base."


def test_the_part_of_a_dotted_name_that_is_not_there_is_named(inbox: Project) -> None:
    assert refused(inbox, f"{inbox.models}:Base.a.b").startswith(f"{inbox.models}:Base has no attribute 'a'.")


def test_something_else_is_named_by_its_type(project: Project) -> None:
    module = project.write(INBOX + "number = 1\n")
    assert refused(project, f"{module}:number") == (
        f"{module}:number is an object of the type int; allowed is a declarative base, a registry or a MetaData. "
        f"Allowed: {module}:Base."
    )


@pytest.mark.parametrize(
    "named", ["app/models.py", "models.py", "app/models", "models.py:Base", "models:", ":Base", ""]
)
def test_what_is_no_name_of_models_says_the_form(project: Project, named: str) -> None:
    assert refused(project, named).startswith(f"{named!r} does not name models. Write module:Base, such as")


def test_a_module_that_is_not_there_says_where_it_was_looked_for(project: Project) -> None:
    text = refused(project, "no_such_module.models:Base")
    assert text.startswith(f"No module named 'no_such_module'. Looked for in {project.folder} and on Python's path.")


def test_a_module_that_imports_one_that_is_not_there_names_that(project: Project) -> None:
    module = project.write("\nimport no_such_module\n")
    assert refused(project, module) == (
        f"{module} cannot be imported: ModuleNotFoundError: No module named 'no_such_module' "
        f"({project.folder / module}.py, line 2)"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("\n\nraise SystemExit(3)\n", "SystemExit: 3"),
        ("from statekit import TransitionTable\n\nTransitionTable('A → ')\n", "TableError: "),
    ],
)
def test_a_module_that_fails_says_how_and_where(project: Project, text: str, said: str) -> None:
    module = project.write(text)
    answer = refused(project, module)
    assert answer.startswith(f"{module} cannot be imported: {said}")
    assert answer.endswith(f"({project.folder / module}.py, line 3)")


def test_models_without_a_guard_say_which_tables_there_are(project: Project) -> None:
    module = project.write(INBOX.replace("__transitions__", "transitions"))
    assert refused(project, module).startswith(
        f"{module}: no guard is declared on its 1 tables (message). Declare one with Guarded or guard(...); if"
    )


def test_a_proxy_that_cannot_be_asked_is_passed_over(project: Project) -> None:
    proxy = (
        "class Proxy:\n    def __getattr__(self, name):\n        raise RuntimeError('too early')\nrequest = Proxy()\n"
    )
    assert listed(project, project.write(INBOX + proxy)) == 1


def test_what_a_module_prints_is_not_part_of_the_output(project: Project) -> None:
    result = project.run("trigger", project.write("print('hello')\n" + INBOX))
    assert ("hello" in result.stdout, "hello" in result.stderr) == (False, True)


def test_the_help_loads_neither_sqlalchemy_nor_models() -> None:
    script = (
        "import sys; from statekit.cli.main import main; main(['check', '--help'], standalone_mode=False);"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    loaded = done.stdout.partition("\nloaded ")[2].split()
    assert [name for name in ("sqlalchemy", "alembic", "transitions", "psycopg") if name in loaded] == []
    assert "statekit.cli.check" in loaded


def test_importing_statekit_does_not_load_the_command_line() -> None:
    script = "import sys, statekit; statekit.guard; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "click" not in done.stdout.split()
