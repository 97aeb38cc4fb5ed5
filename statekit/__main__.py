"""``python -m statekit``: the command line."""

from statekit.cli.main import main

if __name__ == "__main__":
    main(prog_name="statekit")
