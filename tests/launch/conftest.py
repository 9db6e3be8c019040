import pytest

from hullscreen.launch.command_line import main


@pytest.fixture
def call(capsys):
    """Function that runs ``hullscreen``: exit code, standard output, standard error."""

    def run(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run
