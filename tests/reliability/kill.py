"""Commands are killed, right after a call that changes a file or at any time: nothing that was complete is lost.

After each kill every final file is as it was or as it becomes; the next run ends, leaves nothing unfinished behind, and
makes what a run makes that nobody disturbs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.reliability.breaks import Break, inside, is_preloaded, outside, preloaded
from tests.reliability.commands import COMMANDS, QUICK, chosen, write_inputs
from tests.reliability.trials import Ended, Lost, Place, children

_TRIES = 20
_FEW_CALLS = 30
"""Processes that a command starts make calls of their own."""


def main(arguments: list[str]) -> int:
    """Kill; 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability kill", description=__doc__)
    parser.add_argument("--runs", type=int, help="how often, over all commands [once each of a few]")
    parser.add_argument("--seed", type=int, default=0, help="of the chances")
    parser.add_argument("--command", action="append", choices=[*COMMANDS], help="only this one; repeatable")
    parser.add_argument("--outside", action="store_true", help="count calls of the C library, as native code makes")
    parser.add_argument("--keep", type=Path, help="folder for what was lost")
    given = parser.parse_args(arguments)
    if given.outside and not is_preloaded():
        return preloaded("kill", arguments)
    began, rng, lost, kills = time.monotonic(), random.Random(given.seed), 0, Counter[str]()
    commands = chosen(given.command or (None if given.runs else QUICK))
    with TemporaryDirectory(prefix="kill-") as folder:
        write_inputs(Path(folder, "in"))
        places: dict[str, Place] = {}
        runs = given.runs or len(commands)
        for number in range(runs):
            command = commands[number % len(commands)]
            try:
                if command.name not in places:
                    hook = outside if given.outside else inside
                    places[command.name] = Place(command, Path(folder, command.name), hook)
                kills[killed(places[command.name], rng)] += 1
            except Lost as error:
                lost += 1
                print(f"LOST in {command.name}, kill {number}: {error}", flush=True)
                if given.keep and Path(folder, command.name).exists():
                    shutil.copytree(Path(folder, command.name), given.keep / f"{command.name}-{number}")
            if not (number + 1) % 50:
                print(f"{number + 1} of {runs} runs, {lost} lost", flush=True)
    ways = ", ".join(f"{count} {way}" for way, count in sorted(kills.items()))
    seconds = time.monotonic() - began
    print(
        f"kill: {kills.total()} kills ({ways}) over {len(commands)} commands, {lost} lost, {seconds:.0f} s", flush=True
    )
    return 1 if lost else 0


def killed(place: Place, rng: random.Random) -> str:
    """Kill the command once, and go on with it; says in what way it was killed. Raises `Lost`."""
    for _ in range(_TRIES):
        place.reset()
        at_call = rng.random() < 0.5
        ended, victim = _after_a_call(place, rng) if at_call else _at_any_time(place, rng)
        if ended.code == -signal.SIGKILL or victim:
            break
    else:
        raise Lost(f"it could not be killed in {_TRIES} tries")
    if victim:
        place.check_told(ended)
    shutil.rmtree(place.folder / "killed", ignore_errors=True)
    shutil.copytree(place.work, place.folder / "killed")
    place.check_left()
    place.go_on()
    return "after a call" if at_call else "at any time"


def _after_a_call(place: Place, rng: random.Random) -> tuple[Ended, bool]:
    most = max(place.calls, _FEW_CALLS if place.command.works else 1)
    plan = Break(place.work, rng.randint(1, most), torn=rng.random() < 0.5)
    return place.run(place.command.act, plan), False


def _at_any_time(place: Place, rng: random.Random) -> tuple[Ended, bool]:
    """How it ended, and whether a process that worked for it was killed in its place."""
    victims = list[int]()

    def disturb(pid: int) -> None:
        time.sleep(rng.uniform(0, place.seconds))
        workers = children(pid) if place.command.works else []
        victims.append(rng.choice([pid, *workers]))
        try:
            os.kill(victims[0], signal.SIGKILL)
        except ProcessLookupError:  # it has ended meanwhile
            victims[0] = pid
        victims.append(pid)

    ended = place.run(place.command.act, disturb=disturb)
    return ended, victims[0] != victims[1]
