"""Ranks that end before their time are told at once, by their number."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from specc.cli import main
from specc.verify.launch import RankDied, RankError, run_ranks
from tests.broken import DECODER


def ends(how: int) -> None:
    """The last rank ends; the first waits for it and fails, the others know nothing of it."""
    rank = torch.distributed.get_rank()
    if rank == 2:
        os.kill(os.getpid(), how) if how else os._exit(7)
    elif rank == 0:
        torch.distributed.recv(torch.zeros(1), 2)
    signal.pause()


ENDS = {
    signal.SIGKILL: r"rank 2 of 3 was killed by SIGKILL$",
    signal.SIGABRT: r"rank 2 of 3 was killed by SIGABRT\nFatal Python error: Aborted\n(?s:.*) in ends\n(?s:.*)",
    0: r"rank 2 of 3 ended with exit code 7(\nrank 0 of 3 failed\n|$)",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_rank_that_dies_is_told_at_once_and_by_its_number(how: int) -> None:
    """Not when the others give up waiting for it."""
    with pytest.raises(RankDied, match=ENDS[how]):
        run_ranks(3, ends, how, timeout=600.0)


def raises() -> None:
    if torch.distributed.get_rank() == 1:
        raise KeyError("mine")
    torch.distributed.recv(torch.zeros(1), 1)


def test_the_first_failure_is_told_not_those_that_follow_from_it() -> None:
    with pytest.raises(RankError, match=r"rank 1 of 2 failed\n(?s:.*)KeyError: 'mine'"):
        run_ranks(2, raises)


def test_verify_tells_a_rank_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is no bug of the compiler: mostly, there is not enough memory."""
    (tmp_path / "s.yaml").write_text(DECODER.replace("tp: 2", "tp: 2, dp: 2").replace("97", "96"))
    monkeypatch.setattr("specc.verify.relations.on_this_rank", lambda *_: ends(signal.SIGKILL))
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(tmp_path / "s.yaml")])
    assert stop.value.code == 2
    assert "Error: rank 2 of 8 was killed by SIGKILL\nFor less memory, give fewer --ranks.\n" in capsys.readouterr().err
