"""Commands: what they print where, exit codes, what is on the disk afterwards."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from specc import passes
from specc.cli import main
from specc.emit import Files
from specc.ir.graph import Graph
from specc.ir.op import OpError
from specc.spec.core import Layout, Model
from tests.broken import BOTH, DECODER, PATTERN
from tests.test_streams import program

ROOT = Path(__file__).parents[1]
BAD = DECODER.replace("heads: 4", "heads: 6, head_dim: 8, kv_heads: 4").replace("name: small", "name: bad")


@dataclass(frozen=True)
class Run:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def specc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Runs a command in this process, in a folder with some specs."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"small": DECODER, "both": BOTH, "mixed": PATTERN, "bad": BAD}.items():
        Path(f"{name}.yaml").write_text(text)

    def run(*arguments: str) -> Run:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        captured = capsys.readouterr()
        return Run(stop.value.code if isinstance(stop.value.code, int) else -1, captured.out, captured.err)

    return run


Specc = Callable[..., Run]


def on_disk(folder: str = ".") -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_check_is_quiet_about_good_specs(specc: Specc) -> None:
    assert specc("check", "small.yaml", "both.yaml") == Run(0, "", "2 specs fine\n")


def test_check_tells_findings_of_all_specs_and_counts_them(specc: Specc) -> None:
    Path("typo.yaml").write_text(DECODER.replace("vocab", "vocabb").replace("small", "typo"))
    run = specc("check", "bad.yaml", "small.yaml", "typo.yaml")
    assert (run.code, run.err) == (1, "2 errors\n")
    assert run.out.count("error[") == 2 and "--> bad.yaml:10:52" in run.out and "--> typo.yaml:4:1" in run.out
    assert "help: with 6 heads, kv_heads can be 1, 2, 3 or 6" in run.out
    concise = specc("check", "--output-format", "concise", "bad.yaml")
    assert concise.out == "bad.yaml:10:52: error[E211]: 6 heads cannot share 4 kv_heads evenly\n"


def test_what_cannot_be_read_is_two_and_hides_nothing(specc: Specc) -> None:
    run = specc("check", "nothing.yaml", "bad.yaml", ".")
    assert (run.code, run.err) == (2, "3 errors\n")
    assert "error[E100]: nothing.yaml cannot be read: No such file or directory\n" in run.out
    assert "error[E211]" in run.out and "error[E100]: . cannot be read: it is a directory\n" in run.out


def test_without_a_spec_all_of_the_folder_are_meant(specc: Specc) -> None:
    assert specc("check").code == 2 and "no spec was named" in specc("build").err
    Path("specs").mkdir()
    for name in ("small.yaml", "both.yml"):
        shutil.copy(name.replace("yml", "yaml"), Path("specs") / name)
    assert specc("check") == Run(0, "", "2 specs fine\n")
    assert specc("build").code == 0
    assert sorted(on_disk("generated")) == [f"generated/{n}.{e}" for n in ("both", "small") for e in ("params", "py")]


@pytest.mark.parametrize("arguments", ["", "chek small.yaml", "check --what", "plan", "plan small.yaml both.yaml"])
def test_a_wrong_call_is_two(specc: Specc, arguments: str) -> None:
    run = specc(*arguments.split())
    assert run.code == 2 and "Usage:" in run.err and not run.out


def test_layouts_that_do_not_exist_are_named_with_those_that_do(specc: Specc) -> None:
    for command in ("build", "plan"):
        run = specc(command, "both.yaml", "--layout", "two")
        assert run.code == 2 and "both.yaml has no layout two: its layouts are one, four" in run.err
    assert "it has one layout without a name" in specc("build", "small.yaml", "--layout", "two").err
    assert not Path("generated").exists()


def test_build_writes_once_and_check_agrees(specc: Specc) -> None:
    run = specc("build", "small.yaml", "-o", "out/deep")
    assert run == Run(0, "", "wrote     out/deep/small.py\nwrote     out/deep/small.params\n")
    before = {path: os.stat(path).st_mtime_ns for path in on_disk("out")}
    assert "unchanged out/deep/small.py" in specc("build", "small.yaml", "-o", "out/deep").err
    assert {path: os.stat(path).st_mtime_ns for path in on_disk("out")} == before
    assert specc("build", "small.yaml", "-o", "out/deep", "--check") == Run(0, "", "2 files up to date\n")
    assert specc("build", "small.yaml", "-o", "out/deep", "--diff") == Run(0, "", "2 files up to date\n")
    assert oct(os.stat("out/deep/small.py").st_mode & 0o777) == oct(0o644 & ~0o022)


@pytest.mark.parametrize("change", [b"# more\n", b"\xff\x00", None, "\r\n"])
def test_a_stale_file_is_named_shown_and_left_alone(specc: Specc, change: bytes | str | None) -> None:
    specc("build", "small.yaml", "both.yaml")
    path = Path("generated/small.py")
    built = path.read_bytes()
    if change is None:
        path.unlink()
    else:
        path.write_bytes(built.replace(b"\n", b"\r\n") if isinstance(change, str) else built + change)
    stale = on_disk()
    run = specc("build", "small.yaml", "both.yaml", "--check")
    state = "is missing" if change is None else "is not what specc writes for small.yaml"
    assert run == Run(1, f"generated/small.py {state}\nTo update, run `specc build small.yaml`.\n", "")
    run = specc("build", "small.yaml", "both.yaml", "--diff")
    assert run.code == 1 and f"--- {'/dev/null' if change is None else path}\n+++ {path}\n@@" in run.out
    assert ("\n-# more\n" in run.out) == (change == b"# more\n") and "both" not in run.out
    assert on_disk() == stale
    specc("build", "small.yaml", "both.yaml")
    assert path.read_bytes() == built


@pytest.mark.parametrize("options", [(), ("-o", "my out"), ("--layout", "four"), ("-o", "out", "--layout", "four")])
def test_what_a_check_says_to_run_brings_up_to_date(specc: Specc, options: tuple[str, ...]) -> None:
    said = specc("build", "both.yaml", *options, "--check").out
    command = shlex.split(said.split("`")[1])
    assert command[:2] == ["specc", "build"] and specc(*command[1:]).code == 0
    assert specc("build", "both.yaml", *options, "--check") == Run(0, "", "2 files up to date\n")


def test_a_check_looks_at_files_of_every_layout_that_are_there(specc: Specc) -> None:
    specc("build", "both.yaml", "small.yaml")
    specc("build", "both.yaml", "--layout", "four")
    assert specc("build", "--check", "both.yaml", "small.yaml") == Run(0, "", "6 files up to date\n")
    for path in ("generated/both_four.py", "generated/small.params"):
        Path(path).write_text(Path(path).read_text() + "# mine\n")
    Path("generated/both_four.params").unlink()
    run = specc("build", "--check", "both.yaml", "small.yaml")
    assert run.code == 1 and run.out.splitlines() == [
        "generated/small.params is not what specc writes for small.yaml",
        "generated/both_four.py is not what specc writes for both.yaml, layout four",
        "generated/both_four.params is missing",
        "To update, run `specc build small.yaml` and `specc build both.yaml --layout four`.",
    ]
    assert specc("build", "--check", "both.yaml", "--layout", "one").code == 0  # asked for alone
    for command in run.out.split("`")[1::2]:
        assert specc(*shlex.split(command)[1:]).code == 0
    assert specc("build", "--check", "both.yaml", "small.yaml").code == 0


def test_diff_is_what_a_build_would_change(specc: Specc) -> None:
    specc("build", "small.yaml")
    Path("small.yaml").write_text(DECODER.replace("hidden: 64", "hidden: 96"))
    run = specc("build", "small.yaml", "--diff")
    changed = [line.split()[:3] for line in run.out.splitlines() if "ffn.up" in line]
    assert run.code == 1 and changed == [
        [f"{sign}layers.{{0..3}}.ffn.up.weight", f"[{n},", "32]"] for sign, n in (("-", 64), ("+", 96))
    ]


def test_a_layout_has_a_file_of_its_own(specc: Specc) -> None:
    assert specc("build", "both.yaml").code == specc("build", "both.yaml", "--layout", "four").code == 0
    assert sorted(on_disk("generated")) == [
        f"generated/{n}.{e}" for n in ("both", "both_four") for e in ("params", "py")
    ]
    assert specc("build", "both.yaml", "--layout", "one").err.count("unchanged") == 2
    assert specc("build", "both.yaml", "--layout", "four", "--check").code == 0


def test_passes_are_dumped_in_order(specc: Specc) -> None:
    assert specc("build", "small.yaml", "--dump-passes", "passes").code == 0
    names = sorted(path.name for path in Path("passes").iterdir())
    assert [name[3:-4] for name in names] == ["lower", *(step.__name__ for step in passes.PASSES)]
    assert names[0] == "00_lower.txt"
    assert "rms_norm" in Path("passes", names[0]).read_text()
    told = "pp: {stages: 2}, microbatches: 4, checkpoint: {save: [attention.core]}"
    Path("gen.yaml").write_text(DECODER.replace(told, "generate: true").replace("name: small", "name: gen"))
    assert specc("build", "gen.yaml", "--dump-passes", "second").code == 0
    last = max(path.name for path in Path("second").iterdir())
    assert last == f"{len(names):02}_decode.txt" and "appended(" in Path("second", last).read_text()
    assert specc("build", "small.yaml", "both.yaml", "--dump-passes", "all").code == 0
    assert sorted(path.name for path in Path("all").iterdir()) == ["both", "small"]
    assert specc("build", "small.yaml", "--check", "--dump-passes", "more").code == 2 and not Path("more").exists()


def test_nothing_is_written_where_one_spec_is_bad(specc: Specc) -> None:
    before = on_disk()
    for other, code in (("bad.yaml", 1), ("nothing.yaml", 2)):
        run = specc("build", "small.yaml", other, "both.yaml", "--dump-passes", "passes")
        assert run.code == code and "1 error: nothing is written" in run.err
    assert on_disk() == before and not Path("generated").exists() and not Path("passes").exists()
    assert specc("build", "bad.yaml", "--check").err == "1 error\n"


def test_two_specs_of_one_file_are_a_finding(specc: Specc) -> None:
    Path("other.yaml").write_text(DECODER.replace("small", "both-four"))
    for command in ("check", "build"):
        run = specc(command, "both.yaml", "other.yaml")
        assert run.code == 1 and not Path("generated").exists()
        assert "error[E209]: other.yaml and both.yaml would both be written to both_four.py" in run.out
        assert "--> other.yaml:2:7" in run.out
    assert specc("build", "small.yaml", "small.yaml").code == 0  # the same spec, twice


def test_names_of_files_with_spaces_and_letters_of_all_kinds(specc: Specc) -> None:
    folder = Path("my sp\u00e9cs \u4e16")
    folder.mkdir()
    shutil.copy("small.yaml", folder / "a b.yaml")
    run = specc("build", str(folder / "a b.yaml"), "-o", str(folder / "out put"))
    assert run.code == 0 and (folder / "out put" / "small.py").exists()
    run = specc("build", str(folder / "a b.yaml"), "--check")
    assert f"run `specc build '{folder}/a b.yaml'`" in run.out


PLACES: dict[str, Callable[[Path], object]] = {
    "a file for a folder": lambda out: out.write_text("x"),
    "a file above": lambda out: out.parent.joinpath("up").write_text("x"),
    "a folder for a file": lambda out: (out / "small.params").mkdir(parents=True),
    "a pipe for a file": lambda out: (out.mkdir(), os.mkfifo(out / "small.py")),
    "a link for a file": lambda out: (out.mkdir(), (out / "small.py").symlink_to("../target")),
    "a broken link for a folder": lambda out: out.symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", PLACES)
def test_an_output_that_cannot_be_written_is_two_and_changes_nothing(specc: Specc, name: str) -> None:
    out = Path("out")
    PLACES[name](out)
    before = sorted(map(str, Path(".").rglob("*")))
    run = specc("build", "both.yaml", "small.yaml", "-o", "up/out" if name == "a file above" else "out")
    assert run.code == 2 and run.err.startswith("error: ") and "bug" not in run.err, run.err
    assert sorted(map(str, Path(".").rglob("*"))) == before and not Path("target").exists()
    assert "is a link" in run.err or name != "a link for a file"


def test_a_linked_folder_is_written_into(specc: Specc) -> None:
    Path("real").mkdir()
    Path("out").symlink_to("real")
    assert specc("build", "small.yaml", "-o", "out").code == 0 and Path("real/small.py").exists()


def test_an_interrupt_and_a_bug_have_their_codes(specc: Specc, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def wrong(*_: object) -> None:
        raise RuntimeError("a pass went wrong")

    import specc.cli.build as build

    monkeypatch.setattr(build, "write", interrupted)
    assert specc("build", "small.yaml").code == 130
    import specc.compile as compile

    lowered = compile.lower

    def misplaced(graph: Graph, _: Layout) -> None:
        raise OpError(graph.op("head"), "went wrong")

    monkeypatch.setattr(compile, "lower", wrong)
    run = specc("build", "both.yaml", "--layout", "four")
    assert run.code == 2 and not run.out
    assert run.err == (
        "This is a bug in specc: RuntimeError: a pass went wrong\n"
        "while compiling both.yaml, layout four\n`specc --debug ...` shows where\n"
    )
    assert "Traceback" in specc("--debug", "build", "small.yaml").err
    monkeypatch.setattr(compile, "lower", lowered)
    monkeypatch.setattr(passes, "PASSES", (misplaced,))
    assert "head: went wrong\nwhile compiling small.yaml\nat small.yaml:1:1\n" in specc("check", "small.yaml").err
    assert gc.isenabled()


def test_a_check_writes_out_every_layout(specc: Specc, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fine can be built, so a check finds what only the emitter stumbles over."""
    import specc.emit as emitter

    real = emitter.emit_file

    def stumbling(model: Model, layout: Layout, *graphs: Graph) -> Files:
        if layout.name == "four":
            raise ValueError("no word for it")
        return real(model, layout, *graphs)

    monkeypatch.setattr(emitter, "emit_file", stumbling)
    run = specc("check", "small.yaml", "both.yaml")
    assert (
        run.code == 2 and "bug in specc: ValueError: no word for it\nwhile writing both.yaml, layout four\n" in run.err
    )


def test_help_of_commands_does_not_import_them(specc: Specc) -> None:
    run = specc("--help")
    assert run.code == 0 and all(word in run.out for word in ("check", "build", "plan", "verify"))


BUILDS = {
    "0": ({"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC"}, ""),
    "1": ({"PYTHONHASHSEED": "1", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Tokyo", "LANG": "tr_TR.UTF-8"}, "$PWD/"),
    "random": ({"PYTHONHASHSEED": "random", "LC_ALL": "POSIX", "PYTHONUTF8": "0"}, "../here/"),
}


def test_bytes_do_not_depend_on_where_and_how_a_build_runs(tmp_path: Path) -> None:
    """Hash seeds, locales, time zones, folders, relative and absolute paths; and a build is checked clean elsewhere."""
    here = tmp_path / "here"
    here.mkdir()
    names = ("transformer-tiny", "hybrid-tiny", "llama-tied-tiny")
    for name in names:
        text = (ROOT / "specs" / "tiny" / f"{name}.yaml").read_text()
        layout = "layout: {tp: 2, sequence_parallel: true, dp: 2, pp: 2, checkpoint: {save: [attention.o, ffn.up]}}\n"
        (here / f"{name}.yaml").write_text(f"{text}{layout}")
    made: list[dict[str, bytes]] = []
    for seed, (variables, prefix) in BUILDS.items():
        specs = " ".join(f"{prefix}{name}.yaml" for name in names)
        script = f"$SPECC build {specs} -o ../{seed} --dump-passes ../{seed}/passes"
        run = program(script, folder=here, **variables)
        assert run.returncode == 0, run.stderr
        folder = tmp_path / seed
        made.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert len(made[0]) == 3 * (2 + 1 + len(passes.PASSES)) and made[0] == made[1] == made[2]
    assert all(data.isascii() and b"\r" not in data and str(tmp_path).encode() not in data for data in made[0].values())


def test_line_ends_and_marks_of_the_spec_do_not_change_a_byte(specc: Specc) -> None:
    specc("build", "mixed.yaml")
    before = on_disk("generated")
    for data in (PATTERN.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + PATTERN.encode()):
        Path("mixed.yaml").write_bytes(data)
        assert specc("build", "mixed.yaml", "--check").code == 0 and on_disk("generated") == before


def test_commands_do_not_import_torch(tmp_path: Path) -> None:
    """Nor what the tests need; verify does, and is imported when it runs."""
    (tmp_path / "small.yaml").write_text(DECODER)
    script = textwrap.dedent("""
        import sys
        from specc.cli import main
        calls = "check small.yaml|build small.yaml --dump-passes p|plan small.yaml|check nothing|--help"
        for words in calls.split("|"):
            try:
                main(words.split())
            except SystemExit as stop:
                assert stop.code == (2 if "nothing" in words else 0), (words, stop.code)
        assert "specc.passes" in sys.modules
        print([name for name in ("torch", "numpy", "hypothesis", "pytest", "specc.verify") if name in sys.modules])
    """)
    run = program(f'{sys.executable} -c "$1"', script, folder=tmp_path)
    assert run.returncode == 0 and run.stdout.splitlines()[-1] == "[]", run.stderr
