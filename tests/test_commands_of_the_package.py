"""`atomlab train|evaluate|doctor|new-experiment`: what the installed program answers, and where it looks for options."""

import os
import re
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from atomlab.commands import doctor, examinations
from atomlab.commands.examinations import Finding, cache, devices, network, packages
from atomlab.commands.new_experiment import main as new_experiment
from atomlab.commands.new_experiment import write_experiment
from atomlab.launch.help import GROUPS, help_text, is_study
from atomlab.launch.own_options import with_own_options
from tests.processes import environment, one_sentence, run
from tests.test_config import CONF, composed
from tests.tiny import OPTIONS


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_lists_what_the_command_can_run_in_a_hundred_columns(name: str) -> None:
    text = help_text(CONF, name, f"python {name}.py")
    assert max(map(len, text.splitlines())) <= 100
    raw = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(raw, dict)
    common = OmegaConf.to_container(OmegaConf.load(CONF / "common.yaml"))
    assert isinstance(common, dict)
    chosen = [next(iter(entry)) for part in (raw, common) for entry in part["defaults"] if isinstance(entry, dict)]
    groups = {str(group) for group in chosen if "@" not in str(group)}
    assert groups <= GROUPS.keys()
    for group in GROUPS:
        assert (f"\n  {group:13} " in text) == (group in groups)
        for file in (CONF / group).glob("*.yaml") if group in groups else ():
            studies = group == "experiment" and name == "train" and is_study(file)
            listed = text.split(f"\n  {group:13} ")[1].split("\n  ")
            assert (file.stem in f"{listed[0]} {' '.join(listed)}".replace(",", " ").split()) == (not studies), file


@pytest.mark.parametrize("name", ["train", "evaluate"])
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("nonsense=1", 2), ("site=foo", 2)])
def test_what_needs_no_library_is_answered_without_its_import(name: str, word: str, code: int, tmp_path: Path) -> None:
    """PyTorch, Lightning and transformers take seconds to import, and twelve on a slow machine."""
    script = (
        f"import atexit, runpy, sys; sys.argv = ['{name}.py', '{word}']; sys.path.insert(0, {str(CONF.parent)!r})\n"
        "atexit.register(lambda: print('imported', *sorted({'torch', 'lightning', 'transformers'} & {*sys.modules})))\n"
        f"runpy.run_path({str(CONF.parent / f'{name}.py')!r}, run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == code, found.stderr
    assert found.stdout.splitlines()[-1].strip() == "imported"


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_every_example_of_the_help_composes(name: str) -> None:
    lines = [line for line in help_text(CONF, name, f"run-{name}").splitlines() if line.startswith(f"  run-{name} ")]
    tried = 0
    for line in lines:
        words = shlex.split(re.split(r"  +", line.strip())[0])[1:]
        if not any(word.startswith(("-", "resume_sweep=")) for word in words):
            composed([re.sub(r"<(\w+)>", r"\1", word) for word in words], name)
            tried += 1
    assert tried >= 6


def test_a_new_experiment_changes_nothing_until_it_is_edited(tmp_path: Path) -> None:
    file = write_experiment("mine", tmp_path)
    assert file == tmp_path / "conf" / "experiment" / "mine.yaml"
    own = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    for name in ("train", "evaluate"):
        assert composed(["experiment=mine", own], name) == composed([], name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("capacity", "is an experiment of atomlab"),
        ("a-b", "use letters, digits and _"),
        ("../x", "use letters, digits and _"),
        ("mine", "exists, and nothing is written over"),
    ],
)
def test_a_name_that_cannot_be(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_experiment(["mine"]) == 0
    before = (tmp_path / "conf" / "experiment" / "mine.yaml").read_text()
    assert "atomlab train experiment=mine" in capsys.readouterr().out
    assert new_experiment([name]) == 2
    assert said in capsys.readouterr().err
    assert [file.name for file in tmp_path.rglob("*.yaml")] == ["mine.yaml"]
    assert (tmp_path / "conf" / "experiment" / "mine.yaml").read_text() == before


def test_only_a_folder_of_our_groups_is_taken_for_the_users_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_own_options(["layer=1"], CONF) == ["layer=1"]
    (tmp_path / "conf" / "database").mkdir(parents=True)  # of another project
    assert with_own_options(["layer=1"], CONF) == ["layer=1"]
    (tmp_path / "conf" / "corpus").mkdir()
    assert with_own_options(["layer=1"], CONF) == [f"--config-dir={tmp_path / 'conf'}", "layer=1"]
    assert with_own_options(["--config-dir=x"], CONF) == ["--config-dir=x"]
    monkeypatch.chdir(CONF.parent)
    assert with_own_options(["layer=1"], CONF) == ["layer=1"]


def test_the_doctor_needs_no_network_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(examinations, "_WANDB", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("ATOMLAB_CACHE", str(tmp_path))
    (tmp_path / "activations").mkdir()
    (tmp_path / "activations" / "part").write_bytes(bytes(200_000_000))
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "127.0.0.1:9 is not reached" in said
    assert str(tmp_path) in "".join(said.split())
    assert "activations 0.2 GB" in " ".join(said.split())
    for finding in (*packages(), *devices(), *cache(), *network()):
        assert finding.state == "fine" or finding.advice, finding


def test_the_doctor_names_a_fault_and_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Finding("torch", "fault", "2.0, needed is >=2.11", "pip install 'torch>=2.11'")
    monkeypatch.setattr(doctor, "EXAMINATIONS", {"Versions": lambda: iter([fault])})
    assert doctor.main([]) == 1
    assert "→ pip install 'torch>=2.11'" in capsys.readouterr().out
    monkeypatch.setattr(examinations, "version", lambda name: "1.0")
    monkeypatch.setattr(examinations, "requires", lambda name: ["torch>=2.11", 'gguf>=0.1; extra == "embedded"'])
    found = {finding.subject: finding for finding in packages()}
    assert found["torch"].state == "fault"
    assert found["torch"].advice == "pip install 'torch>=2.11'"
    assert "gguf" not in found


def test_a_cache_that_cannot_be_written_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOMLAB_CACHE", "/proc/atomlab")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    (found,) = cache()
    assert (found.state, "ATOMLAB_CACHE" in found.advice) == ("fault", True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "atomlab new-experiment"),
        (["tarin"], 2, "there is no command 'tarin': did you mean atomlab train?"),
        (["doctor", "--help"], 0, "works without a network"),
    ],
)
def test_the_program_answers(words: list[str], code: int, said: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "atomlab", *words], cwd=CONF.parent, capture_output=True, text=True, check=False
    )
    assert finished.returncode == code, finished.stderr
    assert said in finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("train.py", ["experiment=paper_table", "layer=3"], "python evaluate.py experiment=paper_table layer=3"),
        ("train.py", ["study=capacity"], "study=capacity is a study, and python train.py does not run it"),
        ("train.py", ["run=outputs/x"], "run=outputs/x is an option of python evaluate.py"),
        ("evaluate.py", ["dry_run=true"], "python train.py dry_run=true"),
        (  # it named the experiment, and advised what train.py would refuse as well
            "evaluate.py",
            ["experiment=synthetic", "study.d_in=16", "logger=none"],
            "logger=none is an option of python train.py, and python evaluate.py has none like it: leave it out.",
        ),
        (
            "train.py",
            ["study=capacity", "logger=none", "layer=3"],
            "study=capacity is a study, and python train.py does not run it: python evaluate.py study=capacity layer=3",
        ),
        (
            "train.py",
            ["site=resid_pst"],
            "site=resid_pst is no option of its group: did you mean resid_post? There are attn",
        ),
        ("train.py", ["corpsu@reference=local"], "There is no group 'corpsu': did you mean corpus?"),
        ("train.py", ["hydra/lancher=basic"], "There is no key 'hydra/lancher': did you mean hydra/launcher?"),
        (
            "train.py",
            ["-m", "seed=0,1", "hydra/launcher=slurm"],
            "There are basic, joblib, submitit_local, submitit_slurm. More come with pip install '.[sweeps]'.",
        ),
    ],
)
def test_what_another_command_runs_is_answered_with_that_command(
    script: str, words: list[str], said: str, tmp_path: Path
) -> None:
    assert said in one_sentence(run(script, *words, cwd=tmp_path, cache=tmp_path / "cache"))
    assert list(tmp_path.iterdir()) == []


def test_a_log_file_has_no_bars_and_a_sweep_finds_the_users_options(tiny: Path, tmp_path: Path) -> None:
    """Hundreds of lines of bars stood in the log of a job. The jobs of the sweep see the user's conf/ as well."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nsteps: 7\n")
    options = [word for word in OPTIONS if not word.startswith(("steps=", "logger="))]
    words = ["-m", *options, "experiment=mine", "logger=none", "sae.expansion=1,2", "hydra.sweep.dir=out"]
    finished = run("train.py", *words, cwd=tmp_path, cache=tiny / "cache", env={"ATOMLAB_PROGRESS": "auto"})
    assert finished.returncode == 0, finished.stderr
    assert not [line for line in finished.stderr.splitlines() if "%|" in line or "it/s" in line]
    assert "%|" not in finished.stdout
    table = [line for line in finished.stdout.splitlines() if line.startswith(("units", "atoms", "neurons"))]
    assert table
    assert max(map(len, table)) <= 100
    for job in ("0", "1"):
        assert OmegaConf.load(tmp_path / "out" / job / ".hydra" / "config.yaml").steps == 7


def test_on_a_terminal_one_bar_stands_at_a_time(tiny: Path, tmp_path: Path) -> None:
    """A second bar would be drawn a line below, and the cursor would be moved up again."""
    for part in ("model", "text.txt"):
        (tmp_path / part).symlink_to(tiny / part)
    options = [word for word in OPTIONS if not word.startswith("logger=")]
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    env = environment(tmp_path / "cache") | {"ATOMLAB_PROGRESS": "auto", "TERM": "xterm"}
    words = [sys.executable, str(CONF.parent / "train.py"), *options, "logger=none", "hydra.run.dir=out"]
    with subprocess.Popen(words, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        while part := _read(ours):
            written += part
    os.close(ours)
    text = written.decode()
    assert process.returncode == 0, text
    assert "harvest: 100%" in text
    assert "40/40" in text
    assert "\x1b[A" not in text


def _read(terminal: int) -> bytes:
    """What a process writes to a terminal; nothing after its end, which Linux reports as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""
