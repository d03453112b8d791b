"""sbatch, srun, scontrol and sacct of a cluster of one machine and one job, for submitit: `install` puts them on PATH.

As on a cluster, sbatch returns at once and the script runs by itself; srun's step ends with its task, and whatever that has left
running is killed; a requeued job gets SIGTERM and its script starts again with the same number. The folder holds `starts`, with
a line for each start of the script, and `ended` once it will not start again.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

JOB = "7"
_STEP = "PRETENDED_STEP"  # environment variable of all processes of a step: the folder of the cluster
_ARRAY = {"SLURM_ARRAY_JOB_ID": JOB, "SLURM_ARRAY_TASK_ID": "0"}
_SLURM = {"JOB_ID": JOB, "JOB_NAME": "x", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "NNODES": "1"}


def install(folder: Path) -> str:
    """Writes the four commands into a new folder, and returns PATH with it."""
    folder.mkdir()
    for name in ("sbatch", "srun", "scontrol", "sacct"):
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {name} "{folder}" "$@"\n')
        file.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def processes(folder: Path) -> dict[int, str]:
    """Command lines of the processes of the step, by number."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_STEP}={folder}\0" in (process / "environ").read_text(errors="replace"):
                found[int(process.name)] = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
    return found


def send(folder: Path, number: int) -> None:
    """To all processes of the step, as Slurm does; not to the command that is asking for it."""
    for process in processes(folder).keys() - {os.getpid()}:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue


def wait_for_end(folder: Path, seconds: float = 30) -> None:
    """Until the job is over for the cluster too, a moment after its task has written its result."""
    until = time.monotonic() + seconds
    while not (folder / "ended").exists() and time.monotonic() < until:
        time.sleep(0.1)


def sbatch(folder: Path, script: str) -> None:
    command = [sys.executable, "-S", __file__, "job", str(folder), script]
    subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sys.stdout.write(f"Submitted batch job {JOB}\n")


def job(folder: Path, script: str) -> None:
    text = Path(script).read_text()
    variables = {f"SLURM_{name}": value for name, value in _SLURM.items()} | (_ARRAY if "--array" in text else {})
    (folder / "script").write_text(text)
    while True:
        with (folder / "starts").open("a") as starts:
            starts.write("start\n")
        subprocess.run(["bash", folder / "script"], env=os.environ | variables, check=False)
        if not (folder / "requeue").exists():
            break
        (folder / "requeue").unlink()
    (folder / "ended").touch()


def srun(folder: Path, *words: str) -> None:
    left, files = list(words), {"--output": os.devnull, "--error": os.devnull}
    while left[0].startswith("--"):
        option = left.pop(0)
        if option in files:
            files[option] = left.pop(0).replace("%A", JOB).replace("%a", "0").replace("%j", JOB).replace("%t", "0")
    with Path(files["--output"]).open("a") as output, Path(files["--error"]).open("a") as error:
        task = subprocess.Popen(left, stdout=output, stderr=error, env=os.environ | {_STEP: str(folder)})
    code = task.wait()
    send(folder, signal.SIGKILL)
    sys.exit(128 - code if code < 0 else code)


def scontrol(folder: Path, *words: str) -> None:
    assert words[0] == "requeue", words
    (folder / "requeue").touch()
    send(folder, signal.SIGTERM)


def sacct(folder: Path, *_: str) -> None:
    state = "COMPLETED" if (folder / "ended").exists() else "RUNNING"
    sys.stdout.write(f"JobID|State|NodeList\n{JOB}|{state}|here\n{JOB}_0|{state}|here\n")


if __name__ == "__main__":
    commands = {"sbatch": sbatch, "job": job, "srun": srun, "scontrol": scontrol, "sacct": sacct}
    commands[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
