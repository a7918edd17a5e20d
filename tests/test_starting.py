"""Real daemons that cannot start: one clear line for each fault, the documented status, and nobody else harmed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.daemons import Daemon, Daemons

LOCAL = "tcp:0:interface=127.0.0.1"


def said(daemon: Daemon) -> list[str]:
    """What the program said for itself, without the log's time and origin."""
    return [line[line.index("farmsync-") :] for line in daemon.log.splitlines() if " farmsync-" in f" {line}"]


def test_a_port_in_use_is_one_line_and_status_78(daemons: Daemons) -> None:
    first = daemons.start("farmsync-data", "--listen", LOCAL).ready()
    port = first.address("listen").rpartition(":")[2]
    second = daemons.start("farmsync-data", "--listen", f"tcp:{port}:interface=127.0.0.1")
    assert second.wait() == 78
    assert "Traceback" not in second.log
    (line,) = said(second)
    assert line == (
        f"farmsync-data: expected to listen on tcp:{port}:interface=127.0.0.1 for the data server: "
        "Address already in use; stop the program that has the port, or name another endpoint"
    )
    assert not second.addresses
    assert first.stop() == -signal.SIGTERM
    assert not first.addresses


def test_a_state_directory_in_use_is_one_line_and_status_78(daemons: Daemons) -> None:
    first = daemons.start("farmsync-data", "--listen", LOCAL).ready()
    second = daemons.start("farmsync-data", "--listen", LOCAL, "--state", str(first.state), state=False)
    assert second.wait() == 78
    assert first.process is not None
    (line,) = said(second)
    assert line == (
        f"farmsync-data: expected the state directory {first.state} to be free, and farmsync-data (process "
        f"{first.process.pid}) is using it; stop that one first, or name another directory with --state"
    )
    assert first.process.poll() is None


@pytest.mark.parametrize("daemon", ["data", "node", "lb"])
def test_every_fault_of_a_configuration_is_told_before_anything_is_touched(
    daemons: Daemons, tmp_path: Path, daemon: str
) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(f'[{daemon}]\nhtpp = "tcp:0"\nlisten = 7420\naddresses = ""\n')
    started = daemons.start(f"farmsync-{daemon}", "--config", str(file), state=False)
    assert started.wait() == 78
    where = f"farmsync-{daemon}: {file}: [{daemon}]"
    assert f"{where} htpp: not a key here; did you mean http?" in said(started)
    assert all(line.startswith(f"farmsync-{daemon}: ") for line in started.log.splitlines())
    assert not started.state.exists()
