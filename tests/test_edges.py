"""The process's edges: what stands on standard output, what becomes of files that are written."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import highspy
import pytest
from conftest import Run

from planner.cli.options import check_writable, deliver
from planner.errors import PlannerError
from planner.files import write_result
from planner.program import solver

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny"
QUICK = ("--qps", "20", "--min-quality", "0.5", "--catalog", str(TINY), "--no-alternatives", "--model", "Small-8B", "--gpu", "GPU-80")


def python(code: str, *words: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """A process that runs some Python, with the planner of this checkout."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PLANNER_")}
    return subprocess.run([sys.executable, "-c", code, *words], text=True, env=kept, check=False, **(given or {"capture_output": True}))


# ---- standard output

NOISY = """
import ctypes, os
import planner.program.solver as solver
plain = solver._transfer
def noisy(*given):
    ctypes.CDLL(None).puts(b"licence banner")
    os.write(1, b"more noise\\n")
    return plain(*given)
solver._transfer = noisy
"""


def test_what_a_c_library_prints_does_not_reach_the_result() -> None:
    """C's own buffer is flushed when the process ends, long after the result was written: not there either."""
    ran = python(NOISY + "from planner.cli.main import main; main()", *QUICK, "--format", "json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["status"] == "optimal"
    assert "licence banner" in ran.stderr and "more noise" in ran.stderr


def test_the_library_prints_nothing() -> None:
    code = "from planner import Scenario, load_catalog, solve; s = Scenario.model_validate({'workload': [{'qps': 20, 'min_quality': 0.5}], 'catalog': [%r]})"
    ran = python(code % str(TINY) + "; solve(s, load_catalog(s.catalog), compare=False)")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_solver_is_silent_before_it_can_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS 1.16 prints its licence as callbacks are registered, which is while the object is made."""
    loud = []
    plain = highspy.Highs.enableCallbacks

    def registered(self: highspy.Highs) -> None:
        loud.append(self.getOptionValue("output_flag")[1])
        plain(self)

    monkeypatch.setattr(highspy.Highs, "enableCallbacks", registered)
    assert solver.version() and loud == [False]


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [("--version",), ("schema",), ("catalog", "gpus")])
def test_a_full_standard_output_is_one_line(words: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        ran = python("from planner.cli.main import main; main()", *words, stdout=full, stderr=subprocess.PIPE)
    assert (ran.returncode, ran.stderr) == (2, "error: standard output: No space left on device\n")


def test_a_closed_standard_output_is_refused_before_any_work() -> None:
    ran = python("import os; os.close(1); import sys; sys.stdout = None; from planner.cli.main import main; main()", *QUICK)
    assert (ran.returncode, ran.stderr) == (2, "error: standard output: cannot write the output: it is closed (name a file with -o)\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = python("from planner.cli.main import main; main()", "schema", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, "")


# ---- files


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_result(tmp_path / "plan.json", "{}")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "plan.json") == mode


def test_a_file_written_again_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("old and longer")
    file.chmod(0o640)
    write_result(file, "new")
    assert (file.read_text(), mode_of(file), names_in(tmp_path)) == ("new", 0o640, ["plan.json"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_a_file_written_again_keeps_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.touch()
    os.chown(file, 1234, 5678)
    write_result(file, "new")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 5678)


def test_links_are_followed(tmp_path: Path) -> None:
    """Also one to a file that is not there yet; and a hard link keeps what it had: whole or not at all comes first."""
    (tmp_path / "there").mkdir()
    kept = tmp_path / "there" / "kept.json"
    kept.write_text("old")
    os.link(kept, tmp_path / "hard.json")
    for name, target in (("link.json", kept), ("dangling.json", tmp_path / "there" / "new.json")):
        link = tmp_path / name
        link.symlink_to(target)
        write_result(link, "new")
        assert link.is_symlink() and target.read_text() == "new" and not target.is_symlink()
    assert (tmp_path / "hard.json").read_text() == "old"


def test_a_pipe_gets_the_text_and_stays_a_pipe(run: Run, tmp_path: Path) -> None:
    pipe, seen = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: seen.append(pipe.read_text()))
    reader.start()
    assert run(*QUICK, "--format", "json", "-o", pipe) == (0, "", "")
    reader.join(5)
    assert json.loads(seen[0])["status"] == "optimal" and pipe.is_fifo() and names_in(tmp_path) == ["pipe"]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    null = tmp_path / "null"  # one of our own: where this fails nothing of the machine is lost
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.write_text("")
    except OSError:
        pytest.skip("no devices can be made here")
    check_writable(str(null))
    write_result(null, "text")
    assert null.is_char_device() and names_in(tmp_path) == ["null"]


def test_descriptors_are_written_where_they_stand(run: Run, tmp_path: Path) -> None:
    """/dev/stdout is the standard output of the command, whatever stands behind it; /dev/fd/N goes on where the caller stopped."""
    ran = run("schema", "-o", "/dev/stdout")
    assert json.loads(ran[1])["title"] == "Plan"
    with (tmp_path / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        write_result(f"/dev/fd/{log.fileno()}", "the plan\n")
        write_result(f"/proc/self/fd/{log.fileno()}", "again\n")
    assert (tmp_path / "log").read_text() == "before\nthe plan\nagain\n"
    file = tmp_path / "redirected.json"
    with file.open("w") as out:
        ran = python("from planner.cli.main import main; main()", "schema", "-o", "/dev/stdout", stdout=out)
    assert ran.returncode == 0 and json.loads(file.read_text())["title"] == "Plan"


def test_what_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    before = names_in(tmp_path)
    expected = {
        tmp_path / "folder": "is a folder, not a file",
        f"{tmp_path}/new/": "the folder does not exist",
        tmp_path / "none" / "plan.json": "the folder does not exist",
        tmp_path / "loop": "cannot write the output: Too many levels of symbolic links",
        tmp_path / ("n" * 300): "cannot write the output: File name too long",
        tmp_path / "socket": "cannot write the output: No such device or address",
        f"{tmp_path}/a\0b": "cannot write the output: not a path",
        "/dev/fd/987": "cannot write the output: Bad file descriptor",
    }
    for path, words in expected.items():
        status, out, err = run("schema", "-o", path)
        assert (status, out) == (2, "") and words in err and err.count("\n") == 1, err
    listening.close()
    assert names_in(tmp_path) == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("old")
    file.chmod(0o444)
    with pytest.raises(PlannerError, match="Permission denied"):
        check_writable(str(file))
    with pytest.raises(PlannerError, match="Permission denied"):
        write_result(file, "new")
    assert file.read_text() == "old"


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.json").write_text("old")

    def full(handle: int, raw: bytes) -> None:
        os.write(handle, raw[:5])
        os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("planner.files._write_all", full)
    with pytest.raises(PlannerError, match="No space left on device"):
        write_result(tmp_path / "plan.json", "new content")
    assert names_in(tmp_path) == ["plan.json"] and (tmp_path / "plan.json").read_text() == "old"


def test_colours_of_a_terminal_do_not_reach_a_file(tmp_path: Path) -> None:
    deliver("\x1b[1mbold\x1b[0m plain\n", str(tmp_path / "plan.txt"))
    assert (tmp_path / "plan.txt").read_text() == "bold plain\n"
