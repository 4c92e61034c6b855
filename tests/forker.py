"""Runs `tidemill` again and again, each time in a process of its own that has imported everything already: forked from this one.

One line of JSON on standard input asks for one command, one on standard output is its exit code. A command has its own arguments,
folder, environment and outputs, and ends as the real one does; only what it imports is there before. So what a command imports is
not tested by this: `--help`, `--version` and the budgets of the imports run the installed command.
"""

import gc
import json
import os
import signal
import sys

import lightgbm  # noqa: F401 – a second for each command that trains
import rich.live
import rich.tree  # noqa: F401 – but no console of ours: it takes its width from the environment
import sklearn  # noqa: F401

import tidemill.loop
import tidemill.registry
import tidemill.session
import tidemill.store
import tidemill.web  # noqa: F401
from processes import heed_modes
from tidemill import cli

gc.freeze()  # what was imported is not looked through at the end of each command: that took half a second
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()

signal.alarm(300)
for number, place in enumerate((os.devnull, asked["out"], asked["err"])):
    opened = os.open(place, os.O_RDWR)
    os.dup2(opened, number)
    os.close(opened)
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update(asked["environment"])
sys.argv = ["tidemill", *asked["arguments"]]
if asked["heeds_modes"]:
    heed_modes()
cli.main()
